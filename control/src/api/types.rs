//! What the API says, version 1: plain data that server and client share.
//!
//! Fields are added, never renamed or given another meaning, within a version.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

/// `GET /v1/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Since forwarding began.
    pub uptime_seconds: u64,
    /// Our end of the tunnels.
    pub underlay: Underlay,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// The uplink device.
    pub interface: String,
    /// Local VTEP address.
    pub address: Ipv4Addr,
    /// UDP port.
    pub port: u16,
    /// Longest underlay packet in bytes.
    pub mtu: u32,
}

/// A worker thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// From 0.
    pub id: u16,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Stations in its MAC table.
    pub stations: usize,
}

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Underlay frames.
    Uplink,
    /// Frames of an endpoint.
    Access,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The device.
    pub interface: String,
    /// What it carries.
    pub role: Role,
    /// The network of an access port.
    pub network: Option<String>,
    /// Where our XDP program runs: `native`, `generic` or `offloaded`.
    pub xdp: String,
    /// Whether the device reads and writes our frames itself.
    pub zero_copy: bool,
    /// The worker of each receive queue.
    pub queues: Vec<u16>,
}

/// The frames of one half of one queue; `kernel + ours = total`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// The device.
    pub interface: String,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its underlay address.
    pub address: Ipv4Addr,
    /// Networks it takes part in.
    pub networks: Vec<String>,
    /// The neighbour through which it is reached: itself when on the link; none without a route.
    pub via: Option<Ipv4Addr>,
    /// The neighbour's MAC address, once resolved.
    pub mac: Option<String>,
    /// Whether frames to it can leave.
    pub state: PeerState,
}

/// Whether frames to a peer can leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// The next hop's MAC address is known.
    Resolved,
    /// There is a next hop; it does not answer, or has not yet.
    Unresolved,
    /// No route leads there through the uplink.
    Unreachable,
}

/// An element of `GET /v1/networks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// What the wire calls it.
    pub vni: u32,
    /// Longest packet in bytes.
    pub mtu: u16,
    /// Seconds after which a silent station is forgotten.
    pub ageing: u32,
    /// How many stations may be learned.
    pub mac_limit: u32,
    /// VTEPs that take part.
    pub peers: Vec<Ipv4Addr>,
    /// Interfaces of its endpoints here.
    pub endpoints: Vec<String>,
}

/// An element of `GET /v1/endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The device.
    pub interface: String,
    /// Its network.
    pub network: String,
    /// The network's identifier on the wire.
    pub vni: u32,
    /// Where our XDP program runs.
    pub xdp: String,
    /// Whether the device reads and writes our frames itself.
    pub zero_copy: bool,
}

/// How a station is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StationState {
    /// It sent a frame on a port of this host.
    Local,
    /// It sent a frame through a tunnel.
    Learned,
}

/// An element of `GET /v1/fdb`: a station, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// Its address.
    pub mac: String,
    /// Its network.
    pub network: String,
    /// The VTEP it is behind, unless it is here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dst: Option<Ipv4Addr>,
    /// The local port it is behind, if it is here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dev: Option<String>,
    /// How it is known.
    pub state: StationState,
    /// Seconds since that was last confirmed.
    pub age: u64,
}

/// `GET /v1/stats`: totals since the start, in frames unless a name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Taken from ports.
    pub received: u64,
    /// Put into ports.
    pub transmitted: u64,
    /// Copies that flooding added.
    pub copies: u64,
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
    /// What the kernel lost before we saw it, by queue.
    pub kernel: Vec<KernelStats>,
    /// What the steering program did.
    pub steer: SteerStats,
}

/// One port's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For programs: `not_found`, `bad_request`, `internal`.
    pub code: String,
    /// For people.
    pub message: String,
    /// What part of the request is to blame, where one is.
    pub field: Option<String>,
}
