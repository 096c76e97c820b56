//! The rules for ways out.

use vxlane_dataplane::nat::Ports;

use crate::{
    config::NatChoice,
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
    let reason = match network.item {
        Network { nat: Some(NatChoice::Masquerade), internal: true, .. } => "an internal network has no way out",
        Network { nat: Some(NatChoice::Masquerade), gateway: None, .. } => {
            "needs a gateway, through which packets leave"
        }
        _ if network.item.way_out() == NatChoice::Masquerade && desired.outside(host).is_none() => {
            "the uplink has no IPv4 address that packets could leave with; say \"none\""
        }
        _ => return,
    };
    found.push(Problem::new(network.field("nat"), "\"masquerade\"", reason));
}
