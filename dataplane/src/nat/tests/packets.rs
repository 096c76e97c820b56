//! Packets without Ethernet headers, the cast of the tests, and an independent look at checksums.

use std::net::Ipv4Addr;

use etherparse::{IpNumber, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::wire::checksum;

/// An endpoint of the network.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// What stands for it.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Whom it talks to.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Somebody on the way.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

pub(crate) fn udp(from: Ipv4Addr, to: Ipv4Addr, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(source, destination);
    builder.write(&mut packet, payload).unwrap();
    packet
}

pub(crate) fn tcp(from: Ipv4Addr, to: Ipv4Addr, source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).tcp(source, destination, 1, 1000);
    builder.write(&mut packet, &[]).unwrap();
    edited(packet, |packet| packet[33] = flags)
}

pub(crate) fn echo(from: Ipv4Addr, to: Ipv4Addr, id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).icmpv4_echo_request(id, 1);
    builder.write(&mut packet, b"ping").unwrap();
    packet
}

pub(crate) fn echo_reply(from: Ipv4Addr, to: Ipv4Addr, id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).icmpv4_echo_reply(id, 1);
    builder.write(&mut packet, b"ping").unwrap();
    packet
}

/// An ICMP error about `quoted`.
pub(crate) fn error(from: Ipv4Addr, to: Ipv4Addr, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + quoted.len()).unwrap();
    let mut header = Ipv4Header::new(length, 64, IpNumber::ICMP, from.octets(), to.octets()).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let mut message = [&[kind, code, 0, 0, 0, 0, 5, 0], quoted].concat();
    let sum = !checksum::fold(checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    [&header.to_bytes()[..], &message].concat()
}

/// `packet` with DF set.
pub(crate) fn dont_fragment(packet: Vec<u8>) -> Vec<u8> {
    edited_ip(packet, |packet| packet[6] |= 0x40)
}

/// The fragments of `packet`, each with `size` payload bytes or fewer; `size` is a multiple of 8.
pub(crate) fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let last = payload.len().div_ceil(size) - 1;
    let fragment = |(number, part): (usize, &[u8])| {
        let mut fragment = [header, part].concat();
        let offset = u16::try_from(number * size / 8).unwrap() | if number < last { 0x2000 } else { 0 };
        fragment[2..4].copy_from_slice(&u16::try_from(20 + part.len()).unwrap().to_be_bytes());
        fragment[6..8].copy_from_slice(&offset.to_be_bytes());
        fix_ip(&mut fragment);
        fragment
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

/// What the fragments are together.
pub(crate) fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut sorted: Vec<_> = fragments.to_vec();
    sorted.sort_by_key(|fragment| u16::from_be_bytes([fragment[6], fragment[7]]) & 0x1fff);
    let mut whole = sorted[0][..20].to_vec();
    for fragment in &sorted {
        assert_eq!(fragment[4..6], sorted[0][4..6], "one identification");
        assert_eq!(fragment[12..20], sorted[0][12..20], "one pair of addresses");
        whole.extend_from_slice(&fragment[20..]);
    }
    let length = u16::try_from(whole.len()).unwrap();
    whole[2..4].copy_from_slice(&length.to_be_bytes());
    whole[6..8].fill(0);
    fix_ip(&mut whole);
    whole
}

/// `packet` after `edit`, checksums as they come of it.
pub(crate) fn edited(mut packet: Vec<u8>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let fix = packet[9] == 6;
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

/// Makes the IP header's checksum right.
pub(crate) fn fix_ip(packet: &mut [u8]) {
    let length = (usize::from(packet[0] & 0xf) * 4).min(packet.len());
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::sum(&packet[..length]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the TCP checksum right.
pub(crate) fn fix_tcp(packet: &mut [u8]) {
    let (source, destination) = addresses(packet);
    packet[36..38].fill(0);
    let pseudo = checksum::pseudo_v4(source, destination, 6, packet.len() - 20);
    let sum = !checksum::fold(checksum::sum(&packet[20..]) + pseudo);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
}

/// Source and destination address.
pub(crate) fn addresses(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    (address(12), address(16))
}

/// Source and destination port of TCP and UDP.
pub(crate) fn ports(packet: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([packet[20], packet[21]]), u16::from_be_bytes([packet[22], packet[23]]))
}

/// The identifier of an ICMP query.
pub(crate) fn identifier(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[24], packet[25]])
}

/// The same packet on its way back: both ends exchanged, which leaves every checksum right.
pub(crate) fn mirrored(packet: &[u8]) -> Vec<u8> {
    let mut back = packet.to_vec();
    back[12..16].copy_from_slice(&packet[16..20]);
    back[16..20].copy_from_slice(&packet[12..16]);
    if packet[9] == 1 {
        back[20] = 8 - packet[20];
        let message = &mut back[20..];
        message[2..4].fill(0);
        let sum = !checksum::fold(checksum::sum(message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        back[20..22].copy_from_slice(&packet[22..24]);
        back[22..24].copy_from_slice(&packet[20..22]);
    }
    back
}

/// Checks every checksum with code that is not ours.
pub(crate) fn assert_checksums_hold(packet: &[u8]) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { panic!("no IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP");
    let payload = ip.payload().payload;
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let right = tcp.calc_checksum_ipv4(header.source, header.destination).unwrap();
            assert_eq!(tcp.checksum(), right, "TCP");
        }
        Some(TransportSlice::Udp(udp)) if udp.checksum() != 0 => {
            let right = udp.to_header().calc_checksum_ipv4_raw(header.source, header.destination, udp.payload());
            assert_eq!(udp.checksum(), right.unwrap(), "UDP");
        }
        Some(TransportSlice::Icmpv4(_)) => {
            assert_eq!(checksum::fold(checksum::sum(payload)), 0xffff, "ICMP");
        }
        _ => {}
    }
}
