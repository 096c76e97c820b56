//! Outer headers over IPv6.

use std::net::Ipv6Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{Flow, Headers};
use crate::{
    tables::LocalVtep,
    vtep::entropy,
    wire::{EtherType, Ethernet, Ipv6, MacAddr, Udp, Vni, Vxlan, checksum, protocol},
};

/// The headers in front of an overlay frame, as they lie on the wire.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(in crate::vtep) struct Outer {
    pub(in crate::vtep) ethernet: Ethernet,
    ip: Ipv6,
    pub(in crate::vtep) udp: Udp,
    pub(in crate::vtep) vxlan: Vxlan,
}

/// The outer headers towards one VTEP over IPv6, complete but for what each packet decides.
#[derive(Clone, Debug)]
pub struct HeadersV6 {
    outer: Outer,
    /// Sum of what the UDP checksum covers, with every field zero that a packet decides; `None`
    /// if there shall be no UDP checksum.
    udp_sum: Option<u64>,
}

impl PartialEq for HeadersV6 {
    fn eq(&self, other: &Self) -> bool {
        self.outer.as_bytes() == other.outer.as_bytes() && self.udp_sum == other.udp_sum
    }
}

impl Eq for HeadersV6 {}

impl HeadersV6 {
    /// Headers between two addresses, ours first, to the UDP port that `local` says; `source` is
    /// the MAC address of our uplink.
    ///
    /// DSCP zero, hop limit 64. The UDP checksum is computed (RFC 6935 section 5) unless `local`
    /// says otherwise.
    pub fn new([own, remote]: [Ipv6Addr; 2], local: &LocalVtep, source: MacAddr, next_hop: MacAddr) -> Self {
        let mut ip = Ipv6::new(protocol::UDP, own, remote, 0);
        ip.hop_limit = HOP_LIMIT;
        let udp = Udp { source: U16::ZERO, destination: U16::new(local.port), length: U16::ZERO, checksum: U16::ZERO };
        let vxlan = Vxlan::new(Vni::default());
        let ethernet = Ethernet { destination: next_hop, source, ether_type: EtherType::IPV6 };
        let sum = checksum::pseudo_v6(own, remote, protocol::UDP, 0)
            + checksum::sum(udp.as_bytes())
            + checksum::sum(vxlan.as_bytes());
        Self { outer: Outer { ethernet, ip, udp, vxlan }, udp_sum: (!local.zero_checksums.transmit).then_some(sum) }
    }

    /// The bytes of a frame of `vni` in which what a packet decides is zero; `None` if each has a UDP
    /// checksum, for which all of it must be read.
    pub(crate) fn parts(&self, vni: Vni) -> Option<[u8; Self::LEN]> {
        let outer = Outer { vxlan: Vxlan::new(vni), ..self.outer };
        self.udp_sum.is_none().then(|| zerocopy::transmute!(outer))
    }
}

impl Headers for HeadersV6 {
    const LEN: usize = size_of::<Outer>();

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "see the contract of the trait")]
    fn write(&self, headers: &mut [u8], vni: Vni, flow: Flow, overlay: &[u8]) {
        let udp_length = (overlay.len() + Vxlan::LEN + Udp::LEN) as u16;
        let Ok((outer, _)) = Outer::mut_from_prefix(headers) else { return };
        *outer = self.outer;
        outer.ip.set_class_and_label(flow.ecn as u8, entropy::flow_label(flow.source_port));
        outer.ip.payload_length = U16::new(udp_length);
        outer.udp.source = U16::new(flow.source_port);
        outer.udp.length = U16::new(udp_length);
        outer.vxlan = Vxlan::new(vni);
        if let Some(sum) = self.udp_sum {
            // The length counts twice: it is in the pseudo header, too. The words of the VNI are
            // its upper 16 bits, and its lower 8 in the upper half of the next.
            let vni = u64::from(vni.get() >> 8) + u64::from(vni.get() << 8 & 0xff00);
            let patched = 2 * u64::from(udp_length) + u64::from(flow.source_port) + vni;
            let checksum = !checksum::fold(sum + patched + checksum::sum(overlay));
            // RFC 6935 section 5: zero would say that there is none.
            outer.udp.checksum = U16::new(if checksum == 0 { 0xffff } else { checksum });
        }
    }
}

/// Routers that an underlay packet may pass: as many as over IPv4.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        tables::ZeroChecksums,
        vtep::{Decapped, decap},
        wire::Ecn,
    };

    const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const REMOTE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn headers(zero: bool) -> HeadersV6 {
        let zero_checksums = ZeroChecksums { transmit: zero, receive: false };
        let local = LocalVtep { zero_checksums, ..LocalVtep::new(None, Some(OWN), 4789) };
        HeadersV6::new([OWN, REMOTE], &local, MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
    }

    fn wrap(zero: bool, vni: u32, flow: Flow, overlay: &[u8]) -> Vec<u8> {
        super::super::wrap(&headers(zero), Vni::new(vni).unwrap(), flow, overlay)
    }

    #[test]
    fn rfc7348_5_the_headers_are_what_the_rfc_draws() {
        let flow = Flow { source_port: 50_000, ecn: Ecn::Ect0 };
        let frame = wrap(false, 5000, flow, &[0xab; 60]);
        assert_eq!(frame.len(), 70 + 60);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("no IPv6") };
        let header = ip.header();
        assert_eq!((header.source_addr(), header.destination_addr()), (OWN, REMOTE));
        assert_eq!((header.payload_length(), header.hop_limit(), header.traffic_class()), (76, 64, 2));
        assert_eq!(header.flow_label().value(), entropy::flow_label(50_000));
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port(), udp.length()), (50_000, 4789, 76));
        assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0x13, 0x88, 0]);
        let expected = udp.to_header().calc_checksum_ipv6(&header.to_header(), udp.payload()).unwrap();
        assert_eq!(udp.checksum(), expected);
    }

    #[test]
    fn rfc6935_5_a_checksum_that_comes_to_zero_is_sent_as_ffff() {
        let flow = Flow::default();
        // Two bytes of the overlay frame that bring the sum to all ones.
        let mut overlay = vec![0; 60];
        let without = u16::from_be_bytes(wrap(false, 5000, flow, &overlay)[60..62].try_into().unwrap());
        overlay[58..].copy_from_slice(&without.to_be_bytes());
        let frame = wrap(false, 5000, flow, &overlay);
        assert_eq!(frame[60..62], [0xff, 0xff]);
        assert!(decapped(&frame).checksum_holds(&frame));
    }

    #[test]
    fn rfc6936_4_3_no_checksum_is_sent_only_if_that_was_asked_for() {
        assert_eq!(wrap(true, 5000, Flow::default(), &[1; 60])[60..62], [0, 0]);
        assert_ne!(wrap(false, 5000, Flow::default(), &[1; 60])[60..62], [0, 0]);
    }

    fn decapped(frame: &[u8]) -> Decapped {
        decap(frame, LocalVtep::new(None, Some(REMOTE), 4789)).unwrap()
    }

    proptest! {
        #[test]
        fn decap_undoes_encap(
            overlay in prop::collection::vec(any::<u8>(), 14..1500),
            vni in 0..1u32 << 24,
            source_port in entropy::FIRST_PORT..,
            class in 0..4u8,
        ) {
            let flow = Flow { source_port, ecn: Ecn::from_traffic_class(class) };
            let mut frame = wrap(false, vni, flow, &overlay);
            let outer = decapped(&frame);
            prop_assert_eq!((outer.source, outer.vni.get(), outer.ecn), (OWN.into(), vni, flow.ecn));
            prop_assert_eq!(&frame[outer.inner.clone()], &overlay);
            prop_assert!(outer.checksum_holds(&frame));
            frame[70] ^= 1;
            prop_assert!(!outer.checksum_holds(&frame));
        }
    }
}
