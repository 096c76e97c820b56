//! Sessions: one for each pair of a mapped endpoint and a remote one, found from either side.
//!
//! A session fills one cache line, one of IPv6 two. Its end is found by a timer wheel, so that what expires costs
//! time and what lives does not; packets only write the deadline.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    index::{Hash, Hasher, Index},
    ports::OutsideId,
    timeouts::State,
};
use crate::{clock::Ticks, memory, wire::Address};

/// Both ends of a session, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<A> {
    /// The mapped endpoint.
    pub(super) outside: OutsideId,
    /// Address of the other end.
    pub(super) remote: A,
    /// Its port; zero for ICMP queries.
    pub(super) port: u16,
}

impl<A: Address> Key<A> {
    #[inline]
    pub(super) fn hash(self, hasher: &Hasher) -> Hash {
        hasher.hash(u64::from(self.outside.0) << 16 | u64::from(self.port), self.remote)
    }
}

/// The number of a session while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub(super) u32);

impl SessionId {
    #[inline]
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// One session.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Session<A> {
    pub(super) key: Key<A>,
    /// Where it is in its life.
    pub(super) state: State,
    free: bool,
    pub(super) deadline: Ticks,
    pub(super) created: Ticks,
    /// When the wheel looks at it next; its neighbours in that slot of the wheel.
    due: u32,
    next: u32,
    previous: u32,
    pub(super) out: Traffic,
    pub(super) back: Traffic,
}

const _: () = assert!(size_of::<Session<Ipv4Addr>>() == 64 && size_of::<Session<Ipv6Addr>>() == 128);

/// Packets one way: 40 bits of packets, 56 bits of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    packets_low: u32,
    bytes_low: u32,
    /// Packets in the lower 8 bits, bytes in the upper 24.
    high: u32,
}

impl Traffic {
    /// So many packets with so many bytes.
    #[expect(clippy::cast_possible_truncation, reason = "the two parts of each number")]
    pub fn new(packets: u64, bytes: u64) -> Self {
        let high = (packets >> 32) as u32 & 0xff | ((bytes >> 32) as u32) << 8;
        Self { packets_low: packets as u32, bytes_low: bytes as u32, high }
    }

    /// How many.
    pub fn packets(&self) -> u64 {
        u64::from(self.high & 0xff) << 32 | u64::from(self.packets_low)
    }

    /// Their bytes, IP headers included.
    pub fn bytes(&self) -> u64 {
        u64::from(self.high >> 8) << 32 | u64::from(self.bytes_low)
    }

    #[inline]
    pub(super) fn count(&mut self, bytes: usize) {
        self.add(1, bytes as u64);
    }

    #[inline]
    pub(super) fn add(&mut self, packets: u64, bytes: u64) {
        *self = Self::new(self.packets() + packets, self.bytes() + bytes);
    }
}

/// All sessions of a worker.
#[derive(Debug)]
pub(super) struct Sessions<A> {
    index: Index,
    slab: Vec<Session<A>>,
    /// First of a list of free places.
    free: u32,
    len: usize,
    capacity: usize,
    /// The first session of each slot of the wheel.
    wheel: Box<[u32; SLOTS]>,
    /// Up to here the wheel has been looked at.
    hand: Ticks,
}

const NONE: u32 = u32::MAX;
/// A slot is one tick, and the wheel goes round in 256 s.
const SLOTS: usize = 4096;
/// The furthest ahead that the wheel can hold something.
const HORIZON: u32 = 4095;

impl<A: Address> Sessions<A> {
    /// Room for `capacity` sessions, touched only as far as it is used.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            index: Index::new(capacity),
            slab: memory::vec(capacity),
            free: NONE,
            len: 0,
            capacity,
            wheel: Box::new([NONE; SLOTS]),
            hand: Ticks(0),
        }
    }

    /// The session with `key`, expired or not.
    #[inline]
    pub(super) fn find(&self, hash: Hash, key: Key<A>) -> Option<SessionId> {
        self.index.find(hash, |place| self.slab[place as usize].key == key).map(SessionId)
    }

    #[inline]
    pub(super) fn get(&self, id: SessionId) -> &Session<A> {
        &self.slab[id.index()]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: SessionId) -> &mut Session<A> {
        &mut self.slab[id.index()]
    }

    /// Starts a session; `None` if there is no room.
    pub(super) fn insert(
        &mut self,
        hash: Hash,
        key: Key<A>,
        state: State,
        now: Ticks,
        deadline: Ticks,
    ) -> Option<SessionId> {
        let place = self.free_place()?;
        if !self.index.insert(hash, place) {
            return None;
        }
        let session = Session {
            key,
            state,
            free: false,
            deadline,
            created: now,
            due: 0,
            next: NONE,
            previous: NONE,
            out: Traffic::default(),
            back: Traffic::default(),
        };
        let id = SessionId(place);
        match self.slab.get_mut(id.index()) {
            Some(free) => {
                self.free = free.next;
                *free = session;
            }
            // Within the capacity that was asked for at first: no allocation.
            None => self.slab.push(session),
        }
        self.len += 1;
        self.link(id);
        Some(id)
    }

    fn free_place(&self) -> Option<u32> {
        match self.free {
            NONE if self.slab.len() < self.capacity => u32::try_from(self.slab.len()).ok(),
            NONE => None,
            place => Some(place),
        }
    }

    /// Ends a session.
    pub(super) fn remove(&mut self, id: SessionId, hasher: &Hasher) {
        self.unlink(id);
        let key = self.get(id).key;
        self.index.remove(key.hash(hasher), id.0);
        let free = self.free;
        let session = self.get_mut(id);
        session.free = true;
        session.next = free;
        self.free = id.0;
        self.len -= 1;
    }

    /// Takes note of a deadline that may have come nearer.
    pub(super) fn reschedule(&mut self, id: SessionId) {
        self.unlink(id);
        self.link(id);
    }

    /// Finds one session that has ended by `now`, until there is none. Looks at no more than
    /// `budget` sessions, which it lessens by what it looked at.
    pub(super) fn expired(&mut self, now: Ticks, budget: &mut usize) -> Option<SessionId> {
        // After a long silence, one round sees everything.
        let behind = now.0.saturating_sub(HORIZON);
        self.hand = self.hand.max(Ticks(behind));
        loop {
            let first = self.wheel[slot(self.hand.0)];
            if first == NONE {
                if self.hand >= now {
                    return None;
                }
                self.hand.0 += 1;
                continue;
            }
            *budget = budget.checked_sub(1)?;
            let id = SessionId(first);
            if self.get(id).deadline <= now {
                return Some(id);
            }
            // Later than this slot, so that the slot empties.
            self.reschedule(id);
        }
    }

    fn link(&mut self, id: SessionId) {
        let earliest = self.hand.0 + 1;
        let due = self.get(id).deadline.0.clamp(earliest, earliest + HORIZON - 1);
        let first = std::mem::replace(&mut self.wheel[slot(due)], id.0);
        if let Some(first) = self.slab.get_mut(first as usize) {
            first.previous = id.0;
        }
        let session = self.get_mut(id);
        (session.due, session.next, session.previous) = (due, first, NONE);
    }

    fn unlink(&mut self, id: SessionId) {
        let Session { due, next, previous, .. } = *self.get(id);
        match self.slab.get_mut(previous as usize) {
            Some(before) => before.next = next,
            None => self.wheel[slot(due)] = next,
        }
        if let Some(after) = self.slab.get_mut(next as usize) {
            after.previous = previous;
        }
    }

    /// Every session from place `from` on.
    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (SessionId, &Session<A>)> {
        let numbered = (0u32..).zip(&self.slab).skip(from);
        numbered.filter(|(_, session)| !session.free).map(|(place, session)| (SessionId(place), session))
    }

    /// Places, free or not, that have been used so far.
    pub(super) fn places(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Brings near what a search for this hash reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: Hash) {
        self.index.prefetch(hash);
    }

    /// Brings near the session that a search for this hash most likely finds.
    #[inline]
    pub(super) fn prefetch_session(&self, hash: Hash) {
        if let Some(place) = self.index.guess(hash) {
            memory::prefetch(&self.slab[place as usize]);
        }
    }

    /// Bytes it takes when full.
    pub(super) fn memory(&self) -> usize {
        self.index.memory() + self.capacity * size_of::<Session<A>>() + size_of_val(&*self.wheel)
    }
}

#[inline]
fn slot(tick: u32) -> usize {
    tick as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key<Ipv4Addr> {
        Key { outside: OutsideId(1), remote: Ipv4Addr::new(198, 51, 100, 1), port }
    }

    fn insert(sessions: &mut Sessions<Ipv4Addr>, hasher: &Hasher, port: u16, deadline: u32) -> SessionId {
        sessions.insert(key(port).hash(hasher), key(port), State::Udp, Ticks(0), Ticks(deadline)).unwrap()
    }

    fn expired(sessions: &mut Sessions<Ipv4Addr>, hasher: &Hasher, now: u32) -> Vec<u16> {
        let (mut ports, mut budget) = (Vec::new(), usize::MAX);
        while let Some(id) = sessions.expired(Ticks(now), &mut budget) {
            ports.push(sessions.get(id).key.port);
            sessions.remove(id, hasher);
        }
        ports.sort_unstable();
        ports
    }

    #[test]
    fn sessions_end_at_their_deadline_however_far_it_is() {
        let (mut sessions, hasher) = (Sessions::new(16), Hasher::new());
        for (port, deadline) in [(1, 1), (2, 4095), (3, 4096), (4, 4097), (5, 100_000)] {
            insert(&mut sessions, &hasher, port, deadline);
        }
        for now in 1..=100_000 {
            let expected: &[u16] = match now {
                1 => &[1],
                4095 => &[2],
                4096 => &[3],
                4097 => &[4],
                100_000 => &[5],
                _ => &[],
            };
            assert_eq!(expired(&mut sessions, &hasher, now), expected, "at {now}");
        }
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn after_a_long_silence_everything_overdue_is_found_at_once() {
        let (mut sessions, hasher) = (Sessions::new(100), Hasher::new());
        for port in 0..100 {
            insert(&mut sessions, &hasher, port, u32::from(port) * 1000 + 1);
        }
        assert_eq!(expired(&mut sessions, &hasher, 50_000), (0..50).collect::<Vec<_>>());
        assert_eq!(expired(&mut sessions, &hasher, 200_000), (50..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_deadline_that_comes_nearer_is_noticed_and_one_that_goes_further_too() {
        let (mut sessions, hasher) = (Sessions::new(4), Hasher::new());
        let (near, far) = (insert(&mut sessions, &hasher, 1, 3000), insert(&mut sessions, &hasher, 2, 10));
        sessions.get_mut(near).deadline = Ticks(5);
        sessions.reschedule(near);
        sessions.get_mut(far).deadline = Ticks(20);
        assert_eq!(expired(&mut sessions, &hasher, 6), [1]);
        assert_eq!(expired(&mut sessions, &hasher, 19), [0; 0]);
        assert_eq!(expired(&mut sessions, &hasher, 20), [2]);
    }

    #[test]
    fn the_budget_bounds_a_look_and_the_next_goes_on() {
        let (mut sessions, hasher) = (Sessions::new(100), Hasher::new());
        for port in 0..100 {
            insert(&mut sessions, &hasher, port, 7);
        }
        let mut found = 0;
        for _ in 0..10 {
            let mut budget = 10;
            while let Some(id) = sessions.expired(Ticks(8), &mut budget) {
                sessions.remove(id, &hasher);
                found += 1;
            }
        }
        assert_eq!((found, sessions.len()), (100, 0));
    }

    #[test]
    fn a_full_table_refuses_and_a_freed_place_is_used_again() {
        let (mut sessions, hasher) = (Sessions::new(2), Hasher::new());
        let first = insert(&mut sessions, &hasher, 1, 10);
        insert(&mut sessions, &hasher, 2, 10);
        assert_eq!(sessions.insert(key(3).hash(&hasher), key(3), State::Udp, Ticks(0), Ticks(1)), None);
        sessions.remove(first, &hasher);
        insert(&mut sessions, &hasher, 3, 10);
        assert_eq!(sessions.find(key(1).hash(&hasher), key(1)), None);
        assert!(sessions.find(key(3).hash(&hasher), key(3)).is_some());
    }
}
