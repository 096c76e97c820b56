//! What will be done: a request with all defaults filled in and all names resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use vxlane_dataplane::{
    nat::{BadPorts, Filtering, NatConfig},
    tables::LocalVtep,
    wire::Vni,
};

use super::{Desired, Endpoint, Host, HostPort, Network, Owned, Place, Problem, checks};
use crate::{
    config::{ExpressChoice, FilteringChoice, Nat6Choice, NatChoice, XdpChoice},
    mac::Mac,
};

/// What will be done: all defaults filled in, all names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The uplink device.
    pub uplink: String,
    /// Where its XDP program runs.
    pub uplink_xdp: XdpChoice,
    /// Our end of the tunnels.
    pub local: LocalVtep,
    /// The IPv4 address that endpoints have for everybody outside.
    pub outside: Option<Ipv4Addr>,
    /// Worker threads.
    pub workers: usize,
    /// The CPU of each, as far as given.
    pub cpus: Vec<usize>,
    /// Stations that each worker's MAC table has room for.
    pub stations: usize,
    /// Frames of each ring.
    pub ring: u32,
    /// Whether frames of established flows take the express lane.
    pub express: ExpressChoice,
    /// Ways out, but for the ports that are in use.
    pub nat: NatConfig,
    /// The address that packets of IPv6 leave with, if it was given.
    pub nat_address6: Option<Ipv6Addr>,
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
    /// The addresses of its endpoints.
    pub subnet: Option<Ipv4Network>,
    /// The address of the way out.
    pub gateway: Option<Ipv4Addr>,
    /// Their IPv6 addresses.
    pub subnet6: Option<Ipv6Network>,
    /// The address of the way out for IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Whether there is no way out.
    pub internal: bool,
    /// How the host itself is on it, unless it is not.
    pub host: Option<HostPort>,
    /// How packets leave it.
    pub nat: NatChoice,
    /// How its IPv6 packets leave it.
    pub nat6: Nat6Choice,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Bytes by which underlay packets are longer, at most.
    pub overhead: u32,
    /// Seconds after which a silent station is forgotten.
    pub ageing: u32,
    /// How many stations may be learned.
    pub mac_limit: u32,
    /// Frames that each worker floods in a second, if there is a limit.
    pub flood_limit: Option<u32>,
    /// Whether endpoints reach the gateway and nobody else.
    pub isolation: bool,
    /// Whether ARP and ND questions are answered here when the answer is known.
    pub suppression: bool,
    /// Whether frames of established flows may take the express lane.
    pub express: ExpressChoice,
    /// VTEPs to flood to and to learn from.
    pub peers: Vec<IpAddr>,
    /// Networks that it reaches through its gateway.
    pub routes: Vec<String>,
    /// Stations that never move, as far as the place of each is there.
    pub stations: Vec<(Mac, Place)>,
}

impl Plan {
    /// The ports of the host, with the networks that they are on.
    pub fn host_ports(&self) -> impl Iterator<Item = (&PlannedNetwork, &HostPort)> {
        self.networks.iter().filter_map(|network| Some((network, network.host.as_ref()?)))
    }

    /// Every interface that has overlay frames: those of endpoints, and those to the host.
    pub fn access(&self) -> impl Iterator<Item = &String> {
        let endpoints = self.endpoints.iter().map(|endpoint| &endpoint.interface);
        endpoints.chain(self.host_ports().map(|(_, port)| &port.interface))
    }

    /// Whether `interface` leads to the host itself.
    pub fn is_host_port(&self, interface: &str) -> bool {
        self.host_ports().any(|(_, port)| port.interface == interface)
    }

    /// The network whose frames `interface` has.
    pub fn network_of(&self, interface: &str) -> Option<&str> {
        let endpoint = self.endpoints.iter().find(|endpoint| endpoint.interface == interface);
        let host = || self.host_ports().find(|(_, port)| port.interface == interface);
        endpoint.map(|endpoint| endpoint.network.as_str()).or_else(|| Some(host()?.0.name.as_str()))
    }
}

/// An attachment that can be.
pub type PlannedEndpoint = Endpoint;

impl Desired {
    /// Fills in defaults. The checks have passed; what they leave open is an error here too.
    pub(super) fn plan(&self, host: &Host) -> Result<Plan, Problem> {
        let networks = self.networks.iter().map(|network| self.plan_network(network, host));
        let (local, outside) = (self.local(host), self.outside(host));
        local.addresses().next().ok_or_else(|| checks::no_address(self))?;
        Ok(Plan {
            uplink: self.underlay.interface.clone(),
            uplink_xdp: self.underlay.xdp,
            local,
            outside,
            workers: self.workers(host),
            cpus: self.dataplane.cpus.clone(),
            stations: self.dataplane.stations,
            ring: self.dataplane.ring,
            express: self.dataplane.express,
            nat: self.plan_nat(outside)?,
            nat_address6: self.nat.address6,
            networks: networks.collect::<Result<_, _>>()?,
            endpoints: self.endpoints.iter().map(|endpoint| endpoint.item.clone()).collect(),
        })
    }

    fn plan_nat(&self, outside: Option<Ipv4Addr>) -> Result<NatConfig, Problem> {
        let nat = &self.nat;
        let ports =
            nat.ports.parse().map_err(|error: BadPorts| Problem::new("nat.ports", &nat.ports, error.to_string()));
        Ok(NatConfig {
            timeouts: nat.timeouts.into(),
            filtering: match nat.filtering {
                FilteringChoice::EndpointIndependent => Filtering::EndpointIndependent,
                FilteringChoice::AddressDependent => Filtering::AddressDependent,
            },
            inbound_refresh: nat.inbound_refresh,
            sessions: nat.sessions,
            endpoint_limit: nat.endpoint_limit,
            network_limit: nat.network_limit,
            clamp_mss: nat.clamp_mss,
            ..NatConfig::new(outside.into_iter().collect(), ports?)
        })
    }

    fn plan_network(&self, network: &Owned<Network>, host: &Host) -> Result<PlannedNetwork, Problem> {
        let Network { name, vni, subnet, gateway, subnet6, gateway6, internal, mtu, .. } = &network.item;
        let Network { ageing, mac_limit, flood_limit, isolation, suppression, express, .. } = network.item;
        let bad_vni = |_| Problem::new(network.field("vni"), vni, checks::VNI_RANGE);
        let mtu = mtu.unwrap_or_else(|| self.default_mtu(name, host));
        let bad_mtu = |_| Problem::new(network.field("mtu"), mtu, "more than 65535");
        Ok(PlannedNetwork {
            name: name.clone(),
            vni: Vni::new(*vni).map_err(bad_vni)?,
            subnet: *subnet,
            gateway: *gateway,
            subnet6: *subnet6,
            gateway6: *gateway6,
            internal: *internal,
            host: network.item.host_port(),
            nat: network.item.way_out(),
            nat6: network.item.way_out6(),
            mtu: u16::try_from(mtu).map_err(bad_mtu)?,
            overhead: self.overhead(name, host),
            ageing,
            mac_limit,
            flood_limit,
            isolation,
            suppression,
            express,
            peers: self.peers_of(name).collect(),
            routes: self.routes_of(name).map(ToOwned::to_owned).collect(),
            stations: self.stations_of(name),
        })
    }
}
