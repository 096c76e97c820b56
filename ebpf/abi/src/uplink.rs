//! Which frames of an uplink are ours: VXLAN to our VTEP, and what is for a port that we lent.
//!
//! Both programs that sit on uplinks ask here, so that a frame is ours or the host's whichever of
//! them it meets.

mod outside6;

use crate::{Datagram, Datagram6, LEASE_ICMP, LEASE_TCP, LEASE_UDP, Outside6, Vtep6Address, VtepAddress};

/// A frame, and the maps that say what of it we expect.
pub trait Sight {
    /// The `N` bytes at `offset`; `None` beyond the end of the frame.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The word `index` of the bits of lent ports.
    fn lent(&self, index: u32) -> u64;

    /// Whether more fragments of `datagram` are expected.
    fn awaits(&self, datagram: &Datagram) -> bool;

    /// Has more fragments of `datagram` be expected. Without room for it they pass to the host,
    /// which cannot use them.
    fn expect(&self, datagram: &Datagram);

    /// [`awaits`](Self::awaits), of IPv6.
    fn awaits_v6(&self, datagram: &Datagram6) -> bool;

    /// [`expect`](Self::expect), of IPv6.
    fn expect_v6(&self, datagram: &Datagram6);

    /// Whether one of our prefixes has `address`.
    fn routes(&self, address: [u8; 16]) -> bool;
}

/// Where what is ours is addressed to.
#[derive(Clone, Copy)]
pub struct Ours<'a> {
    /// VXLAN, and at the same address lent ports.
    pub vtep: &'a VtepAddress,
    /// VXLAN over IPv6.
    pub vtep6: &'a Vtep6Address,
    /// Lent ports and prefixes of IPv6.
    pub outside6: &'a Outside6,
}

/// Whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// VXLAN to our VTEP.
    Vxlan,
    /// For a port that we lent, or about a packet from one; or for a prefix that is ours.
    Lent,
    /// Neither VXLAN to our VTEP nor for a lent port.
    NotVxlan,
    /// A fragment of UDP to our address: its reassembly is the host's work.
    Fragment,
}

/// Sorts one frame of an uplink. VLAN tags and anything cut short are not ours.
#[inline(always)]
pub fn classify(sight: &impl Sight, ours: &Ours<'_>) -> Class {
    match sight.read(ETHERTYPE) {
        Some(IPV4) => classify_v4(sight, ours.vtep),
        Some(IPV6) => classify_v6(sight, ours),
        Some(_) | None => Class::NotVxlan,
    }
}

#[inline(always)]
fn classify_v6(sight: &impl Sight, ours: &Ours<'_>) -> Class {
    match tunnel_v6(sight, ours.vtep6) {
        Some(Class::Vxlan) => Class::Vxlan,
        _ if outside6::is_ours(sight, ours.outside6) => Class::Lent,
        class => class.unwrap_or(Class::NotVxlan),
    }
}

/// Over IPv6, UDP right behind the fixed header: what has extensions is the host's. `None` for
/// what is not ours.
#[inline(always)]
fn tunnel_v6(sight: &impl Sight, vtep: &Vtep6Address) -> Option<Class> {
    if !is_for(sight, &vtep.address)? {
        return None;
    }
    match sight.read(IP + 6)? {
        [UDP] if sight.read(IP + IPV6_HEADER + 2)? == vtep.port => Some(Class::Vxlan),
        [FRAGMENT] if sight.read(IP + IPV6_HEADER)? == [UDP] => Some(Class::Fragment),
        _ => None,
    }
}

/// Whether an IPv6 packet is for `address`; none is while that is all zero.
#[inline(always)]
fn is_for(sight: &impl Sight, address: &[u8; 16]) -> Option<bool> {
    let [high, low] = halves(address);
    let theirs = [sight.read(IP + 24)?, sight.read(IP + 32)?].map(u64::from_ne_bytes);
    Some(theirs == [high, low] && high | low != 0)
}

/// Both halves of an address, in the order of the wire: they are only compared.
#[inline(always)]
fn halves(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// Over IPv4; options in the header are stepped over.
#[inline(always)]
fn classify_v4(sight: &impl Sight, vtep: &VtepAddress) -> Class {
    let Some(packet) = packet(sight, vtep.address) else { return Class::NotVxlan };
    let for_the_host = match packet.protocol == UDP && packet.is_fragment {
        true => Class::Fragment,
        false => Class::NotVxlan,
    };
    match packet.lease {
        Some(lease) if lease == LEASE_UDP | number(vtep.port) => match packet.is_fragment {
            true => Class::Fragment,
            false => Class::Vxlan,
        },
        Some(lease) if sight.lent(lease >> 6) >> (lease & 63) & 1 == 1 => {
            if packet.is_fragment {
                sight.expect(&packet.datagram);
            }
            Class::Lent
        }
        None if packet.is_fragment && sight.awaits(&packet.datagram) => Class::Lent,
        Some(_) | None => for_the_host,
    }
}

/// A packet to our address.
struct Packet {
    protocol: u8,
    is_fragment: bool,
    /// The number of the port or identifier that it is for; `None` without one.
    lease: Option<u32>,
    datagram: Datagram,
}

/// The IPv4 packet to `address` in a frame; `None` for anything else.
#[inline(always)]
fn packet(sight: &impl Sight, address: [u8; 4]) -> Option<Packet> {
    let [version_ihl] = sight.read(IP)?;
    let header = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header < IP_HEADER_MIN {
        return None;
    }
    // As they lie: they are only compared.
    let [ours, theirs] = [address, sight.read(IP + 16)?].map(u32::from_ne_bytes);
    if theirs != ours || ours == 0 {
        return None;
    }
    let [protocol] = sight.read(IP + 9)?;
    // RFC 791: bit 13 is "more fragments", the thirteen below it the offset.
    let fragment = number(sight.read(IP + 6)?) & 0x3fff;
    let datagram = Datagram {
        source: u32::from_ne_bytes(sight.read(IP + 12)?),
        identification: u16::from_ne_bytes(sight.read(IP + 4)?),
        protocol: u16::from(protocol),
    };
    let lease = match fragment & 0x1fff {
        0 => lease(sight, protocol, IP + header),
        _ => None,
    };
    Some(Packet { protocol, is_fragment: fragment != 0, lease, datagram })
}

/// What a packet whose payload begins at `at` is for. Of ICMP, replies to queries, and errors by
/// what they quote; queries are for the host.
#[inline(always)]
fn lease(sight: &impl Sight, protocol: u8, at: usize) -> Option<u32> {
    if protocol != ICMP {
        return Some(first_bit(protocol)? | number(sight.read(at + 2)?));
    }
    match first_byte(sight, at)? {
        ECHO_REPLY => Some(LEASE_ICMP | number(sight.read(at + 4)?)),
        UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => quoted(sight, at + ICMP_HEADER),
        _ => None,
    }
}

/// What the packet that an ICMP error quotes came from.
#[inline(always)]
fn quoted(sight: &impl Sight, at: usize) -> Option<u32> {
    let header = usize::from(first_byte(sight, at)? & 0x0f) * 4;
    let payload = at + header;
    match first_byte(sight, at + 9)? {
        ICMP if first_byte(sight, payload)? == ECHO => Some(LEASE_ICMP | number(sight.read(payload + 4)?)),
        protocol => Some(first_bit(protocol)? | number(sight.read(payload)?)),
    }
}

/// Where the bits of lent ports of a protocol begin, if it has ports.
#[inline(always)]
fn first_bit(protocol: u8) -> Option<u32> {
    match protocol {
        TCP => Some(LEASE_TCP),
        UDP => Some(LEASE_UDP),
        _ => None,
    }
}

/// The byte at `offset`, if another follows. With one byte alone the compiler asks for the end of
/// the frame in a way from which the verifier learns nothing where the offset varies.
#[inline(always)]
fn first_byte(sight: &impl Sight, offset: usize) -> Option<u8> {
    let [first, _] = sight.read(offset)?;
    Some(first)
}

/// The number that two bytes are on the wire.
#[inline(always)]
fn number(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_be_bytes(bytes))
}

/// Offset of the EtherType.
const ETHERTYPE: usize = 12;
/// Offset of the IP header.
const IP: usize = 14;
const IP_HEADER_MIN: usize = 20;
const IPV6_HEADER: usize = 40;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The fragment header (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;
const ICMP_HEADER: usize = 8;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
