//! The flows of the express lane: told, and ended.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use vxlane_dataplane::{
    attach::express::{
        Encap, Epochs, ExpressCounters, ExpressError, FlowKey, KIND_TUNNEL, KIND_TUNNEL_V6, Rewrite, SessionKey,
        TunnelKey, Way,
    },
    engine::WorkerGone,
    express,
    ids::NetworkId,
    nat::Protocol,
    wire::{MacAddr, Version},
};

use super::{Daemon, LaneError, NoSuchNetwork, express::share, ports::OpenPort};
use crate::{
    api::types::{
        self,
        express::{Device, ExpressFlushed, ExpressSession, ExpressStatus, Flow, Frames, Share},
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

/// Flows that are told of, at most, and sessions.
const TOLD: usize = 10_000;
/// Where the destination is in the outer headers, over IPv4 and over IPv6.
const OUTER_DESTINATION: usize = 14 + 16;
const OUTER_DESTINATION_V6: usize = 14 + 24;

impl Daemon {
    /// The express lane, with the flows and sessions of one network or of all.
    ///
    /// # Errors
    /// [`FlowsError`]
    pub fn express(&self, only: Option<&str>) -> Result<ExpressStatus, FlowsError> {
        let only = self.only(only)?;
        let Good { mut flows, mut sessions } = self.good(only)?;
        flows.truncate(TOLD);
        sessions.truncate(TOLD);
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
            sessions,
        })
    }

    /// Has workers decide again about every flow and session of one network, or of all; says how
    /// many there were. No frame takes the way of an old decision when this returns.
    ///
    /// # Errors
    /// [`FlowsError`]
    pub fn flush_flows(&self, only: Option<&str>) -> Result<ExpressFlushed, FlowsError> {
        let only = self.only(only)?;
        let good = self.good(only)?;
        self.end_flows(only);
        Ok(ExpressFlushed { flows: good.flows.len(), sessions: good.sessions.len() })
    }

    /// Has workers decide again about every flow and session of `only`, or of all networks.
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

    /// What is good now of one network or of all.
    fn good(&self, only: Option<NetworkId>) -> Result<Good, FlowsError> {
        let Some(lane) = &self.lane else { return Ok(Good::default()) };
        let listed = lane.express.list().map_err(failed)?;
        let (names, now) = (Names::of(self), express::kernel_time());
        let is_good = |way: &Way, epoch: fn(&Epochs, NetworkId) -> u32| {
            let network = u16::try_from(way.network).map(NetworkId);
            let network = network.ok().filter(|&network| only.is_none_or(|only| only == network));
            network.is_some_and(|network| epoch(&lane.express.epochs(), network) == way.epoch) && now < way.expires
        };
        let told = listed.flows.iter().filter(|(_, encap)| is_good(&encap.way, Epochs::of));
        let mut flows: Vec<Flow> = told.map(|(key, encap)| names.of_endpoint(key, encap, now)).collect();
        let told = listed.tunnels.iter().filter(|(_, way)| is_good(way, Epochs::of));
        flows.extend(told.map(|(key, way)| names.of_tunnel(key, way, now)));
        flows.sort_by(|a, b| {
            (&a.network, &a.from, &a.source, &a.destination).cmp(&(&b.network, &b.from, &b.source, &b.destination))
        });
        let told = listed.sessions.iter().filter(|(_, rewrite)| is_good(&rewrite.way, Epochs::of_sessions));
        let mut sessions: Vec<ExpressSession> =
            told.map(|(key, rewrite)| names.of_session(key, rewrite, now)).collect();
        sessions.sort_by(|a, b| {
            (&a.network, &a.from, a.source, a.destination).cmp(&(&b.network, &b.from, b.source, b.destination))
        });
        Ok(Good { flows, sessions })
    }
}

/// What programs repeat.
#[derive(Default)]
struct Good {
    flows: Vec<Flow>,
    sessions: Vec<ExpressSession>,
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
        Flow {
            address: Some(address),
            dst_vtep: destination(encap),
            ..self.flow(&encap.way, key.source, key.destination, now)
        }
    }

    fn of_tunnel(&self, key: &TunnelKey, way: &Way, now: u64) -> Flow {
        Flow { src_vtep: Some(canonical(key.vtep)), ..self.flow(way, key.source, key.destination, now) }
    }

    fn of_session(&self, key: &SessionKey, rewrite: &Rewrite, now: u64) -> ExpressSession {
        let end = |address: [u8; 16], port| SocketAddr::new(canonical(address), u16::from_be_bytes(port));
        let (way, became) = (&rewrite.way, Some(end(rewrite.address, rewrite.port)));
        // Of TCP and UDP, whose numbers are the same in both versions.
        let protocol = u8::try_from(key.protocol).ok().and_then(|number| Protocol::from_number(Version::V4, number));
        // Of what comes from outside the stations are no part of the key.
        let leaves = key.source != [0; 6];
        ExpressSession {
            network: self.network(way),
            protocol: protocol.map_or_else(String::new, |protocol| protocol.name().to_owned()),
            from: self.port(way.from),
            source: end(key.addresses[0], key.ports[0]),
            destination: end(key.addresses[1], key.ports[1]),
            to: self.port(way.to),
            new_source: became.filter(|_| leaves),
            new_destination: became.filter(|_| !leaves),
            worker: way.worker,
            expires: seconds(way.expires, now),
            ages: seconds(way.ages, now),
        }
    }

    fn network(&self, way: &Way) -> String {
        self.networks.get(&way.network).cloned().unwrap_or_default()
    }

    fn port(&self, tag: u16) -> String {
        self.ports.get(&tag).cloned().unwrap_or_default()
    }

    fn flow(&self, way: &Way, source: [u8; 6], destination: [u8; 6], now: u64) -> Flow {
        Flow {
            network: self.network(way),
            from: self.port(way.from),
            src_vtep: None,
            source: MacAddr(source).to_string(),
            address: None::<IpAddr>,
            destination: MacAddr(destination).to_string(),
            to: self.port(way.to),
            dst_vtep: None,
            worker: way.worker,
            expires: seconds(way.expires, now),
            ages: seconds(way.ages, now),
        }
    }
}

/// An address of either internet protocol.
fn canonical(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}

/// The VTEP that frames are encapsulated for, if they are.
fn destination(encap: &Encap) -> Option<IpAddr> {
    match encap.way.kind {
        KIND_TUNNEL => Some(IpAddr::from(*encap.headers.get(OUTER_DESTINATION..)?.first_chunk::<4>()?)),
        KIND_TUNNEL_V6 => Some(IpAddr::from(*encap.headers.get(OUTER_DESTINATION_V6..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// From `now` to `then`, in whole seconds.
fn seconds(then: u64, now: u64) -> u64 {
    then.saturating_sub(now) / 1_000_000_000
}

fn failed(error: ExpressError) -> FlowsError {
    FlowsError::Lane(Box::new(error.into()))
}
