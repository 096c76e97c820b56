//! Inner headers: what is found lies in the frame; finishing a checksum twice is finishing it once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vxlane_dataplane::{vtep::entropy, wire::{Ecn, Layers, icmp}};

fuzz_target!(|frame: &[u8]| {
    let mut layers = Layers::walk(frame);
    if let Some(transport) = layers.transport {
        assert!(frame.get(transport.offset..transport.offset + transport.length).is_some());
    }
    assert!(entropy::source_port(frame, &layers) >= entropy::FIRST_PORT);
    let mut once = frame.to_vec();
    layers.finish_checksum(&mut once);
    let mut twice = once.clone();
    layers.finish_checksum(&mut twice);
    assert_eq!(once, twice);
    let mut error = [0; icmp::MAX_ERROR];
    if let Some(length) = icmp::too_big(frame, &layers, 1450, &mut error) {
        assert_eq!(icmp::mtu_of_too_big(&error[..length]), Some(1450));
    }
    layers.set_ecn(&mut once, Ecn::Ce);
    if layers.is_ip() {
        assert_eq!(Layers::walk(&once).ecn, Ecn::Ce);
    }
});
