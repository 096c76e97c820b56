//! Builds frames of every kind a test needs, right ones and wrong ones, and reads tunnel frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type,
    Icmpv6Header, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader,
    UdpHeader,
};

use crate::lab::{MacAddr, Station};

/// What is in a checksum field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The right value.
    #[default]
    Right,
    /// Zero: for UDP, "not computed".
    Zero,
    /// A value that is certainly wrong, and not zero.
    Wrong,
}

impl Checksum {
    fn apply(self, right: u16) -> u16 {
        match self {
            Self::Right => right,
            Self::Zero => 0,
            // Any change but between 0 and 0xffff, which mean the same, is wrong.
            Self::Wrong if right == 0x1234 => 0x4321,
            Self::Wrong => 0x1234,
        }
    }
}

/// One station talking to another over IP: everything below the payload, every field settable.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Who sends.
    pub from: Station,
    /// Who is to receive.
    pub to: Station,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class: DSCP and ECN.
    pub tos: u8,
    /// IPv4 identification.
    pub identification: u16,
    /// IPv4 don't-fragment bit.
    pub dont_fragment: bool,
    /// The IPv4 header's checksum.
    pub ip_checksum: Checksum,
    /// The checksum of UDP, TCP or ICMP.
    pub checksum: Checksum,
}

impl Talk {
    /// A talk with the usual values and right checksums.
    pub fn new(from: Station, to: Station) -> Self {
        Self {
            from,
            to,
            ttl: 64,
            tos: 0,
            identification: 1,
            dont_fragment: false,
            ip_checksum: Checksum::Right,
            checksum: Checksum::Right,
        }
    }

    /// UDP over IPv4.
    pub fn udp4(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut udp = udp_header(source_port, destination_port, payload.len());
        let (from, to) = (self.from.ipv4.octets(), self.to.ipv4.octets());
        let right = udp.calc_checksum_ipv4_raw(from, to, payload);
        udp.checksum = self.checksum.apply(expect_fits(right));
        self.ipv4(IpNumber::UDP, &[&udp.to_bytes(), payload].concat())
    }

    /// UDP over IPv6.
    pub fn udp6(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut udp = udp_header(source_port, destination_port, payload.len());
        let (from, to) = (self.from.ipv6.octets(), self.to.ipv6.octets());
        let right = udp.calc_checksum_ipv6_raw(from, to, payload);
        udp.checksum = self.checksum.apply(expect_fits(right));
        self.ipv6(IpNumber::UDP, &[&udp.to_bytes(), payload].concat())
    }

    /// TCP over IPv4; `header` brings ports, numbers, flags and options.
    pub fn tcp4(&self, mut header: TcpHeader, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.from.ipv4.octets(), self.to.ipv4.octets());
        let right = header.calc_checksum_ipv4_raw(from, to, payload);
        header.checksum = self.checksum.apply(expect_fits(right));
        self.ipv4(IpNumber::TCP, &[&header.to_bytes(), payload].concat())
    }

    /// TCP over IPv6; `header` brings ports, numbers, flags and options.
    pub fn tcp6(&self, mut header: TcpHeader, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.from.ipv6.octets(), self.to.ipv6.octets());
        let right = header.calc_checksum_ipv6_raw(from, to, payload);
        header.checksum = self.checksum.apply(expect_fits(right));
        self.ipv6(IpNumber::TCP, &[&header.to_bytes(), payload].concat())
    }

    /// An ICMP message over IPv4.
    pub fn icmp4(&self, kind: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
        let mut header = Icmpv4Header::with_checksum(kind, payload);
        header.checksum = self.checksum.apply(header.checksum);
        self.ipv4(IpNumber::ICMP, &[&header.to_bytes(), payload].concat())
    }

    /// An ICMP echo request over IPv4.
    pub fn echo4(&self, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
        self.icmp4(Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq }), payload)
    }

    /// An ICMP message over IPv6.
    pub fn icmp6(&self, kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (self.from.ipv6.octets(), self.to.ipv6.octets());
        let mut header = expect_fits(Icmpv6Header::with_checksum(kind, from, to, payload));
        header.checksum = self.checksum.apply(header.checksum);
        self.ipv6(IpNumber::IPV6_ICMP, &[&header.to_bytes(), payload].concat())
    }

    /// An ICMP echo request over IPv6.
    pub fn echo6(&self, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
        self.icmp6(Icmpv6Type::EchoRequest(IcmpEchoHeader { id, seq }), payload)
    }

    /// Any payload over IPv4.
    pub fn ipv4(&self, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
        let header = self.ipv4_header(protocol, payload.len());
        ethernet(self.to.mac, self.from.mac, EtherType::IPV4, &[&header.to_bytes(), payload].concat())
    }

    /// Any payload over IPv6.
    pub fn ipv6(&self, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
        let header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: length(payload.len()),
            next_header: protocol,
            hop_limit: self.ttl,
            source: self.from.ipv6.octets(),
            destination: self.to.ipv6.octets(),
        };
        ethernet(self.to.mac, self.from.mac, EtherType::IPV6, &[&header.to_bytes(), payload].concat())
    }

    fn ipv4_header(&self, protocol: IpNumber, payload: usize) -> Ipv4Header {
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.tos >> 2).unwrap_or_default(),
            ecn: IpEcn::try_new(self.tos & 3).unwrap_or_default(),
            total_len: length(Ipv4Header::MIN_LEN + payload),
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            time_to_live: self.ttl,
            protocol,
            source: self.from.ipv4.octets(),
            destination: self.to.ipv4.octets(),
            ..Ipv4Header::default()
        };
        header.header_checksum = self.ip_checksum.apply(header.calc_header_checksum());
        header
    }
}

/// A tunnel around a frame: every field of the outer headers settable.
#[derive(Clone, Debug)]
pub struct Vxlan {
    /// The outer Ethernet, IP and UDP part.
    pub outer: Talk,
    /// Whether the outer addresses are those of IPv6.
    pub is_v6: bool,
    /// Outer UDP source port.
    pub source_port: u16,
    /// Outer UDP destination port.
    pub destination_port: u16,
    /// The first byte of the VXLAN header; 0x08 is the I flag alone.
    pub flags: u8,
    /// The 24 reserved bits after the flags.
    pub reserved: [u8; 3],
    /// The network identifier; only 24 bits are used.
    pub vni: u32,
    /// The last, reserved byte.
    pub reserved_end: u8,
}

impl Vxlan {
    /// A right header between two VTEPs of one family.
    pub fn new<A: Into<IpAddr>>(from: (MacAddr, A), to: (MacAddr, A), vni: u32) -> Self {
        let [from, to] = [from, to].map(|(mac, address)| (mac, address.into()));
        let station = |(mac, address)| match address {
            IpAddr::V4(ipv4) => Station { mac, ipv4, ipv6: Ipv6Addr::UNSPECIFIED },
            IpAddr::V6(ipv6) => Station { mac, ipv4: Ipv4Addr::UNSPECIFIED, ipv6 },
        };
        Self {
            is_v6: from.1.is_ipv6(),
            outer: Talk::new(station(from), station(to)),
            source_port: 50_000,
            destination_port: crate::peer::VXLAN_PORT,
            flags: 0x08,
            reserved: [0; 3],
            vni,
            reserved_end: 0,
        }
    }

    /// The VXLAN header alone.
    pub fn header(&self) -> [u8; 8] {
        let [r0, r1, r2] = self.reserved;
        let [_, v0, v1, v2] = self.vni.to_be_bytes();
        [self.flags, r0, r1, r2, v0, v1, v2, self.reserved_end]
    }

    /// The header with bit number `bit` (0 is the first on the wire) changed.
    pub fn flipped(&self, bit: usize) -> Self {
        let mut header = self.header();
        header[bit / 8] ^= 0x80 >> (bit % 8);
        let [flags, r0, r1, r2, v0, v1, v2, reserved_end] = header;
        Self { flags, reserved: [r0, r1, r2], vni: u32::from_be_bytes([0, v0, v1, v2]), reserved_end, ..self.clone() }
    }

    /// The frame that carries `inner`.
    pub fn wrap(&self, inner: &[u8]) -> Vec<u8> {
        self.carry(&[&self.header(), inner].concat())
    }

    /// The frame whose UDP payload is `payload`, whatever that is: short headers for instance.
    pub fn carry(&self, payload: &[u8]) -> Vec<u8> {
        match self.is_v6 {
            true => self.outer.udp6(self.source_port, self.destination_port, payload),
            false => self.outer.udp4(self.source_port, self.destination_port, payload),
        }
    }
}

/// A tunnel frame taken apart.
#[derive(Clone, Debug)]
pub struct Unwrapped {
    /// Outer Ethernet header.
    pub ethernet: Ethernet2Header,
    /// Outer IPv4 header.
    pub ipv4: Ipv4Header,
    /// Outer UDP header.
    pub udp: UdpHeader,
    /// The VXLAN header.
    pub header: [u8; 8],
    /// The frame inside.
    pub inner: Vec<u8>,
}

impl Unwrapped {
    /// The network identifier.
    pub fn vni(&self) -> u32 {
        let [_, _, _, _, v0, v1, v2, _] = self.header;
        u32::from_be_bytes([0, v0, v1, v2])
    }

    /// Outer type of service: DSCP and ECN.
    pub fn tos(&self) -> u8 {
        self.ipv4.dscp.value() << 2 | self.ipv4.ecn.value()
    }
}

/// Takes a VXLAN frame over IPv4 apart, if it is one by its UDP port.
pub fn unwrap(frame: &[u8]) -> Option<Unwrapped> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
    if ethernet.ether_type != EtherType::IPV4 {
        return None;
    }
    let (ipv4, rest) = Ipv4Header::from_slice(rest).ok()?;
    let rest = rest.get(..usize::from(ipv4.payload_len().ok()?))?;
    if ipv4.protocol != IpNumber::UDP || ipv4.is_fragmenting_payload() {
        return None;
    }
    let (udp, rest) = UdpHeader::from_slice(rest).ok()?;
    if udp.destination_port != crate::peer::VXLAN_PORT {
        return None;
    }
    let (header, inner) = rest.split_first_chunk::<8>()?;
    Some(Unwrapped { ethernet, ipv4, udp, header: *header, inner: inner.to_vec() })
}

/// Any payload in an Ethernet frame.
pub fn ethernet(destination: MacAddr, source: MacAddr, ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { source: source.0, destination: destination.0, ether_type };
    [&header.to_bytes(), payload].concat()
}

/// `frame` with a VLAN tag put behind its addresses; again for a stacked tag.
///
/// # Panics
/// When `frame` is shorter than two addresses, which is a mistake in the test.
pub fn tagged(frame: &[u8], protocol: u16, control: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &protocol.to_be_bytes(), &control.to_be_bytes(), rest].concat()
}

/// The broadcast question of `from` who has `target`.
pub fn arp_request(from: Station, target: Ipv4Addr) -> Vec<u8> {
    let nobody = Station { mac: MacAddr([0; 6]), ipv4: target, ..from };
    arp(MacAddr::BROADCAST, ArpOperation::REQUEST, from, nobody)
}

/// The answer of `from` to `to`.
pub fn arp_reply(from: Station, to: Station) -> Vec<u8> {
    arp(to.mac, ArpOperation::REPLY, from, to)
}

/// Any ARP message from `sender`, about `sender` and `target`.
pub fn arp(destination: MacAddr, operation: ArpOperation, sender: Station, target: Station) -> Vec<u8> {
    let packet = ArpPacket::from(ArpEthIpv4Packet {
        operation,
        sender_mac: sender.mac.0,
        sender_ipv4: sender.ipv4.octets(),
        target_mac: target.mac.0,
        target_ipv4: target.ipv4.octets(),
    });
    ethernet(destination, sender.mac, EtherType::ARP, &packet.to_bytes())
}

/// The fragments of an IPv4 `frame`, each with at most `size` payload bytes, a multiple of 8.
///
/// `None` when `frame` is no IPv4 frame or `size` no such number.
pub fn fragments4(frame: &[u8], size: u16) -> Option<Vec<Vec<u8>>> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).ok()?;
    let (whole, payload) = Ipv4Header::from_slice(rest).ok()?;
    if size == 0 || !size.is_multiple_of(8) {
        return None;
    }
    let count = payload.chunks(size.into()).count();
    let fragment = |(number, part): (u16, &[u8])| {
        let mut header = whole.clone();
        header.fragment_offset = IpFragOffset::try_new(number * (size / 8)).ok()?;
        header.more_fragments = usize::from(number) + 1 < count;
        header.set_payload_len(part.len()).ok()?;
        header.header_checksum = header.calc_header_checksum();
        Some([&ethernet.to_bytes(), &header.to_bytes()[..], part].concat())
    };
    (0u16..).zip(payload.chunks(size.into())).map(fragment).collect()
}

fn udp_header(source_port: u16, destination_port: u16, payload: usize) -> UdpHeader {
    UdpHeader { source_port, destination_port, length: length(UdpHeader::LEN + payload), checksum: 0 }
}

/// A length field; a test that asks for more than fits has made a mistake.
fn length(bytes: usize) -> u16 {
    expect_fits(u16::try_from(bytes))
}

/// What can only fail because a test's payload is larger than any packet.
fn expect_fits<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the payload does not fit into a packet: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Network;

    fn talk() -> Talk {
        let network = Network::new("blue", 5000);
        Talk::new(network.station(1, 1), network.station(2, 1))
    }

    fn tunnel() -> Vxlan {
        let near = (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 0, 2, 1));
        let far = (MacAddr([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(192, 0, 2, 2));
        Vxlan::new(near, far, 0x00ab_cdef)
    }

    #[test]
    fn what_was_wrapped_is_unwrapped() {
        let inner = talk().udp4(1, 2, b"hello");
        let mut tunnel = tunnel();
        tunnel.outer.tos = 0x16;
        let unwrapped = unwrap(&tunnel.wrap(&inner)).unwrap();
        assert_eq!(unwrapped.inner, inner);
        assert_eq!(unwrapped.vni(), 0x00ab_cdef);
        assert_eq!(unwrapped.tos(), 0x16);
        assert_eq!(unwrapped.header, [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
    }

    #[test]
    fn a_flipped_bit_is_the_only_change() {
        let tunnel = tunnel();
        for bit in 0..64 {
            let (left, right) = (tunnel.header(), tunnel.flipped(bit).header());
            let changed = u64::from_be_bytes(left) ^ u64::from_be_bytes(right);
            assert_eq!(changed, 1 << (63 - bit));
        }
    }

    #[test]
    fn fragments_together_are_the_whole() {
        let frame = talk().udp4(1, 2, &[7; 1000]);
        let parts = fragments4(&frame, 400).unwrap();
        let payload: Vec<u8> = parts.iter().flat_map(|part| part[34..].to_vec()).collect();
        assert_eq!((parts.len(), &payload[..]), (3, &frame[34..]));
    }
}
