//! Puts the tunnel on: the outer headers of an overlay frame, from a template.

use std::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use crate::{
    tables::LocalVtep,
    wire::{Ecn, EtherType, Ethernet, Ipv4, MacAddr, Udp, Vni, Vxlan, checksum, protocol},
};

/// Bytes that the tunnel adds to an overlay frame over IPv4: Ethernet, IPv4, UDP, VXLAN.
pub const OVERHEAD: usize = size_of::<Outer>();

/// The headers in front of an overlay frame, as they lie on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Outer {
    pub(super) ethernet: Ethernet,
    ip: Ipv4,
    pub(super) udp: Udp,
    pub(super) vxlan: Vxlan,
}

/// What the outer headers repeat of the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Outer UDP source port, from [`entropy`](super::entropy).
    pub source_port: u16,
    /// Outer congestion mark: the inner one (RFC 6040 section 4.1, normal mode).
    pub ecn: Ecn,
}

impl Default for Flow {
    fn default() -> Self {
        Self { source_port: super::entropy::FIRST_PORT, ecn: Ecn::NotEct }
    }
}

/// The outer headers towards one VTEP, complete but for what each packet decides.
#[derive(Clone, Debug)]
pub struct Template {
    outer: Outer,
    /// Folded sum of the IP header with length and traffic class zero.
    ip_sum: u32,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.outer.as_bytes() == other.outer.as_bytes()
    }
}

impl Eq for Template {}

impl Template {
    /// Headers from `local` to the VTEP at `remote`, whose next hop on the link is `next_hop`.
    ///
    /// UDP checksum zero (RFC 7348 section 5), DSCP zero, TTL 64. A VTEP must not fragment
    /// (section 4.3), hence DF; with it the identification may stay zero (RFC 6864 section 4.1).
    pub fn new(local: LocalVtep, source: MacAddr, remote: Ipv4Addr, next_hop: MacAddr) -> Self {
        let mut ip = Ipv4::new(protocol::UDP, local.address, remote, 0, Ipv4::DONT_FRAGMENT);
        ip.total_length = U16::ZERO;
        let outer = Outer {
            ethernet: Ethernet { destination: next_hop, source, ether_type: EtherType::IPV4 },
            ip,
            udp: Udp { source: U16::ZERO, destination: U16::new(local.port), length: U16::ZERO, checksum: U16::ZERO },
            vxlan: Vxlan::new(Vni::default()),
        };
        Self { outer, ip_sum: checksum::fold(checksum::sum(outer.ip.as_bytes())).into() }
    }

    /// The headers of `vni` with every field zero that a packet decides, and the sum of the words
    /// of the IP header then: what the express lane completes for each packet.
    pub(crate) fn parts(&self, vni: Vni) -> ([u8; OVERHEAD], u32) {
        let outer = Outer { vxlan: Vxlan::new(vni), ..self.outer };
        (zerocopy::transmute!(outer), checksum::fold_32(self.ip_sum).into())
    }

    /// Writes the headers for an overlay frame of `length` bytes to `headers`, which has
    /// [`OVERHEAD`] bytes.
    ///
    /// `length` must leave room for the headers in 16 bits, which every frame that came
    /// through a port does; a longer one would get a wrong length, not a panic.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "see the contract above")]
    pub fn write(&self, headers: &mut [u8], vni: Vni, flow: Flow, length: usize) {
        let udp_length = (length + Vxlan::LEN + Udp::LEN) as u16;
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

    /// The same headers, as they lie on the wire.
    pub fn headers(&self, vni: Vni, flow: Flow, length: usize) -> [u8; OVERHEAD] {
        let mut headers = [0; OVERHEAD];
        self.write(&mut headers, vni, flow, length);
        headers
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;
    use crate::wire::ipv4;

    fn template() -> Template {
        let local = LocalVtep { address: Ipv4Addr::new(192, 0, 2, 1), port: 4789 };
        Template::new(local, MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(192, 0, 2, 2), MacAddr([2, 0, 0, 0, 0, 2]))
    }

    #[test]
    fn rfc7348_5_the_headers_are_what_the_rfc_draws() {
        let flow = Flow { source_port: 50_000, ecn: Ecn::Ect0 };
        let mut frame = template().headers(Vni::new(5000).unwrap(), flow, 60).to_vec();
        assert_eq!(frame.len(), 50);
        frame.resize(110, 0xab);
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
                let headers = template().headers(Vni::default(), Flow { source_port: 49152, ecn }, length);
                assert!(ipv4::checksum_holds(&headers[14..34]), "{length} {ecn:?}");
            }
        }
    }
}
