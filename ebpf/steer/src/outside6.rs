//! Is this IPv6 frame for a port that we lent, or for a network whose addresses the outside knows?
//! Checked reads only.
//!
//! Neighbour discovery is always the host's: of ICMPv6 nothing is looked at but replies to queries,
//! and errors by what they quote.

use aya_ebpf::maps::lpm_trie::Key;
use vxlane_abi::{
    Datagram6, LEASE_ICMP, LEASE_V6, Outside6,
    uplink::{Sight, first_bit, first_byte, halves, number},
};

use crate::{DATAGRAMS6, PREFIXES6, frame::Frame};

/// Whether a frame of an uplink is ours.
#[inline(always)]
pub fn is_ours(frame: &Frame<'_>, outside: &Outside6) -> bool {
    if frame.read(ETHERTYPE) != Some(IPV6) {
        return false;
    }
    is_lent(frame, outside).unwrap_or(false) || (outside.prefixes != 0 && is_routed(frame).unwrap_or(false))
}

/// Whether a frame is for one of our prefixes, and no neighbour discovery.
#[inline(always)]
fn is_routed(frame: &Frame<'_>) -> Option<bool> {
    let destination = frame.read(IP + 24)?;
    if PREFIXES6.get(&Key::new(128, destination)).is_none() {
        return Some(false);
    }
    if frame.read(IP + 6)? != [ICMPV6] {
        return Some(true);
    }
    let [kind] = frame.read(IP + HEADER)?;
    Some(!(ROUTER_SOLICITATION..=REDIRECT).contains(&kind))
}

/// Whether a frame is for a port of `outside` that is lent.
#[inline(always)]
fn is_lent(frame: &Frame<'_>, outside: &Outside6) -> Option<bool> {
    let [high, low] = halves(&outside.address);
    let theirs = [frame.read(IP + 24)?, frame.read(IP + 32)?].map(u64::from_ne_bytes);
    if theirs != [high, low] || high | low == 0 {
        return Some(false);
    }
    let [mut next] = frame.read(IP + 6)?;
    let mut at = IP + HEADER;
    // One header of options at most: more of them nobody sends.
    if next == HOP_BY_HOP || next == DESTINATION_OPTIONS {
        let [following, length] = frame.read(at)?;
        next = following;
        at += 8 + 8 * usize::from(length);
    }
    if next != FRAGMENT {
        return Some(is_posted(frame, lease(frame, next, at)?));
    }
    let [next, _, high, low] = frame.read(at)?;
    let source = frame.read(IP + 8)?;
    let datagram = Datagram6 { source, identification: u32::from_ne_bytes(frame.read(at + 4)?) };
    if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
        // SAFETY: nothing is read but whether there is such an entry.
        return Some(unsafe { DATAGRAMS6.get(&datagram) }.is_some());
    }
    let ours = is_posted(frame, lease(frame, next, at + 8)?);
    if ours {
        // Without room the other fragments pass to the host, which cannot use them.
        let _ = DATAGRAMS6.insert(&datagram, &0, 0);
    }
    Some(ours)
}

/// What a packet is for whose upper protocol begins at `at`.
#[inline(always)]
fn lease(frame: &Frame<'_>, protocol: u8, at: usize) -> Option<u32> {
    if protocol != ICMPV6 {
        return Some(first_bit(protocol)? | number(frame.read(at + 2)?));
    }
    match first_byte(frame, at)? {
        ECHO_REPLY => Some(LEASE_ICMP | number(frame.read(at + 4)?)),
        UNREACHABLE..=PARAMETER_PROBLEM => quoted(frame, at + ICMP_HEADER),
        _ => None,
    }
}

/// What the packet that an ICMPv6 error quotes came from.
#[inline(always)]
fn quoted(frame: &Frame<'_>, at: usize) -> Option<u32> {
    let mut next = first_byte(frame, at + 6)?;
    let mut payload = at + HEADER;
    if next == FRAGMENT {
        next = first_byte(frame, payload)?;
        payload += 8;
    }
    match next {
        ICMPV6 if first_byte(frame, payload)? == ECHO => Some(LEASE_ICMP | number(frame.read(payload + 4)?)),
        protocol => Some(first_bit(protocol)? | number(frame.read(payload)?)),
    }
}

/// Whether the port or identifier of this number is lent at our IPv6 address.
#[inline(always)]
fn is_posted(frame: &Frame<'_>, lease: u32) -> bool {
    let lease = LEASE_V6 + lease;
    frame.lent(lease >> 6) >> (lease & 63) & 1 == 1
}

/// Offset of the EtherType.
const ETHERTYPE: usize = 12;
/// Offset of the IPv6 header, and its length.
const IP: usize = 14;
const HEADER: usize = 40;
const IPV6: [u8; 2] = [0x86, 0xdd];
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const ICMP_HEADER: usize = 8;
const UNREACHABLE: u8 = 1;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const REDIRECT: u8 = 137;
