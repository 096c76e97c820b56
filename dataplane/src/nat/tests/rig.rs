//! A translation with a clock of its own.

use std::sync::Arc;

use super::*;

pub(super) const BLUE: NetworkId = NetworkId(1);
pub(super) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub(super) const MTU: u16 = 1450;

/// A translation and a clock that moves when it is told to.
pub(super) struct Rig {
    pub(super) nat: Nat<A>,
    pub(super) now: Instant,
}

impl Rig {
    /// One worker, outside ports 20000 to 29999 of one address.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(edit: impl FnOnce(&mut NatConfig<A>)) -> Self {
        Self::worker(0, 1, edit)
    }

    pub(super) fn worker(me: u16, workers: u16, edit: impl FnOnce(&mut NatConfig<A>)) -> Self {
        let mut config = NatConfig::new(vec![OUTSIDE], "20000-29999".parse().unwrap());
        edit(&mut config);
        Self { nat: Nat::new(config, WorkerId(me), workers, Arc::new(BlindBoard)), now: Instant::default() }
    }

    /// Lets `seconds` pass, with the ticks that belong to it.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now = self.now + std::time::Duration::from_millis(100);
            self.nat.expire(self.now);
        }
    }

    /// A packet leaves: what is on the wire then. What is refused must not have been changed.
    pub(super) fn out(&mut self, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        self.out_of(BLUE, packet)
    }

    pub(super) fn out_of(&mut self, network: NetworkId, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
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
    pub(super) fn back(&mut self, packet: &[u8]) -> Result<(Restored, Vec<u8>), DropReason> {
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
    pub(super) fn delivered(&mut self, packet: &[u8]) -> Vec<u8> {
        let (restored, bytes) = self.back(packet).unwrap();
        assert_eq!(restored, Restored::Inside { network: BLUE, mac: MAC });
        bytes
    }

    pub(super) fn sessions(&self) -> usize {
        self.nat.report().sessions
    }

    pub(super) fn mappings(&self) -> usize {
        self.nat.report().mappings
    }

    /// The state of the only session.
    pub(super) fn state(&self) -> State {
        let (views, _) = self.nat.page(self.now, 0, 10);
        assert_eq!(views.len(), 1, "{views:?}");
        views[0].state
    }
}
