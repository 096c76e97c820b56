//! Tests of the whole translation: bytes in, bytes and exact tables out.

mod limits;
pub(super) mod packets;
mod properties;
mod recall;
mod rfc4787;
mod rfc5382;
mod rfc5508;

use std::{net::Ipv4Addr, sync::Arc};

use super::*;
use packets::*;

const BLUE: NetworkId = NetworkId(1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const MTU: u16 = 1450;

/// A translation and a clock that moves when it is told to.
struct Rig {
    nat: Nat,
    now: Instant,
}

impl Rig {
    /// One worker, outside ports 20000 to 29999 of one address.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(edit: impl FnOnce(&mut NatConfig)) -> Self {
        Self::worker(0, 1, edit)
    }

    fn worker(me: u16, workers: u16, edit: impl FnOnce(&mut NatConfig)) -> Self {
        let mut config = NatConfig::new(vec![OUTSIDE], "20000-29999".parse().unwrap());
        edit(&mut config);
        Self { nat: Nat::new(config, WorkerId(me), workers, Arc::new(BlindBoard)), now: Instant::default() }
    }

    /// Lets `seconds` pass, with the ticks that belong to it.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now + std::time::Duration::from_millis(100);
            self.nat.expire(self.now);
        }
    }

    /// A packet leaves: what is on the wire then. What is refused must not have been changed.
    fn out(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        self.out_of(BLUE, packet)
    }

    fn out_of(&mut self, network: NetworkId, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let mut wire = packet.to_vec();
        match self.nat.translate(self.now, Sender { network, mac: MAC }, &mut wire) {
            Ok(()) => Ok(wire),
            Err(reason) => {
                assert_eq!(wire, packet, "refused, and changed all the same");
                Err(reason)
            }
        }
    }

    /// A packet arrives: what became of it and what the endpoint sees.
    fn back(&mut self, packet: &[u8]) -> Result<(Restored, Vec<u8>), DropReason> {
        let mut frame = packet.to_vec();
        match self.nat.restore(self.now, &mut frame, 0, true, |_| Some(MTU)) {
            Ok(restored) => Ok((restored, frame)),
            Err(reason) => {
                assert_eq!(frame, packet, "refused, and changed all the same");
                Err(reason)
            }
        }
    }

    /// A packet that must arrive.
    fn delivered(&mut self, packet: &[u8]) -> Vec<u8> {
        let (restored, bytes) = self.back(packet).unwrap();
        assert_eq!(restored, Restored::Inside { network: BLUE, mac: MAC });
        bytes
    }

    fn sessions(&self) -> usize {
        self.nat.report().sessions
    }

    fn mappings(&self) -> usize {
        self.nat.report().mappings
    }

    /// The state of the only session.
    fn state(&self) -> State {
        let (views, _) = self.nat.page(self.now, 0, 10);
        assert_eq!(views.len(), 1, "{views:?}");
        views[0].state
    }
}

/// Inside host number `host`.
fn inside(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host)
}
