//! Packets without Ethernet headers, and an independent look at checksums.

use std::net::IpAddr;

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TransportSlice,
};

use super::*;
use crate::wire::checksum;

/// The fixed part of an IP header.
fn header(from: A, to: A) -> IpHeaders {
    match (from.into(), to.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => IpHeaders::Ipv4(
            Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets()).unwrap(),
            Default::default(),
        ),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (source, destination) = (from.octets(), to.octets());
            let fixed = Ipv6Header { hop_limit: 64, source, destination, ..Ipv6Header::default() };
            IpHeaders::Ipv6(fixed, Default::default())
        }
        mixed => panic!("{mixed:?}"),
    }
}

fn builder(from: A, to: A) -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ip(header(from, to))
}

pub(crate) fn udp(from: A, to: A, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(from, to).udp(source, destination).write(&mut packet, payload).unwrap();
    packet
}

pub(crate) fn tcp(from: A, to: A, source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(from, to).tcp(source, destination, 1, 1000).write(&mut packet, &[]).unwrap();
    edited(packet, |packet| packet[UP + 13] = flags)
}

pub(crate) fn echo(from: A, to: A, id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = builder(from, to);
    match A::VERSION {
        Version::V4 => builder.icmpv4_echo_request(id, 1).write(&mut packet, b"ping").unwrap(),
        Version::V6 => builder.icmpv6_echo_request(id, 1).write(&mut packet, b"ping").unwrap(),
    }
    packet
}

pub(crate) fn echo_reply(from: A, to: A, id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = builder(from, to);
    match A::VERSION {
        Version::V4 => builder.icmpv4_echo_reply(id, 1).write(&mut packet, b"ping").unwrap(),
        Version::V6 => builder.icmpv6_echo_reply(id, 1).write(&mut packet, b"ping").unwrap(),
    }
    packet
}

/// An ICMP error about `quoted`.
pub(crate) fn error(from: A, to: A, (kind, code): (u8, u8), quoted: &[u8]) -> Vec<u8> {
    let mut packet = echo(from, to, 0);
    packet.truncate(UP);
    packet.extend([kind, code, 0, 0, 0, 0, 5, 0]);
    packet.extend(quoted);
    fix_ip(&mut packet);
    fix_icmp(&mut packet);
    packet
}

/// `packet` with DF set, which packets of IPv6 always are as good as.
pub(crate) fn dont_fragment(packet: Vec<u8>) -> Vec<u8> {
    match A::VERSION {
        Version::V4 => edited_ip(packet, |packet| packet[6] |= 0x40),
        Version::V6 => packet,
    }
}

/// The fragments of `packet`, each with `size` payload bytes or fewer; `size` is a multiple of 8.
pub(crate) fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(UP);
    let last = payload.len().div_ceil(size) - 1;
    let fragment = |(number, part): (usize, &[u8])| {
        let (offset, more) = (u16::try_from(number * size / 8).unwrap(), number < last);
        let mut fragment = match A::VERSION {
            Version::V4 => [header, part].concat(),
            Version::V6 => {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                let extension = [header[6], 0, high, low, 0, 0, 0, 1];
                let mut header = header.to_vec();
                header[6] = 44;
                [&header[..], &extension, part].concat()
            }
        };
        if A::VERSION == Version::V4 {
            let field = offset | if more { 0x2000 } else { 0 };
            fragment[6..8].copy_from_slice(&field.to_be_bytes());
        }
        fix_ip(&mut fragment);
        fragment
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

/// Where a fragment has its identification.
pub(crate) fn identification(fragment: &[u8]) -> &[u8] {
    match A::VERSION {
        Version::V4 => &fragment[4..6],
        Version::V6 => &fragment[UP + 4..UP + 8],
    }
}

/// A fragment with another identification.
pub(crate) fn identified(fragment: Vec<u8>, number: u16) -> Vec<u8> {
    let at = if A::VERSION == Version::V4 { 4 } else { UP + 6 };
    edited_ip(fragment, |fragment| fragment[at..at + 2].copy_from_slice(&number.to_be_bytes()))
}

/// What the fragments are together.
pub(crate) fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let extension = if A::VERSION == Version::V4 { 0 } else { 8 };
    let offset = |fragment: &Vec<u8>| match A::VERSION {
        Version::V4 => u16::from_be_bytes([fragment[6], fragment[7]]) & 0x1fff,
        Version::V6 => u16::from_be_bytes([fragment[UP + 2], fragment[UP + 3]]) >> 3,
    };
    let mut sorted: Vec<_> = fragments.to_vec();
    sorted.sort_by_key(offset);
    let mut whole = sorted[0][..UP].to_vec();
    for fragment in &sorted {
        assert_eq!(identification(fragment), identification(&sorted[0]), "one identification");
        assert_eq!(addresses(fragment), addresses(&sorted[0]), "one pair of addresses");
        whole.extend_from_slice(&fragment[UP + extension..]);
    }
    match A::VERSION {
        Version::V4 => whole[6..8].fill(0),
        Version::V6 => whole[6] = sorted[0][UP],
    }
    fix_ip(&mut whole);
    whole
}

/// `packet` after `edit`, checksums as they come of it.
pub(crate) fn edited(mut packet: Vec<u8>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let fix = is_tcp(&packet);
    edit(&mut packet);
    if fix {
        fix_tcp(&mut packet);
    }
    packet
}

/// `packet` after `edit` of its IP header, whose checksum is made right.
pub(crate) fn edited_ip(mut packet: Vec<u8>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    edit(&mut packet);
    fix_ip(&mut packet);
    packet
}

/// The number of the protocol that a packet carries.
pub(crate) fn protocol_at() -> usize {
    if A::VERSION == Version::V4 { 9 } else { 6 }
}

pub(crate) fn is_tcp(packet: &[u8]) -> bool {
    packet[protocol_at()] == 6
}

/// Makes the IP header's length and checksum right.
pub(crate) fn fix_ip(packet: &mut [u8]) {
    if A::VERSION == Version::V6 {
        let length = u16::try_from(packet.len() - UP).unwrap();
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        return;
    }
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    let length = (usize::from(packet[0] & 0xf) * 4).min(packet.len());
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::sum(&packet[..length]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The pseudo header of what is behind the IP header.
fn pseudo(packet: &[u8], protocol: u8) -> u64 {
    let (source, destination) = addresses(packet);
    let length = packet.len() - UP;
    match (source.into(), destination.into()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => checksum::pseudo_v4(source, destination, protocol, length),
        (IpAddr::V6(source), IpAddr::V6(destination)) => checksum::pseudo_v6(source, destination, protocol, length),
        mixed => panic!("{mixed:?}"),
    }
}

fn fix(packet: &mut [u8], at: usize, pseudo: u64) {
    packet[at..at + 2].fill(0);
    let sum = !checksum::fold(checksum::sum(&packet[UP..]) + pseudo);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the TCP checksum right.
pub(crate) fn fix_tcp(packet: &mut [u8]) {
    let pseudo = pseudo(packet, 6);
    fix(packet, UP + 16, pseudo);
}

/// Makes the ICMP checksum right.
pub(crate) fn fix_icmp(packet: &mut [u8]) {
    let pseudo = if A::VERSION == Version::V4 { 0 } else { pseudo(packet, 58) };
    fix(packet, UP + 2, pseudo);
}

/// Source and destination address.
pub(crate) fn addresses(packet: &[u8]) -> (A, A) {
    let address = |at: usize| A::first(&packet[at..]).unwrap();
    (address(A::VERSION.source_at()), address(A::VERSION.destination_at()))
}

/// Source and destination port of TCP and UDP.
pub(crate) fn ports(packet: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([packet[UP], packet[UP + 1]]), u16::from_be_bytes([packet[UP + 2], packet[UP + 3]]))
}

/// The identifier of an ICMP query.
pub(crate) fn identifier(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[UP + 4], packet[UP + 5]])
}

/// The same packet on its way back: both ends exchanged, which leaves every checksum right.
pub(crate) fn mirrored(packet: &[u8]) -> Vec<u8> {
    let mut back = packet.to_vec();
    let (source, destination) = addresses(packet);
    destination.replace(&mut back[A::VERSION.source_at()..]);
    source.replace(&mut back[A::VERSION.destination_at()..]);
    if packet[protocol_at()] == A::VERSION.icmp() {
        back[UP] = if A::VERSION == Version::V4 { 8 - packet[UP] } else { 1 ^ packet[UP] };
        fix_icmp(&mut back);
    } else {
        back[UP..UP + 2].copy_from_slice(&packet[UP + 2..UP + 4]);
        back[UP + 2..UP + 4].copy_from_slice(&packet[UP..UP + 2]);
    }
    back
}

/// Checks every checksum with code that is not ours.
pub(crate) fn assert_checksums_hold(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let (source, destination) = addresses(packet);
    if let Some(NetSlice::Ipv4(ip)) = &sliced.net {
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP");
    }
    let (IpAddr::V4(_), IpAddr::V4(_)) = (source.into(), destination.into()) else {
        return assert_checksums_hold_v6(&sliced, source.into(), destination.into());
    };
    let octets = |address: A| -> [u8; 4] { packet[if address == source { 12 } else { 16 }..][..4].try_into().unwrap() };
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let right = tcp.calc_checksum_ipv4(octets(source), octets(destination)).unwrap();
            assert_eq!(tcp.checksum(), right, "TCP");
        }
        Some(TransportSlice::Udp(udp)) if udp.checksum() != 0 => {
            let right = udp.to_header().calc_checksum_ipv4_raw(octets(source), octets(destination), udp.payload());
            assert_eq!(udp.checksum(), right.unwrap(), "UDP");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(checksum::fold(checksum::sum(icmp.slice())), 0xffff, "ICMP");
        }
        _ => {}
    }
}

fn assert_checksums_hold_v6(sliced: &SlicedPacket<'_>, source: IpAddr, destination: IpAddr) {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else { panic!() };
    let (source, destination) = (source.octets(), destination.octets());
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(source, destination).unwrap(), "TCP");
        }
        Some(TransportSlice::Udp(udp)) if udp.checksum() != 0 => {
            let right = udp.to_header().calc_checksum_ipv6_raw(source, destination, udp.payload());
            assert_eq!(udp.checksum(), right.unwrap(), "UDP");
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert!(icmp.is_checksum_valid(source, destination), "ICMPv6");
        }
        _ => {}
    }
}
