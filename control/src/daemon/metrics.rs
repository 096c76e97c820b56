//! What Prometheus is told: by worker, by port, by network; nothing by address or container.

use std::fmt::Display;

use vxlane_dataplane::{
    attach::Role,
    engine::WorkerGone,
    ids::PortId,
    stats::{Counters, PortCounters},
    verdict::DropReason,
};

use super::{Daemon, FdbError, FlowsError, StartError, ports::OpenPort};
use crate::{
    api::types::{LaneStats, PeerState, StationState, Stats},
    desired::Plan,
    metrics::Family,
};

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Counters cannot be read.
    #[error(transparent)]
    Stats(#[from] StartError),
    /// Stations cannot be read.
    #[error(transparent)]
    Stations(#[from] FdbError),
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
    /// The maps of the express lane cannot be read.
    #[error(transparent)]
    Flows(#[from] FlowsError),
}

/// The counters that a port and a network have, by name.
type Direction = (&'static str, &'static str, fn(&PortCounters) -> u64);

const PORT: [Direction; 6] = [
    ("port_received_frames", "Frames that came in", |port| port.rx_packets),
    ("port_received_bytes", "Bytes that came in", |port| port.rx_bytes),
    ("port_received_drops", "Frames that came in here and ended", |port| port.rx_drops),
    ("port_transmitted_frames", "Frames that left", |port| port.tx_packets),
    ("port_transmitted_bytes", "Bytes that left", |port| port.tx_bytes),
    ("port_transmitted_drops", "Frames that could not leave here", |port| port.tx_drops),
];
const NETWORK: [Direction; 6] = [
    ("network_received_frames", "Frames from endpoints of this host, also former ones", |port| port.rx_packets),
    ("network_received_bytes", "Bytes from endpoints of this host, also former ones", |port| port.rx_bytes),
    ("network_received_drops", "Frames from endpoints of this host that ended", |port| port.rx_drops),
    ("network_transmitted_frames", "Frames to endpoints of this host, also former ones", |port| port.tx_packets),
    ("network_transmitted_bytes", "Bytes to endpoints of this host, also former ones", |port| port.tx_bytes),
    ("network_transmitted_drops", "Frames to endpoints of this host that could not leave", |port| port.tx_drops),
];

impl Daemon {
    /// Everything there is to count.
    ///
    /// # Errors
    /// [`MetricsError`]
    pub fn metrics(&self) -> Result<Vec<Family>, MetricsError> {
        let (stats, lanes) = (self.stats()?, self.lanes()?);
        let mut all = self.general();
        all.extend(self.of_workers()?);
        all.extend(self.of_lanes(&stats)?);
        let total = lanes.together();
        let drops = Family::counter("drops", "Frames that ended here, by reason");
        all.push(
            DropReason::ALL
                .iter()
                .fold(drops, |family, &reason| family.with(&[("reason", &reason.name())], number(total.drops[reason]))),
        );
        all.extend(self.of_ports(&total));
        all.extend(self.of_networks(&total)?);
        all.extend(self.of_nat()?);
        all.extend(of_the_kernel(&stats));
        all.extend(self.of_frames()?);
        Ok(all)
    }

    fn general(&self) -> Vec<Family> {
        let version = [("version", &env!("CARGO_PKG_VERSION") as &dyn Display)];
        let peers = self.peers();
        let count = |state| peers.iter().filter(|peer| peer.state == state).count();
        let by_state = Family::gauge("peers", "Remote VTEPs, by whether frames to them can leave")
            .with(&[("state", &"resolved")], size(count(PeerState::Resolved)))
            .with(&[("state", &"unresolved")], size(count(PeerState::Unresolved)))
            .with(&[("state", &"unreachable")], size(count(PeerState::Unreachable)));
        let uptime = self.started.elapsed().as_secs_f64();
        vec![
            Family::gauge("build_info", "Always 1; the label says what is running").with(&version, 1.0),
            Family::gauge("uptime_seconds", "Since forwarding began").with(&[], uptime),
            Family::gauge("networks", "Networks of this host").with(&[], size(self.plan.networks.len())),
            by_state,
        ]
    }

    fn of_workers(&self) -> Result<Vec<Family>, WorkerGone> {
        let mut received = Family::counter("worker_received_frames", "Frames taken from ports");
        let mut transmitted = Family::counter("worker_transmitted_frames", "Frames put into ports");
        let mut copies = Family::counter("worker_copied_frames", "Copies by flooding, and fragments but the first");
        let mut cut = Family::counter("worker_fragmented_frames", "Packets that left in fragments");
        let mut replies = Family::counter("worker_reply_frames", "Frames of our own");
        let mut given = Family::counter("worker_handed_over_frames", "Frames given to another worker");
        let mut taken = Family::counter("worker_taken_over_frames", "Frames taken over from other workers");
        let mut dropped = Family::counter("worker_dropped_frames", "Frames that ended here");
        let mut stations = Family::gauge("worker_stations", "Stations in the MAC table");
        let mut beats = Family::counter("worker_heartbeats", "Ten a second while the worker makes progress");
        let pulse = self.pulse().beats();
        for (worker, report) in self.reports()? {
            let Counters { received: rx, transmitted: tx, .. } = report.counters;
            let label: [(&str, &dyn Display); 1] = [("worker", &worker.0)];
            received = received.with(&label, number(rx));
            transmitted = transmitted.with(&label, number(tx));
            copies = copies.with(&label, number(report.counters.copies));
            cut = cut.with(&label, number(report.counters.fragmented));
            replies = replies.with(&label, number(report.counters.replies));
            given = given.with(&label, number(report.counters.handed_over));
            taken = taken.with(&label, number(report.counters.taken_over));
            dropped = dropped.with(&label, number(report.counters.drops.total()));
            stations = stations.with(&label, size(report.stations));
            beats = beats.with(&label, number(pulse.get(worker.index()).copied().unwrap_or(0)));
        }
        Ok(vec![received, transmitted, copies, cut, replies, given, taken, dropped, stations, beats])
    }

    fn of_lanes(&self, stats: &Stats) -> Result<Vec<Family>, MetricsError> {
        let mut received = Family::counter("lane_received_frames", "Frames that came in, by the lane they took");
        let mut transmitted = Family::counter("lane_transmitted_frames", "Frames that left, by the lane they took");
        for LaneStats { lane, received: rx, transmitted: tx, .. } in &stats.lanes {
            received = received.with(&[("lane", lane)], number(*rx));
            transmitted = transmitted.with(&[("lane", lane)], number(*tx));
        }
        let mut flows = Family::gauge("express_flows", "Flows in the maps of the express lane");
        let mut limit = Family::gauge("express_flow_limit", "Flows that there may be");
        let mut placed = Family::counter("express_placed_flows", "Flows put into the maps, also again");
        let mut refused = Family::counter("express_refused_flows", "Flows left to workers for want of room");
        for share in self.shares()? {
            let label: [(&str, &dyn Display); 1] = [("worker", &share.worker)];
            flows = flows.with(&label, number(share.flows));
            limit = limit.with(&label, number(share.limit));
            placed = placed.with(&label, number(share.placed));
            refused = refused.with(&label, number(share.refused));
        }
        let seen = self.seen_by_programs()?;
        let events =
            Family::counter("express_frames", "Frames that the express lane's programs saw, by what became of them")
                .with(&[("event", &"hit")], number(seen.hits))
                .with(&[("event", &"miss")], number(seen.misses))
                .with(&[("event", &"confirm")], number(seen.confirms))
                .with(&[("event", &"stale")], number(seen.stale))
                .with(&[("event", &"passed")], number(seen.passed))
                .with(&[("event", &"sent")], number(seen.sent));
        Ok(vec![received, transmitted, flows, limit, placed, refused, events])
    }

    fn of_ports(&self, total: &Counters) -> Vec<Family> {
        let families = PORT.iter().map(|&(name, help, value)| {
            self.ports.iter().fold(Family::counter(name, help), |family, port| {
                let network = self.network_of(&port.interface).unwrap_or_default();
                let labels: [(&str, &dyn Display); 2] = [("interface", &port.interface), ("network", &network)];
                family.with(&labels, number(value(&of_port(total, port.id))))
            })
        });
        families.collect()
    }

    fn of_networks(&self, total: &Counters) -> Result<Vec<Family>, FdbError> {
        let by_network = |network: &str| {
            let mut sum = self.retired.get(network).copied().unwrap_or_default();
            let ports = self.ports.iter().filter(|port| self.network_of(&port.interface).as_deref() == Some(network));
            ports.for_each(|port| add(&mut sum, &of_port(total, port.id)));
            sum
        };
        let sums: Vec<_> = self.plan.networks.iter().map(|network| (network, by_network(&network.name))).collect();
        let counted = NETWORK.iter().map(|&(name, help, value)| {
            sums.iter().fold(Family::counter(name, help), |family, (network, sum)| {
                family.with(&[("network", &network.name)], number(value(sum)))
            })
        });
        let mut all: Vec<Family> = counted.collect();
        let stations = self.stations(None)?;
        let mut endpoints = Family::gauge("network_endpoints", "Endpoints on this host");
        let mut peers = Family::gauge("network_peers", "VTEPs that take part");
        let mut entries = Family::gauge("fdb_entries", "Stations that are known");
        let mut limit = Family::gauge("fdb_limit", "Stations that may be learned");
        for (network, _) in &sums {
            let name = &network.name;
            let here = self.plan.endpoints.iter().filter(|endpoint| endpoint.network == *name).count();
            let known = |state| stations.iter().filter(|one| one.network == *name && one.state == state).count();
            endpoints = endpoints.with(&[("network", name)], size(here));
            peers = peers.with(&[("network", name)], size(network.peers.len()));
            limit = limit.with(&[("network", name)], network.mac_limit.into());
            entries = entries.with(&[("network", name), ("type", &"learned")], size(known(StationState::Learned)));
            entries = entries.with(&[("network", name), ("type", &"static")], size(known(StationState::Static)));
        }
        all.extend([endpoints, peers, entries, limit]);
        Ok(all)
    }

    fn of_frames(&self) -> Result<Vec<Family>, WorkerGone> {
        let mut family = Family::gauge("umem_frames", "Frames of a port, by where they are");
        for frames in self.status()?.frames {
            let queue = frames.queue.map(|queue| queue.to_string()).unwrap_or_default();
            for (state, count) in [("kernel", frames.kernel), ("ours", frames.ours)] {
                let labels: [(&str, &dyn Display); 5] = [
                    ("interface", &frames.interface),
                    ("queue", &queue),
                    ("worker", &frames.worker),
                    ("half", &frames.half),
                    ("state", &state),
                ];
                family = family.with(&labels, size(count));
            }
        }
        Ok(vec![family])
    }

    /// Keeps what `gone` have counted with the networks that they had in `plan`, so that the
    /// sums of a network never shrink. The ports are closed, and their numbers not given again.
    pub(super) fn retire(&mut self, gone: &[OpenPort], plan: &Plan) {
        for worker in self.engine.workers().filter(|_| !gone.is_empty()) {
            // Without the worker there is nothing to keep, nor a daemon for much longer.
            let Ok(counters) = self.engine.ask(worker, |worker| worker.counters().clone()) else { continue };
            for port in gone.iter().filter(|port| port.role == Role::Access) {
                if let Some(network) = plan.network_of(&port.interface) {
                    add(self.retired.entry(network.to_owned()).or_default(), &of_port(&counters, port.id));
                }
            }
        }
        for port in gone.iter().filter(|port| port.role == Role::Access) {
            let counted = self.in_lane(port);
            if let Some(endpoint) = plan.endpoints.iter().find(|endpoint| endpoint.interface == port.interface) {
                add(self.retired.entry(endpoint.network.clone()).or_default(), &counted);
            }
        }
        let stays = |name: &String| self.plan.networks.iter().any(|network| network.name == *name);
        self.retired.retain(|name, _| stays(name));
    }
}

/// What the kernel lost before us, and what the program left to the host.
fn of_the_kernel(stats: &Stats) -> Vec<Family> {
    let mut dropped = Family::counter("xsk_rx_dropped", "Too long for a frame, or otherwise not to be delivered");
    let mut full = Family::counter("xsk_rx_ring_full", "The receive ring was full");
    let mut empty = Family::counter("xsk_rx_fill_ring_empty", "There was no frame to receive into");
    let mut invalid = Family::counter("xsk_tx_invalid", "Transmit descriptors that the kernel refused");
    for queue in &stats.kernel {
        let label: [(&str, &dyn Display); 2] = [("interface", &queue.interface), ("queue", &queue.queue)];
        dropped = dropped.with(&label, number(queue.rx_dropped));
        full = full.with(&label, number(queue.rx_ring_full));
        empty = empty.with(&label, number(queue.rx_fill_ring_empty));
        invalid = invalid.with(&label, number(queue.tx_invalid));
    }
    let steer = &stats.steer;
    let redirected = Family::counter("steer_redirected_frames", "Frames that the program handed to a worker")
        .with(&[], number(steer.redirected));
    let passed = Family::counter("steer_passed_frames", "Frames that the program left to the host, by reason")
        .with(&[("reason", &"not_vxlan")], number(steer.not_vxlan))
        .with(&[("reason", &"no_socket")], number(steer.no_socket))
        .with(&[("reason", &"fragment")], number(steer.fragment))
        .with(&[("reason", &"unknown_port")], number(steer.unknown_port));
    let unserved = Family::counter("steer_dropped_frames", "Frames of the express lane that no socket was there for")
        .with(&[], number(steer.no_worker));
    vec![dropped, full, empty, invalid, redirected, passed, unserved]
}

fn of_port(counters: &Counters, port: PortId) -> PortCounters {
    counters.ports.get(port.index()).copied().unwrap_or_default()
}

fn add(sum: &mut PortCounters, more: &PortCounters) {
    sum.rx_packets += more.rx_packets;
    sum.rx_bytes += more.rx_bytes;
    sum.tx_packets += more.tx_packets;
    sum.tx_bytes += more.tx_bytes;
    sum.rx_drops += more.rx_drops;
    sum.tx_drops += more.tx_drops;
}

/// Prometheus knows floating point only; it is exact up to 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "what counts beyond that is not noticed")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

pub(super) fn size(count: usize) -> f64 {
    number(count as u64)
}
