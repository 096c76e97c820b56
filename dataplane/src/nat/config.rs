//! What control decides about address translation.

use std::net::Ipv4Addr;

use super::{Ports, Timeouts};

/// How addresses are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig<A = Ipv4Addr> {
    /// Outside addresses, at most [`MOST_ADDRESSES`](Self::MOST_ADDRESSES); more are not used.
    pub addresses: Vec<A>,
    /// Outside ports, and identifiers of ICMP queries, over all workers.
    pub ports: Ports,
    /// Lifetimes of sessions.
    pub timeouts: Timeouts,
    /// Who may answer an inside endpoint.
    pub filtering: Filtering,
    /// Whether packets from outside keep UDP sessions alive (RFC 4787 REQ-6: better not).
    pub inbound_refresh: bool,
    /// Sessions of one worker.
    pub sessions: usize,
    /// Sessions of one inside host, at one worker.
    pub endpoint_limit: u32,
    /// Sessions of one network, at one worker.
    pub network_limit: u32,
    /// The greatest segment size that a TCP connection may agree on, if it is to be lowered.
    pub clamp_mss: Option<u16>,
}

impl<A> NatConfig<A> {
    /// How many outside addresses there can be.
    pub const MOST_ADDRESSES: usize = 16;

    /// Translation to `addresses` and `ports`, with the defaults of everything else.
    pub fn new(addresses: Vec<A>, ports: Ports) -> Self {
        Self {
            addresses,
            ports,
            timeouts: Timeouts::default(),
            filtering: Filtering::EndpointIndependent,
            inbound_refresh: false,
            sessions: 65_536,
            endpoint_limit: 4096,
            network_limit: 49_152,
            clamp_mss: None,
        }
    }

    /// The same to other addresses, which may be of the other protocol.
    pub fn with_addresses<B>(&self, addresses: Vec<B>) -> NatConfig<B> {
        NatConfig {
            timeouts: self.timeouts,
            filtering: self.filtering,
            inbound_refresh: self.inbound_refresh,
            sessions: self.sessions,
            endpoint_limit: self.endpoint_limit,
            network_limit: self.network_limit,
            clamp_mss: self.clamp_mss,
            ..NatConfig::new(addresses, self.ports.clone())
        }
    }
}

/// Who may answer an inside endpoint that has called somebody (RFC 4787 REQ-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Anybody, which peer-to-peer programs like best.
    EndpointIndependent,
    /// Whoever has an address that the endpoint has called.
    AddressDependent,
}
