//! Takes the tunnel off: from an underlay frame to the overlay frame inside it.
//!
//! Everything here runs before any table is trusted, so each step may only
//! refuse, never guess. A refusal is a [`DropReason`], and each has a counter.

mod v4;
mod v6;

use std::{net::IpAddr, ops::Range};

pub(crate) use v4::decap_plain as plain_v4;
pub(crate) use v6::decap_plain as plain_v6;

use crate::{
    tables::LocalVtep,
    verdict::DropReason,
    wire::{Ecn, EtherType, Ethernet, MacAddr, Udp, Vni, Vxlan, checksum, protocol},
};

/// What an underlay frame from an address of type `A` turned out to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decapped<A = IpAddr> {
    /// The outer source address: which VTEP it says it is from.
    pub source: A,
    /// The network it says it belongs to.
    pub vni: Vni,
    /// The outer congestion mark, to be merged into the inner packet.
    pub ecn: Ecn,
    /// Where the overlay frame lies; at least an Ethernet header long.
    pub inner: Range<usize>,
    /// The outer UDP segment, if its sender gave it a checksum (see [`checksum_holds`](Self::checksum_holds)).
    pub checked: Option<Range<usize>>,
}

/// Reads the outer headers of `frame`.
///
/// # Errors
/// The first thing that is wrong with them.
#[inline]
pub fn decap(frame: &[u8], local: LocalVtep) -> Result<Decapped, DropReason> {
    v4::decap_plain(frame, local).map_or_else(|| decap_any(frame, local), |outer| Ok(outer.of_any()))
}

/// The VNI of a `frame` with so many bytes of outer headers, and the destination of its overlay
/// frame, if it is in order: nothing is checked but that they are there.
#[inline(always)]
pub(crate) fn guess<const HEADERS: usize>(frame: &[u8]) -> Option<(Vni, MacAddr)> {
    let (vni, overlay) = frame.get(HEADERS - 4..HEADERS + 8)?.split_first_chunk()?;
    let mac = u64::from_be_bytes(*overlay.first_chunk()?) >> 16;
    Some((Vni::new(u32::from_be_bytes(*vni) >> 8).ok()?, MacAddr::from_u64(mac)))
}

#[inline(never)]
fn decap_any(frame: &[u8], local: LocalVtep) -> Result<Decapped, DropReason> {
    let (ethernet, _) = Ethernet::split(frame).ok_or(DropReason::OuterTruncated)?;
    match ethernet.ether_type {
        EtherType::IPV4 => v4::decap_any(frame, local).map(Decapped::of_any),
        EtherType::IPV6 => v6::decap_any(frame, local).map(Decapped::of_any),
        _ => Err(DropReason::OuterNotOurs),
    }
}

/// What lies behind the IP header: a UDP segment to our port with VXLAN in it.
struct Payload {
    vni: Vni,
    inner: Range<usize>,
    /// The UDP segment, without what the IP packet may have behind it.
    segment: Range<usize>,
    has_checksum: bool,
}

/// Reads the UDP segment that has `segment` of the frame at most.
fn payload(frame: &[u8], segment: Range<usize>, port: u16) -> Result<Payload, DropReason> {
    if segment.len() < Udp::LEN {
        return Err(DropReason::OuterTruncated);
    }
    let (udp, payload) = Udp::split(&frame[segment.clone()]).ok_or(DropReason::OuterBadUdpLength)?;
    if udp.destination.get() != port {
        return Err(DropReason::OuterNotOurs);
    }
    let (vxlan, inner) = Vxlan::split(payload).ok_or(DropReason::OuterTruncated)?;
    let vni = vxlan.vni().ok_or(DropReason::VxlanInvalidHeader)?;
    if inner.len() < Ethernet::LEN {
        return Err(DropReason::InnerTruncated);
    }
    let end = segment.start + usize::from(udp.length.get());
    let has_checksum = udp.checksum.get() != 0;
    Ok(Payload { vni, inner: end - inner.len()..end, segment: segment.start..end, has_checksum })
}

impl<A: Into<IpAddr>> Decapped<A> {
    fn of_any(self) -> Decapped {
        let Self { source, vni, ecn, inner, checked } = self;
        Decapped { source: source.into(), vni, ecn, inner, checked }
    }
}

impl<A: Copy + Into<IpAddr>> Decapped<A> {
    /// Whether the outer UDP checksum is right, or there is none.
    ///
    /// A sender behind a veth may have left it to hardware: the folded pseudo header sum alone is
    /// accepted too. And it may have computed the outer checksum as if the *inner* one, left to
    /// hardware as well, were already there (local checksum offload, the kernel's `lco_csum`):
    /// finish the inner one before asking.
    #[inline]
    pub fn checksum_holds(&self, frame: &[u8]) -> bool {
        let Some(segment) = self.checked.clone() else { return true };
        let addresses = match self.source.into() {
            IpAddr::V4(_) => v4::ADDRESSES,
            IpAddr::V6(_) => v6::ADDRESSES,
        };
        let (Some(addresses), Some(segment)) = (frame.get(addresses), frame.get(segment)) else { return false };
        // The pseudo headers of IPv4 and IPv6 are the same sum: addresses, protocol, length
        // (RFC 768, RFC 8200 section 8.1).
        let pseudo = checksum::sum(addresses) + u64::from(protocol::UDP) + segment.len() as u64;
        let unfinished = segment.get(6..8) == Some(&checksum::fold(pseudo).to_be_bytes());
        unfinished || checksum::fold(checksum::sum(segment) + pseudo) == 0xffff
    }
}
