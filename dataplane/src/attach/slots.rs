//! Which slots of the socket map belong to which port.

/// A run of slots, lent to one port; one for each of its receive queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Slots {
    /// The slot of `queue`, if this port has that queue.
    pub(super) fn of(self, queue: u32) -> Option<u32> {
        (queue < self.count).then(|| self.first + queue)
    }

    fn end(self) -> u32 {
        self.first + self.count
    }
}

/// Finds the lowest `count` slots in a row, of `total`, that none of `taken` covers.
pub(super) fn find(taken: &[Slots], count: u32, total: u32) -> Option<Slots> {
    let mut taken = taken.to_vec();
    taken.sort_unstable_by_key(|slots| slots.first);
    let mut first = 0;
    for slots in taken {
        if slots.first - first >= count {
            break;
        }
        first = slots.end();
    }
    (count > 0 && count <= total.saturating_sub(first)).then_some(Slots { first, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(taken: &[(u32, u32)], count: u32, total: u32, expected: Option<u32>) {
        let taken: Vec<_> = taken
            .iter()
            .map(|&(first, count)| Slots { first, count })
            .collect();
        assert_eq!(
            find(&taken, count, total).map(|slots| slots.first),
            expected
        );
    }

    #[test]
    fn the_lowest_gap_that_is_wide_enough_is_taken() {
        check(&[], 4, 16, Some(0));
        check(&[(0, 4)], 4, 16, Some(4));
        check(&[(8, 4), (0, 4)], 4, 16, Some(4));
        check(&[(0, 4), (6, 4)], 4, 16, Some(10));
    }

    #[test]
    fn a_full_map_has_no_slots() {
        check(&[(0, 16)], 1, 16, None);
        check(&[(0, 13)], 4, 16, None);
        check(&[], u32::MAX, 16, None);
        check(&[], 0, 16, None);
    }

    #[test]
    fn a_port_has_no_slot_beyond_its_queues() {
        let slots = Slots { first: 4, count: 2 };
        assert_eq!(
            (slots.of(0), slots.of(1), slots.of(2)),
            (Some(4), Some(5), None)
        );
    }
}
