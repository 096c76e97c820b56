//! The flows of the express lane: told, and ended.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use vxlane_dataplane::{
    attach::express::{Encap, ExpressCounters, ExpressError, FlowKey, KIND_TUNNEL, TunnelKey, Way},
    engine::WorkerGone,
    express,
    ids::{NetworkId, PortId},
    wire::MacAddr,
};

use super::{
    Daemon, LaneError, NoSuchNetwork,
    express::{Lane, share},
    ports::OpenPort,
};
use crate::{
    api::types::{
        self,
        express::{Device, ExpressStatus, Flow, Frames, Share},
    },
    config::ExpressChoice,
};

/// Why flows cannot be told or ended.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// Of which network?
    #[error(transparent)]
    NoSuchNetwork(#[from] NoSuchNetwork),
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
    /// The maps cannot be read.
    #[error(transparent)]
    Lane(Box<LaneError>),
}

/// Flows that are told of, at most.
const TOLD: usize = 10_000;
/// Where the addresses of VTEPs are in the outer headers.
const OUTER_DESTINATION: usize = 30;

impl Daemon {
    /// The express lane, with the flows of one network or of all.
    ///
    /// # Errors
    /// [`FlowsError`]
    pub fn express(&self, only: Option<&str>) -> Result<ExpressStatus, FlowsError> {
        let only = self.network_number(only)?;
        let mut flows = self.flows(only)?;
        flows.truncate(TOLD);
        let counters = self.seen_by_programs()?;
        Ok(ExpressStatus {
            choice: self.plan.express,
            open: self.lane.is_some(),
            why: self.lane.is_none().then(|| self.no_lane.to_owned()),
            attached: self.lane.as_ref().map(|lane| lane.express.place().to_owned()),
            devices: self.ports.iter().map(|port| self.device(port)).collect(),
            workers: self.shares()?,
            frames: Frames {
                hits: counters.hits,
                misses: counters.misses,
                confirms: counters.confirms,
                stale: counters.stale,
                passed: counters.passed,
                sent: counters.sent,
                no_exit: counters.no_exit,
                no_tag: counters.no_tag,
                no_headers: counters.no_headers,
            },
            flows,
        })
    }

    /// Has workers decide again about every flow of one network, or of all; says how many flows
    /// there were. No frame takes the way of an old decision when this returns.
    ///
    /// # Errors
    /// [`FlowsError`]
    pub fn flush_flows(&self, only: Option<&str>) -> Result<usize, FlowsError> {
        let only = self.network_number(only)?;
        let flows = self.flows(only)?.len();
        self.end_flows(only);
        Ok(flows)
    }

    /// Has workers decide again about every flow of `only`, or of all networks.
    pub(super) fn end_flows(&self, only: Option<NetworkId>) {
        let Some(lane) = &self.lane else { return };
        let all = self.plan.networks.iter().filter_map(|network| self.ids.network(&network.name));
        let epochs = lane.express.epochs();
        all.filter(|id| only.is_none_or(|only| only == *id)).for_each(|id| epochs.end(id));
        lane.express.settle();
    }

    /// Why flows of `port` do not take the express lane, if they do not.
    pub(super) fn why_no_lane(&self, port: &OpenPort) -> Option<String> {
        if self.lane.is_none() {
            return Some(self.no_lane.to_owned());
        }
        let network = self.network_of(&port.interface);
        let network = network.and_then(|name| self.plan.networks.iter().find(|network| network.name == name));
        match network.filter(|network| network.express == ExpressChoice::Off) {
            Some(network) => Some(format!("express is off for network {}", network.name)),
            None if port.is_in_lane() => None,
            None => Some(self.unfit(&port.interface).to_owned()),
        }
    }

    /// What became of the frames that the programs of the lane that there is saw.
    pub(super) fn seen_by_programs(&self) -> Result<ExpressCounters, FlowsError> {
        self.lane.as_ref().map_or(Ok(ExpressCounters::default()), |lane| lane.express.counters().map_err(failed))
    }

    fn device(&self, port: &OpenPort) -> Device {
        let why = self.why_no_lane(port);
        Device {
            interface: port.interface.clone(),
            network: self.network_of(&port.interface),
            lane: if why.is_none() { types::Lane::Express } else { types::Lane::Worker },
            why,
            attached: self.lane.as_ref().and_then(|lane| lane.express.place_of(port.id)).map(str::to_owned),
        }
    }

    pub(super) fn shares(&self) -> Result<Vec<Share>, WorkerGone> {
        let (reports, limit) = (self.reports()?, share(self.plan.workers) as u64);
        let share = reports.iter().map(|(worker, report)| Share {
            worker: worker.0,
            flows: report.flows.current,
            limit: if self.lane.is_some() { limit } else { 0 },
            placed: report.flows.placed,
            refused: report.flows.refused,
            removed: report.flows.removed,
        });
        Ok(share.collect())
    }

    fn network_number(&self, name: Option<&str>) -> Result<Option<NetworkId>, NoSuchNetwork> {
        name.map(|name| self.ids.network(name).ok_or_else(|| NoSuchNetwork(name.to_owned()))).transpose()
    }

    /// The flows that are good now.
    fn flows(&self, only: Option<NetworkId>) -> Result<Vec<Flow>, FlowsError> {
        let Some(lane) = &self.lane else { return Ok(Vec::new()) };
        let (flows, tunnels) = lane.express.list().map_err(failed)?;
        let names = Names::of(self);
        let now = express::kernel_time();
        let is_good = |way: &Way| is_good(lane, way, now) && only.is_none_or(|only| u32::from(only.0) == way.network);
        let told = flows.iter().filter(|(_, encap)| is_good(&encap.way));
        let mut all: Vec<Flow> = told.map(|(key, encap)| names.of_endpoint(key, encap, now)).collect();
        let told = tunnels.iter().filter(|(_, way)| is_good(way));
        all.extend(told.map(|(key, way)| names.of_tunnel(key, way, now)));
        all.sort_by(|a, b| {
            (&a.network, &a.from, &a.source, &a.destination).cmp(&(&b.network, &b.from, &b.source, &b.destination))
        });
        Ok(all)
    }
}

fn is_good(lane: &Lane, way: &Way, now: u64) -> bool {
    let network = u16::try_from(way.network).map(NetworkId);
    network.is_ok_and(|network| lane.express.epochs().of(network) == way.epoch) && now < way.expires
}

/// What numbers stand for.
struct Names {
    networks: HashMap<u32, String>,
    ports: HashMap<u16, String>,
}

impl Names {
    fn of(daemon: &Daemon) -> Self {
        let networks = daemon.plan.networks.iter().map(|network| network.name.clone());
        let networks = networks.filter_map(|name| Some((daemon.ids.network(&name)?.0.into(), name)));
        let ports = daemon.ports.iter().map(|port| (port.id.0, port.interface.clone()));
        Self { networks: networks.collect(), ports: ports.collect() }
    }

    fn of_endpoint(&self, key: &FlowKey, encap: &Encap, now: u64) -> Flow {
        let [a, b, c, d, rest @ ..] = key.address;
        let is_v4 = rest.iter().all(|&byte| byte == 0);
        let address = if is_v4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(key.address).into() };
        let outer = encap.headers.get(OUTER_DESTINATION..).and_then(|bytes| bytes.first_chunk::<4>());
        let dst_vtep = outer.filter(|_| encap.way.kind == KIND_TUNNEL).map(|&bytes| bytes.into());
        Flow { address: Some(address), dst_vtep, ..self.flow(&encap.way, key.source, key.destination, now) }
    }

    fn of_tunnel(&self, key: &TunnelKey, way: &Way, now: u64) -> Flow {
        Flow { src_vtep: Some(key.vtep.into()), ..self.flow(way, key.source, key.destination, now) }
    }

    fn flow(&self, way: &Way, source: [u8; 6], destination: [u8; 6], now: u64) -> Flow {
        let port = |tag: u16| self.ports.get(&PortId(tag).0).cloned().unwrap_or_default();
        Flow {
            network: self.networks.get(&way.network).cloned().unwrap_or_default(),
            from: port(way.from),
            src_vtep: None,
            source: MacAddr(source).to_string(),
            address: None::<IpAddr>,
            destination: MacAddr(destination).to_string(),
            to: port(way.to),
            dst_vtep: None,
            worker: way.worker,
            expires: seconds(way.expires, now),
            ages: seconds(way.ages, now),
        }
    }
}

/// From `now` to `then`, in whole seconds.
fn seconds(then: u64, now: u64) -> u64 {
    then.saturating_sub(now) / 1_000_000_000
}

fn failed(error: ExpressError) -> FlowsError {
    FlowsError::Lane(Box::new(error.into()))
}
