//! Looks ahead at a burst, so that what its packets will need comes from memory all at once.
//!
//! With a million sessions nearly every look into a table waits for memory. A packet needs
//! several, one after the other; but packets do not need each other's, so each step is taken for
//! the whole burst before the next. Nothing is decided here and nothing written: a wrong guess
//! costs time alone.

use std::net::Ipv4Addr;

use super::{Inside, Key, Nat, OutsideId, Protocol, Way, index::Hash};
use crate::{ids::NetworkId, port::BURST};

/// The ports and addresses of a packet, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse {
    way: Way,
    pub(super) network: NetworkId,
    pub(super) protocol: Protocol,
    pub(super) source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
}

impl Glimpse {
    /// A glimpse at the IPv4 packet that `bytes` begin with, on its way out of `network`, or in.
    #[inline]
    pub fn at(way: Way, network: NetworkId, bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<28>()?;
        let protocol = Protocol::from_number(head[9]).filter(|_| head[0] == 0x45)?;
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
        let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (source, destination) = match (protocol, way) {
            (Protocol::Icmp, Way::Out) => (port(24), 0),
            (Protocol::Icmp, Way::In) => (0, port(24)),
            _ => (port(20), port(22)),
        };
        Some(Self { way, network, protocol, source: (address(12), source), destination: (address(16), destination) })
    }
}

impl Nat {
    /// Brings near what a burst of at most [`BURST`] packets will need.
    pub fn prepare(&self, glimpses: &[Glimpse]) {
        let glimpses = &glimpses[..glimpses.len().min(BURST)];
        let mut hashes = [Hash::default(); BURST];
        for (glimpse, hash) in glimpses.iter().zip(&mut hashes) {
            match glimpse.way {
                Way::Out => {
                    *hash = self.inside_of(glimpse).hash(glimpse.protocol, &self.hasher);
                    self.mappings.prefetch_inside(*hash);
                }
                Way::In => {
                    let id = OutsideId::new(0, glimpse.protocol, glimpse.destination.1);
                    self.mappings.prefetch(id);
                    *hash = self.look_for(id, glimpse.source);
                    self.sessions.prefetch(*hash);
                }
            }
        }
        for (glimpse, hash) in glimpses.iter().zip(&mut hashes).filter(|(glimpse, _)| glimpse.way == Way::Out) {
            let Some(id) = self.mappings.guess(*hash) else { continue };
            self.mappings.prefetch(id);
            *hash = self.look_for(id, glimpse.destination);
            self.sessions.prefetch(*hash);
        }
        for hash in &hashes[..glimpses.len()] {
            self.sessions.prefetch_session(*hash);
        }
    }

    fn inside_of(&self, glimpse: &Glimpse) -> Inside {
        Inside { network: glimpse.network, address: glimpse.source.0, port: glimpse.source.1 }
    }

    fn look_for(&self, outside: OutsideId, (remote, port): (Ipv4Addr, u16)) -> Hash {
        Key { outside, remote, port }.hash(&self.hasher)
    }
}
