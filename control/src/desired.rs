//! What is asked for: networks and endpoints, and whether this host can have them.
//!
//! Everything that asks, the configuration file and API requests, ends up in a [`Desired`];
//! each thing in it knows its [`Owner`]. [`Desired::validate`] finds every problem at once, each
//! with field, value and reason, or returns a [`Plan`], in which nothing can be wrong any more.

mod change;
mod checks;
mod host_port;
mod plan;
mod records;
mod routes;
mod stations;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use vxlane_dataplane::{
    tables::{LocalVtep, ZeroChecksums},
    vtep,
};

pub use change::Refused;
pub use host_port::HostPort;
pub use plan::{Plan, PlannedEndpoint, PlannedNetwork};
pub use records::{BadRecord, Records};
pub use routes::Routing;

use crate::{
    config::{self, Addresses, Config, Dataplane, ExpressChoice, Nat6Choice, NatChoice, Underlay, XdpChoice},
    mac::Mac,
};

/// Networks and endpoints as asked for.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Our end of the tunnels.
    pub underlay: Underlay,
    /// The workers.
    pub dataplane: Dataplane,
    /// Ways out.
    pub nat: config::Nat,
    /// Overlay networks.
    pub networks: Vec<Owned<Network>>,
    /// VTEPs that take part in them.
    pub peers: Vec<Owned<Peering>>,
    /// Routes between networks.
    pub routes: Vec<Owned<Routing>>,
    /// Attachments to them.
    pub endpoints: Vec<Owned<Endpoint>>,
    /// Stations that never move.
    pub stations: Vec<Owned<Station>>,
    /// By network, the address that was given out last: the next one is behind it.
    pub last_given: BTreeMap<String, Ipv4Addr>,
    /// The same for IPv6.
    pub last_given6: BTreeMap<String, Ipv6Addr>,
}

/// Who asked for something, and alone may take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The configuration file.
    File,
    /// Somebody who used the API.
    Api,
}

/// Something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned<T> {
    /// By whom.
    pub owner: Owner,
    /// Where: a path into the file, such as `network[1]`, or else a name, such as `network[blue]`.
    pub place: String,
    /// What.
    pub item: T,
}

/// An overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// What the wire calls it.
    pub vni: u32,
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
    /// How packets leave it: with the host's address where there is a gateway, when not given.
    #[serde(default)]
    pub nat: Option<NatChoice>,
    /// How its IPv6 packets leave it; where there is an IPv6 gateway as `nat` says, when not given.
    #[serde(default)]
    pub nat6: Option<Nat6Choice>,
    /// Longest packet in bytes; what the underlay leaves room for when not given.
    pub mtu: Option<u32>,
    /// Seconds after which a silent station is forgotten.
    pub ageing: u32,
    /// How many stations may be learned.
    pub mac_limit: u32,
    /// Frames that each worker floods in a second, if there is a limit.
    #[serde(default)]
    pub flood_limit: Option<u32>,
    /// Whether endpoints reach the gateway and nobody else.
    #[serde(default)]
    pub isolation: bool,
    /// Whether ARP and ND questions are answered here when the answer is known.
    #[serde(default = "crate::config::Network::default_suppression")]
    pub suppression: bool,
    /// Whether frames of established flows may take the express lane.
    #[serde(default)]
    pub express: ExpressChoice,
}

/// A VTEP that takes part in a network: flooded to, and learned from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peering {
    /// The network.
    pub network: String,
    /// The VTEP.
    pub address: IpAddr,
}

/// A station that somebody told us of: this beats what is learned, and never moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// The network.
    pub network: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
}

/// Where a station is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Behind a VTEP that takes part in its network.
    Dst(IpAddr),
    /// Behind an interface that is an endpoint of its network.
    Dev(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dst(address) => write!(out, "dst {address}"),
            Self::Dev(interface) => write!(out, "dev {interface}"),
        }
    }
}

/// An attachment to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its network.
    pub network: String,
    /// What people call it, within its network.
    pub name: String,
    /// The device of the host.
    pub interface: String,
    /// Where the XDP program runs.
    pub xdp: XdpChoice,
    /// Its address in the subnet of the network.
    pub address: Option<Ipv4Addr>,
    /// Its address in the IPv6 subnet of the network.
    pub address6: Option<Ipv6Addr>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// The other end of `interface`, where that is a pair that we make and take away.
    pub veth: Option<Veth>,
    /// Ports of the host that lead to it, such as `8080:80/tcp`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Of a container's networks that with the highest has its default route.
    #[serde(default)]
    pub gateway_priority: i32,
}

/// The end of a veth pair that is inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veth {
    /// The container's network namespace.
    pub netns: PathBuf,
    /// What the device is called in there.
    pub ifname: String,
}

/// What a request is held against: this host, as far as it matters.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// CPUs that this process may run on.
    pub cpus: Vec<usize>,
    /// The first global IPv4 address of the uplink.
    pub address: Option<Ipv4Addr>,
    /// Its first global IPv6 address.
    pub address_v6: Option<Ipv6Addr>,
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
    /// The program of somebody else that it carries where ours would have to be, in words.
    pub program: Option<String>,
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

impl Network {
    /// How its packets leave it.
    pub fn way_out(&self) -> NatChoice {
        match self.nat {
            Some(NatChoice::Masquerade) | None if self.gateway.is_some() && !self.internal => NatChoice::Masquerade,
            Some(_) | None => NatChoice::None,
        }
    }
}

impl Network {
    /// How its IPv6 packets leave it.
    pub fn way_out6(&self) -> Nat6Choice {
        let unless_said = match self.nat {
            Some(NatChoice::None) => Nat6Choice::None,
            Some(NatChoice::Masquerade) | None => Nat6Choice::Masquerade,
        };
        let can_leave = self.gateway6.is_some() && !self.internal;
        if can_leave { self.nat6.unwrap_or(unless_said) } else { Nat6Choice::None }
    }
}

impl Endpoint {
    /// Its IP addresses, as far as they are known.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address.map(IpAddr::V4).into_iter().chain(self.address6.map(IpAddr::V6))
    }
}

impl<T> Owned<T> {
    /// A thing that the file asks for at `place`.
    fn by_file(place: String, item: T) -> Self {
        Self { owner: Owner::File, place, item }
    }

    /// A thing that the API was asked for.
    fn by_api(place: String, item: T) -> Self {
        Self { owner: Owner::Api, place, item }
    }

    /// The name of its key `key` in problems.
    fn field(&self, key: &str) -> String {
        format!("{}.{key}", self.place)
    }
}

impl Desired {
    /// What a configuration file asks for.
    pub fn of_file(config: &Config) -> Self {
        let mut this = Self {
            underlay: config.underlay.clone(),
            dataplane: config.dataplane.clone(),
            nat: config.nat.clone(),
            networks: Vec::new(),
            peers: Vec::new(),
            routes: Vec::new(),
            endpoints: Vec::new(),
            stations: Vec::new(),
            last_given: BTreeMap::new(),
            last_given6: BTreeMap::new(),
        };
        for (index, network) in config.networks.iter().enumerate() {
            let place = format!("network[{index}]");
            for (index, &address) in network.peers.iter().enumerate() {
                let peering = Peering { network: network.name.clone(), address };
                this.peers.push(Owned::by_file(format!("{place}.peers[{index}]"), peering));
            }
            for (index, other) in network.routes.iter().enumerate() {
                let routing = Routing::new(&network.name, other);
                if !this.routes.iter().any(|route| route.item == routing) {
                    this.routes.push(Owned::by_file(format!("{place}.routes[{index}]"), routing));
                }
            }
            this.networks.push(Owned::by_file(place, network.into()));
        }
        for (index, endpoint) in config.endpoints.iter().enumerate() {
            this.endpoints.push(Owned::by_file(format!("endpoint[{index}]"), endpoint.into()));
        }
        this
    }

    /// The same, with everything of `owner` taken from `other` instead.
    #[must_use]
    pub fn with_part(&self, owner: Owner, other: &Self) -> Self {
        let mut this = if owner == Owner::File { other.clone() } else { self.clone() };
        this.networks = merged(&self.networks, &other.networks, owner);
        this.peers = merged(&self.peers, &other.peers, owner);
        this.routes = merged(&self.routes, &other.routes, owner);
        this.endpoints = merged(&self.endpoints, &other.endpoints, owner);
        this.stations = merged(&self.stations, &other.stations, owner);
        let given = if owner == Owner::Api { other } else { self };
        (this.last_given, this.last_given6) = (given.last_given.clone(), given.last_given6.clone());
        this
    }

    /// The network called `name`.
    pub fn network(&self, name: &str) -> Option<&Owned<Network>> {
        self.networks.iter().find(|network| network.item.name == name)
    }

    /// The endpoint of `network` called `name`.
    pub fn endpoint(&self, network: &str, name: &str) -> Option<&Owned<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.item.network == network && endpoint.item.name == name)
    }

    /// The VTEPs that take part in `network`.
    pub fn peers_of(&self, network: &str) -> impl Iterator<Item = IpAddr> {
        self.peers.iter().filter(move |peering| peering.item.network == network).map(|peering| peering.item.address)
    }

    /// Every interface that is asked for: the uplink first.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let endpoints = self.endpoints.iter().map(|endpoint| endpoint.item.interface.as_str());
        std::iter::once(self.underlay.interface.as_str()).chain(endpoints)
    }

    /// What will be done on `host` at the start. Endpoints that the API asked for in an earlier
    /// life are not held against it: those whose interface is gone wait for it.
    ///
    /// # Errors
    /// Every problem there is, in the order of the request.
    pub fn validate(&self, host: &Host) -> Result<Plan, Vec<Problem>> {
        self.plan_unless(checks::problems(self, host, &checks::News::Start), host)
    }

    /// What will be done on `host` now that `before` has been done: only what is new since is
    /// held against the host.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn validate_after(&self, before: &Self, host: &Host) -> Result<Plan, Vec<Problem>> {
        self.plan_unless(checks::problems(self, host, &checks::News::Since(before)), host)
    }

    fn plan_unless(&self, problems: Vec<Problem>, host: &Host) -> Result<Plan, Vec<Problem>> {
        if problems.is_empty() { self.plan(host).map_err(|problem| vec![problem]) } else { Err(problems) }
    }

    /// Our end of the tunnels: with the addresses that were asked for, or else the uplink's own.
    fn local(&self, host: &Host) -> LocalVtep {
        let Underlay { address, port, udp6_zero_csum_tx, udp6_zero_csum_rx, .. } = &self.underlay;
        let (v4, v6) = match address {
            None => (host.address, host.address_v6),
            Some(Addresses(asked)) => (
                asked.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None }),
                asked.iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None }),
            ),
        };
        let zero_checksums = ZeroChecksums { transmit: *udp6_zero_csum_tx, receive: *udp6_zero_csum_rx };
        LocalVtep { zero_checksums, ..LocalVtep::new(v4, v6, *port) }
    }

    /// The IPv4 address that endpoints have for everybody outside: that of the tunnels, or the
    /// uplink's own.
    fn outside(&self, host: &Host) -> Option<Ipv4Addr> {
        self.local(host).v4.or(host.address)
    }

    /// As asked for, or one for each core but one, which is left to everything else.
    fn workers(&self, host: &Host) -> usize {
        self.dataplane.workers.unwrap_or_else(|| host.cpus.len().saturating_sub(1).max(1))
    }

    /// Bytes by which an underlay packet is longer than the overlay packet in it, of the peers of
    /// `network` to which it is longest: the overlay's Ethernet header, VXLAN, UDP and IP (RFC
    /// 7348 section 4.3). That is as much as the tunnel adds to a frame, whose own Ethernet header
    /// then takes the place of the outer one.
    #[expect(clippy::cast_possible_truncation, reason = "headers of 50 and 70 bytes")]
    fn overhead(&self, network: &str, host: &Host) -> u32 {
        let is_v6 = self.local(host).v4.is_none() || self.peers_of(network).any(|peer| peer.is_ipv6());
        (if is_v6 { vtep::OVERHEAD_V6 } else { vtep::OVERHEAD }) as u32
    }

    /// What the underlay leaves room for in `network`, in the 16 bits of an IP length.
    fn default_mtu(&self, network: &str, host: &Host) -> u32 {
        let underlay = host.links.get(&self.underlay.interface).map_or(1500, |device| device.mtu);
        let overhead = self.overhead(network, host);
        underlay.saturating_sub(overhead).min(u32::from(u16::MAX) - overhead)
    }
}

/// What of `own` is not `owner`'s, and what of `other` is: the file's part first.
fn merged<T: Clone>(own: &[Owned<T>], other: &[Owned<T>], owner: Owner) -> Vec<Owned<T>> {
    let kept = own.iter().filter(|item| item.owner != owner);
    let taken = other.iter().filter(|item| item.owner == owner);
    let mut all: Vec<Owned<T>> = kept.chain(taken).cloned().collect();
    all.sort_by_key(|item| item.owner == Owner::Api);
    all
}

impl From<&crate::config::Network> for Network {
    fn from(network: &crate::config::Network) -> Self {
        let crate::config::Network { name, vni, subnet, gateway, subnet6, gateway6, internal, mtu, .. } =
            network.clone();
        let crate::config::Network { nat, nat6, ageing, mac_limit, flood_limit, .. } = *network;
        let crate::config::Network { isolation, suppression, express, .. } = *network;
        Self {
            name,
            vni,
            subnet,
            gateway,
            subnet6,
            gateway6,
            internal,
            nat,
            nat6,
            mtu,
            ageing,
            mac_limit,
            flood_limit,
            isolation,
            suppression,
            express,
        }
    }
}

impl From<&crate::config::Endpoint> for Endpoint {
    fn from(endpoint: &crate::config::Endpoint) -> Self {
        let crate::config::Endpoint { network, interface, name, address, address6, mac, xdp, publish } =
            endpoint.clone();
        let name = name.unwrap_or_else(|| interface.clone());
        Self { network, name, interface, xdp, address, address6, mac, veth: None, publish, gateway_priority: 0 }
    }
}
