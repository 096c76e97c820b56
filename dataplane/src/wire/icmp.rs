//! The ICMP errors that are owed the sender of a packet that goes nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, IntoBytes, byteorder::network_endian::U16};

use super::{EtherType, Ethernet, Ipv4, Ipv6, Layers, Network, checksum, ipv6, protocol};

/// Room for the longest error: an IPv6 packet of the minimum MTU in an Ethernet frame.
pub const MAX_ERROR: usize = Ethernet::LEN + 1280;

const HEADER: usize = 8;

/// What a router tells the sender of a packet that it does not forward (RFC 792, RFC 1812; for
/// IPv6 RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no way to its network (type 3 code 0; type 1 code 0).
    NetworkUnreachable,
    /// Nobody there has its address (type 3 code 1; type 1 code 3).
    HostUnreachable,
    /// It is not let through (type 3 code 13; type 1 code 1).
    Prohibited,
    /// It is too long and must not be fragmented (type 3 code 4; "packet too big", type 2).
    FragmentationNeeded {
        /// What would have gone through.
        mtu: u16,
    },
    /// It has been forwarded too often (type 11 code 0; type 3 code 0).
    TimeExceeded,
}

impl Error {
    /// The first eight bytes, without the checksum.
    fn header(self) -> [u8; HEADER] {
        match self {
            Self::NetworkUnreachable => [3, 0, 0, 0, 0, 0, 0, 0],
            Self::HostUnreachable => [3, 1, 0, 0, 0, 0, 0, 0],
            Self::Prohibited => [3, 13, 0, 0, 0, 0, 0, 0],
            Self::FragmentationNeeded { mtu } => [3, 4, 0, 0, 0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]],
            Self::TimeExceeded => [11, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The same for IPv6.
    fn header_v6(self) -> [u8; HEADER] {
        match self {
            Self::NetworkUnreachable => [1, 0, 0, 0, 0, 0, 0, 0],
            Self::HostUnreachable => [1, 3, 0, 0, 0, 0, 0, 0],
            Self::Prohibited => [1, 1, 0, 0, 0, 0, 0, 0],
            Self::FragmentationNeeded { mtu } => [2, 0, 0, 0, 0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]],
            Self::TimeExceeded => [3, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// Writes what the router at `from` tells the sender of `frame`, which was sent to that router's
/// MAC address. Returns its length, or `None` where no error may be sent: about something that is
/// not IP of the router's version, an ICMP error, a later fragment, or a packet that was from or
/// to more than one host (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4).
pub fn error(frame: &[u8], error: Error, from: IpAddr, out: &mut [u8; MAX_ERROR]) -> Option<usize> {
    let (ethernet, packet) = Ethernet::split(frame)?;
    if ethernet.destination.is_group() {
        return None;
    }
    let room = &mut out[Ethernet::LEN..];
    let length = match (ethernet.ether_type, from) {
        (EtherType::IPV4, IpAddr::V4(from)) => error_v4(packet, error, from, room),
        (EtherType::IPV6, IpAddr::V6(from)) => error_v6(packet, error, from, room),
        _ => None,
    }?;
    write_back(ethernet, out)?;
    Some(Ethernet::LEN + length)
}

/// Gives an answer its Ethernet header.
fn write_back(ethernet: &Ethernet, out: &mut [u8; MAX_ERROR]) -> Option<()> {
    let back = Ethernet { destination: ethernet.source, source: ethernet.destination, ether_type: ethernet.ether_type };
    back.write_to_prefix(out).ok()
}

/// Writes the answer to a packet that is longer than `mtu`: "fragmentation needed" (RFC 1191,
/// RFC 792 type 3 code 4) or "packet too big" (RFC 4443 section 3.2). Returns its length.
///
/// The overlay has no router here, so the error comes from the address that the packet was
/// sent to, as the kernel does it (`iptunnel_pmtud_build_icmp`, `net/ipv4/ip_tunnel_core.c`).
/// `None` where no error may be sent: not IP, fragmenting was allowed (IPv4 without DF; a
/// bridge cannot do it, the drop is counted), a group was addressed, the packet is itself an
/// ICMP error or a later fragment (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
pub fn too_big(frame: &[u8], layers: &Layers, mtu: u16, out: &mut [u8; MAX_ERROR]) -> Option<usize> {
    let (ethernet, packet) = Ethernet::split(frame)?;
    if ethernet.destination.is_group() {
        return None;
    }
    let length = match layers.network {
        Network::Other => None,
        Network::Ipv4 => too_big_v4(packet, mtu, &mut out[Ethernet::LEN..]),
        Network::Ipv6 => too_big_v6(packet, mtu, &mut out[Ethernet::LEN..]),
    }?;
    write_back(ethernet, out)?;
    Some(Ethernet::LEN + length)
}

fn too_big_v4(packet: &[u8], mtu: u16, out: &mut [u8]) -> Option<usize> {
    let header = Ipv4::new_checked(packet)?;
    if !header.dont_fragment() || header.more_fragments() {
        return None;
    }
    error_v4(packet, Error::FragmentationNeeded { mtu }, header.destination(), out)
}

fn error_v4(packet: &[u8], error: Error, from: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let header = Ipv4::new_checked(packet)?;
    let is_error = header.protocol == protocol::ICMP && !matches!(packet.get(header.header_len())?, 0 | 8 | 13 | 14);
    let source = header.source();
    let is_nobody = source.is_unspecified() || source.is_loopback() || source.is_multicast() || source.is_broadcast();
    if header.fragment_offset() != 0 || is_error || is_nobody || header.destination().is_multicast() {
        return None;
    }
    // RFC 1812 section 4.3.2.3: as much as fits 576 bytes.
    let quoted = &packet[..packet.len().min(576 - Ipv4::LEN - HEADER)];
    let length = HEADER + quoted.len();
    let icmp = out.get_mut(Ipv4::LEN..Ipv4::LEN + length)?;
    icmp[..HEADER].copy_from_slice(&error.header());
    icmp[HEADER..].copy_from_slice(quoted);
    let sum = !checksum::fold(checksum::sum(icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut ip = Ipv4::new(protocol::ICMP, from, source, u16::try_from(length).ok()?, 0);
    ip.checksum = U16::new(!checksum::fold(checksum::sum(ip.as_bytes())));
    ip.write_to_prefix(out).ok()?;
    Some(Ipv4::LEN + length)
}

fn too_big_v6(packet: &[u8], mtu: u16, out: &mut [u8]) -> Option<usize> {
    let destination = Ipv6::new_checked(packet)?.destination();
    error_v6(packet, Error::FragmentationNeeded { mtu }, destination, out)
}

fn error_v6(packet: &[u8], error: Error, from: Ipv6Addr, out: &mut [u8]) -> Option<usize> {
    let header = Ipv6::new_checked(packet)?;
    let (source, end) = (header.source(), Ipv6::LEN + usize::from(header.payload_length.get()));
    let payload = packet.get(Ipv6::LEN..end)?;
    let upper = ipv6::upper(header.next_header, payload)?;
    // Of a later fragment nobody can tell.
    let is_request = !upper.later && payload.get(upper.offset).is_some_and(|kind| kind & 0x80 != 0);
    let may_be_error = upper.protocol == protocol::ICMPV6 && !is_request;
    let is_nobody = source.is_unspecified() || source.is_loopback() || source.is_multicast();
    if may_be_error || is_nobody || header.destination().is_multicast() {
        return None;
    }
    // RFC 4443 section 2.4 (c): as much as fits the smallest MTU.
    let quoted = &packet[..end.min(1280 - Ipv6::LEN - HEADER)];
    let length = HEADER + quoted.len();
    let icmp = out.get_mut(Ipv6::LEN..Ipv6::LEN + length)?;
    icmp[..HEADER].copy_from_slice(&error.header_v6());
    icmp[HEADER..].copy_from_slice(quoted);
    let pseudo = checksum::pseudo_v6(from, source, protocol::ICMPV6, length);
    let sum = !checksum::fold(checksum::sum(icmp) + pseudo);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Ipv6::new(protocol::ICMPV6, from, source, u16::try_from(length).ok()?).write_to_prefix(out).ok()?;
    Some(Ipv6::LEN + length)
}

/// The MTU inside a "fragmentation needed" or "packet too big" in `frame`.
pub fn mtu_of_too_big(frame: &[u8]) -> Option<u16> {
    let transport = Layers::walk(frame).transport?;
    let (header, _) = <[u8; HEADER]>::ref_from_prefix(frame.get(transport.offset..)?).ok()?;
    match (transport.protocol, header) {
        (protocol::ICMP, [3, 4, _, _, _, _, high, low]) | (protocol::ICMPV6, [2, 0, _, _, 0, 0, high, low]) => {
            Some(u16::from_be_bytes([*high, *low]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpHeaders, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    fn long_v4(dont_fragment: bool) -> Vec<u8> {
        let mut ip =
            etherparse::Ipv4Header::new(1480, 64, etherparse::IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        ip.dont_fragment = dont_fragment;
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ip(IpHeaders::Ipv4(ip, Default::default()))
            .udp(1, 2)
            .write(&mut frame, &[7; 1472])
            .unwrap();
        frame
    }

    fn long_v6() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([1; 16], [2; 16], 9)
            .udp(1, 2)
            .write(&mut frame, &[7; 1452])
            .unwrap();
        frame
    }

    #[test]
    fn the_error_goes_back_and_names_the_mtu() {
        for frame in [long_v4(true), long_v6()] {
            let mut out = [0; MAX_ERROR];
            let length = too_big(&frame, &Layers::walk(&frame), 1450, &mut out).unwrap();
            let error = &out[..length];
            assert_eq!(mtu_of_too_big(error), Some(1450));
            assert_eq!((&error[..6], &error[6..12]), (&frame[6..12], &frame[..6]));
            let sliced = SlicedPacket::from_ethernet(error).unwrap();
            match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(_)) => {
                    assert_eq!(ip.header().source(), [10, 0, 0, 2]);
                    assert!(super::super::ipv4::checksum_holds(ip.header().slice()));
                    assert_eq!(checksum::fold(checksum::sum(&error[34..])), 0xffff);
                }
                (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn no_error_where_none_may_be_sent() {
        let refused = |frame: &[u8]| too_big(frame, &Layers::walk(frame), 1450, &mut [0; MAX_ERROR]).is_none();
        assert!(refused(&long_v4(false)), "without DF");
        let mut to_group = long_v4(true);
        to_group[0] = 1;
        assert!(refused(&to_group), "to a group");
        let mut error = vec![0; MAX_ERROR];
        let mut out = [0; MAX_ERROR];
        let length = too_big(&long_v6(), &Layers::walk(&long_v6()), 1450, &mut out).unwrap();
        error[..length].copy_from_slice(&out[..length]);
        assert!(refused(&error[..length]), "about an error");
        assert!(refused(&[0; 60]), "not IP");
    }
}
