//! The gateway itself: what is for its own address, and what it passes on.

use std::{net::IpAddr, ops::Range};

use zerocopy::IntoBytes;

use super::{Answer, MAX_HEAD, Visit};
use crate::{
    tables::Gateway,
    verdict::{DropReason, Verdict},
    wire::{EtherType, Ethernet, Ipv4, Ipv6, Layers, checksum, ipv6, protocol},
};

/// What becomes of a frame that an endpoint sent to the MAC address of its gateway; `None` if it
/// is for an address beyond, and thus the router's.
///
/// # Errors
/// Why it goes nowhere.
pub fn serve(
    visit: &Visit<'_>,
    gateway: &Gateway,
    vxlan_port: u16,
    frame: &[u8],
) -> Result<Option<Verdict>, DropReason> {
    if visit.is_host {
        return Err(DropReason::SamePort);
    }
    let (source, destination) = ends(visit.ethernet.ether_type, frame).ok_or(DropReason::GatewayUnused)?;
    if !gateway.has(destination) {
        return if is_tunnel(frame, vxlan_port) { Err(DropReason::ForgedTunnel) } else { Ok(None) };
    }
    if is_echo_request(visit.layers, frame) {
        return Ok(Some(Verdict::Answer(Answer::Echo)));
    }
    let host = visit.network.host.ok_or(DropReason::GatewayUnused)?;
    if !is_beside(gateway, source) {
        // The host would answer by another way, or take it for one of its own.
        return Err(DropReason::InvalidSource);
    }
    if is_tunnel(frame, vxlan_port) {
        // A kernel VXLAN device of this host listens on all of its addresses.
        return Err(DropReason::ForgedTunnel);
    }
    Ok(Some(Verdict::Deliver(host)))
}

/// Where an IP packet comes from and where it goes.
fn ends(ether_type: EtherType, frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let packet = frame.get(Ethernet::LEN..)?;
    match ether_type {
        EtherType::IPV4 => {
            Ipv4::new_checked(packet).map(|header| (header.source().into(), header.destination().into()))
        }
        EtherType::IPV6 => {
            Ipv6::new_checked(packet).map(|header| (header.source().into(), header.destination().into()))
        }
        _ => None,
    }
}

/// Whether `address` is one of a neighbour of the gateway.
fn is_beside(gateway: &Gateway, address: IpAddr) -> bool {
    let in_subnet = match address {
        IpAddr::V4(address) => gateway.ipv4.is_some_and(|network| network.contains(address)),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || gateway.ipv6.is_some_and(|network| network.contains(address))
        }
    };
    in_subnet && !gateway.has(address)
}

/// Whether a packet, or the fragment of one that has its ports, is UDP to the port of VTEPs. Once
/// translated it would come from the address of this host, which is that of a peer to others.
fn is_tunnel(frame: &[u8], vxlan_port: u16) -> bool {
    let Some(packet) = frame.get(Ethernet::LEN..) else { return false };
    let udp = match packet.first().map(|first| first >> 4) {
        Some(4) => udp_of_v4(packet),
        _ => udp_of_v6(packet),
    };
    let ports = udp.and_then(|segment| segment.first_chunk::<4>());
    ports.is_some_and(|&[_, _, high, low]| u16::from_be_bytes([high, low]) == vxlan_port)
}

fn udp_of_v4(packet: &[u8]) -> Option<&[u8]> {
    let header = Ipv4::new_checked(packet)?;
    let is_udp = header.protocol == protocol::UDP && header.fragment_offset() == 0;
    is_udp.then(|| packet.get(header.header_len()..)).flatten()
}

fn udp_of_v6(packet: &[u8]) -> Option<&[u8]> {
    let header = Ipv6::new_checked(packet)?;
    let payload = packet.get(Ipv6::LEN..)?;
    let upper = ipv6::upper(header.next_header, payload)?;
    (upper.protocol == protocol::UDP && !upper.later).then(|| payload.get(upper.offset..)).flatten()
}

/// Bytes of the ICMP header of an echo.
const ECHO: usize = 8;

fn is_echo_request(layers: &Layers, frame: &[u8]) -> bool {
    let Some(transport) = layers.transport else { return false };
    let Some(segment) = frame.get(transport.offset..transport.offset + transport.length) else { return false };
    let request = match transport.protocol {
        protocol::ICMP => 8,
        protocol::ICMPV6 => 128,
        _ => return false,
    };
    let pseudo = match transport.protocol {
        protocol::ICMPV6 => checksum::sum(layers.addresses(frame)) + u64::from(protocol::ICMPV6) + segment.len() as u64,
        _ => 0,
    };
    let is_request = segment.len() >= ECHO && segment[0] == request && segment[1] == 0;
    is_request && checksum::fold(checksum::sum(segment) + pseudo) == 0xffff
}

/// Writes headers that turn the echo request in `frame` into its reply, and says which part of the
/// frame follows.
pub(super) fn write_echo(frame: &[u8], head: &mut [u8; MAX_HEAD]) -> Option<(usize, Range<usize>)> {
    let (ethernet, packet) = Ethernet::split(frame)?;
    let layers = Layers::walk(frame);
    let transport = layers.transport?;
    let data = transport.offset + ECHO..transport.offset + transport.length;
    let length = u16::try_from(transport.length).ok()?;
    let back = Ethernet { destination: ethernet.source, source: ethernet.destination, ether_type: ethernet.ether_type };
    back.write_to_prefix(head).ok()?;
    let out = head.get_mut(Ethernet::LEN..)?;
    let (at, reply) = match ethernet.ether_type {
        EtherType::IPV4 => {
            let asked = Ipv4::new_checked(packet)?;
            let mut ip = Ipv4::new(protocol::ICMP, asked.destination(), asked.source(), length, 0);
            ip.traffic_class = asked.traffic_class;
            ip.checksum.set(!checksum::fold(checksum::sum(ip.as_bytes())));
            ip.write_to_prefix(out).ok()?;
            (Ipv4::LEN, 0)
        }
        EtherType::IPV6 => {
            let asked = Ipv6::new_checked(packet)?;
            let mut ip = Ipv6::new(protocol::ICMPV6, asked.destination(), asked.source(), length);
            ip.hop_limit = 64;
            ip.write_to_prefix(out).ok()?;
            (Ipv6::LEN, 129)
        }
        _ => return None,
    };
    let asked: &[u8; ECHO] = frame.get(transport.offset..)?.first_chunk()?;
    let icmp = out.get_mut(at..at + ECHO)?;
    icmp.copy_from_slice(asked);
    icmp[0] = reply;
    // The addresses have changed places, which no sum notices; only the type is another.
    let sum = checksum::update(
        u16::from_be_bytes([asked[2], asked[3]]),
        u16::from_be_bytes([asked[0], 0]),
        u16::from_be_bytes([reply, 0]),
    );
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some((Ethernet::LEN + at + ECHO, data))
}
