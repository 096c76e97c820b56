//! Counters of both lanes: apart, and as one.

use vxlane_dataplane::{
    attach::express::{ExpressCounters, ExpressError},
    stats::{Counters, PortCounters},
    verdict::DropReason,
};

use super::{Daemon, LaneError, StartError, express::Lane, ports::OpenPort};

/// What passed the workers, and what passed the programs that repeat what they decide.
///
/// A frame is counted where it was decided about. What the programs lose between an interface and
/// a worker, or back, is among the workers'.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes {
    pub(super) worker: Counters,
    pub(super) express: Counters,
}

impl Lanes {
    /// Both as one.
    pub(super) fn together(&self) -> Counters {
        let mut sum = self.worker.clone();
        sum += &self.express;
        sum
    }

    fn add(&mut self, seen: &ExpressCounters) {
        let Self { worker, express } = self;
        // Workers have counted as sent what was for a port that had just gone.
        worker.transmitted = worker.transmitted.saturating_sub(seen.no_exit);
        worker.drops[DropReason::PortGone] += seen.no_exit;
        worker.received += seen.no_tag;
        worker.drops[DropReason::NoTag] += seen.no_tag;
        express.received += seen.carried + seen.no_headers;
        express.transmitted += seen.carried;
        express.drops[DropReason::NoHeaders] += seen.no_headers;
    }
}

impl Daemon {
    /// What all workers, and all programs, have counted.
    ///
    /// # Errors
    /// [`StartError::Gone`] or [`StartError::Lane`]
    pub(super) fn lanes(&self) -> Result<Lanes, StartError> {
        let mut lanes = Lanes::default();
        for worker in self.engine.workers() {
            lanes.worker += &self.engine.ask(worker, |worker| worker.counters().clone())?;
        }
        // Those of lanes that are no more; then what is counted now.
        lanes.add(&self.past);
        let failed = |error: ExpressError| StartError::Lane(Box::new(LaneError::Express(error)));
        let Some(lane) = &self.lane else { return Ok(lanes) };
        lanes.add(&lane.express.counters().map_err(failed)?);
        for port in &self.ports {
            lanes.express.make_room(port.id);
            *lanes.express.port(port.id) = in_lane(lane, port).map_err(failed)?;
        }
        Ok(lanes)
    }

    /// What passed `port` in the express lane since it was attached there.
    pub(super) fn in_lane(&self, port: &OpenPort) -> PortCounters {
        // A map that cannot be read has nothing to tell.
        self.lane.as_ref().and_then(|lane| in_lane(lane, port).ok()).unwrap_or_default()
    }
}

fn in_lane(lane: &Lane, port: &OpenPort) -> Result<PortCounters, ExpressError> {
    if !port.is_in_lane() {
        return Ok(PortCounters::default());
    }
    let counts = lane.express.port_counts(port.id)?;
    Ok(PortCounters {
        rx_packets: counts.rx_packets,
        rx_bytes: counts.rx_bytes,
        tx_packets: counts.tx_packets,
        tx_bytes: counts.tx_bytes,
        ..PortCounters::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_lose_on_the_way_to_or_from_a_worker_is_the_workers_and_both_lanes_add_up() {
        let mut lanes = Lanes::default();
        (lanes.worker.received, lanes.worker.transmitted) = (10, 10);
        let seen = ExpressCounters {
            carried: 100,
            hits: 7,
            no_exit: 2,
            no_tag: 3,
            no_headers: 1,
            ..ExpressCounters::default()
        };
        lanes.add(&seen);
        let both = lanes.together();
        assert_eq!((lanes.worker.imbalance(), lanes.express.imbalance(), both.imbalance()), (0, 0, 0));
        assert_eq!((both.received, both.transmitted, both.drops.total()), (114, 108, 6));
        assert_eq!(both.drops[DropReason::PortGone], 2);
    }
}
