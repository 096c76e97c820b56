//! Outer headers: whatever the bytes, a range inside the frame or a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vxlane_dataplane::{tables::LocalVtep, vtep::decap};

fuzz_target!(|frame: &[u8]| {
    // The first bytes choose our own address, so that the destination check can be passed.
    let local = LocalVtep { address: frame.get(30..34).map_or([0; 4], |b| [b[0], b[1], b[2], b[3]]).into(), port: 4789 };
    if let Ok(outer) = decap(frame, local) {
        assert!(outer.inner.len() >= 14 && frame.get(outer.inner.clone()).is_some());
        assert!(outer.checked.is_none_or(|segment| frame.get(segment).is_some()));
    }
});
