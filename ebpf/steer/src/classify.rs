//! Is this underlay frame VXLAN to our VTEP, or for a port that we lent? Checked reads only.

use aya_ebpf::programs::XdpContext;
use vxlane_abi::{Datagram, LEASE_ICMP, LEASE_TCP, LEASE_UDP, Vtep6Address, VtepAddress};

use crate::{DATAGRAMS, LEASES};

/// What a frame is to the steering program.
#[derive(Clone, Copy)]
pub enum Class {
    /// For the worker's ring.
    Ours,
    /// Anything but VXLAN to our VTEP.
    NotVxlan,
    /// A fragment of UDP to our address: its reassembly is the host's work.
    Fragment,
    /// No port is known for it.
    UnknownPort,
}

/// Sorts one frame of an uplink. VLAN tags and anything cut short are not ours.
#[inline(always)]
pub fn classify(ctx: &XdpContext, vtep: &VtepAddress, vtep6: &Vtep6Address) -> Class {
    match read::<u16>(ctx, ETHERTYPE).map(u16::from_be) {
        Some(IPV4) => classify_v4(ctx, vtep),
        Some(IPV6) => classify_v6(ctx, vtep6).unwrap_or(Class::NotVxlan),
        Some(_) | None => Class::NotVxlan,
    }
}

/// Over IPv6, UDP right behind the fixed header: what has extensions is the host's. `None` for
/// what is not ours.
#[inline(always)]
fn classify_v6(ctx: &XdpContext, vtep: &Vtep6Address) -> Option<Class> {
    let [high, low] = halves(&vtep.address);
    if read::<u64>(ctx, IP + 24)? != high || read::<u64>(ctx, IP + 32)? != low || high | low == 0 {
        return None;
    }
    match read::<u8>(ctx, IP + 6)? {
        UDP if read::<u16>(ctx, IP + IPV6_HEADER + 2)? == u16::from_ne_bytes(vtep.port) => Some(Class::Ours),
        FRAGMENT if read::<u8>(ctx, IP + IPV6_HEADER)? == UDP => Some(Class::Fragment),
        _ => None,
    }
}

/// Both halves of an address, in the order of the wire: they are only compared.
#[inline(always)]
fn halves(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// Over IPv4; options in the header are stepped over.
#[inline(always)]
fn classify_v4(ctx: &XdpContext, vtep: &VtepAddress) -> Class {
    let Some(packet) = packet(ctx, u32::from_ne_bytes(vtep.address)) else { return Class::NotVxlan };
    let for_the_host = match packet.protocol == UDP && packet.is_fragment {
        true => Class::Fragment,
        false => Class::NotVxlan,
    };
    match packet.lease {
        Some(lease) if lease == LEASE_UDP | u32::from(u16::from_be_bytes(vtep.port)) => match packet.is_fragment {
            true => Class::Fragment,
            false => Class::Ours,
        },
        Some(lease) if is_lent(lease) => {
            if packet.is_fragment {
                // Without room the other fragments pass to the host, which cannot use them.
                let _ = DATAGRAMS.insert(&packet.datagram, &0, 0);
            }
            Class::Ours
        }
        // SAFETY: nothing is read but whether there is such an entry.
        None if packet.is_fragment && unsafe { DATAGRAMS.get(&packet.datagram) }.is_some() => Class::Ours,
        Some(_) | None => for_the_host,
    }
}

/// Whether the port or identifier of this number is lent.
#[inline(always)]
fn is_lent(lease: u32) -> bool {
    LEASES.get(lease >> 6).is_some_and(|word| word >> (lease & 63) & 1 == 1)
}

/// A packet to our address.
struct Packet {
    protocol: u8,
    is_fragment: bool,
    /// The number of the port or identifier that it is for; `None` without one.
    lease: Option<u32>,
    datagram: Datagram,
}

/// The IPv4 packet to `address` in a frame; `None` for anything else. `address` stays in the order
/// of the wire: it is only compared.
#[inline(always)]
fn packet(ctx: &XdpContext, address: u32) -> Option<Packet> {
    let version_ihl = read::<u8>(ctx, IP)?;
    let header = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header < IP_HEADER_MIN {
        return None;
    }
    if read::<u32>(ctx, IP + 16)? != address || address == 0 {
        return None;
    }
    let protocol = read::<u8>(ctx, IP + 9)?;
    // RFC 791: bit 13 is "more fragments", the thirteen below it the offset.
    let fragment = u16::from_be(read::<u16>(ctx, IP + 6)?) & 0x3fff;
    let datagram = Datagram {
        source: read::<u32>(ctx, IP + 12)?,
        identification: read::<u16>(ctx, IP + 4)?,
        protocol: u16::from(protocol),
    };
    let lease = match fragment & 0x1fff {
        0 => lease(ctx, protocol, IP + header),
        _ => None,
    };
    Some(Packet { protocol, is_fragment: fragment != 0, lease, datagram })
}

/// What a packet whose payload begins at `at` is for. Of ICMP, replies to queries, and errors by
/// what they quote; queries are for the host.
#[inline(always)]
fn lease(ctx: &XdpContext, protocol: u8, at: usize) -> Option<u32> {
    if protocol != ICMP {
        return Some(first_bit(protocol)? | number(ctx, at + 2)?);
    }
    match first_byte(ctx, at)? {
        ECHO_REPLY => Some(LEASE_ICMP | number(ctx, at + 4)?),
        UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => quoted(ctx, at + ICMP_HEADER),
        _ => None,
    }
}

/// What the packet that an ICMP error quotes came from.
#[inline(always)]
fn quoted(ctx: &XdpContext, at: usize) -> Option<u32> {
    let header = usize::from(first_byte(ctx, at)? & 0x0f) * 4;
    let payload = at + header;
    match read::<u8>(ctx, at + 9)? {
        ICMP if first_byte(ctx, payload)? == ECHO => Some(LEASE_ICMP | number(ctx, payload + 4)?),
        protocol => Some(first_bit(protocol)? | number(ctx, payload)?),
    }
}

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
fn first_byte(ctx: &XdpContext, offset: usize) -> Option<u8> {
    let [first, _] = read::<u16>(ctx, offset)?.to_ne_bytes();
    Some(first)
}

/// The 16-bit number at `offset`.
#[inline(always)]
fn number(ctx: &XdpContext, offset: usize) -> Option<u32> {
    Some(u32::from(u16::from_be(read::<u16>(ctx, offset)?)))
}

/// The `T` at `offset` into the frame, as its bytes lie; `None` beyond the end.
#[inline(always)]
fn read<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let at = ctx.data() + offset;
    if at + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the whole `T` lies between `data` and `data_end`, as the line above found; the
    // kernel keeps that range readable for this call. `T` is a plain integer wherever this
    // is called, and the read makes no claim on alignment.
    Some(unsafe { (at as *const T).read_unaligned() })
}

/// Offset of the EtherType.
const ETHERTYPE: usize = 12;
/// Offset of the IP header.
const IP: usize = 14;
const IP_HEADER_MIN: usize = 20;
const IPV6_HEADER: usize = 40;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
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
