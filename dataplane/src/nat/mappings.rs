//! Mappings: which inside endpoint an outside port stands for, and how much each host has.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    counts::{CountKey, Counts},
    index::{Hash, Hasher, Index},
    ports::{OutsideId, Protocol},
};
use crate::{
    ids::NetworkId,
    memory,
    wire::{Address, MacAddr},
};

/// An endpoint inside a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Inside<A> {
    pub(super) network: NetworkId,
    pub(super) address: A,
    pub(super) port: u16,
}

impl<A: Address> Inside<A> {
    #[inline]
    pub(super) fn hash(self, protocol: Protocol, hasher: &Hasher) -> Hash {
        let left = u64::from(self.network.0) << 16 | u64::from(self.port);
        hasher.hash(left << 2 | protocol as u64, self.address)
    }
}

/// What an outside endpoint stands for.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Mapping<A> {
    address: A,
    port: u16,
    network: u16,
    /// Where the endpoint was last heard from.
    mac: [u8; 6],
    lent: u16,
    /// Its sessions, expired ones that have not been found out included.
    pub(super) sessions: u32,
}

/// In [`Mapping::lent`]: for as long as there are sessions.
const LENT: u16 = 1;
/// For as long as control wants it.
const PUBLISHED: u16 = 2;

/// Two of them fill a cache line.
const _: () = assert!(size_of::<Mapping<Ipv4Addr>>() == 32 && size_of::<Mapping<Ipv6Addr>>() == 32);

impl<A: Address> Mapping<A> {
    const FREE: Self = Self { address: A::UNSPECIFIED, port: 0, network: 0, mac: [0; 6], lent: 0, sessions: 0 };

    #[inline]
    pub(super) fn inside(&self) -> Inside<A> {
        Inside { network: NetworkId(self.network), address: self.address, port: self.port }
    }

    #[inline]
    pub(super) fn mac(&self) -> MacAddr {
        MacAddr(self.mac)
    }

    /// Notes where the endpoint is; writes only what changed.
    #[inline]
    pub(super) fn set_mac(&mut self, mac: MacAddr) {
        if self.mac != mac.0 {
            self.mac = mac.0;
        }
    }
}

/// All mappings of a worker.
#[derive(Debug)]
pub(super) struct Mappings<A> {
    /// By [`OutsideId`].
    table: Vec<Mapping<A>>,
    by_inside: Index,
    /// Sessions by host.
    by_host: Counts<A>,
    /// Sessions by network.
    by_network: Vec<u32>,
    /// Lent ports by network.
    lent_by_network: Vec<u32>,
    len: usize,
}

impl<A: Address> Mappings<A> {
    /// Room for every port of `addresses` addresses, of which at most `capacity` can be lent.
    pub(super) fn new(addresses: usize, capacity: usize) -> Self {
        let places = (addresses * Protocol::ALL.len()) << 16;
        let mut table = memory::vec(places);
        table.resize(places, Mapping::FREE);
        Self {
            table,
            by_inside: Index::new(capacity),
            by_host: Counts::new(capacity),
            by_network: vec![0; usize::from(u16::MAX) + 1],
            lent_by_network: vec![0; usize::from(u16::MAX) + 1],
            len: 0,
        }
    }

    /// The outside endpoint that stands for `inside`.
    #[inline]
    pub(super) fn find(&self, hash: Hash, inside: Inside<A>, protocol: Protocol) -> Option<OutsideId> {
        let is_it = |place: u32| {
            let id = OutsideId(place);
            id.protocol() == protocol && self.table[id.index()].inside() == inside
        };
        self.by_inside.find(hash, is_it).map(OutsideId)
    }

    /// What `id` stands for, if it is lent.
    #[inline]
    pub(super) fn get(&self, id: OutsideId) -> Option<&Mapping<A>> {
        self.table.get(id.index()).filter(|mapping| mapping.lent != 0)
    }

    /// Notes where the endpoint behind `id` is.
    #[inline]
    pub(super) fn set_mac(&mut self, id: OutsideId, mac: MacAddr) {
        self.table[id.index()].set_mac(mac);
    }

    /// Sessions of the host at `inside`, and of its network.
    pub(super) fn load(&self, inside: Inside<A>, hasher: &Hasher) -> (u32, u32) {
        (self.by_host.get(host(inside), hasher), self.by_network[inside.network.index()])
    }

    /// Has `id` stand for `inside`; `false` if there is no room.
    #[must_use]
    pub(super) fn insert(&mut self, hash: Hash, id: OutsideId, inside: Inside<A>, mac: MacAddr) -> bool {
        if !self.by_inside.insert(hash, id.0) {
            return false;
        }
        self.table[id.index()] = Mapping {
            address: inside.address,
            port: inside.port,
            network: inside.network.0,
            mac: mac.0,
            lent: LENT,
            sessions: 0,
        };
        self.len += 1;
        self.lent_by_network[inside.network.index()] += 1;
        true
    }

    /// Counts one more session of `id`; `false` if there is no room.
    #[must_use]
    pub(super) fn add_session(&mut self, id: OutsideId, hasher: &Hasher) -> bool {
        let mapping = &mut self.table[id.index()];
        if !self.by_host.add(host(mapping.inside()), hasher) {
            return false;
        }
        mapping.sessions += 1;
        self.by_network[usize::from(mapping.network)] += 1;
        true
    }

    /// Counts one session of `id` less.
    pub(super) fn remove_session(&mut self, id: OutsideId, hasher: &Hasher) {
        let mapping = &mut self.table[id.index()];
        self.by_host.sub(host(mapping.inside()), hasher);
        mapping.sessions -= 1;
        self.by_network[usize::from(mapping.network)] -= 1;
    }

    /// Ends `id` if it has no sessions and is not published, and says whether it did.
    #[must_use]
    pub(super) fn remove_if_unused(&mut self, id: OutsideId, hasher: &Hasher) -> bool {
        if self.table[id.index()].sessions != 0 {
            return false;
        }
        if self.table[id.index()].lent == PUBLISHED {
            return false;
        }
        let mapping = std::mem::replace(&mut self.table[id.index()], Mapping::FREE);
        self.by_inside.remove(mapping.inside().hash(id.protocol(), hasher), id.0);
        self.len -= 1;
        self.lent_by_network[usize::from(mapping.network)] -= 1;
        true
    }

    /// Has the mapping of `id` last without sessions, or no longer.
    pub(super) fn set_published(&mut self, id: OutsideId, published: bool) {
        self.table[id.index()].lent = if published { PUBLISHED } else { LENT };
    }

    /// Whether the mapping of `id` lasts without sessions.
    #[inline]
    pub(super) fn is_published(&self, id: OutsideId) -> bool {
        self.table[id.index()].lent == PUBLISHED
    }

    /// Of the outside endpoints that stand for `inside`, one of which `is_it` says so.
    pub(super) fn find_which(
        &self,
        hash: Hash,
        inside: Inside<A>,
        protocol: Protocol,
        is_it: impl Fn(OutsideId) -> bool,
    ) -> Option<OutsideId> {
        let matches = |place: u32| {
            let id = OutsideId(place);
            id.protocol() == protocol && self.table[id.index()].inside() == inside && is_it(id)
        };
        self.by_inside.find(hash, matches).map(OutsideId)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sessions of `network`.
    pub(super) fn sessions_of(&self, network: NetworkId) -> u32 {
        self.by_network[network.index()]
    }

    /// Ports that endpoints of `network` have.
    pub(super) fn lent_to(&self, network: NetworkId) -> u32 {
        self.lent_by_network[network.index()]
    }

    /// Brings near what a search for this hash reads first.
    #[inline]
    pub(super) fn prefetch_inside(&self, hash: Hash) {
        self.by_inside.prefetch(hash);
    }

    /// The outside endpoint that a search for this hash most likely finds.
    #[inline]
    pub(super) fn guess(&self, hash: Hash) -> Option<OutsideId> {
        self.by_inside.guess(hash).map(OutsideId)
    }

    /// Brings the mapping of `id` near.
    #[inline]
    pub(super) fn prefetch(&self, id: OutsideId) {
        if let Some(mapping) = self.table.get(id.index()) {
            memory::prefetch(mapping);
        }
    }

    /// Bytes it takes when full.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.table) + self.by_inside.memory() + self.by_host.memory() + self.by_network.len() * 8
    }
}

/// What a host is counted by.
fn host<A>(inside: Inside<A>) -> CountKey<A> {
    (u64::from(inside.network.0), inside.address)
}
