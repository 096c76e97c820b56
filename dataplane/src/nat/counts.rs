//! How many there are of each: a bounded table of keys with a count, present while it is not zero.

use super::index::{Hasher, Index};

/// A key of up to 128 bits.
pub(super) type CountKey = (u64, u64);

/// Counts by key.
#[derive(Debug)]
pub(super) struct Counts {
    index: Index,
    slab: Vec<Count>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    key: CountKey,
    count: u32,
}

impl Counts {
    /// Room for `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        Self { index: Index::new(capacity), slab: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    fn find(&self, key: CountKey, hasher: &Hasher) -> Option<u32> {
        self.index.find(hasher.hash(key.0, key.1), |place| self.slab[place as usize].key == key)
    }

    /// How many there are of `key`.
    pub(super) fn get(&self, key: CountKey, hasher: &Hasher) -> u32 {
        self.find(key, hasher).map_or(0, |place| self.slab[place as usize].count)
    }

    /// One more of `key`; `false` if there is no room for it.
    #[must_use]
    pub(super) fn add(&mut self, key: CountKey, hasher: &Hasher) -> bool {
        if let Some(place) = self.find(key, hasher) {
            self.slab[place as usize].count += 1;
            return true;
        }
        let place = match self.free.last() {
            Some(&place) => place,
            None if self.slab.len() < self.slab.capacity() => u32::try_from(self.slab.len()).unwrap_or(u32::MAX),
            None => return false,
        };
        if !self.index.insert(hasher.hash(key.0, key.1), place) {
            return false;
        }
        let count = Count { key, count: 1 };
        match self.free.pop() {
            Some(place) => self.slab[place as usize] = count,
            None => self.slab.push(count),
        }
        true
    }

    /// One less of `key`.
    pub(super) fn sub(&mut self, key: CountKey, hasher: &Hasher) {
        let Some(place) = self.find(key, hasher) else { return };
        let count = &mut self.slab[place as usize].count;
        *count -= 1;
        if *count == 0 {
            self.index.remove(hasher.hash(key.0, key.1), place);
            self.free.push(place);
        }
    }

    /// Bytes it takes when full.
    pub(super) fn memory(&self) -> usize {
        self.index.memory() + self.slab.capacity() * size_of::<Count>() + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_while_it_counts() {
        let (mut counts, hasher) = (Counts::new(2), Hasher::new());
        assert!(counts.add((1, 1), &hasher) && counts.add((1, 1), &hasher) && counts.add((2, 1), &hasher));
        assert!(!counts.add((3, 1), &hasher), "full");
        assert!(counts.add((2, 1), &hasher), "but not for the known");
        counts.sub((1, 1), &hasher);
        assert_eq!(counts.get((1, 1), &hasher), 1);
        counts.sub((1, 1), &hasher);
        assert_eq!((counts.get((1, 1), &hasher), counts.get((2, 1), &hasher)), (0, 2));
        assert!(counts.add((3, 1), &hasher), "room again");
    }
}
