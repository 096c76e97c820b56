//! Outer headers over IPv6, taken off.

use std::{net::Ipv6Addr, ops::Range};

use zerocopy::FromBytes;

use super::{Decapped, Payload, payload};
use crate::{
    tables::LocalVtep,
    verdict::DropReason,
    vtep::encap::{OVERHEAD_V6, OuterV6 as Outer},
    wire::{EtherType, Ethernet, Ipv6, Udp, Vxlan, ipv6, protocol},
};

/// Where what follows the fixed IP header begins.
const UDP_AT: usize = Ethernet::LEN + Ipv6::LEN;
/// Where the two addresses lie.
pub(super) const ADDRESSES: Range<usize> = Ethernet::LEN + 8..Ethernet::LEN + 40;

/// What nearly every frame is: in order, and its outer header without extensions. `None` says
/// nothing but that somebody has to look closer.
#[inline(always)]
pub(crate) fn decap_plain(frame: &[u8], local: LocalVtep) -> Option<Decapped<Ipv6Addr>> {
    let (outer, _) = Outer::ref_from_prefix(frame).ok()?;
    let ip = Ipv6::new_checked(&frame[Ethernet::LEN..])?;
    let length = usize::from(outer.udp.length.get());
    let has_checksum = outer.udp.checksum.get() != 0;
    let in_order = outer.ethernet.ether_type == EtherType::IPV6
        && ip.next_header == protocol::UDP
        && Some(ip.destination()) == local.v6
        && outer.udp.destination.get() == local.port
        && length >= Udp::LEN + Vxlan::LEN + Ethernet::LEN
        && length <= usize::from(ip.payload_length.get())
        && (has_checksum || local.zero_checksums.receive);
    if !in_order {
        return None;
    }
    let segment = UDP_AT..UDP_AT + length;
    Some(Decapped {
        source: ip.source(),
        vni: outer.vxlan.vni()?,
        ecn: ip.ecn(),
        inner: OVERHEAD_V6..segment.end,
        checked: has_checksum.then_some(segment),
    })
}

pub(super) fn decap_any(frame: &[u8], local: LocalVtep) -> Result<Decapped<Ipv6Addr>, DropReason> {
    let packet = &frame[Ethernet::LEN..];
    if packet.len() < Ipv6::LEN {
        return Err(DropReason::OuterTruncated);
    }
    let ip = Ipv6::new_checked(packet).ok_or(DropReason::OuterBadIpHeader)?;
    if Some(ip.destination()) != local.v6 {
        return Err(DropReason::OuterNotOurs);
    }
    let segment = UDP_AT..UDP_AT + usize::from(ip.payload_length.get());
    if ip.next_header != protocol::UDP {
        return Err(behind_extensions(ip.next_header, &frame[segment]));
    }
    let Payload { vni, inner, segment, has_checksum } = payload(frame, segment, local.port)?;
    if !has_checksum && !local.zero_checksums.receive {
        return Err(DropReason::OuterZeroUdpChecksum);
    }
    Ok(Decapped { source: ip.source(), vni, ecn: ip.ecn(), inner, checked: has_checksum.then_some(segment) })
}

/// What is wrong with a packet that has `next` behind its fixed header. No VTEP sends extensions
/// (the kernel's reads past them, and we leave what has them to the host): of UDP they are a
/// reason of their own.
fn behind_extensions(next: u8, payload: &[u8]) -> DropReason {
    match ipv6::upper(next, payload) {
        Some(upper) if upper.protocol != protocol::UDP => DropReason::OuterNotOurs,
        Some(upper) if upper.fragment => DropReason::OuterFragment,
        Some(_) => DropReason::OuterExtension,
        None => DropReason::OuterNotOurs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        tables::ZeroChecksums,
        vtep::{Flow, Template, decap},
        wire::{Ecn, MacAddr, Vni, checksum},
    };

    const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const REMOTE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const LOCAL: LocalVtep = LocalVtep::new(None, Some(OWN), 4789);
    const LENIENT: LocalVtep = LocalVtep { zero_checksums: ZeroChecksums { transmit: false, receive: true }, ..LOCAL };

    fn frame() -> Vec<u8> {
        let peer = LocalVtep::new(None, Some(REMOTE), 4789);
        let template = Template::new(peer, MacAddr([2; 6]), OWN.into(), MacAddr([4; 6])).unwrap();
        let overlay: Vec<u8> = (0..60).collect();
        template.wrap(Vni::new(7).unwrap(), Flow { source_port: 50_000, ecn: Ecn::Ce }, &overlay)
    }

    fn with(edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = frame();
        edit(&mut frame);
        frame
    }

    /// The frame with extension headers of these bytes, the first of which is number `first`.
    fn extended(first: u8, extensions: &[u8]) -> Vec<u8> {
        with(|frame| {
            frame[20] = first;
            let length = 76 + u16::try_from(extensions.len()).unwrap();
            frame[18..20].copy_from_slice(&length.to_be_bytes());
            frame.splice(54..54, extensions.iter().copied());
        })
    }

    #[test]
    fn decap_undoes_encap() {
        let decapped = decap(&frame(), LOCAL).unwrap();
        assert_eq!((decapped.inner, decapped.checked), (70..130, Some(54..130)));
        assert_eq!((decapped.source, decapped.vni.get(), decapped.ecn), (REMOTE.into(), 7, Ecn::Ce));
    }

    #[test]
    fn every_truncation_is_refused_without_a_panic() {
        let whole = frame();
        for length in 0..whole.len() {
            let refused = decap(&whole[..length], LOCAL).unwrap_err();
            let expected = if length < 54 { DropReason::OuterTruncated } else { DropReason::OuterBadIpHeader };
            assert_eq!(refused, expected, "{length} bytes");
        }
    }

    #[test]
    fn each_thing_that_can_be_wrong_has_its_reason() {
        use DropReason::*;
        let hop_by_hop = [17, 0, 1, 4, 0, 0, 0, 0];
        let cases = [
            ("version 4", with(|f| f[14] = 0x45), OuterBadIpHeader),
            ("TCP", with(|f| f[20] = 6), OuterNotOurs),
            ("another host", with(|f| f[53] = 77), OuterNotOurs),
            ("hop-by-hop options", extended(0, &hop_by_hop), OuterExtension),
            ("destination options", extended(60, &hop_by_hop), OuterExtension),
            ("an atomic fragment", extended(44, &[17, 0, 0, 0, 0, 0, 0, 9]), OuterExtension),
            ("first fragment", extended(44, &[17, 0, 0, 1, 0, 0, 0, 9]), OuterFragment),
            ("later fragment", extended(44, &[17, 0, 0, 8, 0, 0, 0, 9]), OuterFragment),
            ("extensions, then TCP", extended(0, &[6, 0, 1, 4, 0, 0, 0, 0]), OuterNotOurs),
            ("extensions without end", extended(0, &[0; 8 * 12]), OuterNotOurs),
            ("UDP longer than IP", with(|f| f[59] += 1), OuterBadUdpLength),
            ("UDP shorter than itself", with(|f| f[58..60].copy_from_slice(&[0, 7])), OuterBadUdpLength),
            ("another port", with(|f| f[57] ^= 1), OuterNotOurs),
            ("no flag I", with(|f| f[62] = 0), VxlanInvalidHeader),
            ("no checksum", with(|f| f[60..62].fill(0)), OuterZeroUdpChecksum),
        ];
        for (what, frame, reason) in cases {
            assert_eq!(decap(&frame, LOCAL), Err(reason), "{what}");
        }
    }

    #[test]
    fn short_udp_payloads_are_refused_by_what_they_lack() {
        for payload in 0..22u8 {
            let frame = with(|f| {
                f[18..20].copy_from_slice(&[0, 8 + payload]);
                f[58..60].copy_from_slice(&[0, 8 + payload]);
            });
            let expected = if payload < 8 { DropReason::OuterTruncated } else { DropReason::InnerTruncated };
            assert_eq!(decap(&frame, LOCAL), Err(expected), "{payload} bytes");
        }
    }

    #[test]
    fn padding_does_not_move_the_overlay_frame() {
        assert_eq!(decap(&with(|f| f.extend([0xee; 20])), LOCAL).unwrap().inner, 70..130);
    }

    #[test]
    fn what_is_for_an_address_of_the_other_family_is_not_ours() {
        let v4_only = LocalVtep::new(Some([192, 0, 2, 1].into()), None, 4789);
        assert_eq!(decap(&frame(), v4_only), Err(DropReason::OuterNotOurs));
    }

    #[test]
    fn rfc6935_5_a_datagram_without_checksum_is_refused_unless_that_was_asked_for() {
        let without = with(|f| f[60..62].fill(0));
        assert_eq!(decap(&without, LOCAL), Err(DropReason::OuterZeroUdpChecksum));
        assert_eq!(decap(&without, LENIENT).unwrap().checked, None);
    }

    #[test]
    fn rfc6936_4_7_where_none_is_needed_a_checksum_is_checked_all_the_same() {
        let mut frame = frame();
        let pseudo = checksum::sum(&frame[22..54]) + 17 + 76;
        let right = u16::from_be_bytes([frame[60], frame[61]]);
        for local in [LOCAL, LENIENT] {
            // The last is what a sender leaves to hardware.
            for (value, holds) in [(right, true), (right ^ 0x100, false), (checksum::fold(pseudo), true)] {
                frame[60..62].copy_from_slice(&value.to_be_bytes());
                assert_eq!(decap(&frame, local).unwrap().checksum_holds(&frame), holds);
            }
        }
    }
}
