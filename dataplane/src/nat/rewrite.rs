//! Gives packets new addresses and ports, with every checksum changed by the difference alone
//! (RFC 1624), so that a wrong one stays wrong and a payload is never read.

use super::{
    packet::{Flow, ICMP_LEN, Packet, Quote, icmp_pseudo},
    ports::Protocol,
};
use crate::wire::{Address, Tcp, Version, checksum, tcp};

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    /// Where its address is in a header of `version`.
    fn address(self, version: Version) -> usize {
        match self {
            Self::Source => version.source_at(),
            Self::Destination => version.destination_at(),
        }
    }

    /// Where its port is in a header of `flow`.
    fn port(self, flow: &Flow) -> usize {
        match (flow.protocol, self) {
            (Protocol::Icmp, _) => 4,
            (_, Self::Source) => 0,
            (_, Self::Destination) => 2,
        }
    }
}

/// Gives one end of `packet`, whose upper protocol begins `at`, a new address and port.
#[inline]
pub(super) fn endpoint<A: Address>(packet: &mut [u8], at: usize, flow: &Flow, side: Side, address: A, port: u16) {
    let moved = set_address(packet, side, address);
    set_port::<A>(packet, at, flow, side, port, moved);
}

/// Gives one end of `packet` a new address; returns what that changes in a checksum.
#[inline]
pub(super) fn set_address<A: Address>(packet: &mut [u8], side: Side, address: A) -> u64 {
    let field = packet.get_mut(side.address(A::VERSION)..);
    let Some(change) = field.and_then(|field| address.replace(field)) else { return 0 };
    if A::VERSION == Version::V4 {
        update(packet, 10, change);
    }
    change
}

/// Gives a fragment another identification, of which IPv4 takes the lower 16 bits.
pub(super) fn set_identification<A: Address>(packet: &mut [u8], at: usize, identification: u32) {
    let [_, _, high, low] = identification.to_be_bytes();
    match A::VERSION {
        Version::V4 => {
            if let Some(change) = replace(packet, at, u16::from_be_bytes([high, low])) {
                update(packet, 10, change);
            }
        }
        Version::V6 => {
            if let Some(field) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
                *field = identification.to_be_bytes();
            }
        }
    }
}

/// Writes a port of the header at `at`, as far as it is there; `moved` is what else changed
/// under its checksum.
#[inline]
fn set_port<A: Address>(packet: &mut [u8], at: usize, flow: &Flow, side: Side, port: u16, moved: u64) {
    let Some(change) = replace(packet, at + side.port(flow), port) else { return };
    match flow.protocol {
        Protocol::Tcp => update(packet, at + 16, moved + change),
        Protocol::Udp => update_udp(packet, at + 6, moved + change),
        // IPv4 has no pseudo header here: the addresses do not count.
        Protocol::Icmp if A::VERSION == Version::V4 => update(packet, at + 2, change),
        Protocol::Icmp => update(packet, at + 2, moved + change),
    }
}

/// Writes a field of 16 bits; returns what that changes in a checksum.
#[inline]
fn replace(packet: &mut [u8], at: usize, value: u16) -> Option<u64> {
    let field = packet.get_mut(at..)?.first_chunk_mut::<2>()?;
    let change = checksum::change(u16::from_be_bytes(*field), value);
    *field = value.to_be_bytes();
    Some(change)
}

#[inline]
fn update(packet: &mut [u8], at: usize, change: u64) {
    if let Some(field) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        *field = checksum::apply(u16::from_be_bytes(*field), change).to_be_bytes();
    }
}

/// Zero says that there is no checksum, so a sum of zero is sent as its twin (RFC 768).
#[inline]
fn update_udp(packet: &mut [u8], at: usize, change: u64) {
    let Some(field) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    let before = u16::from_be_bytes(*field);
    if before != 0 {
        let after = checksum::apply(before, change);
        *field = if after == 0 { 0xffff } else { after }.to_be_bytes();
    }
}

/// Gives the packet that an ICMP error quotes another endpoint at `side`, and the error itself
/// another address at the other: inside out (RFC 5508 REQ-4, REQ-5).
pub(super) fn error<A: Address>(
    bytes: &mut [u8],
    packet: &Packet<A>,
    quote: &Quote<A>,
    side: Side,
    address: A,
    port: u16,
) {
    let outer = match side {
        Side::Source => Side::Destination,
        Side::Destination => Side::Source,
    };
    set_address(bytes, outer, address);
    if let Some(quoted) = bytes.get_mut(quote.at..packet.length) {
        let moved = set_address(quoted, side, address);
        set_port::<A>(quoted, quote.payload - quote.at, &quote.flow, side, port, moved);
    }
    let pseudo = icmp_pseudo::<A>(bytes, packet.length - packet.at);
    let message = bytes.get_mut(packet.at..packet.length).filter(|message| message.len() >= ICMP_LEN);
    let Some(message) = message else { return };
    message[2..4].fill(0);
    let sum = !checksum::fold(checksum::sum(message) + pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Lowers the maximum segment size that a SYN announces to `most` (RFC 6691); one that announces
/// none is left alone, as 536 bytes fit everywhere. The segment starts at `begin`.
pub(super) fn clamp(packet: &mut [u8], begin: usize, flow: &Flow, most: u16) {
    if flow.protocol != Protocol::Tcp || flow.flags & tcp::SYN == 0 {
        return;
    }
    let end = packet.get(begin + 12).map_or(0, |offset| begin + usize::from(offset >> 4) * 4);
    let start = begin + Tcp::LEN;
    let Some(at) = packet.get(start..end).and_then(tcp::mss_at).map(|at| start + at) else { return };
    let announced = packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u16::from_be_bytes(*field));
    if announced > most
        && let Some(change) = replace(packet, at, most)
    {
        // At an odd offset both bytes count in the other half of their words.
        let change = if (at - begin).is_multiple_of(2) { change } else { checksum::swapped(change) };
        update(packet, begin + 16, change);
    }
}
