//! The whole worker on two simulated hosts: no panic, and every frame accounted for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vxlane_tests::sim::{NetworkPlan, Sim, at};

fuzz_target!(|input: &[u8]| {
    let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 2)]);
    let (mut rest, mut count) = (input, 0);
    // Frames with a length byte and a place byte each.
    while let [length, place, tail @ ..] = rest {
        let (frame, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        match place % 3 {
            0 => sim.inject(1, frame),
            port => sim.send(at(1, 0, usize::from(port - 1)), frame),
        }
        (rest, count) = (tail, count + 1);
    }
    // `counters` asserts the law.
    assert!(sim.counters(1).received >= count);
    sim.counters(0);
});
