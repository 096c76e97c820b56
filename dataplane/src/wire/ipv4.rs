//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::{Ecn, checksum};

/// An IPv4 header without its options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    version_and_length: u8,
    /// DSCP in the upper six bits (RFC 2474), ECN in the lower two (RFC 3168).
    pub traffic_class: u8,
    /// Header and payload, in bytes.
    pub total_length: U16,
    /// Tells the fragments of one datagram from those of another.
    pub identification: U16,
    fragment: U16,
    /// Hops left.
    pub ttl: u8,
    /// What follows: see [`protocol`](super::protocol).
    pub protocol: u8,
    /// Checksum of this header and its options.
    pub checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Ipv4 {
    /// Bytes of a header without options.
    pub const LEN: usize = size_of::<Self>();
    /// "Don't fragment", in [`new`](Self::new).
    pub const DONT_FRAGMENT: u16 = 0x4000;
    const MORE_FRAGMENTS: u16 = 0x2000;

    /// A header without options and with its checksum still zero.
    pub fn new(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: u16, fragment: u16) -> Self {
        Self {
            version_and_length: 0x45,
            traffic_class: 0,
            total_length: U16::new(payload.saturating_add(20)),
            identification: U16::ZERO,
            fragment: U16::new(fragment),
            ttl: 64,
            protocol,
            checksum: U16::ZERO,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The header at the start of `packet`, once its version and lengths make sense:
    /// version 4, at least 20 bytes of header, and no more of either than `packet` has.
    #[inline]
    pub fn new_checked(packet: &[u8]) -> Option<&Self> {
        let (header, _) = Self::ref_from_prefix(packet).ok()?;
        let total = usize::from(header.total_length.get());
        let fits = header.version_and_length >> 4 == 4
            && header.header_len() >= Self::LEN
            && header.header_len() <= total
            && total <= packet.len();
        fits.then_some(header)
    }

    /// The header at the start of `packet`, if it passes [`new_checked`](Self::new_checked), has
    /// no options and is not of a fragment; and how many bytes follow it.
    #[inline]
    pub fn new_plain(packet: &[u8]) -> Option<(&Self, usize)> {
        let (header, _) = Self::ref_from_prefix(packet).ok()?;
        let total = usize::from(header.total_length.get());
        let plain =
            header.version_and_length == 0x45 && !header.is_fragment() && total >= Self::LEN && total <= packet.len();
        plain.then(|| (header, total - Self::LEN))
    }

    /// The header at the start of `packet`, to change. Check it with [`new_checked`](Self::new_checked) first.
    #[inline]
    pub fn first_mut(packet: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(packet).ok().map(|(header, _)| header)
    }

    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_and_length & 0xf) * 4
    }

    /// Bytes after the header.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(self.total_length.get()).saturating_sub(self.header_len())
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// Who shall have it.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// Whether this is a part of a datagram: more fragments follow, or the offset is not zero.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & 0x3fff != 0
    }

    /// Where this fragment belongs in its datagram, in units of 8 bytes.
    #[inline]
    pub fn fragment_offset(&self) -> u16 {
        self.fragment.get() & 0x1fff
    }

    /// Whether fragments follow behind this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.fragment.get() & 0x2000 != 0
    }

    /// Whether the version is 4, which a header from [`new_checked`](Self::new_checked) has.
    #[inline]
    pub fn is_version_4(&self) -> bool {
        self.version_and_length >> 4 == 4
    }

    /// Whether routers must not fragment it.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.fragment.get() & Self::DONT_FRAGMENT != 0
    }

    /// The header, without options, of a part of this packet: `payload` bytes from `offset` on,
    /// which is in units of 8 bytes. Its checksum is right.
    #[must_use]
    pub fn of_fragment(&self, payload: u16, offset: u16, more: bool) -> Self {
        let flags = if more { Self::MORE_FRAGMENTS } else { 0 };
        let mut part = Self::new(self.protocol, self.source(), self.destination(), payload, flags | offset & 0x1fff);
        (part.traffic_class, part.identification, part.ttl) = (self.traffic_class, self.identification, self.ttl);
        part.checksum = U16::new(!checksum::fold(checksum::sum(part.as_bytes())));
        part
    }

    /// The congestion mark.
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_traffic_class(self.traffic_class)
    }

    /// Sets the congestion mark and corrects the header checksum (RFC 1624).
    #[inline]
    pub fn set_ecn(&mut self, ecn: Ecn) {
        let before = u16::from_be_bytes([self.version_and_length, self.traffic_class]);
        self.traffic_class = ecn.in_traffic_class(self.traffic_class);
        let after = u16::from_be_bytes([self.version_and_length, self.traffic_class]);
        self.checksum = U16::new(checksum::update(self.checksum.get(), before, after));
    }
}

/// Whether the checksum over `header` (options included) is right.
#[inline]
pub fn checksum_holds(header: &[u8]) -> bool {
    checksum::holds(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071's usual worked example.
    const EXAMPLE: [u8; 20] = [
        0x45,
        0x00,
        0x00,
        0x14,
        0x00,
        0x00,
        0x40,
        0x00,
        0x40,
        0x11,
        0xb8,
        0x5f + 2,
        0xc0,
        0xa8,
        0x00,
        0x01,
        0xc0,
        0xa8,
        0x00,
        0xc7,
    ];

    #[test]
    fn a_header_is_refused_when_its_lengths_do_not_fit() {
        assert!(Ipv4::new_checked(&EXAMPLE).is_some());
        assert!(Ipv4::new_checked(&EXAMPLE[..19]).is_none(), "truncated");
        let with = |index: usize, value: u8| {
            let mut packet = EXAMPLE;
            packet[index] = value;
            Ipv4::new_checked(&packet).is_some()
        };
        assert!(!with(0, 0x65), "version 6");
        assert!(!with(0, 0x44), "header of 16 bytes");
        assert!(!with(0, 0x46), "header longer than the packet");
        assert!(!with(3, 21), "longer than the bytes there are");
        assert!(!with(3, 19), "shorter than its header");
    }

    #[test]
    fn setting_ecn_keeps_the_checksum_right() {
        let mut packet = EXAMPLE;
        let right = !checksum::fold(checksum::sum(&{
            let mut zeroed = packet;
            zeroed[10..12].fill(0);
            zeroed
        }));
        packet[10..12].copy_from_slice(&right.to_be_bytes());
        assert!(checksum_holds(&packet));
        for ecn in [Ecn::Ce, Ecn::Ect1, Ecn::NotEct, Ecn::Ect0] {
            Ipv4::first_mut(&mut packet).unwrap().set_ecn(ecn);
            assert!(checksum_holds(&packet), "{ecn:?}");
            assert_eq!(Ipv4::new_checked(&packet).unwrap().ecn(), ecn);
        }
    }
}
