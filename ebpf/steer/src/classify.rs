//! Is this underlay frame VXLAN to our VTEP? Checked reads only.

use aya_ebpf::programs::XdpContext;
use vxlane_abi::VtepAddress;

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

/// Sorts one frame of an uplink. Options in the IPv4 header are stepped over; VLAN tags, IPv6
/// and anything cut short are not ours.
#[inline(always)]
pub fn classify(ctx: &XdpContext, vtep: &VtepAddress) -> Class {
    match destination(ctx, u32::from_ne_bytes(vtep.address)) {
        Some(Destination::Port(port)) if port == u16::from_ne_bytes(vtep.port) => Class::Ours,
        Some(Destination::Fragment) => Class::Fragment,
        Some(Destination::Port(_)) | None => Class::NotVxlan,
    }
}

enum Destination {
    /// UDP port, in the order of the wire.
    Port(u16),
    Fragment,
}

/// Where a UDP datagram to `address` goes; `None` for anything else. `address` and the port
/// stay in the order of the wire: they are only compared.
#[inline(always)]
fn destination(ctx: &XdpContext, address: u32) -> Option<Destination> {
    if read::<u16>(ctx, ETHERTYPE)? != IPV4.to_be() {
        return None;
    }
    let version_ihl = read::<u8>(ctx, IP)?;
    let header = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header < IP_HEADER_MIN {
        return None;
    }
    if read::<u8>(ctx, IP + 9)? != UDP || read::<u32>(ctx, IP + 16)? != address || address == 0 {
        return None;
    }
    // RFC 791: bit 13 is "more fragments", the thirteen below it the offset.
    if read::<u16>(ctx, IP + 6)? & 0x3fff_u16.to_be() != 0 {
        return Some(Destination::Fragment);
    }
    Some(Destination::Port(read::<u16>(ctx, IP + header + 2)?))
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
/// Offset of the IPv4 header.
const IP: usize = 14;
const IP_HEADER_MIN: usize = 20;
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;
