//! Storms: how many frames of a network may be flooded in a second.

use crate::{
    clock::{Instant, Ticks},
    ids::NetworkId,
    tables::Network,
};

/// What one worker has flooded in this second, by network.
///
/// A frame counts once, however many receivers it has. Each second begins anew, so that a burst
/// of twice the limit can pass at its border, and never more than the limit in the long run.
#[derive(Debug)]
pub(crate) struct Floods {
    /// The second, and in its lower half how many frames. The kernel gives these pages when they
    /// are first written to: only networks with a limit cost memory.
    seconds: Vec<u64>,
}

impl Floods {
    pub(crate) fn new() -> Self {
        Self { seconds: vec![0; usize::from(u16::MAX) + 1] }
    }

    /// Whether another frame of `network` may be flooded now; counts it if it may.
    #[inline]
    pub(crate) fn admit(&mut self, id: NetworkId, network: &Network, now: Instant) -> bool {
        let Some(limit) = network.flood_limit else { return true };
        let second = u64::from(now.ticks().0 / Ticks::PER_SECOND) << 32;
        let entry = &mut self.seconds[id.index()];
        let flooded = if *entry & !u64::from(u32::MAX) == second { *entry & u64::from(u32::MAX) } else { 0 };
        let admitted = flooded < u64::from(limit);
        *entry = second | (flooded + u64::from(admitted));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::Vni;

    #[test]
    fn a_second_has_room_for_the_limit_of_each_network_and_no_more() {
        let network = |flood_limit| Network { flood_limit, ..Network::new(Vni::new(7).unwrap()) };
        let mut floods = Floods::new();
        let admitted = |floods: &mut Floods, id: u16, limit, at: u64| {
            let now = Instant::default() + Duration::from_millis(at);
            (0..1000).filter(|_| floods.admit(NetworkId(id), &network(limit), now)).count()
        };
        assert_eq!(admitted(&mut floods, 1, Some(10), 0), 10);
        assert_eq!(admitted(&mut floods, 1, Some(10), 999), 0);
        assert_eq!(admitted(&mut floods, 2, Some(300), 999), 300, "of another network");
        assert_eq!(admitted(&mut floods, 3, None, 999), 1000, "without a limit");
        assert_eq!(admitted(&mut floods, 1, Some(10), 1000), 10, "another second");
        assert_eq!(admitted(&mut floods, u16::MAX, Some(1), 7_000_000), 1);
        assert_eq!(admitted(&mut floods, 1, Some(0), 5000), 0);
    }
}
