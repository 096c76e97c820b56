//! A bounded table from (network, MAC address) to where that station is.
//!
//! Buckets of four entries fill one cache line each; a key may live in either of two buckets,
//! chosen by a keyed hash, so that a lookup reads at most two lines however full the table is
//! and nobody outside can aim at a bucket. With half of the places in use, which is all that
//! [`MacTable::new`] allows, two full buckets are a matter of one in millions; then the
//! newcomer is not taken, as in a full table.

use std::hash::{BuildHasher, RandomState};

use super::station::{Packed, Realm, pack, unpack};
use crate::{
    clock::Ticks,
    ids::{NetworkId, PortId, VtepId},
    memory,
    wire::MacAddr,
};

/// Where a station is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Behind a port of this host.
    Port(PortId),
    /// Behind a remote VTEP.
    Vtep(VtepId),
    /// Nowhere else: it is the router of the network, which every host plays itself.
    Gateway,
}

/// What the table knows of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub origin: Origin,
    /// When that was last confirmed; the end of time if it is pinned.
    pub seen: Ticks,
    /// Control says that it is there: it neither moves nor ages.
    pub pinned: bool,
}

/// What became of an address that was to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Known at this place, confirmed not long ago: nothing was written.
    Known,
    /// Known at this place; its time was written.
    Confirmed,
    /// Not known before.
    New,
    /// Known elsewhere before.
    Moved(Origin),
    /// Not taken: the network is at its limit, or the table is full.
    Refused,
    /// Pinned elsewhere: nothing was written, and whoever sent this is not that station.
    Pinned,
    /// Moved once too often, and now held here, where it was before it began to move.
    Flapping(Origin),
    /// Held elsewhere, because it moved too often: nothing was written.
    Held,
}

type Key = (NetworkId, MacAddr);

/// A bounded table of stations.
#[derive(Debug)]
pub struct MacTable {
    buckets: Box<[Bucket]>,
    seed: [u64; 2],
    /// Learned entries, over all networks.
    len: usize,
    capacity: usize,
    /// Learned entries by network.
    counts: Vec<u32>,
    /// Where the next [`sweep`](Self::sweep) starts.
    hand: usize,
    /// Who was heard last: most frames come in trains of one sender.
    last: Steady,
}

/// A station that was found to be where it was, and until when nothing need be written of that.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    key: u64,
    place: u32,
    until: u32,
}

const WAYS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Bucket([Slot; WAYS]);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// See [`Packed`]. Zero, which no station gives, marks a free place.
    key: u64,
    seen: u32,
    place: u32,
}

impl Slot {
    const VTEP: u32 = 1 << 16;
    const GATEWAY: u32 = 1 << 17;
    const PINNED: u32 = 1 << 18;

    fn new(key: u64, origin: Origin, seen: Ticks) -> Self {
        Self { key, seen: seen.0, place: Self::place_of(origin) }
    }

    #[inline]
    fn place_of(origin: Origin) -> u32 {
        match origin {
            Origin::Port(port) => u32::from(port.0),
            Origin::Vtep(vtep) => u32::from(vtep.0) | Self::VTEP,
            Origin::Gateway => Self::GATEWAY,
        }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the id")]
    fn entry(&self) -> Entry {
        let id = self.place as u16;
        let origin = match self.place & (Self::VTEP | Self::GATEWAY) {
            0 => Origin::Port(PortId(id)),
            Self::VTEP => Origin::Vtep(VtepId(id)),
            _ => Origin::Gateway,
        };
        Entry { origin, seen: Ticks(self.seen), pinned: self.is_pinned() }
    }

    #[inline]
    fn is_pinned(&self) -> bool {
        self.place & Self::PINNED != 0
    }

    fn station(&self) -> Key {
        unpack(self.key)
    }
}

impl MacTable {
    /// A table for `capacity` stations, at least one; all memory it will ever use.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let buckets = (capacity * 2).div_ceil(WAYS).next_power_of_two();
        // The standard library's per-process random keys; odd, so that multiplying loses nothing.
        let random = RandomState::new();
        let seed = [random.hash_one(0u8), random.hash_one(1u8) | 1];
        let mut large = memory::vec(buckets);
        large.resize(buckets, Bucket::default());
        Self {
            buckets: large.into_boxed_slice(),
            seed,
            len: 0,
            capacity,
            counts: vec![0; usize::from(u16::MAX) + 1],
            hand: 0,
            last: Steady::default(),
        }
    }

    /// What is known of `key`.
    #[inline(always)]
    pub fn lookup(&self, key: Key) -> Option<Entry> {
        self.entry(pack(key))
    }

    /// What is known of a station.
    #[inline(always)]
    pub(super) fn entry(&self, station: Packed) -> Option<Entry> {
        self.find(station.0).map(Slot::entry)
    }

    /// Records `key` at `origin`. See [`Bridge::learn`](super::Bridge::learn) for when it writes.
    #[inline(always)]
    pub fn learn(&mut self, key: Key, origin: Origin, now: Ticks, confirm_after: Ticks, limit: u32) -> Learned {
        let station = pack(key);
        if self.is_steady(station, origin, now, confirm_after) {
            Learned::Known
        } else {
            self.change(station.0, origin, now, confirm_after, limit)
        }
    }

    /// Whether learning this station would write nothing.
    #[inline(always)]
    pub(super) fn is_steady(&mut self, station: Packed, origin: Origin, now: Ticks, confirm_after: Ticks) -> bool {
        let key = station.0;
        let place = Slot::place_of(origin);
        let Steady { key: last, place: its_place, until } = self.last;
        if last == key && its_place == place && now.0 <= until {
            return true;
        }
        let Some(slot) = self.find(key).filter(|slot| slot.place & !Slot::PINNED == place) else { return false };
        let until = slot.seen.saturating_add(confirm_after.0);
        if now.0 > until {
            return false;
        }
        // Whatever changes this station, or for how long it is known, makes this void.
        self.last = Steady { key, place, until };
        true
    }

    #[inline(never)]
    fn change(&mut self, key: u64, origin: Origin, now: Ticks, confirm_after: Ticks, limit: u32) -> Learned {
        self.last = Steady::default();
        let places = self.places(key);
        let known = places.map(|bucket| self.buckets[bucket].0.iter().position(|slot| slot.key == key));
        let Some((bucket, way)) = places.into_iter().zip(known).find_map(|(bucket, way)| Some((bucket, way?))) else {
            return self.insert(key, places, origin, now, limit);
        };
        let slot = &mut self.buckets[bucket].0[way];
        let entry = slot.entry();
        if entry.origin != origin {
            if entry.pinned {
                return Learned::Pinned;
            }
            *slot = Slot::new(key, origin, now);
            Learned::Moved(entry.origin)
        } else if now.since(entry.seen) > confirm_after {
            slot.seen = now.0;
            Learned::Confirmed
        } else {
            Learned::Known
        }
    }

    fn insert(&mut self, key: u64, places: [usize; 2], origin: Origin, now: Ticks, limit: u32) -> Learned {
        let (id, mac) = unpack(key);
        if !mac.is_station() || self.len >= self.capacity || self.counts[id.index()] >= limit {
            return Learned::Refused;
        }
        let free = |bucket: usize| self.buckets[bucket].0.iter().filter(|slot| slot.key == 0).count();
        let [first, second] = places;
        // Whoever is in its first bucket is found in one line: the second is for when that fills.
        let bucket = if free(first) < 2 && free(second) > free(first) { second } else { first };
        let Some(slot) = self.buckets[bucket].0.iter_mut().find(|slot| slot.key == 0) else {
            return Learned::Refused;
        };
        *slot = Slot::new(key, origin, now);
        self.len += 1;
        self.counts[id.index()] += 1;
        Learned::New
    }

    /// Has `key`, if it is known, be at `origin`.
    pub fn put_back(&mut self, key: Key, origin: Origin, now: Ticks) {
        let key = pack(key).0;
        self.last = Steady::default();
        if let Some((bucket, way)) = self.way(self.places(key), |slot| slot.key == key) {
            self.buckets[bucket].0[way] = Slot::new(key, origin, now);
        }
    }

    /// Has `key` be at `origin` until it is no longer [retained](Self::retain). Neither the
    /// capacity nor the limit of a network holds for it, and it takes the place of a learned
    /// station where there is no other. `false` if eight pinned ones are in its way already.
    pub fn pin(&mut self, key: Key, origin: Origin) -> bool {
        let key = pack(key).0;
        let places = self.places(key);
        self.last = Steady::default();
        let place = self
            .way(places, |slot| slot.key == key)
            .or_else(|| self.way(places, |slot| slot.key == 0))
            .or_else(|| self.way(places, |slot| !slot.is_pinned()));
        let Some((bucket, way)) = place else { return false };
        let before = self.buckets[bucket].0[way];
        if before.key != 0 && !before.is_pinned() {
            self.uncount(&before);
        }
        // Seen at the end of time: it never needs to be confirmed and never expires.
        let slot = Slot::new(key, origin, Ticks(u32::MAX));
        self.buckets[bucket].0[way] = Slot { place: slot.place | Slot::PINNED, ..slot };
        true
    }

    fn way(&self, places: [usize; 2], is: impl Fn(&Slot) -> bool) -> Option<(usize, usize)> {
        places.into_iter().find_map(|bucket| self.buckets[bucket].0.iter().position(&is).map(|way| (bucket, way)))
    }

    fn uncount(&mut self, slot: &Slot) {
        let (id, _) = slot.station();
        self.len -= 1;
        self.counts[id.index()] -= 1;
    }

    /// Goes through the next `slots` places and frees those whose entry `expired` says so of.
    pub fn sweep(&mut self, slots: usize, mut expired: impl FnMut(NetworkId, MacAddr, &Entry) -> bool) {
        for _ in 0..slots.div_ceil(WAYS).min(self.buckets.len()) {
            let bucket = self.hand;
            self.hand = (self.hand + 1) % self.buckets.len();
            self.clear_where(bucket, &mut expired);
        }
    }

    /// Frees every place whose entry `keep` does not vouch for.
    pub fn retain(&mut self, mut keep: impl FnMut(NetworkId, MacAddr, &Entry) -> bool) {
        for bucket in 0..self.buckets.len() {
            self.clear_where(bucket, &mut |id, mac, entry| !keep(id, mac, entry));
        }
    }

    fn clear_where(&mut self, bucket: usize, unwanted: &mut impl FnMut(NetworkId, MacAddr, &Entry) -> bool) {
        self.last = Steady::default();
        for way in 0..WAYS {
            let slot = self.buckets[bucket].0[way];
            let (id, mac) = slot.station();
            if slot.key != 0 && unwanted(id, mac, &slot.entry()) {
                self.buckets[bucket].0[way] = Slot::default();
                if !slot.is_pinned() {
                    self.uncount(&slot);
                }
            }
        }
    }

    /// What it takes to look ahead of lookups.
    #[inline(always)]
    pub(super) fn foresight(&self) -> Foresight<'_> {
        Foresight { buckets: &self.buckets, seed: self.seed }
    }

    /// Up to `most` stations from place `from` on, and where to go on; whole buckets only.
    pub fn page(&self, from: usize, most: usize) -> (Vec<(NetworkId, MacAddr, Entry)>, Option<usize>) {
        let mut stations = Vec::new();
        for (index, bucket) in self.buckets.iter().enumerate().skip(from) {
            if stations.len() + WAYS > most.max(WAYS) {
                return (stations, Some(index));
            }
            let taken = bucket.0.iter().filter(|slot| slot.key != 0);
            stations.extend(taken.map(|slot| {
                let (id, mac) = slot.station();
                (id, mac, slot.entry())
            }));
        }
        (stations, None)
    }

    /// Learned entries, over all networks: pinned ones do not count.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no station was learned.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places, free and taken.
    pub fn slots(&self) -> usize {
        self.buckets.len() * WAYS
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "hash bits, any of them")]
    fn places(&self, key: u64) -> [usize; 2] {
        let hash = hash(self.seed, key);
        let mask = self.buckets.len() - 1;
        [hash as usize & mask, (hash >> 32) as usize & mask]
    }

    #[inline(always)]
    fn find(&self, key: u64) -> Option<&Slot> {
        for bucket in self.places(key) {
            for slot in &self.buckets[bucket].0 {
                if slot.key == key {
                    return Some(slot);
                }
            }
        }
        None
    }
}

/// Looks ahead of the lookups of a burst: what that takes of a table, small enough for registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foresight<'a> {
    buckets: &'a [Bucket],
    seed: [u64; 2],
}

impl Foresight<'_> {
    /// The same for stations of one network only.
    #[inline(always)]
    pub(crate) fn of(self, realm: Realm) -> Self {
        let [first, second] = self.seed;
        Self { seed: [first ^ realm.0, second], ..self }
    }

    /// Starts to bring near what a lookup of this station, of the network that this is [of](Self::of),
    /// reads first, which is all it reads of most.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "hash bits, any of them")]
    pub(crate) fn prefetch(self, mac: MacAddr) {
        let first = hash(self.seed, Realm::default().pack(mac).0) as usize & self.buckets.len().wrapping_sub(1);
        if let Some(bucket) = self.buckets.get(first) {
            memory::prefetch(bucket);
        }
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn hash(seed: [u64; 2], key: u64) -> u64 {
    let product = u128::from(key ^ seed[0]) * u128::from(seed[1]);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const HERE: Origin = Origin::Port(PortId(1));
    const THERE: Origin = Origin::Vtep(VtepId(1));

    fn key(network: u16, station: u64) -> Key {
        (NetworkId(network), MacAddr::from_u64(0x0200_0000_0000 + station))
    }

    fn learn(table: &mut MacTable, key: Key, origin: Origin) -> Learned {
        table.learn(key, origin, Ticks(0), Ticks(10), 1_000_000)
    }

    #[test]
    fn equal_addresses_in_two_networks_are_two_stations() {
        let mut table = MacTable::new(16);
        assert_eq!(learn(&mut table, key(1, 1), HERE), Learned::New);
        assert_eq!(table.lookup(key(2, 1)), None);
        assert_eq!(learn(&mut table, key(2, 1), THERE), Learned::New);
        assert_eq!(table.lookup(key(1, 1)).unwrap().origin, HERE);
        assert_eq!(table.lookup(key(2, 1)).unwrap().origin, THERE);
    }

    #[test]
    fn nobody_is_found_at_the_address_of_nobody() {
        let mut table = MacTable::new(16);
        assert_eq!(table.lookup((NetworkId(0), MacAddr::ZERO)), None);
        assert_eq!(table.lookup((NetworkId(1), MacAddr::ZERO)), None);
        learn(&mut table, key(0, 1), HERE);
        assert_eq!(table.lookup((NetworkId(0), MacAddr::ZERO)), None);
    }

    #[test]
    fn learning_writes_only_what_changed() {
        let mut table = MacTable::new(16);
        learn(&mut table, key(1, 1), HERE);
        assert_eq!(table.learn(key(1, 1), HERE, Ticks(10), Ticks(10), 9), Learned::Known);
        assert_eq!(table.lookup(key(1, 1)).unwrap().seen, Ticks(0));
        assert_eq!(table.learn(key(1, 1), HERE, Ticks(11), Ticks(10), 9), Learned::Confirmed);
        assert_eq!(table.lookup(key(1, 1)).unwrap().seen, Ticks(11));
        assert_eq!(table.learn(key(1, 1), THERE, Ticks(11), Ticks(10), 9), Learned::Moved(HERE));
    }

    #[test]
    fn a_network_at_its_limit_refuses_strangers_and_keeps_the_known() {
        let mut table = MacTable::new(1000);
        for station in 0..20 {
            let learned = table.learn(key(1, station), HERE, Ticks(0), Ticks(10), 8);
            assert_eq!(learned, if station < 8 { Learned::New } else { Learned::Refused });
        }
        assert_eq!(table.learn(key(1, 3), THERE, Ticks(0), Ticks(10), 8), Learned::Moved(HERE));
        assert_eq!(table.learn(key(2, 1), HERE, Ticks(0), Ticks(10), 8), Learned::New, "another network");
        table.retain(|_, _, entry| entry.origin == THERE);
        assert_eq!(table.learn(key(1, 99), HERE, Ticks(0), Ticks(10), 8), Learned::New, "room again");
    }

    #[test]
    fn a_table_takes_its_whole_capacity_and_not_one_more() {
        let mut table = MacTable::new(65_536);
        let taken = (0..80_000).filter(|&station| learn(&mut table, key(1, station), HERE) == Learned::New).count();
        assert!((65_530..=65_536).contains(&taken), "{taken}");
        assert_eq!(table.len(), taken);
    }

    #[test]
    fn a_sweep_comes_round_to_every_place() {
        let mut table = MacTable::new(100);
        for station in 0..100 {
            learn(&mut table, key(1, station), HERE);
        }
        for _ in 0..table.slots() / 8 {
            table.sweep(8, |_, _, _| true);
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn pages_show_every_station_once() {
        let mut table = MacTable::new(1000);
        for station in 0..1000 {
            learn(&mut table, key(1, station), HERE);
        }
        let (mut seen, mut from) = (std::collections::HashSet::new(), Some(0));
        while let Some(start) = from {
            let (page, next) = table.page(start, 64);
            assert!(page.len() <= 64);
            assert!(page.into_iter().all(|(_, mac, _)| seen.insert(mac)));
            from = next;
        }
        assert_eq!(seen.len(), table.len());
    }

    #[test]
    fn a_pinned_station_takes_a_place_but_none_of_the_limit_and_never_moves() {
        let mut table = MacTable::new(16);
        assert_eq!(table.learn(key(1, 1), THERE, Ticks(5), Ticks(10), 1), Learned::New);
        assert!(table.pin(key(1, 1), HERE));
        assert_eq!(table.len(), 0, "no longer learned");
        assert_eq!(table.learn(key(1, 1), THERE, Ticks(5), Ticks(10), 1), Learned::Pinned);
        assert_eq!(table.learn(key(1, 1), HERE, Ticks(99), Ticks(10), 1), Learned::Known);
        assert_eq!(table.lookup(key(1, 1)), Some(Entry { origin: HERE, seen: Ticks(u32::MAX), pinned: true }));
        assert_eq!(table.learn(key(1, 2), THERE, Ticks(5), Ticks(10), 1), Learned::New, "the limit is for others");
        assert!(table.pin(key(1, 3), Origin::Gateway));
        assert_eq!(table.lookup(key(1, 3)).unwrap().origin, Origin::Gateway);
        table.retain(|_, _, entry| !entry.pinned);
        assert_eq!((table.len(), table.lookup(key(1, 1)), table.lookup(key(1, 3))), (1, None, None));
    }

    #[test]
    fn pinned_stations_find_room_in_a_table_that_is_full_of_learned_ones() {
        let mut table = MacTable::new(64);
        for station in 0..1000 {
            learn(&mut table, key(1, station), HERE);
        }
        for station in 1000..1032 {
            assert!(table.pin(key(2, station), THERE));
        }
        assert!((1000..1032).all(|station| table.lookup(key(2, station)).is_some_and(|entry| entry.pinned)));
        let (stations, _) = table.page(0, usize::MAX);
        let learned = stations.iter().filter(|(_, _, entry)| !entry.pinned).count();
        assert_eq!((table.len(), stations.len()), (learned, learned + 32));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Learn(u16, u64, bool),
        Forget(u16),
    }

    proptest! {
        /// The table against the obvious one.
        #[test]
        fn the_table_agrees_with_a_hash_map(steps in prop::collection::vec(
            prop_oneof![
                9 => (0..3u16, 0..60u64, any::<bool>()).prop_map(|(n, s, here)| Step::Learn(n, s, here)),
                1 => (0..3u16).prop_map(Step::Forget),
            ], 0..400))
        {
            let mut table = MacTable::new(4096);
            let mut model: HashMap<Key, Origin> = HashMap::new();
            for step in steps {
                match step {
                    Step::Learn(network, station, here) => {
                        let (key, origin) = (key(network, station), if here { HERE } else { THERE });
                        let expected = match model.insert(key, origin) {
                            None => Learned::New,
                            Some(old) if old == origin => Learned::Known,
                            Some(old) => Learned::Moved(old),
                        };
                        prop_assert_eq!(learn(&mut table, key, origin), expected);
                    }
                    Step::Forget(network) => {
                        model.retain(|(id, _), _| id.0 != network);
                        table.retain(|id, _, _| id.0 != network);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (key, origin) in model {
                prop_assert_eq!(table.lookup(key).map(|entry| entry.origin), Some(origin));
            }
        }
    }
}
