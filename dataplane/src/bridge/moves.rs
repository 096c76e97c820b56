//! Stations that move: how often, and which are held because it was too often.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Learned, Origin};
use crate::{
    clock::Ticks,
    ids::NetworkId,
    tables::{MoveLimit, Tables},
    wire::MacAddr,
};

/// Stations that have moved of late, in a bounded memory. One that finds no room in it moves
/// uncounted: better that than to hold a machine that really moved.
#[derive(Debug)]
pub(super) struct Moves(HashMap<(NetworkId, MacAddr), Record, RandomState>);

#[derive(Clone, Copy, Debug)]
struct Record {
    /// Where the station was before its first move.
    home: Origin,
    /// When that was.
    since: Ticks,
    moves: u32,
    held: bool,
}

impl Record {
    /// Whether the moves are of the past, or the hold is over.
    fn is_over(&self, limit: MoveLimit, now: Ticks) -> bool {
        let seconds = if self.held { limit.hold } else { limit.within };
        now.since(self.since) > Ticks::from_secs(seconds)
    }
}

/// How many movers are watched at once.
const MOST: usize = 1024;

impl Moves {
    pub(super) fn new() -> Self {
        Self(HashMap::with_capacity_and_hasher(MOST, RandomState::default()))
    }

    /// Counts a move of `key` away from `from`.
    pub(super) fn count(&mut self, key: (NetworkId, MacAddr), from: Origin, limit: MoveLimit, now: Ticks) -> Learned {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            return Learned::Moved(from);
        }
        let first = Record { home: from, since: now, moves: 0, held: false };
        let record = self.0.entry(key).or_insert(first);
        if record.is_over(limit, now) {
            *record = first;
        }
        if record.held {
            return Learned::Held;
        }
        record.moves += 1;
        if record.moves < limit.moves.max(1) {
            return Learned::Moved(from);
        }
        (record.held, record.since) = (true, now);
        Learned::Flapping(record.home)
    }

    /// Forgets whose moves are long past, and lets go of who has been held for long enough.
    pub(super) fn expire(&mut self, tables: &Tables, now: Ticks) {
        self.0.retain(|&(id, _), record| {
            tables.network(id).is_some_and(|network| network.has(record.home) && !record.is_over(network.moves, now))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PortId, VtepId};

    const A: Origin = Origin::Vtep(VtepId(1));
    const B: Origin = Origin::Port(PortId(2));
    const KEY: (NetworkId, MacAddr) = (NetworkId(0), MacAddr([2; 6]));

    fn count(moves: &mut Moves, from: Origin, second: u32) -> Learned {
        moves.count(KEY, from, MoveLimit::default(), Ticks::from_secs(second))
    }

    #[test]
    fn rfc7432_15_1_the_fifth_move_in_180_seconds_is_held_at_home_for_540() {
        let mut moves = Moves::new();
        for (from, second) in [(A, 0), (B, 10), (A, 20), (B, 170)] {
            assert_eq!(count(&mut moves, from, second), Learned::Moved(from));
        }
        assert_eq!(count(&mut moves, A, 180), Learned::Flapping(A));
        assert_eq!(count(&mut moves, A, 181), Learned::Held);
        assert_eq!(count(&mut moves, A, 180 + 540), Learned::Held);
        assert_eq!(count(&mut moves, A, 180 + 541), Learned::Moved(A));
    }

    #[test]
    fn moves_that_are_far_apart_are_never_too_many() {
        let mut moves = Moves::new();
        for n in 0..100 {
            assert_eq!(count(&mut moves, A, n * 46), Learned::Moved(A), "move {n}");
        }
    }

    #[test]
    fn movers_beyond_the_bound_are_followed_uncounted() {
        let mut moves = Moves::new();
        for station in 0..2 * MOST as u64 {
            let key = (NetworkId(0), MacAddr::from_u64(0x0200_0000_0000 + station));
            assert_eq!(
                moves.count(key, A, MoveLimit { moves: 2, ..MoveLimit::default() }, Ticks(0)),
                Learned::Moved(A)
            );
        }
        assert_eq!(moves.0.len(), MOST);
        for _ in 0..9 {
            assert_eq!(count(&mut moves, A, 1), Learned::Moved(A));
        }
    }
}
