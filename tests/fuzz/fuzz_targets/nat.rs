//! Address translation, whatever the bytes: no panic, refused packets unchanged, answers find home.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vxlane_dataplane::{
    clock::Instant,
    ids::{NetworkId, WorkerId},
    nat::{BlindBoard, Nat, NatConfig, Restored, Sender},
    wire::MacAddr,
};

fuzz_target!(|input: &[u8]| {
    let ports = "20000-20063".parse().unwrap_or_default();
    let mut nat = Nat::new(NatConfig::new(vec![[192, 0, 2, 1].into()], ports), WorkerId(0), 1, Arc::new(BlindBoard));
    let sender = Sender { network: NetworkId(1), mac: MacAddr([2; 6]) };
    let (mut rest, mut now) = (input, Instant(0));
    // Packets with a length byte and a byte for what happens to them.
    while let [length, what, tail @ ..] = rest {
        let (packet, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        now = Instant(now.0 + (u64::from(*what) << 28));
        nat.expire(now);
        let mut bytes = packet.to_vec();
        if what & 1 == 0 {
            match nat.translate(now, sender, &mut bytes) {
                Ok(()) => assert_eq!(bytes[12..16], [192, 0, 2, 1]),
                Err(_) => assert_eq!(bytes, packet),
            }
        }
        let before = bytes.clone();
        match nat.restore(now, &mut bytes, 0, what & 2 == 0, |_| Some(1450)) {
            Ok(Restored::Inside { network, .. }) => assert_eq!(network, sender.network),
            Ok(Restored::Elsewhere(_)) => unreachable!("there is one worker"),
            Ok(Restored::TooLong { .. } | Restored::Waits) | Err(_) => assert_eq!(bytes, before),
        }
        while let Some(frame) = nat.take_released() {
            nat.give_back(frame);
        }
    }
});
