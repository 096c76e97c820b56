//! What the API says of ways out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/nat`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NatStatus {
    /// What packets have for a source outside.
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// The same of IPv6, if a network has such a way out and the host such an address.
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address6: Option<Ipv6Addr>,
    /// Its ports that may be lent, such as `10000-29999,61000-65535`; empty if no network has a
    /// way out.
    pub ports: String,
    /// What each worker has lent.
    pub workers: Vec<NatWorker>,
    /// What each worker has lent of IPv6.
    pub workers6: Vec<NatWorker>,
    /// Sessions that live, the first 10,000 of them.
    pub sessions: Vec<NatSession>,
}

/// The address translation of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NatWorker {
    /// The worker.
    pub id: u16,
    /// Sessions.
    pub sessions: usize,
    /// Ports that are lent.
    pub mappings: usize,
    /// Sessions that ever began.
    pub begun: u64,
    /// Ports that are free.
    pub free: FreePorts,
    /// Fragments that wait for the first of their datagram.
    pub fragments: usize,
    /// Bytes that its tables take when full.
    pub memory: usize,
}

/// Ports that can still be lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FreePorts {
    /// TCP ports.
    pub tcp: usize,
    /// UDP ports.
    pub udp: usize,
    /// Identifiers of ICMP queries.
    pub icmp: usize,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NatSession {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Where it is in its life.
    pub state: String,
    /// The network it came out of.
    pub network: String,
    /// The endpoint whose it is, if that is known.
    pub endpoint: Option<String>,
    /// The endpoint's address and port.
    #[schema(value_type = String)]
    pub inside: SocketAddr,
    /// What stands for them outside.
    #[schema(value_type = String)]
    pub outside: SocketAddr,
    /// The other end.
    #[schema(value_type = String)]
    pub remote: SocketAddr,
    /// The worker that has it.
    pub worker: u16,
    /// Seconds since it began.
    pub age: u64,
    /// Seconds until it ends, if no packet comes.
    pub expires: u64,
    /// Packets to the remote.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Packets from the remote.
    pub back_packets: u64,
    /// Their bytes.
    pub back_bytes: u64,
}

/// `DELETE /v1/nat/sessions`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NatFlushed {
    /// Sessions that were ended.
    pub sessions: usize,
}
