//! Takes the tunnel off: from an underlay frame to the overlay frame inside it.
//!
//! Everything here runs before any table is trusted, so each step may only
//! refuse, never guess. A refusal is a [`DropReason`], and each has a counter.

use std::{net::Ipv4Addr, ops::Range};

use zerocopy::FromBytes;

use super::encap::{OVERHEAD, Outer};
use crate::{
    tables::LocalVtep,
    verdict::DropReason,
    wire::{Ecn, EtherType, Ethernet, Ipv4, Udp, Vni, Vxlan, checksum, ipv4, protocol},
};

/// Where UDP begins behind an IP header without options.
const UDP_AT: usize = Ethernet::LEN + Ipv4::LEN;

/// What an underlay frame turned out to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decapped {
    /// The outer source address: which VTEP it says it is from.
    pub source: Ipv4Addr,
    /// The network it says it belongs to.
    pub vni: Vni,
    /// The outer congestion mark, to be merged into the inner packet.
    pub ecn: Ecn,
    /// Where the overlay frame lies; at least an Ethernet header long.
    pub inner: Range<usize>,
    /// The outer UDP segment, if its sender gave it a checksum (see [`udp_checksum_holds`]).
    pub checked: Option<Range<usize>>,
}

/// Reads the outer headers of `frame`.
///
/// # Errors
/// The first thing that is wrong with them.
#[inline]
pub fn decap(frame: &[u8], local: LocalVtep) -> Result<Decapped, DropReason> {
    decap_plain(frame, local).map_or_else(|| decap_any(frame, local), Ok)
}

/// What nearly every frame is: in order, and its outer header without options. `None` says
/// nothing but that somebody has to look closer.
#[inline(always)]
pub(crate) fn decap_plain(frame: &[u8], local: LocalVtep) -> Option<Decapped> {
    let (outer, _) = Outer::ref_from_prefix(frame).ok()?;
    let packet = &frame[Ethernet::LEN..];
    let ip = Ipv4::new_plain(packet)?;
    let length = usize::from(outer.udp.length.get());
    let in_order = outer.ethernet.ether_type == EtherType::IPV4
        && ip.protocol == protocol::UDP
        && ip.destination() == local.address
        && outer.udp.destination.get() == local.port
        && length >= Udp::LEN + Vxlan::LEN + Ethernet::LEN
        && length <= ip.payload_len()
        && ipv4::checksum_holds(packet.first_chunk::<{ Ipv4::LEN }>()?);
    if !in_order {
        return None;
    }
    let segment = UDP_AT..UDP_AT + length;
    Some(Decapped {
        source: ip.source(),
        vni: outer.vxlan.vni()?,
        ecn: ip.ecn(),
        inner: OVERHEAD..segment.end,
        checked: (outer.udp.checksum.get() != 0).then_some(segment),
    })
}

/// Where `frame` would have its VNI and its overlay frame if it were in order.
#[inline]
pub(crate) fn guess(frame: &[u8]) -> Option<(Vni, &[u8])> {
    let (outer, overlay) = Outer::ref_from_prefix(frame).ok()?;
    Some((outer.vxlan.vni()?, overlay))
}

#[inline(never)]
fn decap_any(frame: &[u8], local: LocalVtep) -> Result<Decapped, DropReason> {
    let (ethernet, packet) = Ethernet::split(frame).ok_or(DropReason::OuterTruncated)?;
    if ethernet.ether_type != EtherType::IPV4 {
        return Err(DropReason::OuterNotOurs);
    }
    if packet.len() < Ipv4::LEN {
        return Err(DropReason::OuterTruncated);
    }
    let ip = Ipv4::new_checked(packet).ok_or(DropReason::OuterBadIpHeader)?;
    if !ipv4::checksum_holds(&packet[..ip.header_len()]) {
        return Err(DropReason::OuterBadIpChecksum);
    }
    if ip.protocol != protocol::UDP || ip.destination() != local.address {
        return Err(DropReason::OuterNotOurs);
    }
    if ip.is_fragment() {
        return Err(DropReason::OuterFragment);
    }
    let segment = Ethernet::LEN + ip.header_len()..Ethernet::LEN + usize::from(ip.total_length.get());
    if segment.len() < Udp::LEN {
        return Err(DropReason::OuterTruncated);
    }
    let (udp, payload) = Udp::split(&frame[segment.clone()]).ok_or(DropReason::OuterBadUdpLength)?;
    if udp.destination.get() != local.port {
        return Err(DropReason::OuterNotOurs);
    }
    let (vxlan, inner) = Vxlan::split(payload).ok_or(DropReason::OuterTruncated)?;
    let vni = vxlan.vni().ok_or(DropReason::VxlanInvalidHeader)?;
    if inner.len() < Ethernet::LEN {
        return Err(DropReason::InnerTruncated);
    }
    let end = segment.start + usize::from(udp.length.get());
    Ok(Decapped {
        source: ip.source(),
        vni,
        ecn: ip.ecn(),
        inner: end - inner.len()..end,
        checked: (udp.checksum.get() != 0).then_some(segment.start..end),
    })
}

/// Whether the non-zero UDP checksum of `segment`, sent from `source` to `destination`, is right.
///
/// A sender behind a veth may have left it to hardware: the folded pseudo header sum alone is
/// accepted too. And it may have computed the outer checksum as if the *inner* one, left to
/// hardware as well, were already there (local checksum offload, the kernel's `lco_csum`):
/// finish the inner one before asking.
#[inline]
pub fn udp_checksum_holds(segment: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> bool {
    let pseudo = checksum::pseudo_v4(source, destination, protocol::UDP, segment.len());
    let unfinished = segment.get(6..8) == Some(&checksum::fold(pseudo).to_be_bytes());
    unfinished || checksum::fold(checksum::sum(segment) + pseudo) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        vtep::{Flow, Template},
        wire::MacAddr,
    };

    const LOCAL: LocalVtep = LocalVtep { address: Ipv4Addr::new(192, 0, 2, 2), port: 4789 };
    const REMOTE: LocalVtep = LocalVtep { address: Ipv4Addr::new(192, 0, 2, 1), port: 4789 };

    fn frame() -> Vec<u8> {
        let template = Template::new(REMOTE, MacAddr([2; 6]), LOCAL.address, MacAddr([4; 6]));
        let mut frame = template.headers(Vni::new(7).unwrap(), Flow::default(), 60).to_vec();
        frame.extend(0..60);
        frame
    }

    /// Sets bytes of the outer IP header and makes its checksum right again.
    fn with_ip(edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = frame();
        edit(&mut frame);
        let header = 14 + usize::from(frame[14] & 0xf) * 4;
        frame[24..26].fill(0);
        let sum = !checksum::fold(checksum::sum(&frame[14..header.min(110)]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn decap_undoes_encap() {
        let decapped = decap(&frame(), LOCAL).unwrap();
        assert_eq!(decapped.inner, 50..110);
        assert_eq!((decapped.source, decapped.vni.get(), decapped.checked), (REMOTE.address, 7, None));
    }

    #[test]
    fn every_truncation_is_refused_without_a_panic() {
        let whole = frame();
        for length in 0..whole.len() {
            let refused = decap(&whole[..length], LOCAL).unwrap_err();
            let expected = if length < 34 { DropReason::OuterTruncated } else { DropReason::OuterBadIpHeader };
            assert_eq!(refused, expected, "{length} bytes");
        }
    }

    #[test]
    fn each_thing_that_can_be_wrong_has_its_reason() {
        use DropReason::*;
        let cases: [(&str, Vec<u8>, DropReason); 11] = [
            (
                "not IPv4",
                {
                    let mut f = frame();
                    f[12] = 0x86;
                    f
                },
                OuterNotOurs,
            ),
            ("version 6", with_ip(|f| f[14] = 0x65), OuterBadIpHeader),
            (
                "IP checksum",
                {
                    let mut f = frame();
                    f[24] ^= 1;
                    f
                },
                OuterBadIpChecksum,
            ),
            ("TCP", with_ip(|f| f[23] = 6), OuterNotOurs),
            ("another host", with_ip(|f| f[33] = 77), OuterNotOurs),
            ("first fragment", with_ip(|f| f[20] = 0x20), OuterFragment),
            ("later fragment", with_ip(|f| f[21] = 1), OuterFragment),
            (
                "UDP longer than IP",
                {
                    let mut f = frame();
                    f[39] += 1;
                    f
                },
                OuterBadUdpLength,
            ),
            (
                "UDP shorter than itself",
                {
                    let mut f = frame();
                    f[38..40].copy_from_slice(&[0, 7]);
                    f
                },
                OuterBadUdpLength,
            ),
            (
                "another port",
                {
                    let mut f = frame();
                    f[37] ^= 1;
                    f
                },
                OuterNotOurs,
            ),
            (
                "no flag I",
                {
                    let mut f = frame();
                    f[42] = 0;
                    f
                },
                VxlanInvalidHeader,
            ),
        ];
        for (what, frame, reason) in cases {
            assert_eq!(decap(&frame, LOCAL), Err(reason), "{what}");
        }
    }

    #[test]
    fn b1_short_udp_payloads_are_refused_by_what_they_lack() {
        for payload in 0..22u8 {
            let frame = with_ip(|f| {
                f[16..18].copy_from_slice(&[0, 28 + payload]);
                f[38..40].copy_from_slice(&[0, 8 + payload]);
            });
            let expected = if payload < 8 { DropReason::OuterTruncated } else { DropReason::InnerTruncated };
            assert_eq!(decap(&frame, LOCAL), Err(expected), "{payload} bytes");
        }
    }

    #[test]
    fn options_and_padding_do_not_move_the_overlay_frame() {
        let mut padded = frame();
        padded.extend([0xee; 20]);
        assert_eq!(decap(&padded, LOCAL).unwrap().inner, 50..110);
        let mut optioned = frame();
        optioned.splice(34..34, [1; 8]);
        optioned[14] = 0x47;
        optioned[16..18].copy_from_slice(&104u16.to_be_bytes());
        optioned[24..26].fill(0);
        let sum = !checksum::fold(checksum::sum(&optioned[14..42]));
        optioned[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(decap(&optioned, LOCAL).unwrap().inner, 58..118);
    }

    #[test]
    fn rfc7348_5_a_udp_checksum_is_accepted_when_right_and_refused_when_wrong() {
        let mut frame = frame();
        let pseudo = checksum::pseudo_v4(REMOTE.address, LOCAL.address, protocol::UDP, 76);
        let right = !checksum::fold(checksum::sum(&frame[34..]) + pseudo);
        for (value, holds) in [(right, true), (right ^ 0x100, false), (checksum::fold(pseudo), true)] {
            frame[40..42].copy_from_slice(&value.to_be_bytes());
            let segment = decap(&frame, LOCAL).unwrap().checked.unwrap();
            assert_eq!(udp_checksum_holds(&frame[segment], REMOTE.address, LOCAL.address), holds);
        }
    }
}
