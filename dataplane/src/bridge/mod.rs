//! Bridges: where each station of each network is, learned from what it sends.

mod mac_table;
mod moves;
mod station;
pub(crate) mod storm;

pub use mac_table::{Entry, Learned, MacTable, Origin};

use std::time::Duration;

pub(crate) use mac_table::Foresight;
use moves::Moves;
pub(crate) use station::Realm;

use crate::{
    clock::{Instant, Ticks},
    ids::NetworkId,
    tables::{Network, Tables},
    wire::MacAddr,
};

/// The MAC tables of one worker: all its networks in one bounded memory.
#[derive(Debug)]
pub struct Bridge {
    table: MacTable,
    moves: Moves,
}

impl Bridge {
    /// A bridge for at most `capacity` stations over all networks.
    pub fn new(capacity: usize) -> Self {
        Self { table: MacTable::new(capacity), moves: Moves::new() }
    }

    /// Records that `mac` was heard from `origin`.
    ///
    /// Writes only when something changed: a new place, or the old one not confirmed for an
    /// eighth of the ageing time; a steady flow costs one lookup. A full table, or a network
    /// at its limit, does not take the newcomer, whose traffic then floods: no known station
    /// is ever forgotten for a stranger. What control says beats what is heard, and a station
    /// that moves too often is held where it was (RFC 7432 section 15.1).
    #[inline(always)]
    pub fn learn(&mut self, id: NetworkId, network: &Network, mac: MacAddr, origin: Origin, now: Instant) -> Learned {
        let learned = self.table.learn((id, mac), origin, now.ticks(), confirm_after(network), network.mac_limit);
        if let Learned::Moved(from) = learned { self.moved(id, network, mac, from, now.ticks()) } else { learned }
    }

    #[cold]
    fn moved(&mut self, id: NetworkId, network: &Network, mac: MacAddr, from: Origin, now: Ticks) -> Learned {
        let learned = self.moves.count((id, mac), from, network.moves, now);
        if let Learned::Flapping(home) = learned {
            self.table.put_back((id, mac), home, now);
        } else if learned == Learned::Held {
            self.table.put_back((id, mac), from, now);
        }
        learned
    }

    /// Whether learning this would write nothing.
    #[inline(always)]
    pub(crate) fn is_steady(&mut self, sight: Sight, mac: MacAddr, origin: Origin) -> bool {
        self.table.is_steady(sight.realm.pack(mac), origin, sight.now, sight.confirm_after)
    }

    /// Where `mac` is, unless it has been silent for longer than the ageing time.
    #[inline(always)]
    pub fn lookup(&self, id: NetworkId, network: &Network, mac: MacAddr, now: Instant) -> Option<Origin> {
        self.find(Sight::of(id, network, now), mac)
    }

    /// [`lookup`](Self::lookup) in what is in sight.
    #[inline(always)]
    pub(crate) fn find(&self, sight: Sight, mac: MacAddr) -> Option<Origin> {
        let entry = self.table.entry(sight.realm.pack(mac))?;
        (sight.now.since(entry.seen) <= sight.forget_after).then_some(entry.origin)
    }

    /// Where `mac` is, and for how long that will be known if nothing is heard of it.
    pub fn whereabouts(
        &self,
        id: NetworkId,
        network: &Network,
        mac: MacAddr,
        now: Instant,
    ) -> Option<(Origin, Duration)> {
        let entry = self.table.lookup((id, mac))?;
        Some((entry.origin, entry.left(network.ageing, now.ticks())?))
    }

    /// Looks at a part of the table and forgets who has been silent too long.
    ///
    /// Call it regularly: `slots` per call bounds the time it takes, and the table's size
    /// divided by it says how many calls a round takes. Expired entries are already invisible
    /// to [`lookup`](Self::lookup); this gives their places back.
    pub fn age(&mut self, tables: &Tables, now: Instant, slots: usize) {
        let now = now.ticks();
        self.table.sweep(slots, |id, _, entry| {
            tables.network(id).is_none_or(|network| entry.is_expired(network.ageing, now))
        });
        self.moves.expire(tables, now);
    }

    /// Pins the stations that `tables` know, and forgets every one that they no longer have a
    /// place for: its network, port or VTEP is gone, or is no longer part of that network.
    pub fn adopt(&mut self, tables: &Tables) {
        self.table.retain(|id, mac, entry| {
            tables.network(id).is_some_and(|network| network.has(entry.origin) && entry.pinned == network.knows(mac))
        });
        for (id, network) in tables.networks() {
            let gateway = network.gateway.map(|gateway| (gateway.mac, Origin::Gateway));
            let stations = network.stations.iter().map(|(&mac, &origin)| (mac, origin));
            for (mac, origin) in stations.filter(|&(_, origin)| network.has(origin)).chain(gateway) {
                self.table.pin((id, mac), origin);
            }
        }
    }

    /// Forgets learned stations of one network, or of all.
    pub fn flush(&mut self, only: Option<NetworkId>) {
        self.table.retain(|id, _, entry| entry.pinned || only.is_some_and(|only| only != id));
    }

    /// What fetches ahead of lookups; none if there are so few stations that it does not pay.
    #[inline]
    pub(crate) fn foresight(&self) -> Option<Foresight<'_>> {
        (self.table.len() > CACHED_STATIONS).then(|| self.table.foresight())
    }

    /// Up to `most` stations from place `from` on, and the place to go on from.
    pub fn stations(&self, from: usize, most: usize) -> (Vec<(NetworkId, MacAddr, Entry)>, Option<usize>) {
        self.table.page(from, most)
    }

    /// How many stations were learned, over all networks.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no station was learned.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many places [`age`](Self::age) goes through in a round.
    pub fn slots(&self) -> usize {
        self.table.slots()
    }
}

/// Stations, at 32 bytes each, that a second-level cache of today may hold beside all else: with
/// more of them a burst is looked at twice, first to fetch what the second look will read.
pub const CACHED_STATIONS: usize = 8192;

/// One network at one time, as the table knows it: worked out once for many packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    pub(crate) realm: Realm,
    now: Ticks,
    /// For how long a station that was heard need not be confirmed.
    confirm_after: Ticks,
    /// For how long it is known.
    forget_after: Ticks,
}

impl Sight {
    /// `network`, which is `id`, at the time `now`.
    #[inline(always)]
    pub(crate) fn of(id: NetworkId, network: &Network, now: Instant) -> Self {
        let (confirm_after, forget_after) = (confirm_after(network), forget_after(network.ageing));
        Self { realm: Realm::of(id), now: now.ticks(), confirm_after, forget_after }
    }
}

/// An eighth more than `ageing` seconds, because that is how stale a confirmation may be.
#[inline]
fn forget_after(ageing: u32) -> Ticks {
    Ticks(ageing.saturating_mul(Ticks::PER_SECOND / 8 * 9))
}

/// An eighth of the ageing time.
#[inline(always)]
fn confirm_after(network: &Network) -> Ticks {
    Ticks(network.ageing.saturating_mul(Ticks::PER_SECOND / 8))
}

impl Entry {
    /// Whether the station has been silent for longer than `ageing` seconds allow: an eighth
    /// more, because that is how stale a confirmation may be. It is forgotten between 1 and
    /// 1.125 ageing times after its last frame.
    #[inline]
    pub fn is_expired(&self, ageing: u32, now: Ticks) -> bool {
        now.since(self.seen) > forget_after(ageing)
    }

    /// For how long it will be known without being heard of; `None` if it is known no longer.
    fn left(&self, ageing: u32, now: Ticks) -> Option<Duration> {
        if self.pinned {
            return Some(Duration::MAX);
        }
        let known = forget_after(ageing);
        (!self.is_expired(ageing, now)).then(|| known.since(now.since(self.seen)).to_duration())
    }
}
