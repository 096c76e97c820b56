//! What the API says, version 1: plain data that server and client share.
//!
//! Fields are added, never renamed or given another meaning, within a version.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{ExpressChoice, Nat6Choice, NatChoice};

pub mod events;
pub mod express;
pub mod nat;
pub mod neighbours;
pub mod requests;

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Since forwarding began.
    pub uptime_seconds: u64,
    /// Our end of the tunnels.
    pub underlay: Underlay,
    /// Whether there is an express lane: `on`, or `off` and why.
    #[serde(default)]
    pub express: String,
    /// The worker threads.
    pub workers: Vec<Worker>,
    /// Attached interfaces, the uplink first.
    pub ports: Vec<Port>,
    /// Where every frame is.
    pub frames: Vec<Frames>,
    /// Remote VTEPs.
    pub peers: Vec<Peer>,
}

/// Our end of the tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Underlay {
    /// The uplink device.
    pub interface: String,
    /// Local VTEP address among VTEPs of IPv4.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Local VTEP address among VTEPs of IPv6.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address_v6: Option<Ipv6Addr>,
    /// UDP port.
    pub port: u16,
    /// Longest underlay packet in bytes.
    pub mtu: u32,
}

/// A worker thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// From 0.
    pub id: u16,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Stations in its MAC table.
    pub stations: usize,
}

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Underlay frames.
    Uplink,
    /// Frames of an endpoint.
    Access,
    /// Frames between this host itself and the endpoints of a network.
    Host,
}

/// The way that a frame takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// A worker decides about it.
    Worker,
    /// A program repeats what a worker has decided.
    Express,
}

impl Lane {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Express => "express",
        }
    }
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// The device.
    pub interface: String,
    /// What it carries.
    pub role: Role,
    /// The network of a port with overlay frames.
    pub network: Option<String>,
    /// The way that frames of established flows may take.
    pub lane: Lane,
    /// Why that is not the express lane, if it is not.
    pub why: Option<String>,
    /// Where our XDP program runs: `native`, `generic` or `offloaded`; `express` where TC programs
    /// are in its place.
    pub xdp: String,
    /// Whether the device reads and writes our frames itself.
    pub zero_copy: bool,
    /// The worker of each receive queue.
    pub queues: Vec<u16>,
}

/// The frames of one half of one queue; `kernel + ours = total`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Frames {
    /// The device.
    pub interface: String,
    /// The receive queue; a worker has one transmit half for all queues of a port.
    pub queue: Option<u16>,
    /// `receive` or `transmit`.
    pub half: String,
    /// The worker that has them.
    pub worker: u16,
    /// Made at the start.
    pub total: usize,
    /// In a ring or inside the kernel.
    pub kernel: usize,
    /// Free, or held by the worker.
    pub ours: usize,
}

/// An element of `GET /v1/peers`: a remote VTEP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its underlay address, of either family.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Networks it takes part in.
    pub networks: Vec<String>,
    /// The neighbour through which it is reached: itself when on the link; none without a route.
    #[schema(value_type = Option<String>)]
    pub via: Option<IpAddr>,
    /// The neighbour's MAC address, once resolved.
    pub mac: Option<String>,
    /// Whether frames to it can leave.
    pub state: PeerState,
}

/// Whether frames to a peer can leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// The next hop's MAC address is known.
    Resolved,
    /// There is a next hop; it does not answer, or has not yet.
    Unresolved,
    /// No route leads there through the uplink.
    Unreachable,
}

/// Who asked for something, and alone may take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The configuration file.
    File,
    /// The API.
    Api,
}

/// An element of `GET /v1/networks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// What the wire calls it.
    pub vni: u32,
    /// The addresses of its endpoints.
    #[schema(value_type = Option<String>)]
    pub subnet: Option<Ipv4Network>,
    /// The address of the way out.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub gateway: Option<Ipv4Addr>,
    /// Their IPv6 addresses, such as `fd00:50::/64`.
    #[schema(value_type = Option<String>)]
    pub subnet6: Option<Ipv6Network>,
    /// The address of the way out for IPv6.
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub gateway6: Option<Ipv6Addr>,
    /// Whether there is no way out.
    pub internal: bool,
    /// How this host itself is on it: wherever there is a gateway and the network is not internal.
    pub host: Option<HostPort>,
    /// How its packets leave it.
    pub nat: NatChoice,
    /// How its IPv6 packets leave it.
    pub nat6: Nat6Choice,
    /// Longest packet in bytes.
    pub mtu: u16,
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
    /// Who may change it.
    pub owner: Owner,
    /// VTEPs that take part.
    #[schema(value_type = Vec<String>)]
    pub peers: Vec<IpAddr>,
    /// Networks that it reaches through its gateway.
    pub routes: Vec<String>,
    /// Names of its endpoints here.
    pub endpoints: Vec<String>,
}

/// The pair of interfaces by which this host itself is on a network, with the gateway's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostPort {
    /// The host's end.
    pub name: String,
    /// Ours.
    pub interface: String,
    /// Whether the host can send and receive.
    pub state: EndpointState,
    /// What is in the way, or not as it should be.
    pub reason: Option<String>,
}

/// Whether an endpoint can send and receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Our program is on its interface.
    Attached,
    /// Its interface is not there; it is attached when it comes.
    Absent,
}

/// An element of `GET /v1/endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// What people call it, within its network.
    pub name: String,
    /// Its network.
    pub network: String,
    /// The network's identifier on the wire.
    pub vni: u32,
    /// The device of this host.
    pub interface: String,
    /// Whether it can send and receive.
    pub state: EndpointState,
    /// Its address, where known.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address, where known.
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address6: Option<Ipv6Addr>,
    /// Its Ethernet address, where known.
    pub mac: Option<String>,
    /// The network namespace of the container, where we made the pair.
    pub netns: Option<String>,
    /// What the device is called in there.
    pub ifname: Option<String>,
    /// Who may take it away.
    pub owner: Owner,
    /// Where our XDP program runs; none while absent.
    pub xdp: Option<String>,
    /// The way that frames of established flows may take; none while absent.
    pub lane: Option<Lane>,
    /// Whether the device reads and writes our frames itself.
    pub zero_copy: bool,
    /// Frames of each ring of each queue.
    pub ring: u32,
    /// Ports of the host that lead to it.
    pub publish: Vec<String>,
    /// Of a container's networks that with the highest has its default route.
    #[serde(default)]
    pub gateway_priority: i32,
}

/// How a station is known, in the words of `bridge -j fdb show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum StationState {
    /// From what it sent.
    #[serde(rename = "")]
    Learned,
    /// Somebody told us.
    #[serde(rename = "static")]
    Static,
}

/// On which side of a network a station is, in the words of `bridge -j fdb show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StationFlag {
    /// Behind a tunnel.
    #[serde(rename = "self")]
    Tunnel,
    /// Behind a port of this host.
    Master,
}

/// An element of `GET /v1/fdb`: a station, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Station {
    /// Its address.
    pub mac: String,
    /// Its network.
    pub network: String,
    /// The network's identifier on the wire.
    pub vni: u32,
    /// The VTEP it is behind, unless it is here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub dst: Option<IpAddr>,
    /// The local interface it is behind, if it is here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ifname: Option<String>,
    /// Which side it is on.
    pub flags: Vec<StationFlag>,
    /// How it is known.
    pub state: StationState,
    /// Seconds since it was last heard from; none of one that is static.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<u64>,
}

/// `GET /v1/stats`: totals since the start, in frames unless a name says otherwise.
///
/// A frame that the kernel segments later counts as the frames that it is segmented into, and
/// their bytes as they are on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Taken from ports.
    pub received: u64,
    /// Put into ports.
    pub transmitted: u64,
    /// Copies that flooding added, and fragments but the first of each packet.
    pub copies: u64,
    /// Packets that left in fragments.
    #[serde(default)]
    pub fragmented: u64,
    /// Of our own.
    pub replies: u64,
    /// Sum of `drops`.
    pub dropped: u64,
    /// `received + copies + replies - transmitted - dropped`, less what is on its way between
    /// two workers: zero, always.
    pub imbalance: i64,
    /// By reason.
    pub drops: BTreeMap<String, u64>,
    /// By port.
    pub ports: Vec<PortStats>,
    /// The same for each lane: `worker` and `express`.
    pub lanes: Vec<LaneStats>,
    /// What the kernel lost before we saw it, by queue.
    pub kernel: Vec<KernelStats>,
    /// What the steering program did.
    pub steer: SteerStats,
}

/// One lane's share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LaneStats {
    /// Which: `worker` or `express`.
    pub lane: String,
    /// Taken from ports.
    pub received: u64,
    /// Put into ports.
    pub transmitted: u64,
    /// Copies that flooding added.
    pub copies: u64,
    /// Packets that left in fragments; all but one of each are among the copies.
    pub fragmented: u64,
    /// Of our own.
    pub replies: u64,
    /// Sum of `drops`.
    pub dropped: u64,
    /// As that of both lanes.
    pub imbalance: i64,
    /// By reason.
    pub drops: BTreeMap<String, u64>,
    /// By port.
    pub ports: Vec<PortStats>,
}

/// One port's share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStats {
    /// The device.
    pub interface: String,
    /// Frames that came in.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that came in here and ended.
    pub rx_drops: u64,
    /// Frames that left.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that could not leave here.
    pub tx_drops: u64,
}

/// What the kernel lost at one queue (`struct xdp_statistics`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KernelStats {
    /// The device.
    pub interface: String,
    /// Its receive queue.
    pub queue: u16,
    /// The worker that serves the queue.
    pub worker: u16,
    /// Too long for a frame, or otherwise not to be delivered.
    pub rx_dropped: u64,
    /// The receive ring was full.
    pub rx_ring_full: u64,
    /// There was no frame to receive into.
    pub rx_fill_ring_empty: u64,
    /// Transmit descriptors refused.
    pub tx_invalid: u64,
}

/// What the steering program did with the frames it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SteerStats {
    /// Handed to a worker.
    pub redirected: u64,
    /// Left to the host: the sum of the rest.
    pub passed: u64,
    /// Passed for want of a socket on their queue.
    pub no_socket: u64,
    /// Passed: on the uplink, not VXLAN to us.
    pub not_vxlan: u64,
    /// Passed: a fragment.
    pub fragment: u64,
    /// Passed: the interface is coming or going.
    pub unknown_port: u64,
    /// Dropped: from the express lane, for want of a socket.
    #[serde(default)]
    pub no_worker: u64,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// For programs: `bad_request`, `invalid`, `not_found`, `conflict`, `owned_by_file`,
    /// `method_not_allowed`, `too_large`, `too_slow`, `store`, `internal`.
    pub code: String,
    /// For people: a line for each problem.
    pub message: String,
    /// What part of the request is to blame, where one is: that of the first problem.
    pub field: Option<String>,
    /// Everything that is wrong, where the request was understood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// One thing that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The part of the request.
    pub field: String,
    /// What it is.
    pub value: String,
    /// Why it cannot be.
    pub reason: String,
}
