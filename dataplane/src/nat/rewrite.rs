//! Gives packets new addresses and ports, with every checksum changed by the difference alone
//! (RFC 1624), so that a wrong one stays wrong and a payload is never read.

use std::net::Ipv4Addr;

use super::{
    packet::{Flow, ICMP_LEN, Quote},
    ports::Protocol,
};
use crate::wire::{Ipv4, Tcp, checksum, tcp};

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

impl Side {
    /// Where its address is in an IPv4 header.
    fn address(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
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

/// Gives one end of `packet`, which has been checked, a new address and port.
#[inline]
pub(super) fn endpoint(packet: &mut [u8], flow: &Flow, side: Side, address: Ipv4Addr, port: u16) {
    let moved = set_address(packet, side, address);
    set_port(packet, Ipv4::LEN, flow, side, port, moved);
}

/// Gives one end of `packet` a new address; returns what that changes in a checksum.
#[inline]
pub(super) fn set_address(packet: &mut [u8], side: Side, address: Ipv4Addr) -> u64 {
    let Some(field) = packet.get_mut(side.address()..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return 0 };
    let change = checksum::change_of_4(*field, address.octets());
    *field = address.octets();
    update(packet, 10, change);
    change
}

/// Gives a fragment another identification.
pub(super) fn set_identification(packet: &mut [u8], identification: u16) {
    if let Some(change) = replace(packet, 4, identification) {
        update(packet, 10, change);
    }
}

/// Writes a port of the header at `at`, as far as it is there; `moved` is what else changed
/// under its checksum.
#[inline]
fn set_port(packet: &mut [u8], at: usize, flow: &Flow, side: Side, port: u16, moved: u64) {
    let Some(change) = replace(packet, at + side.port(flow), port) else { return };
    match flow.protocol {
        Protocol::Tcp => update(packet, at + 16, moved + change),
        Protocol::Udp => update_udp(packet, at + 6, moved + change),
        // No pseudo header: the addresses do not count.
        Protocol::Icmp => update(packet, at + 2, change),
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
pub(super) fn error(packet: &mut [u8], length: usize, quote: &Quote, side: Side, address: Ipv4Addr, port: u16) {
    let outer = match side {
        Side::Source => Side::Destination,
        Side::Destination => Side::Source,
    };
    set_address(packet, outer, address);
    if let Some(quoted) = packet.get_mut(quote.at..length) {
        let moved = set_address(quoted, side, address);
        set_port(quoted, quote.payload - quote.at, &quote.flow, side, port, moved);
    }
    let Some(message) = packet.get_mut(Ipv4::LEN..length).filter(|message| message.len() >= ICMP_LEN) else { return };
    message[2..4].fill(0);
    let sum = !checksum::fold(checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// Lowers the maximum segment size that a SYN announces to `most` (RFC 6691); one that announces
/// none is left alone, as 536 bytes fit everywhere.
pub(super) fn clamp(packet: &mut [u8], flow: &Flow, most: u16) {
    if flow.protocol != Protocol::Tcp || flow.flags & tcp::SYN == 0 {
        return;
    }
    let end = packet.get(Ipv4::LEN + 12).map_or(0, |offset| Ipv4::LEN + usize::from(offset >> 4) * 4);
    let start = Ipv4::LEN + Tcp::LEN;
    let Some(at) = packet.get(start..end).and_then(tcp::mss_at).map(|at| start + at) else { return };
    let announced = packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u16::from_be_bytes(*field));
    if announced > most
        && let Some(change) = replace(packet, at, most)
    {
        // At an odd offset both bytes count in the other half of their words.
        let change = if at % 2 == 0 { change } else { checksum::swapped(change) };
        update(packet, Ipv4::LEN + 16, change);
    }
}
