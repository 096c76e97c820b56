//! A bounded keyed hash index: from the hash of a key to the place where its entry is.
//!
//! As in the bridge's MAC table, a bucket fills one cache line and a key may live in either of
//! two of them, chosen by bits that nobody outside can aim at. The index knows no keys: it keeps
//! a tag of each and asks the caller whether the entry at a place is the one that is meant.

use std::hash::{BuildHasher, RandomState};

use crate::{
    memory,
    wire::{Address, Version},
};

/// From hashes to places.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Vec<Bucket>,
    mask: usize,
}

const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Bucket([Slot; WAYS]);

/// A tag of the key, and its place plus one; zero marks a free slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    place: u32,
}

impl Index {
    /// An index for `capacity` entries, at most half full then; all memory it will ever use.
    pub(super) fn new(capacity: usize) -> Self {
        let count = (capacity.max(1) * 2).div_ceil(WAYS).next_power_of_two();
        let mut buckets = memory::vec(count);
        buckets.resize(count, Bucket::default());
        Self { buckets, mask: count - 1 }
    }

    /// The place whose entry `is_it` says has the key with this hash.
    #[inline]
    pub(super) fn find(&self, hash: Hash, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = hash.tag();
        for bucket in hash.buckets(self.mask) {
            for slot in &self.buckets[bucket].0 {
                if slot.tag == tag && slot.place != 0 && is_it(slot.place - 1) {
                    return Some(slot.place - 1);
                }
            }
        }
        None
    }

    /// Notes that the entry with this hash is at `place`; `false` if both buckets are full,
    /// which at half load is a matter of one in many thousands.
    ///
    /// The first bucket is taken until it gets tight, so that most searches read one line.
    #[must_use]
    pub(super) fn insert(&mut self, hash: Hash, place: u32) -> bool {
        let free = |bucket: usize| self.buckets[bucket].0.iter().filter(|slot| slot.place == 0).count();
        let [first, second] = hash.buckets(self.mask);
        let bucket = if free(first) < 3 && free(second) > free(first) { second } else { first };
        match self.buckets[bucket].0.iter_mut().find(|slot| slot.place == 0) {
            Some(slot) => *slot = Slot { tag: hash.tag(), place: place + 1 },
            None => return false,
        }
        true
    }

    /// Forgets that the entry with this hash is at `place`.
    pub(super) fn remove(&mut self, hash: Hash, place: u32) {
        for bucket in hash.buckets(self.mask) {
            if let Some(slot) = self.buckets[bucket].0.iter_mut().find(|slot| slot.place == place + 1) {
                *slot = Slot::default();
                return;
            }
        }
    }

    /// Brings near what a search for this hash reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: Hash) {
        let [first, _] = hash.buckets(self.mask);
        memory::prefetch(&self.buckets[first]);
    }

    /// The likeliest place of the key with this hash, without asking anybody.
    #[inline]
    pub(super) fn guess(&self, hash: Hash) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Bytes it takes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.buckets)
    }
}

/// The hash of a key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hash(u64);

impl Hash {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "hash bits, any of them")]
    fn buckets(self, mask: usize) -> [usize; 2] {
        [self.0 as usize & mask, (self.0 >> 32) as usize & mask]
    }

    /// One of the first `sets` numbers; `sets` is a power of two.
    #[expect(clippy::cast_possible_truncation, reason = "hash bits, any of them")]
    pub(super) fn below(self, sets: usize) -> usize {
        self.0 as usize & (sets - 1)
    }

    /// All of it, to hash on.
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// Bits that the first bucket does not depend on.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "hash bits, any of them")]
    fn tag(self) -> u32 {
        self.0.rotate_right(24) as u32
    }
}

/// Hashes keys of an address and 64 bits more with secrets of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    secrets: [u64; 4],
}

impl Hasher {
    /// New secrets: the standard library's per-process random keys.
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        // Odd, so that multiplying by them loses nothing.
        Self { secrets: [0u8, 1, 2, 3].map(|number| random.hash_one(number) | 1) }
    }

    /// The hash of the key `(left, right)`.
    #[inline]
    pub(super) fn hash<A: Address>(&self, left: u64, right: A) -> Hash {
        let [first, second, third, fourth] = self.secrets;
        let ([high, low], left) = (right.words(), fold(left ^ first, second));
        let left = match A::VERSION {
            Version::V4 => left,
            Version::V6 => fold(left ^ high, fourth),
        };
        Hash(fold(left ^ low, third))
    }
}

/// Multiplies and folds the 128-bit product: every input bit reaches every output bit.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of the product")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left).wrapping_mul(u128::from(right));
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn an_index_takes_its_whole_capacity() {
        let (mut index, hasher) = (Index::new(65_536), Hasher::new());
        let taken = (0..65_536)
            .filter(|&key| index.insert(hasher.hash(u64::from(key), Ipv4Addr::new(10, 0, 0, 7)), key))
            .count();
        assert!(taken >= 65_534, "{taken}");
    }

    proptest! {
        #[test]
        fn an_index_agrees_with_a_hash_map(steps in prop::collection::vec((0..200u64, any::<bool>()), 0..600)) {
            let (mut index, hasher) = (Index::new(1024), Hasher::new());
            let (mut model, mut keys) = (HashMap::new(), Vec::<u64>::new());
            for (key, insert) in steps {
                let hash = hasher.hash(key, Ipv6Addr::from_bits(u128::from(key * 3) << 60));
                let found = index.find(hash, |place| keys[place as usize] == key);
                prop_assert_eq!(found, model.get(&key).copied());
                match (found, insert) {
                    (None, true) => {
                        let place = u32::try_from(keys.len()).unwrap();
                        keys.push(key);
                        prop_assert!(index.insert(hash, place));
                        model.insert(key, place);
                    }
                    (Some(place), false) => {
                        index.remove(hash, place);
                        model.remove(&key);
                    }
                    _ => {}
                }
            }
        }
    }
}
