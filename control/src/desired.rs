//! What is asked for: networks and endpoints, and whether this host can have them.
//!
//! Everything that asks (the configuration file now, API requests later) ends up as a
//! [`Desired`]. [`Desired::validate`] finds every problem at once, each with field, value and
//! reason, or returns a [`Plan`], in which nothing can be wrong any more.

mod checks;

use std::{collections::HashMap, fmt, net::Ipv4Addr};

use vxlane_dataplane::wire::Vni;

use crate::config::{Dataplane, Endpoint, Network, Underlay, XdpChoice};

/// Networks and endpoints as asked for.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Our end of the tunnels.
    pub underlay: Underlay,
    /// The workers.
    pub dataplane: Dataplane,
    /// Overlay networks.
    pub networks: Vec<Network>,
    /// Attachments to them.
    pub endpoints: Vec<Endpoint>,
}

/// What a request is held against: this host, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// CPUs that this process may run on.
    pub cpus: Vec<usize>,
    /// The first global IPv4 address of the uplink.
    pub address: Option<Ipv4Addr>,
    /// Interfaces, by name.
    pub links: HashMap<String, Device>,
}

/// What matters of an interface before we touch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Longest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether frames on it have Ethernet headers.
    pub is_ethernet: bool,
    /// The XDP program it carries, in words.
    pub xdp: Option<String>,
}

/// One thing that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was asked for, as a path into the file or request: `network[1].vni`.
    pub field: String,
    /// What was asked for.
    pub value: String,
    /// Why not.
    pub reason: String,
}

impl Problem {
    /// A problem with `field`, which is `value`.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} = {}: {}", self.field, self.value, self.reason)
    }
}

/// What will be done: all defaults filled in, all names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The uplink device.
    pub uplink: String,
    /// Where its XDP program runs.
    pub uplink_xdp: XdpChoice,
    /// Local VTEP address.
    pub address: Ipv4Addr,
    /// UDP port.
    pub port: u16,
    /// Worker threads.
    pub workers: usize,
    /// The CPU of each, as far as given.
    pub cpus: Vec<usize>,
    /// Stations that each worker's MAC table has room for.
    pub stations: usize,
    /// Frames of each ring.
    pub ring: u32,
    /// Overlay networks.
    pub networks: Vec<PlannedNetwork>,
    /// Attachments to them.
    pub endpoints: Vec<PlannedEndpoint>,
}

/// An overlay network that can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNetwork {
    /// What people call it.
    pub name: String,
    /// What the wire calls it.
    pub vni: Vni,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Seconds after which a silent station is forgotten.
    pub ageing: u32,
    /// How many stations may be learned.
    pub mac_limit: u32,
    /// VTEPs to flood to and to learn from.
    pub peers: Vec<Ipv4Addr>,
}

/// An attachment that can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedEndpoint {
    /// Its network.
    pub network: String,
    /// The device.
    pub interface: String,
    /// Where its XDP program runs.
    pub xdp: XdpChoice,
}

impl Desired {
    /// Every interface that is asked for: the uplink first.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint.interface.as_str());
        std::iter::once(self.underlay.interface.as_str()).chain(endpoints)
    }

    /// What will be done on `host`.
    ///
    /// # Errors
    /// Every problem there is, in the order of the request.
    pub fn validate(&self, host: &Host) -> Result<Plan, Vec<Problem>> {
        let problems = checks::problems(self, host);
        if problems.is_empty() { self.plan(host).map_err(|problem| vec![problem]) } else { Err(problems) }
    }

    /// Fills in defaults. The checks have passed; what they leave open is an error here too.
    fn plan(&self, host: &Host) -> Result<Plan, Problem> {
        let networks = (0..).zip(&self.networks).map(|(index, network)| self.plan_network(index, network, host));
        let address = self.address(host).ok_or_else(|| checks::no_address(self))?;
        Ok(Plan {
            uplink: self.underlay.interface.clone(),
            uplink_xdp: self.underlay.xdp,
            address,
            port: self.underlay.port,
            workers: self.workers(host),
            cpus: self.dataplane.cpus.clone(),
            stations: self.dataplane.stations,
            ring: self.dataplane.ring,
            networks: networks.collect::<Result<_, _>>()?,
            endpoints: self.endpoints.iter().map(PlannedEndpoint::from).collect(),
        })
    }

    fn plan_network(&self, index: usize, network: &Network, host: &Host) -> Result<PlannedNetwork, Problem> {
        let field = |key| format!("network[{index}].{key}");
        let vni = Vni::new(network.vni).map_err(|_| Problem::new(field("vni"), network.vni, checks::VNI_RANGE))?;
        let mtu = network.mtu.unwrap_or_else(|| self.default_mtu(host));
        Ok(PlannedNetwork {
            name: network.name.clone(),
            vni,
            mtu: u16::try_from(mtu).map_err(|_| Problem::new(field("mtu"), mtu, "more than 65535"))?,
            ageing: network.ageing,
            mac_limit: network.mac_limit,
            peers: network.peers.clone(),
        })
    }

    /// The VTEP address: as asked for, or the uplink's own.
    fn address(&self, host: &Host) -> Option<Ipv4Addr> {
        self.underlay.address.or(host.address)
    }

    /// As asked for, or one for each core but one, which is left to everything else.
    fn workers(&self, host: &Host) -> usize {
        self.dataplane.workers.unwrap_or_else(|| host.cpus.len().saturating_sub(1).max(1))
    }

    /// What the underlay leaves room for, in the 16 bits of an IP length.
    fn default_mtu(&self, host: &Host) -> u32 {
        let underlay = host.links.get(&self.underlay.interface).map_or(1500, |device| device.mtu);
        underlay.saturating_sub(checks::OVERHEAD).min(u32::from(u16::MAX) - checks::OVERHEAD)
    }
}

impl From<&Endpoint> for PlannedEndpoint {
    fn from(endpoint: &Endpoint) -> Self {
        let Endpoint { network, interface, xdp } = endpoint.clone();
        Self { network, interface, xdp }
    }
}
