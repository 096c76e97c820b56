//! The rules for ways out.

use vxlane_dataplane::nat::Ports;

use crate::{
    config::{Nat6Choice, NatChoice},
    desired::{Desired, Host, Network, Owned, Problem},
};

/// The first port that is nobody's in particular (RFC 6335 section 6).
const FIRST_PORT: u16 = 1024;
/// What all IPv4 hosts can receive, less headers (RFC 9293 section 3.7.1).
const SMALLEST_MSS: u16 = 536;
/// 64 bytes each, and as much again for what finds them.
const MOST_SESSIONS: usize = 1 << 22;

/// Everything that is wrong with `[nat]`.
pub(super) fn check(desired: &Desired, found: &mut Vec<Problem>) {
    let nat = &desired.nat;
    let mut problem = |field: &str, value: &dyn std::fmt::Display, reason: String| {
        found.push(Problem::new(format!("nat.{field}"), value, reason));
    };
    let quoted = format!("\"{}\"", nat.ports);
    match nat.ports.parse::<Ports>() {
        Err(_) => problem("ports", &quoted, "not a list of ports such as 20000-29999,61000".to_owned()),
        Ok(ports) if ports.iter().any(|port| port < FIRST_PORT) => {
            problem("ports", &quoted, format!("ports below {FIRST_PORT} are those of the host's own services"));
        }
        Ok(_) => {}
    }
    if !(1..=MOST_SESSIONS).contains(&nat.sessions) {
        problem("sessions", &nat.sessions, format!("from 1 to {MOST_SESSIONS} can be had"));
    }
    for (field, limit) in [("endpoint_limit", nat.endpoint_limit), ("network_limit", nat.network_limit)] {
        if limit == 0 {
            problem(field, &limit, "nobody could leave".to_owned());
        }
    }
    if let Some(address) = nat.address6
        && let Some(reason) = super::subnets::not_of_hosts(address)
    {
        problem("address6", &address, reason.to_owned());
    }
    if let Some(mss) = nat.clamp_mss.filter(|&mss| mss < SMALLEST_MSS) {
        problem("clamp_mss", &mss, format!("every host can take {SMALLEST_MSS} bytes (RFC 9293 section 3.7.1)"));
    }
    let timeouts = nat.timeouts;
    let shortest = [
        ("udp", timeouts.udp, 120, "RFC 4787 REQ-5"),
        ("icmp", timeouts.icmp, 60, "RFC 5508 REQ-2"),
        ("tcp_established", timeouts.tcp_established, 7440, "RFC 5382 REQ-5"),
        ("tcp_opening", timeouts.tcp_opening, 1, "RFC 7857 section 2"),
        ("tcp_closing", timeouts.tcp_closing, 1, "RFC 7857 section 2"),
    ];
    for (field, seconds, least, rule) in shortest {
        if seconds < least {
            problem(&format!("timeouts.{field}"), &seconds, format!("must be at least {least} ({rule})"));
        }
    }
}

/// What is wrong with the way out of `network`.
pub(super) fn check_network(network: &Owned<Network>, desired: &Desired, host: &Host, found: &mut Vec<Problem>) {
    let Network { nat, gateway, nat6, gateway6, internal, .. } = network.item;
    let is_no_way = |gateway: bool| match internal {
        true => Some("an internal network has no way out"),
        false => Some("needs a gateway, through which packets leave").filter(|_| !gateway),
    };
    if network.item.way_out() == NatChoice::Masquerade && desired.outside(host).is_none() {
        let reason = "the uplink has no IPv4 address that packets could leave with; say \"none\"";
        found.push(Problem::new(network.field("nat"), "\"masquerade\"", reason));
    }
    if nat == Some(NatChoice::Masquerade)
        && let Some(reason) = is_no_way(gateway.is_some() || gateway6.is_some())
    {
        found.push(Problem::new(network.field("nat"), "\"masquerade\"", reason));
    }
    if let Some(choice @ (Nat6Choice::Masquerade | Nat6Choice::Routed)) = nat6
        && let Some(reason) = is_no_way(gateway6.is_some())
    {
        let reason = reason.replace("a gateway", "an IPv6 gateway");
        found.push(Problem::new(network.field("nat6"), format!("\"{choice}\""), reason));
    }
}

/// Two networks whose addresses the outside knows cannot share them, nor can one have this host's.
pub(super) fn check_routed(desired: &Desired, found: &mut Vec<Problem>) {
    let is_routed = |network: &&Owned<Network>| network.item.way_out6() == Nat6Choice::Routed;
    let routed: Vec<_> = desired.networks.iter().filter(is_routed).collect();
    for (index, network) in routed.iter().enumerate() {
        let Some(subnet) = network.item.subnet6 else { continue };
        let other = routed[..index].iter().find(|other| other.item.subnet6.is_some_and(|other| other.overlaps(subnet)));
        if let Some(other) = other {
            let reason = format!("overlaps that of network \"{}\"; both are routed", other.item.name);
            found.push(Problem::new(network.field("subnet6"), subnet, reason));
        }
        if let Some(address) = desired.nat.address6.filter(|&address| subnet.contains(address)) {
            let reason = format!("has nat.address6, {address}, in it, and is routed");
            found.push(Problem::new(network.field("subnet6"), subnet, reason));
        }
    }
}
