//! What the API is asked to change.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::{ExpressChoice, Nat6Choice, NatChoice, XdpChoice},
    mac::Mac,
};

/// `POST /v1/networks`: a network that shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// What people call it.
    pub name: String,
    /// What the wire calls it, 24 bits; a free one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// The addresses of its endpoints, such as `10.50.0.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10.50.0.0/24")]
    pub subnet: Option<Ipv4Network>,
    /// The address of the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub gateway: Option<Ipv4Addr>,
    /// Their IPv6 addresses, such as `fd00:50::/64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "fd00:50::/64")]
    pub subnet6: Option<Ipv6Network>,
    /// The address of the way out for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub gateway6: Option<Ipv6Addr>,
    /// Whether there is no way out.
    #[serde(default)]
    pub internal: bool,
    /// How its packets leave it: with the host's address where there is a gateway, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatChoice>,
    /// How its IPv6 packets leave it; where there is an IPv6 gateway as `nat` says, when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat6: Option<Nat6Choice>,
    /// Longest packet in bytes; what the underlay leaves room for when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Seconds after which a silent station is forgotten; 300 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ageing: Option<u32>,
    /// How many stations may be learned; 8192 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// Frames that each worker floods in a second; no limit when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flood_limit: Option<u32>,
    /// Whether endpoints reach the gateway and nobody else.
    #[serde(default)]
    pub isolation: bool,
    /// Whether ARP and ND questions are answered here when the answer is known; yes when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppression: Option<bool>,
    /// Whether frames of established flows may take the express lane, where there is one.
    #[serde(default)]
    pub express: ExpressChoice,
    /// VTEPs to flood to and to learn from.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub peers: Vec<IpAddr>,
}

/// `POST /v1/networks/{network}/endpoints`: an endpoint that shall be. Either `netns` or
/// `interface` is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointRequest {
    /// What people call it, within its network.
    pub name: String,
    /// A container's network namespace, such as `/run/netns/web`: a veth pair is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub netns: Option<PathBuf>,
    /// What the device is called in there; `eth0` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// A device of this host that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its address; the next free one of the subnet when a pair is made and none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address; the next free one of the IPv6 subnet likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address6: Option<Ipv6Addr>,
    /// Its Ethernet address; made from its address when a pair is made and none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "02:00:00:00:00:0b")]
    pub mac: Option<Mac>,
    /// Where the XDP program runs.
    #[serde(default)]
    pub xdp: XdpChoice,
    /// Ports of the host that lead to it, such as `8080:80/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Of a container's networks that with the highest has its default route, and of those the one
    /// whose name comes first; 0 when not given. Of an endpoint that is there it can be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_priority: Option<i32>,
}

/// `POST /v1/networks/{network}/fdb`: a station that shall be known at a place. Either `dst` or
/// `dev` is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StationRequest {
    /// Its Ethernet address.
    #[schema(value_type = String, example = "02:00:00:00:00:0b")]
    pub mac: Mac,
    /// The VTEP that it is behind: a peer of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dst: Option<IpAddr>,
    /// The interface that it is behind: one of an endpoint of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
}

/// `POST /v1/networks/{network}/peers`: a VTEP that shall take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerRequest {
    /// Its underlay address, of either family.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// `POST /v1/networks/{network}/routes`: another network that shall be reached through the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteRequest {
    /// Its name.
    pub network: String,
}
