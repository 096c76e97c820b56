//! Outer headers over IPv4.

use std::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{Flow, Headers};
use crate::wire::{EtherType, Ethernet, Ipv4, MacAddr, Udp, Vni, Vxlan, checksum, protocol};

/// The headers in front of an overlay frame, as they lie on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::vtep) struct Outer {
    pub(in crate::vtep) ethernet: Ethernet,
    ip: Ipv4,
    pub(in crate::vtep) udp: Udp,
    pub(in crate::vtep) vxlan: Vxlan,
}

/// The outer headers towards one VTEP over IPv4, complete but for what each packet decides.
#[derive(Clone, Debug)]
pub struct HeadersV4 {
    outer: Outer,
    /// Folded sum of the IP header with length and traffic class zero.
    ip_sum: u32,
}

impl PartialEq for HeadersV4 {
    fn eq(&self, other: &Self) -> bool {
        self.outer.as_bytes() == other.outer.as_bytes()
    }
}

impl Eq for HeadersV4 {}

impl HeadersV4 {
    /// Headers between two addresses, ours first, to UDP port `port`; `source` is the MAC
    /// address of our uplink.
    ///
    /// UDP checksum zero (RFC 7348 section 5), DSCP zero, TTL 64. A VTEP must not fragment
    /// (section 4.3), hence DF; with it the identification may stay zero (RFC 6864 section 4.1).
    pub fn new([local, remote]: [Ipv4Addr; 2], port: u16, source: MacAddr, next_hop: MacAddr) -> Self {
        let mut ip = Ipv4::new(protocol::UDP, local, remote, 0, Ipv4::DONT_FRAGMENT);
        ip.total_length = U16::ZERO;
        let outer = Outer {
            ethernet: Ethernet { destination: next_hop, source, ether_type: EtherType::IPV4 },
            ip,
            udp: Udp { source: U16::ZERO, destination: U16::new(port), length: U16::ZERO, checksum: U16::ZERO },
            vxlan: Vxlan::new(Vni::default()),
        };
        Self { outer, ip_sum: checksum::fold(checksum::sum(outer.ip.as_bytes())).into() }
    }

    /// The headers of `vni` with every field zero that a packet decides, and the sum of the words
    /// of the IP header then: what the express lane completes for each packet.
    pub(crate) fn parts(&self, vni: Vni) -> ([u8; Self::LEN], u32) {
        let outer = Outer { vxlan: Vxlan::new(vni), ..self.outer };
        (zerocopy::transmute!(outer), checksum::fold_32(self.ip_sum).into())
    }
}

impl Headers for HeadersV4 {
    const LEN: usize = size_of::<Outer>();

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "see the contract of the trait")]
    fn write(&self, headers: &mut [u8], vni: Vni, flow: Flow, overlay: &[u8]) {
        let udp_length = (overlay.len() + Vxlan::LEN + Udp::LEN) as u16;
        let ip_length = udp_length.wrapping_add(Ipv4::LEN as u16);
        let Ok((outer, _)) = Outer::mut_from_prefix(headers) else { return };
        *outer = self.outer;
        outer.ip.traffic_class = flow.ecn as u8;
        outer.ip.total_length = U16::new(ip_length);
        let sum = self.ip_sum + u32::from(ip_length) + u32::from(flow.ecn as u8);
        outer.ip.checksum = U16::new(!checksum::fold_32(sum));
        outer.udp.source = U16::new(flow.source_port);
        outer.udp.length = U16::new(udp_length);
        outer.vxlan = Vxlan::new(vni);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;
    use crate::wire::{Ecn, ipv4};

    fn headers() -> HeadersV4 {
        let addresses = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
        HeadersV4::new(addresses, 4789, MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
    }

    fn wrap(vni: Vni, flow: Flow, length: usize) -> Vec<u8> {
        super::super::wrap(&headers(), vni, flow, &vec![0xab; length])
    }

    #[test]
    fn rfc7348_5_the_headers_are_what_the_rfc_draws() {
        let flow = Flow { source_port: 50_000, ecn: Ecn::Ect0 };
        let frame = wrap(Vni::new(5000).unwrap(), flow, 60);
        assert_eq!(frame.len(), 50 + 60);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4") };
        let ip = ip.header();
        assert!(ipv4::checksum_holds(ip.slice()));
        assert_eq!(
            (ip.total_len(), ip.ttl(), ip.dont_fragment(), ip.dcp().value(), ip.ecn().value()),
            (96, 64, true, 0, 2)
        );
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port(), udp.length(), udp.checksum()), (50_000, 4789, 76, 0));
        assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0x13, 0x88, 0]);
    }

    #[test]
    fn the_ip_checksum_holds_for_every_length_and_mark() {
        for length in 14..9000 {
            for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce] {
                let frame = wrap(Vni::default(), Flow { source_port: 49152, ecn }, length);
                assert!(ipv4::checksum_holds(&frame[14..34]), "{length} {ecn:?}");
            }
        }
    }
}
