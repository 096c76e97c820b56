//! `[nat]`: how packets leave the overlay.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vxlane_dataplane::nat;

/// `[nat]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nat {
    /// The address that packets of IPv6 leave with; the uplink's own global one when not given.
    pub address6: Option<Ipv6Addr>,
    /// Ports of the host's address that may be lent, less those that turn out to be in use.
    pub ports: String,
    /// Who may answer an endpoint.
    pub filtering: FilteringChoice,
    /// Whether packets from outside keep UDP sessions alive.
    pub inbound_refresh: bool,
    /// Sessions that each worker has room for.
    pub sessions: usize,
    /// Sessions of one endpoint at one worker.
    pub endpoint_limit: u32,
    /// Sessions of one network at one worker.
    pub network_limit: u32,
    /// The greatest segment size that a TCP connection may agree on, if it is to be lowered.
    pub clamp_mss: Option<u16>,
    /// How long sessions live without a packet.
    pub timeouts: Timeouts,
}

impl Default for Nat {
    fn default() -> Self {
        let of = nat::NatConfig::<Ipv4Addr>::new(Vec::new(), nat::Ports::default());
        Self {
            address6: None,
            ports: "10000-29999,61000-65535".to_owned(),
            filtering: FilteringChoice::EndpointIndependent,
            inbound_refresh: of.inbound_refresh,
            sessions: of.sessions,
            endpoint_limit: of.endpoint_limit,
            network_limit: of.network_limit,
            clamp_mss: of.clamp_mss,
            timeouts: Timeouts::default(),
        }
    }
}

/// Who may answer an endpoint that has called somebody (RFC 4787 REQ-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilteringChoice {
    /// Anybody.
    EndpointIndependent,
    /// Whoever has an address that the endpoint has called.
    AddressDependent,
}

/// `[nat.timeouts]`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// UDP.
    pub udp: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// TCP, established.
    pub tcp_established: u32,
    /// TCP, not yet established.
    pub tcp_opening: u32,
    /// TCP, closed or reset.
    pub tcp_closing: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { udp: 300, icmp: 60, tcp_established: 7440, tcp_opening: 240, tcp_closing: 240 }
    }
}

impl From<Timeouts> for nat::Timeouts {
    fn from(timeouts: Timeouts) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Self {
            udp: seconds(timeouts.udp),
            icmp: seconds(timeouts.icmp),
            tcp_established: seconds(timeouts.tcp_established),
            tcp_opening: seconds(timeouts.tcp_opening),
            tcp_closing: seconds(timeouts.tcp_closing),
        }
    }
}

/// How the packets of a network leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NatChoice {
    /// With the host's own address.
    Masquerade,
    /// Not at all.
    None,
}

impl fmt::Display for NatChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Masquerade => "masquerade",
            Self::None => "none",
        })
    }
}

/// How the IPv6 packets of a network leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Nat6Choice {
    /// With the host's own address.
    Masquerade,
    /// As they are; whoever is outside must have a route to this host for the subnet.
    Routed,
    /// Not at all.
    None,
}

impl fmt::Display for Nat6Choice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Masquerade => "masquerade",
            Self::Routed => "routed",
            Self::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_dataplane() {
        let nat = Nat::default();
        assert_eq!(nat::Timeouts::from(nat.timeouts), nat::Timeouts::default());
        assert!(nat.ports.parse::<nat::Ports>().is_ok_and(|ports| ports.len() == 24_536));
    }
}
