//! What a worker has put into the maps: bounded, and swept of what has ended.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use vxlane_abi::express::{FlowKey, SessionKey, TunnelKey, Way};

use crate::ids::NetworkId;

/// The key of a flow, in one of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Flow(FlowKey),
    Tunnel(TunnelKey),
    Session(SessionKey),
}

/// The flows that one worker has put into the maps.
#[derive(Debug)]
pub(super) struct Placed {
    entries: Vec<Entry>,
    /// Where each is in `entries`.
    index: HashMap<Key, usize, RandomState>,
    /// How many each network has.
    counts: HashMap<NetworkId, usize, RandomState>,
    most: usize,
    /// Where the next [`sweep`](Self::sweep) starts.
    hand: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    network: NetworkId,
    epoch: u32,
    /// Until when a worker that gets frames of it need not wonder why.
    fresh: u64,
    expires: u64,
}

/// For so many nanoseconds frames may arrive that were sent to a worker before it put their flow
/// into the map. Whose frames still arrive then is no longer there, whoever took it out.
const UNDER_WAY: u64 = 100_000_000;

/// Of the flows that there can be, one network may have this part: a network in which much
/// happens does not drive out the others.
const SHARE: usize = 2;

impl Placed {
    /// Room for `most` flows; all memory that it will ever use but for a number per network.
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: Vec::with_capacity(most),
            index: HashMap::with_capacity_and_hasher(most, RandomState::default()),
            counts: HashMap::default(),
            most,
            hand: 0,
        }
    }

    /// Whether the flow was put into its map just now, and is not yet to be confirmed at `time`.
    pub(super) fn is_fresh(&self, key: &Key, epoch: u32, time: u64) -> bool {
        self.find(key).is_some_and(|entry| entry.epoch == epoch && time < entry.fresh)
    }

    fn find(&self, key: &Key) -> Option<&Entry> {
        self.index.get(key).map(|&place| &self.entries[place])
    }

    /// Remembers that the flow goes this way from `time` on; `false` if there is no room for it.
    pub(super) fn put(&mut self, key: Key, network: NetworkId, way: &Way, time: u64) -> bool {
        let fresh = way.confirm.min(time.saturating_add(UNDER_WAY));
        let entry = Entry { key, network, epoch: way.epoch, fresh, expires: way.expires };
        if let Some(&place) = self.index.get(&key) {
            self.discount(self.entries[place].network);
            self.entries[place] = entry;
            *self.counts.entry(network).or_default() += 1;
            return true;
        }
        let count = self.counts.entry(network).or_default();
        if self.entries.len() >= self.most || *count >= self.most.div_ceil(SHARE) {
            return false;
        }
        *count += 1;
        self.index.insert(key, self.entries.len());
        self.entries.push(entry);
        true
    }

    /// Forgets the flow.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(place) = self.index.remove(key) else { return };
        let entry = self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            self.index.insert(moved.key, place);
        }
        self.discount(entry.network);
    }

    fn discount(&mut self, network: NetworkId) {
        if let Some(count) = self.counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }

    /// Looks at a part of the flows, and forgets and tells of those that have ended at `time`, with
    /// when each was to expire.
    pub(super) fn sweep(&mut self, time: u64, epoch: impl Fn(&Key, NetworkId) -> u32, mut tell: impl FnMut(&Key, u64)) {
        for _ in 0..self.entries.len().div_ceil(64) {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let Some(&Entry { key, network, epoch: of, expires, .. }) = self.entries.get(self.hand) else { return };
            if time < expires && of == epoch(&key, network) {
                self.hand += 1;
            } else {
                // Another takes its place, and is looked at next.
                self.remove(&key);
                tell(&key, expires);
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key::Tunnel(TunnelKey { vni: [0; 4], vtep: [number; 16], destination: [2; 6], source: [4; 6] })
    }

    fn way(epoch: u32, expires: u64) -> Way {
        Way { epoch, expires, confirm: expires / 2, ..super::super::BLANK.way }
    }

    const ONE: NetworkId = NetworkId(1);
    const TWO: NetworkId = NetworkId(2);

    #[test]
    fn a_network_gets_half_of_the_room_and_leaves_the_other_half_to_others() {
        let mut placed = Placed::new(4);
        let taken: Vec<bool> = (0..3).map(|number| placed.put(key(number), ONE, &way(0, 10), 0)).collect();
        assert_eq!(taken, [true, true, false]);
        assert!(placed.put(key(0), ONE, &way(0, 20), 0), "it has its place");
        assert_eq!((placed.put(key(3), TWO, &way(0, 10), 0), placed.put(key(4), TWO, &way(0, 10), 0)), (true, true));
        assert!(!placed.put(key(5), NetworkId(3), &way(0, 10), 0), "no room at all");
        placed.remove(&key(1));
        assert!(placed.put(key(2), ONE, &way(0, 10), 0), "room again");
    }

    #[test]
    fn a_flow_is_fresh_until_it_is_to_be_confirmed_and_in_its_epoch() {
        let mut placed = Placed::new(4);
        placed.put(key(1), ONE, &way(7, 100), 0);
        assert!(placed.is_fresh(&key(1), 7, 49));
        assert!(
            !placed.is_fresh(&key(1), 7, 50) && !placed.is_fresh(&key(1), 8, 49) && !placed.is_fresh(&key(2), 7, 0)
        );
    }

    #[test]
    fn a_flow_whose_frames_still_come_a_while_after_it_was_put_is_put_again() {
        let mut placed = Placed::new(4);
        placed.put(key(1), ONE, &way(7, 30_000_000_000), 1_000);
        assert!(placed.is_fresh(&key(1), 7, 1_000) && placed.is_fresh(&key(1), 7, UNDER_WAY));
        assert!(!placed.is_fresh(&key(1), 7, UNDER_WAY + 1_000));
    }

    #[test]
    fn sweeping_finds_what_has_expired_and_what_is_of_an_earlier_epoch_and_nothing_else() {
        let mut placed = Placed::new(100);
        for number in 0..90 {
            let network = if number < 45 { ONE } else { TWO };
            let expires = if number % 2 == 0 { 10 } else { 20 };
            placed.put(key(number), network, &way(u32::from(number % 3 == 0), expires), 0);
        }
        let mut gone = Vec::new();
        for _ in 0..200 {
            placed.sweep(15, |_, _| 1, |key, _| gone.push(*key));
        }
        let stays: Vec<Key> = (0..90).filter(|number| number % 3 == 0 && number % 2 == 1).map(key).collect();
        assert_eq!((placed.len(), gone.len()), (stays.len(), 90 - stays.len()));
        assert!(stays.iter().all(|key| placed.find(key).is_some()));
        gone.sort_by_key(|key| format!("{key:?}"));
        gone.dedup();
        assert_eq!(gone.len(), 90 - stays.len(), "each is told of once");
    }
}
