//! What the daemon tells of itself, in the words of the API.

use std::collections::BTreeMap;

use vxlane_dataplane::{
    attach,
    engine::WorkerGone,
    ids::{PortId, QueueId, WorkerId},
    port::Census,
    stats::Counters,
    worker::Report,
};

use super::{Daemon, StartError, lanes::Lanes, ports::OpenPort};
use crate::{
    api::types::{
        self, Endpoint, EndpointState, Frames, KernelStats, Lane, LaneStats, Network, Peer, PeerState, Port, PortStats,
        Role, Stats, Status, SteerStats, Underlay, Worker,
    },
    desired::{HostPort, Owner, PlannedEndpoint, PlannedNetwork},
    netlink::NextHop,
};

/// There is no network of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such network: {0}")]
pub struct NoSuchNetwork(pub String);

/// There is no endpoint of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such endpoint: {network}/{name}")]
pub struct NoSuchEndpoint {
    /// On this network.
    pub network: String,
    /// Of this name.
    pub name: String,
}

impl Daemon {
    /// Everything at a glance.
    ///
    /// # Errors
    /// [`WorkerGone`]
    pub fn status(&self) -> Result<Status, WorkerGone> {
        let reports = self.reports()?;
        let worker = |(id, report): &(WorkerId, Report)| Worker {
            id: id.0,
            cpu: self.plan.cpus.get(id.index()).copied(),
            stations: report.stations,
        };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            underlay: Underlay {
                interface: self.plan.uplink.clone(),
                address: self.plan.local.v4,
                address_v6: self.plan.local.v6,
                port: self.plan.local.port,
                mtu: self.uplink.mtu,
            },
            express: if self.lane.is_some() { "on".to_owned() } else { format!("off: {}", self.no_lane) },
            workers: reports.iter().map(worker).collect(),
            ports: self.ports.iter().map(|port| self.port(port)).collect(),
            frames: reports.iter().flat_map(|(worker, report)| self.frames(*worker, report)).collect(),
            peers: self.peers(),
        })
    }

    /// Every network.
    pub fn networks(&self) -> Vec<Network> {
        self.plan.networks.iter().map(|network| self.network(network)).collect()
    }

    /// The network called `name`.
    ///
    /// # Errors
    /// [`NoSuchNetwork`]
    pub fn network_called(&self, name: &str) -> Result<Network, NoSuchNetwork> {
        let network = self.plan.networks.iter().find(|network| network.name == name);
        network.map(|network| self.network(network)).ok_or_else(|| NoSuchNetwork(name.to_owned()))
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.plan.endpoints.iter().map(|endpoint| self.endpoint(endpoint)).collect()
    }

    /// The endpoint of `network` called `name`.
    ///
    /// # Errors
    /// [`NoSuchEndpoint`]
    pub fn endpoint_called(&self, network: &str, name: &str) -> Result<Endpoint, NoSuchEndpoint> {
        let named = |endpoint: &&PlannedEndpoint| endpoint.network == network && endpoint.name == name;
        let missing = || NoSuchEndpoint { network: network.to_owned(), name: name.to_owned() };
        self.plan.endpoints.iter().find(named).map(|endpoint| self.endpoint(endpoint)).ok_or_else(missing)
    }

    fn endpoint(&self, endpoint: &PlannedEndpoint) -> Endpoint {
        let PlannedEndpoint { network, name, interface, address, address6, mac, veth, publish, .. } = endpoint;
        let port = self.ports.iter().find(|port| port.interface == *interface);
        let planned = self.plan.networks.iter().find(|planned| planned.name == *network);
        let owner = self.desired.endpoint(network, name).map_or(Owner::Api, |endpoint| endpoint.owner);
        Endpoint {
            name: name.clone(),
            network: network.clone(),
            vni: planned.map_or(0, |network| network.vni.get()),
            interface: interface.clone(),
            state: if port.is_some() { EndpointState::Attached } else { EndpointState::Absent },
            address: *address,
            address6: *address6,
            mac: mac.map(|mac| mac.to_string()),
            netns: veth.as_ref().map(|veth| veth.netns.display().to_string()),
            publish: publish.clone(),
            gateway_priority: endpoint.gateway_priority,
            ifname: veth.as_ref().map(|veth| veth.ifname.clone()),
            owner: owner_told(owner),
            xdp: port.map(|port| port.mode.to_string()),
            lane: port.map(|port| if self.why_no_lane(port).is_none() { Lane::Express } else { Lane::Worker }),
            zero_copy: port.is_some_and(|port| port.zero_copy),
            ring: port.map_or(0, |port| port.ring),
        }
    }

    /// Every remote VTEP.
    pub fn peers(&self) -> Vec<Peer> {
        let mut networks: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for network in &self.plan.networks {
            for &peer in &network.peers {
                networks.entry(peer).or_default().push(network.name.clone());
            }
        }
        let peer = |(address, networks)| {
            let next_hop = self.next_hops.get(&address).copied().unwrap_or(NextHop::Unreachable);
            let (via, mac, state) = match next_hop {
                NextHop::Unreachable => (None, None, PeerState::Unreachable),
                NextHop::Via { neighbour, mac: None, .. } => (Some(neighbour), None, PeerState::Unresolved),
                NextHop::Via { neighbour, mac, .. } => (Some(neighbour), mac, PeerState::Resolved),
            };
            Peer { address, networks, via, mac: mac.map(|mac| mac.to_string()), state }
        };
        networks.into_iter().map(peer).collect()
    }

    /// Counters of all workers, and of both lanes, together and apart.
    ///
    /// # Errors
    /// [`StartError::Gone`], [`StartError::Lane`] or [`StartError::Steer`]
    pub fn stats(&self) -> Result<Stats, StartError> {
        let (lanes, reports) = (self.lanes()?, self.reports()?);
        let Lanes { worker, express } = &lanes;
        let total = self.counted("", &lanes.together());
        Ok(Stats {
            received: total.received,
            transmitted: total.transmitted,
            copies: total.copies,
            fragmented: total.fragmented,
            replies: total.replies,
            dropped: total.dropped,
            imbalance: total.imbalance,
            drops: total.drops,
            ports: total.ports,
            lanes: vec![self.counted(Lane::Worker.name(), worker), self.counted(Lane::Express.name(), express)],
            kernel: reports.iter().flat_map(|(worker, report)| self.kernel(*worker, report)).collect(),
            steer: steer_stats(self.steer.counters()?),
        })
    }

    fn counted(&self, lane: &str, counters: &Counters) -> LaneStats {
        LaneStats {
            lane: lane.to_owned(),
            received: counters.received,
            transmitted: counters.transmitted,
            copies: counters.copies,
            fragmented: counters.fragmented,
            replies: counters.replies,
            dropped: counters.drops.total(),
            imbalance: i64::try_from(counters.imbalance()).unwrap_or(i64::MAX),
            drops: counters.drops.nonzero().map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            ports: self.ports.iter().map(|port| port_stats(port, counters)).collect(),
        }
    }

    pub(super) fn reports(&self) -> Result<Vec<(WorkerId, Report)>, WorkerGone> {
        self.engine.workers().map(|id| Ok((id, self.engine.ask(id, |worker| worker.report())?))).collect()
    }

    /// The interface of a port, or that with the rings of the express lane.
    pub(super) fn interface(&self, port: PortId) -> Option<String> {
        let ring = self.lane.as_ref().map(|lane| &lane.ring);
        self.ports.iter().chain(ring).find(|open| open.id == port).map(|open| open.interface.clone())
    }

    pub(super) fn network_of(&self, interface: &str) -> Option<String> {
        self.plan.network_of(interface).map(str::to_owned)
    }

    fn network(&self, network: &PlannedNetwork) -> Network {
        let endpoints = self.plan.endpoints.iter().filter(|endpoint| endpoint.network == network.name);
        let owner = self.desired.network(&network.name).map_or(Owner::Api, |network| network.owner);
        Network {
            name: network.name.clone(),
            vni: network.vni.get(),
            subnet: network.subnet,
            gateway: network.gateway,
            subnet6: network.subnet6,
            gateway6: network.gateway6,
            internal: network.internal,
            host: network.host.as_ref().map(|port| self.host_port(port)),
            nat: network.nat,
            nat6: network.nat6,
            mtu: network.mtu,
            ageing: network.ageing,
            mac_limit: network.mac_limit,
            flood_limit: network.flood_limit,
            isolation: network.isolation,
            suppression: network.suppression,
            express: network.express,
            owner: owner_told(owner),
            peers: network.peers.clone(),
            routes: network.routes.clone(),
            endpoints: endpoints.map(|endpoint| endpoint.name.clone()).collect(),
        }
    }

    fn host_port(&self, port: &HostPort) -> types::HostPort {
        let state = if self.is_open(&port.interface) { EndpointState::Attached } else { EndpointState::Absent };
        let reason = self.complaints.get(&port.interface).cloned();
        types::HostPort { name: port.name.clone(), interface: port.interface.clone(), state, reason }
    }

    fn port(&self, port: &OpenPort) -> Port {
        let why = self.why_no_lane(port);
        Port {
            interface: port.interface.clone(),
            role: match port.role {
                attach::Role::Uplink => Role::Uplink,
                attach::Role::Access if self.plan.is_host_port(&port.interface) => Role::Host,
                attach::Role::Access | attach::Role::Lane => Role::Access,
            },
            network: self.network_of(&port.interface),
            lane: if why.is_none() { Lane::Express } else { Lane::Worker },
            why,
            xdp: port.mode.to_string(),
            zero_copy: port.zero_copy,
            queues: port.workers.iter().map(|worker| worker.0).collect(),
        }
    }

    fn frames(&self, worker: WorkerId, report: &Report) -> Vec<Frames> {
        let frames = |port: PortId, queue: Option<QueueId>, half: &str, census: Census| Frames {
            interface: self.interface(port).unwrap_or_default(),
            queue: queue.map(|queue| queue.0),
            half: half.to_owned(),
            worker: worker.0,
            total: census.total,
            kernel: census.kernel,
            ours: census.ours,
        };
        let receive = report.queues.iter().map(|queue| frames(queue.port, Some(queue.queue), "receive", queue.receive));
        let transmit = report.transmit.iter().map(|&(port, census)| frames(port, None, "transmit", census));
        receive.chain(transmit).collect()
    }

    fn kernel(&self, worker: WorkerId, report: &Report) -> Vec<KernelStats> {
        let queues = report.queues.iter().map(|queue| KernelStats {
            interface: self.interface(queue.port).unwrap_or_default(),
            queue: queue.queue.0,
            worker: worker.0,
            rx_dropped: queue.kernel.rx_dropped,
            rx_ring_full: queue.kernel.rx_ring_full,
            rx_fill_ring_empty: queue.kernel.rx_fill_ring_empty,
            tx_invalid: queue.kernel.tx_invalid,
        });
        queues.collect()
    }
}

fn owner_told(owner: Owner) -> types::Owner {
    match owner {
        Owner::File => types::Owner::File,
        Owner::Api => types::Owner::Api,
    }
}

fn port_stats(port: &OpenPort, total: &Counters) -> PortStats {
    let counters = total.ports.get(port.id.index()).copied().unwrap_or_default();
    PortStats {
        interface: port.interface.clone(),
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        rx_drops: counters.rx_drops,
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        tx_drops: counters.tx_drops,
    }
}

fn steer_stats(counters: attach::SteerCounters) -> SteerStats {
    SteerStats {
        redirected: counters.redirected,
        passed: counters.passed(),
        no_socket: counters.no_socket,
        not_vxlan: counters.not_vxlan,
        fragment: counters.fragment,
        unknown_port: counters.unknown_port,
        no_worker: counters.no_worker,
    }
}
