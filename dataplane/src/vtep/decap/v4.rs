//! Outer headers over IPv4, taken off.

use std::{net::Ipv4Addr, ops::Range};

use zerocopy::FromBytes;

use super::{Decapped, Payload, payload};
use crate::{
    tables::LocalVtep,
    verdict::DropReason,
    vtep::encap::{OVERHEAD, OuterV4 as Outer},
    wire::{EtherType, Ethernet, Ipv4, Udp, Vxlan, ipv4, protocol},
};

/// Where UDP begins behind an IP header without options.
const UDP_AT: usize = Ethernet::LEN + Ipv4::LEN;
/// Where the two addresses lie.
pub(super) const ADDRESSES: Range<usize> = Ethernet::LEN + 12..Ethernet::LEN + 20;

/// What nearly every frame is: in order, and its outer header without options. `None` says
/// nothing but that somebody has to look closer.
#[inline(always)]
pub(crate) fn decap_plain(frame: &[u8], local: LocalVtep) -> Option<Decapped<Ipv4Addr>> {
    let (outer, _) = Outer::ref_from_prefix(frame).ok()?;
    let packet = &frame[Ethernet::LEN..];
    let (ip, payload) = Ipv4::new_plain(packet)?;
    // Before the address is compared: a compiler that knows it takes it for the sum from elsewhere.
    let sum_holds = ipv4::checksum_holds(packet.first_chunk::<{ Ipv4::LEN }>()?);
    let length = usize::from(outer.udp.length.get());
    let in_order = outer.ethernet.ether_type == EtherType::IPV4
        && ip.protocol == protocol::UDP
        && Some(ip.destination()) == local.v4
        && outer.udp.destination.get() == local.port
        && length >= Udp::LEN + Vxlan::LEN + Ethernet::LEN
        && length <= payload
        && sum_holds;
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

pub(super) fn decap_any(frame: &[u8], local: LocalVtep) -> Result<Decapped<Ipv4Addr>, DropReason> {
    let packet = &frame[Ethernet::LEN..];
    if packet.len() < Ipv4::LEN {
        return Err(DropReason::OuterTruncated);
    }
    let ip = Ipv4::new_checked(packet).ok_or(DropReason::OuterBadIpHeader)?;
    if !ipv4::checksum_holds(&packet[..ip.header_len()]) {
        return Err(DropReason::OuterBadIpChecksum);
    }
    if ip.protocol != protocol::UDP || Some(ip.destination()) != local.v4 {
        return Err(DropReason::OuterNotOurs);
    }
    if ip.is_fragment() {
        return Err(DropReason::OuterFragment);
    }
    let segment = Ethernet::LEN + ip.header_len()..Ethernet::LEN + usize::from(ip.total_length.get());
    let Payload { vni, inner, segment, has_checksum } = payload(frame, segment, local.port)?;
    Ok(Decapped { source: ip.source(), vni, ecn: ip.ecn(), inner, checked: has_checksum.then_some(segment) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        vtep::{Flow, Template, decap},
        wire::{MacAddr, Vni, checksum},
    };

    const LOCAL: LocalVtep = LocalVtep::new(Some(Ipv4Addr::new(192, 0, 2, 2)), None, 4789);
    const REMOTE: LocalVtep = LocalVtep::new(Some(Ipv4Addr::new(192, 0, 2, 1)), None, 4789);

    fn frame() -> Vec<u8> {
        let to = LOCAL.addresses().next().unwrap();
        let template = Template::new(REMOTE, MacAddr([2; 6]), to, MacAddr([4; 6])).unwrap();
        let overlay: Vec<u8> = (0..60).collect();
        template.wrap(Vni::new(7).unwrap(), Flow::default(), &overlay)
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
        assert_eq!((decapped.source, decapped.vni.get(), decapped.checked), ([192, 0, 2, 1].into(), 7, None));
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
                "not IP",
                {
                    let mut f = frame();
                    f[12] = 0x88;
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
        let pseudo = checksum::sum(&frame[26..34]) + 17 + 76;
        let right = !checksum::fold(checksum::sum(&frame[34..]) + pseudo);
        for (value, holds) in [(right, true), (right ^ 0x100, false), (checksum::fold(pseudo), true)] {
            frame[40..42].copy_from_slice(&value.to_be_bytes());
            assert_eq!(decap(&frame, LOCAL).unwrap().checksum_holds(&frame), holds);
        }
    }
}
