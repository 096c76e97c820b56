//! What a translation tells of itself.

use std::net::Ipv4Addr;

use super::{Nat, Protocol, SessionId, State, Traffic};
use crate::{
    clock::{Instant, Ticks},
    ids::NetworkId,
    wire::{Address, MacAddr},
};

/// A session, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView<A = Ipv4Addr> {
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
    /// The network of its inside endpoint.
    pub network: NetworkId,
    /// Address and port of its inside endpoint.
    pub inside: (A, u16),
    /// Its station.
    pub mac: MacAddr,
    /// What stands for them outside.
    pub outside: (A, u16),
    /// The other end.
    pub remote: (A, u16),
    /// Where it is in its life.
    pub state: State,
    /// When it began.
    pub created: Ticks,
    /// When it ends if no packet comes.
    pub deadline: Ticks,
    /// Packets to the remote.
    pub out: Traffic,
    /// Packets from the remote.
    pub back: Traffic,
}

/// A translation at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatReport {
    /// Sessions, dead ones that have not been taken away included.
    pub sessions: usize,
    /// Outside ports that are lent.
    pub mappings: usize,
    /// Sessions that ever began.
    pub begun: u64,
    /// Ports that are free, by [`Protocol`].
    pub free_ports: [usize; 3],
    /// Fragments that wait for the first of their datagram.
    pub fragments: usize,
    /// Bytes that its tables take when full.
    pub memory: usize,
}

/// What one network has of a translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Sessions, dead ones that have not been taken away included.
    pub sessions: u32,
    /// Outside ports that are lent to its endpoints or published for them.
    pub ports: u32,
    /// Sessions that could not begin, in the order of [`FULL`](super::FULL).
    pub refused: [u64; super::FULL.len()],
}

impl<A: Address> Nat<A> {
    /// Up to `most` sessions that live at `now`, from place `from` on, and where to go on.
    pub fn page(&self, now: Instant, from: usize, most: usize) -> (Vec<SessionView<A>>, Option<usize>) {
        let now = now.ticks();
        let mut views = Vec::new();
        for (id, session) in self.sessions.iter_from(from) {
            if views.len() == most {
                return (views, Some(id.0 as usize));
            }
            if session.deadline > now {
                views.extend(self.view(id));
            }
        }
        (views, None)
    }

    /// Sessions of one network, at this worker.
    pub fn sessions_of(&self, network: NetworkId) -> u32 {
        self.mappings.sessions_of(network)
    }

    /// What one network has of this worker, and what it was refused.
    pub fn share_of(&self, network: NetworkId) -> Share {
        Share {
            sessions: self.mappings.sessions_of(network),
            ports: self.mappings.lent_to(network),
            refused: self.refused[network.index()],
        }
    }

    /// Everything at a glance.
    pub fn report(&self) -> NatReport {
        NatReport {
            sessions: self.sessions.len(),
            mappings: self.mappings.len(),
            begun: self.begun,
            free_ports: Protocol::ALL.map(|protocol| self.leases.free(protocol)),
            fragments: self.fragments.waiting(),
            memory: self.memory(),
        }
    }

    fn memory(&self) -> usize {
        let called = self.called.as_ref().map_or(0, super::Counts::memory);
        self.sessions.memory()
            + self.mappings.memory()
            + self.leases.memory()
            + self.fragments.memory()
            + called
            + size_of_val(&*self.refused)
    }

    pub(super) fn view(&self, id: SessionId) -> Option<SessionView<A>> {
        let session = self.sessions.get(id);
        let outside = session.key.outside;
        let mapping = self.mappings.get(outside)?;
        let inside = mapping.inside();
        Some(SessionView {
            protocol: outside.protocol(),
            network: inside.network,
            inside: (inside.address, inside.port),
            mac: mapping.mac(),
            outside: (self.address_of(outside), outside.port()),
            remote: (session.key.remote, session.key.port),
            state: session.state,
            created: session.created,
            deadline: session.deadline,
            out: session.out,
            back: session.back,
        })
    }
}
