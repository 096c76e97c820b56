//! Looks ahead at a burst, so that what its packets will need comes from memory all at once.
//!
//! With a million sessions nearly every look into a table waits for memory. A packet needs
//! several, one after the other; but packets do not need each other's, so each step is taken for
//! the whole burst before the next. Nothing is decided here and nothing written: a wrong guess
//! costs time alone.

use std::net::Ipv4Addr;

use super::{Inside, Key, Nat, OutsideId, Protocol, Way, index::Hash};
use crate::{
    ids::NetworkId,
    port::BURST,
    wire::{Address, Version},
};

/// Sessions that fit the second level cache of any processor, with what is read to find them.
const CACHED_SESSIONS: usize = 4096;

/// The ports and addresses of a packet, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse<A = Ipv4Addr> {
    way: Way,
    pub(super) network: NetworkId,
    pub(super) protocol: Protocol,
    pub(super) source: (A, u16),
    destination: (A, u16),
}

impl<A: Address> Glimpse<A> {
    /// A glimpse at the packet that `bytes` begin with, on its way out of `network`, or in.
    #[inline]
    pub fn at(way: Way, network: NetworkId, bytes: &[u8]) -> Option<Self> {
        let (first, upper) = (*bytes.first()?, bytes.get(A::VERSION.header_len()..)?.first_chunk::<8>()?);
        let (is_plain, number) = match A::VERSION {
            Version::V4 => (first == 0x45, bytes[9]),
            Version::V6 => (first >> 4 == 6, bytes[6]),
        };
        let protocol = Protocol::from_number(A::VERSION, number).filter(|_| is_plain)?;
        let port = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
        let (source, destination) = match (protocol, way) {
            (Protocol::Icmp, Way::Out) => (port(4), 0),
            (Protocol::Icmp, Way::In) => (0, port(4)),
            _ => (port(0), port(2)),
        };
        let address = |at: usize| A::first(bytes.get(at..)?);
        let source = (address(A::VERSION.source_at())?, source);
        let destination = (address(A::VERSION.destination_at())?, destination);
        Some(Self { way, network, protocol, source, destination })
    }
}

impl<A: Address> Nat<A> {
    /// Whether there are so many sessions that [looking ahead](Self::prepare) pays.
    #[inline]
    pub fn outgrows_cache(&self) -> bool {
        self.sessions.len() > CACHED_SESSIONS
    }

    /// Brings near what the packets of a burst will need; of some, nothing may be known.
    pub fn prepare(&self, glimpses: &[Option<Glimpse<A>>; BURST]) {
        let mut hashes = [None; BURST];
        for (glimpse, place) in glimpses.iter().zip(&mut hashes) {
            let Some(glimpse) = glimpse else { continue };
            let hash = place.insert(Hash::default());
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
        for (glimpse, hash) in glimpses.iter().flatten().zip(hashes.iter_mut().flatten()) {
            if glimpse.way == Way::In {
                continue;
            }
            let Some(id) = self.mappings.guess(*hash) else { continue };
            self.mappings.prefetch(id);
            *hash = self.look_for(id, glimpse.destination);
            self.sessions.prefetch(*hash);
        }
        for hash in hashes.iter().flatten() {
            self.sessions.prefetch_session(*hash);
        }
    }

    fn inside_of(&self, glimpse: &Glimpse<A>) -> Inside<A> {
        Inside { network: glimpse.network, address: glimpse.source.0, port: glimpse.source.1 }
    }

    fn look_for(&self, outside: OutsideId, (remote, port): (A, u16)) -> Hash {
        Key { outside, remote, port }.hash(&self.hasher)
    }
}
