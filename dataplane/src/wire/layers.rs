//! One walk over an overlay frame: what it carries and where.

use std::ops::Range;

use super::{EtherType, Ethernet, Ipv4, Ipv6, Udp, checksum, ecn::Ecn, ipv6, protocol};

/// What a frame carries, found in one walk and used by checksums, ECN and entropy alike.
///
/// A frame whose IP header does not hold together counts as [`Network::Other`]: a bridge
/// forwards what it does not understand, and touches nothing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The network layer.
    pub network: Network,
    /// The congestion mark; Not-ECT where there is no IP.
    pub ecn: Ecn,
    /// The upper protocol, when all of it is in this frame.
    pub transport: Option<Transport>,
}

/// The network layer of a frame; its header starts at byte 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Neither IPv4 nor IPv6 that can be read.
    Other,
    /// IPv4, with its header checked for lengths.
    Ipv4,
    /// IPv6, likewise.
    Ipv6,
}

/// An upper protocol inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// See [`protocol`].
    pub protocol: u8,
    /// First byte, counted from the start of the frame.
    pub offset: usize,
    /// Bytes, without Ethernet padding.
    pub length: usize,
}

/// Source and destination address of IPv4 and of IPv6, as bytes of the frame.
const ADDRESSES_V4: Range<usize> = Ethernet::LEN + 12..Ethernet::LEN + 20;
const ADDRESSES_V6: Range<usize> = Ethernet::LEN + 8..Ethernet::LEN + 40;

impl Layers {
    const OTHER: Self = Self { network: Network::Other, ecn: Ecn::NotEct, transport: None };

    /// Walks `frame`, which starts with an Ethernet header.
    #[inline]
    pub fn walk(frame: &[u8]) -> Self {
        Self::walk_plain(frame).unwrap_or_else(|| Self::walk_any(frame))
    }

    /// What nearly every frame is: a whole IPv4 packet without options.
    #[inline(always)]
    pub(crate) fn walk_plain(frame: &[u8]) -> Option<Self> {
        let (ethernet, packet) = Ethernet::split(frame)?;
        let (header, length) = Ipv4::new_plain(packet).filter(|_| ethernet.ether_type == EtherType::IPV4)?;
        let transport = Some(Transport { protocol: header.protocol, offset: Ethernet::LEN + Ipv4::LEN, length });
        Some(Self { network: Network::Ipv4, ecn: header.ecn(), transport })
    }

    #[inline(never)]
    fn walk_any(frame: &[u8]) -> Self {
        let Some((ethernet, packet)) = Ethernet::split(frame) else { return Self::OTHER };
        match ethernet.ether_type {
            EtherType::IPV4 => Self::walk_v4(packet).unwrap_or(Self::OTHER),
            EtherType::IPV6 => Self::walk_v6(packet).unwrap_or(Self::OTHER),
            _ => Self::OTHER,
        }
    }

    fn walk_v4(packet: &[u8]) -> Option<Self> {
        let header = Ipv4::new_checked(packet)?;
        let transport = (!header.is_fragment()).then_some(Transport {
            protocol: header.protocol,
            offset: Ethernet::LEN + header.header_len(),
            length: header.payload_len(),
        });
        Some(Self { network: Network::Ipv4, ecn: header.ecn(), transport })
    }

    fn walk_v6(packet: &[u8]) -> Option<Self> {
        let header = Ipv6::new_checked(packet)?;
        let length = usize::from(header.payload_length.get());
        // `new_checked` saw that the payload is all there.
        let payload = packet.get(Ipv6::LEN..Ipv6::LEN + length)?;
        let transport =
            ipv6::upper(header.next_header, payload).filter(|upper| !upper.fragment).map(|upper| Transport {
                protocol: upper.protocol,
                offset: Ethernet::LEN + Ipv6::LEN + upper.offset,
                length: length - upper.offset,
            });
        Some(Self { network: Network::Ipv6, ecn: header.ecn(), transport })
    }

    /// Whether there is a network layer that can be read, and so marked.
    #[inline]
    pub fn is_ip(&self) -> bool {
        self.network != Network::Other
    }

    /// Source and destination address, as they lie in `frame`; empty where there is no IP.
    #[inline(always)]
    pub fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let range = match self.network {
            Network::Other => 0..0,
            Network::Ipv4 => ADDRESSES_V4,
            Network::Ipv6 => ADDRESSES_V6,
        };
        frame.get(range).unwrap_or_default()
    }

    /// Marks the packet in `frame`, keeping its header checksum right.
    #[inline]
    pub fn set_ecn(&mut self, frame: &mut [u8], ecn: Ecn) {
        self.ecn = ecn;
        let packet = frame.get_mut(Ethernet::LEN..).unwrap_or_default();
        match self.network {
            Network::Other => {}
            Network::Ipv4 => {
                if let Some(header) = Ipv4::first_mut(packet) {
                    header.set_ecn(ecn);
                }
            }
            Network::Ipv6 => {
                if let Some(header) = Ipv6::first_mut(packet) {
                    header.set_ecn(ecn);
                }
            }
        }
    }

    /// Completes a TCP, UDP or ICMPv6 checksum that the sender left to hardware
    /// (see [`checksum::finish`]); leaves every other frame alone.
    #[inline(always)]
    pub fn finish_checksum(&self, frame: &mut [u8]) {
        if let Some(Transport { protocol, offset, length }) = self.transport
            && let Some((at, pseudo)) = self.checksum_left_open(frame)
            && let Some(segment) = frame.get_mut(offset..offset + length)
        {
            checksum::finish(segment, at, pseudo, protocol == protocol::UDP);
        }
    }

    /// Whether the sender left a checksum to hardware, as [`finish_checksum`](Self::finish_checksum) would find.
    #[inline(always)]
    pub(crate) fn is_unfinished(&self, frame: &[u8]) -> bool {
        self.checksum_left_open(frame).is_some()
    }

    /// Where in the segment its checksum lies, and the sum of the pseudo header, if that sum is
    /// all that the checksum says.
    #[inline(always)]
    fn checksum_left_open(&self, frame: &[u8]) -> Option<(usize, u64)> {
        let Transport { protocol, offset, length } = self.transport?;
        let at = match (self.network, protocol) {
            (_, protocol::UDP) => 6,
            (_, protocol::TCP) => 16,
            (Network::Ipv6, protocol::ICMPV6) => 2,
            _ => return None,
        };
        // The pseudo headers of IPv4 and IPv6 are the same sum: addresses, protocol, length
        // (RFC 9293 section 3.1, RFC 8200 section 8.1).
        let addresses = match self.network {
            Network::Ipv4 => checksum::sum_of_8(frame.get(ADDRESSES_V4)?.first_chunk()?),
            Network::Ipv6 => sum_of_32(frame.get(ADDRESSES_V6)?),
            Network::Other => return None,
        };
        let pseudo = addresses + u64::from(protocol) + length as u64;
        let field: &[u8; 2] = frame.get(offset + at..offset + at + 2)?.first_chunk()?;
        (u16::from_be_bytes(*field) == checksum::fold(pseudo)).then_some((at, pseudo))
    }

    /// Source and destination port of TCP or UDP, as the four bytes on the wire.
    #[inline(always)]
    pub fn port_bytes(&self, frame: &[u8]) -> Option<u32> {
        let transport = self.transport.filter(|transport| {
            matches!(transport.protocol, protocol::TCP | protocol::UDP) && transport.length >= Udp::LEN
        })?;
        frame.get(transport.offset..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }
}

/// [`checksum::sum`], out of the way of IPv4.
#[inline(never)]
fn sum_of_32(addresses: &[u8]) -> u64 {
    checksum::sum(addresses)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn built(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    fn udp_v4() -> Vec<u8> {
        built(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1000, 53), b"payload")
    }

    fn udp_v6() -> Vec<u8> {
        built(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64).udp(1000, 53), b"payload!")
    }

    #[test]
    fn a_partial_checksum_is_finished_to_what_etherparse_computes() {
        for (right, at) in [(udp_v4(), 14 + 20 + 6), (udp_v6(), 14 + 40 + 6)] {
            let mut frame = right.clone();
            let layers = Layers::walk(&frame);
            let pseudo = match layers.network {
                Network::Ipv4 => checksum::pseudo_v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, 15),
                Network::Ipv6 | Network::Other => checksum::pseudo_v6([1; 16].into(), [2; 16].into(), 17, 16),
            };
            frame[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
            layers.finish_checksum(&mut frame);
            assert_eq!(frame, right);
        }
    }

    #[test]
    fn a_wrong_checksum_is_not_made_right() {
        let mut frame = udp_v4();
        frame[40] ^= 0x55;
        let wrong = frame.clone();
        Layers::walk(&frame).finish_checksum(&mut frame);
        assert_eq!(frame, wrong);
    }

    #[test]
    fn ethernet_padding_is_not_part_of_the_transport() {
        let mut frame = udp_v4();
        frame.resize(60, 0xee);
        assert_eq!(Layers::walk(&frame).transport, Some(Transport { protocol: 17, offset: 34, length: 15 }));
    }

    #[test]
    fn a_fragment_has_no_transport() {
        let mut frame = udp_v4();
        frame[20] = 0x20;
        assert_eq!(Layers::walk(&frame), Layers { network: Network::Ipv4, ecn: Ecn::NotEct, transport: None });
    }

    #[test]
    fn a_broken_ip_header_makes_the_frame_other() {
        for length in 0..udp_v4().len() {
            let layers = Layers::walk(&udp_v4()[..length]);
            assert_eq!(layers.network, Network::Other, "{length} bytes");
        }
    }

    #[test]
    fn marks_are_set_in_both_families() {
        for mut frame in [udp_v4(), udp_v6()] {
            Layers::walk(&frame).set_ecn(&mut frame, Ecn::Ce);
            assert_eq!(Layers::walk(&frame).ecn, Ecn::Ce);
            assert!(etherparse::SlicedPacket::from_ethernet(&frame).is_ok());
        }
    }
}
