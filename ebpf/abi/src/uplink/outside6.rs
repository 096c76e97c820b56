//! Is this IPv6 frame for a port that we lent, or for a network whose addresses the outside knows?
//! Checked reads only.
//!
//! Neighbour discovery is always the host's: of ICMPv6 nothing is looked at but replies to queries,
//! and errors by what they quote.

use super::{FRAGMENT, ICMP_HEADER, IP, IPV6_HEADER as HEADER, Sight, first_bit, first_byte, is_for, number};
use crate::{Datagram6, LEASE_ICMP, LEASE_V6, Outside6};

/// Whether an IPv6 frame of an uplink is ours, though it is no VXLAN.
#[inline(always)]
pub(super) fn is_ours(sight: &impl Sight, outside: &Outside6) -> bool {
    is_lent(sight, outside).unwrap_or(false) || (outside.prefixes != 0 && is_routed(sight).unwrap_or(false))
}

/// Whether a frame is for one of our prefixes, and no neighbour discovery.
#[inline(always)]
fn is_routed(sight: &impl Sight) -> Option<bool> {
    let destination = sight.read(IP + 24)?;
    if !sight.routes(destination) {
        return Some(false);
    }
    if sight.read(IP + 6)? != [ICMPV6] {
        return Some(true);
    }
    let [kind] = sight.read(IP + HEADER)?;
    Some(!(ROUTER_SOLICITATION..=REDIRECT).contains(&kind))
}

/// Whether a frame is for a port of `outside` that is lent.
#[inline(always)]
fn is_lent(sight: &impl Sight, outside: &Outside6) -> Option<bool> {
    if !is_for(sight, &outside.address)? {
        return Some(false);
    }
    let [mut next] = sight.read(IP + 6)?;
    let mut at = IP + HEADER;
    // One header of options at most: more of them nobody sends.
    if next == HOP_BY_HOP || next == DESTINATION_OPTIONS {
        let [following, length] = sight.read(at)?;
        next = following;
        at += 8 + 8 * usize::from(length);
    }
    if next != FRAGMENT {
        return Some(is_posted(sight, lease(sight, next, at)?));
    }
    let [next, _, high, low] = sight.read(at)?;
    let source = sight.read(IP + 8)?;
    let datagram = Datagram6 { source, identification: u32::from_ne_bytes(sight.read(at + 4)?) };
    if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
        return Some(sight.awaits_v6(&datagram));
    }
    let ours = is_posted(sight, lease(sight, next, at + 8)?);
    if ours {
        sight.expect_v6(&datagram);
    }
    Some(ours)
}

/// What a packet is for whose upper protocol begins at `at`.
#[inline(always)]
fn lease(sight: &impl Sight, protocol: u8, at: usize) -> Option<u32> {
    if protocol != ICMPV6 {
        return Some(first_bit(protocol)? | number(sight.read(at + 2)?));
    }
    match first_byte(sight, at)? {
        ECHO_REPLY => Some(LEASE_ICMP | number(sight.read(at + 4)?)),
        UNREACHABLE..=PARAMETER_PROBLEM => quoted(sight, at + ICMP_HEADER),
        _ => None,
    }
}

/// What the packet that an ICMPv6 error quotes came from.
#[inline(always)]
fn quoted(sight: &impl Sight, at: usize) -> Option<u32> {
    let mut next = first_byte(sight, at + 6)?;
    let mut payload = at + HEADER;
    if next == FRAGMENT {
        next = first_byte(sight, payload)?;
        payload += 8;
    }
    match next {
        ICMPV6 if first_byte(sight, payload)? == ECHO => Some(LEASE_ICMP | number(sight.read(payload + 4)?)),
        protocol => Some(first_bit(protocol)? | number(sight.read(payload)?)),
    }
}

/// Whether the port or identifier of this number is lent at our IPv6 address.
#[inline(always)]
fn is_posted(sight: &impl Sight, lease: u32) -> bool {
    let lease = LEASE_V6 + lease;
    sight.lent(lease >> 6) >> (lease & 63) & 1 == 1
}

const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const UNREACHABLE: u8 = 1;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT: u8 = 137;
