//! Published ports: outside endpoints that stand for an inside one whether or not it has called
//! anybody, and let anybody in.

use std::{collections::HashMap, net::Ipv4Addr};

use super::{
    Glimpse, Nat, Protocol,
    mappings::Inside,
    ports::{OutsideId, owner},
    sessions::Key,
};
use crate::{
    ids::{NetworkId, WorkerId},
    wire::{Address, MacAddr},
};

/// A port of the first outside address that leads to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Publish<A = Ipv4Addr> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port outside.
    pub port: u16,
    /// The network of the endpoint.
    pub network: NetworkId,
    /// Its address.
    pub address: A,
    /// Its port.
    pub inside: u16,
    /// Its station.
    pub mac: MacAddr,
}

impl<A: Address> Publish<A> {
    fn id(&self) -> OutsideId {
        OutsideId::new(0, self.protocol, self.port)
    }

    fn inside(&self) -> Inside<A> {
        Inside { network: self.network, address: self.address, port: self.inside }
    }
}

/// What is published, as one worker has it.
#[derive(Debug)]
pub(super) struct Published<A> {
    /// By this worker, with whether the port was among those that are lent.
    ours: HashMap<Publish<A>, bool>,
    /// By others: who sees to what these endpoints send.
    theirs: HashMap<(Protocol, NetworkId, A, u16), WorkerId>,
}

impl<A> Default for Published<A> {
    fn default() -> Self {
        Self { ours: HashMap::new(), theirs: HashMap::new() }
    }
}

impl<A: Address> Nat<A> {
    /// Publishes all of `wanted` and nothing else. Sessions of what is published no longer end,
    /// and so do those that have a port which is wanted. Returns what there was no room for.
    pub fn publish(&mut self, wanted: &[Publish<A>]) -> Vec<Publish<A>> {
        let is_ours = |publish: &Publish<A>| owner(publish.port, self.workers) == self.me;
        let theirs = wanted.iter().filter(|publish| !is_ours(publish)).map(|publish| {
            let Publish { protocol, port, network, address, inside, .. } = *publish;
            ((protocol, network, address, inside), owner(port, self.workers))
        });
        let theirs = theirs.collect();
        let new: Vec<Publish<A>> = wanted
            .iter()
            .filter(|publish| is_ours(publish) && !self.published.ours.contains_key(publish))
            .copied()
            .collect();
        self.published.theirs = theirs;
        let gone: Vec<Publish<A>> =
            self.published.ours.keys().filter(|publish| !wanted.contains(publish)).copied().collect();
        gone.into_iter().for_each(|publish| self.unpublish(publish));
        new.into_iter().filter(|&publish| !self.publish_one(publish)).collect()
    }

    fn publish_one(&mut self, publish: Publish<A>) -> bool {
        let id = publish.id();
        if self.mappings.get(id).is_some() {
            self.end_sessions_at(id);
        }
        let pooled = self.leases.withdraw(id);
        let inside = publish.inside();
        let hash = inside.hash(publish.protocol, &self.hasher);
        if !self.mappings.insert(hash, id, inside, publish.mac) {
            self.put_back(id, pooled);
            return false;
        }
        self.mappings.set_published(id, true);
        self.published.ours.insert(publish, pooled);
        true
    }

    fn unpublish(&mut self, publish: Publish<A>) {
        let id = publish.id();
        let pooled = self.published.ours.remove(&publish).unwrap_or(false);
        self.end_sessions_at(id);
        self.mappings.set_published(id, false);
        if self.mappings.remove_if_unused(id, &self.hasher) {
            self.put_back(id, pooled);
        }
    }

    fn put_back(&mut self, id: OutsideId, pooled: bool) {
        match pooled {
            true => self.leases.give_back(id),
            false => self.leases.take_down(id),
        }
    }

    fn end_sessions_at(&mut self, id: OutsideId) {
        let outside = (self.address_of(id), id.port());
        self.retain(|session| session.outside != outside || session.protocol != id.protocol());
    }

    /// Which of the ports that are published for `inside` a packet to `remote` belongs to, if it
    /// belongs to a session.
    pub(super) fn published_for(&self, inside: Inside<A>, protocol: Protocol, remote: (A, u16)) -> Option<OutsideId> {
        let hash = inside.hash(protocol, &self.hasher);
        let talks = |id: OutsideId| {
            let key = Key { outside: id, remote: remote.0, port: remote.1 };
            self.sessions.find(key.hash(&self.hasher), key).is_some()
        };
        self.mappings.find_which(hash, inside, protocol, talks)
    }

    /// The worker that sees to what the sender of this packet publishes, if it is another one.
    pub fn published_elsewhere(&self, glimpse: &Glimpse<A>) -> Option<WorkerId> {
        if self.published.theirs.is_empty() {
            return None;
        }
        let (address, port) = glimpse.source;
        self.published.theirs.get(&(glimpse.protocol, glimpse.network, address, port)).copied()
    }
}
