//! How many there are of each: a bounded table of keys with a count, present while it is not zero.

use super::index::{Hasher, Index};
use crate::wire::Address;

/// An address and what else tells the key from others.
pub(super) type CountKey<A> = (u64, A);

/// Counts by key.
#[derive(Debug)]
pub(super) struct Counts<A> {
    index: Index,
    slab: Vec<Count<A>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Count<A> {
    key: CountKey<A>,
    count: u32,
}

impl<A: Address> Counts<A> {
    /// Room for `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        Self { index: Index::new(capacity), slab: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    fn find(&self, key: CountKey<A>, hasher: &Hasher) -> Option<u32> {
        self.index.find(hasher.hash(key.0, key.1), |place| self.slab[place as usize].key == key)
    }

    /// How many there are of `key`.
    pub(super) fn get(&self, key: CountKey<A>, hasher: &Hasher) -> u32 {
        self.find(key, hasher).map_or(0, |place| self.slab[place as usize].count)
    }

    /// One more of `key`; `false` if there is no room for it.
    #[must_use]
    pub(super) fn add(&mut self, key: CountKey<A>, hasher: &Hasher) -> bool {
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
    pub(super) fn sub(&mut self, key: CountKey<A>, hasher: &Hasher) {
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
        self.index.memory() + self.slab.capacity() * size_of::<Count<A>>() + self.free.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn a_key_is_there_while_it_counts() {
        let (mut counts, hasher) = (Counts::new(2), Hasher::new());
        let [one, two, three] = [1, 2, 3].map(|number| (number, Ipv6Addr::LOCALHOST));
        assert!(counts.add(one, &hasher) && counts.add(one, &hasher) && counts.add(two, &hasher));
        assert!(!counts.add(three, &hasher), "full");
        assert!(counts.add(two, &hasher), "but not for the known");
        counts.sub(one, &hasher);
        assert_eq!(counts.get(one, &hasher), 1);
        counts.sub(one, &hasher);
        assert_eq!((counts.get(one, &hasher), counts.get(two, &hasher)), (0, 2));
        assert!(counts.add(three, &hasher), "room again");
    }
}
