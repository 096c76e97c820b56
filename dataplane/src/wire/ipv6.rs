//! IPv6 headers and the walk over their extensions (RFC 8200).

use std::net::Ipv6Addr;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

use super::Ecn;

/// The fixed IPv6 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    version_class_label: U32,
    /// Bytes after this header, extensions included.
    pub payload_length: U16,
    /// What follows: an extension or an upper protocol.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Ipv6 {
    /// Bytes of the fixed header.
    pub const LEN: usize = size_of::<Self>();

    /// A header with traffic class and flow label zero.
    pub fn new(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: u16) -> Self {
        Self {
            version_class_label: U32::new(6 << 28),
            payload_length: U16::new(payload),
            next_header,
            hop_limit: 255,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The header at the start of `packet`, once its version is 6 and its payload is all there.
    #[inline]
    pub fn new_checked(packet: &[u8]) -> Option<&Self> {
        let (header, rest) = Self::ref_from_prefix(packet).ok()?;
        let fits =
            header.version_class_label.get() >> 28 == 6 && usize::from(header.payload_length.get()) <= rest.len();
        fits.then_some(header)
    }

    /// The header at the start of `packet`, to change.
    #[inline]
    pub fn first_mut(packet: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(packet).ok().map(|(header, _)| header)
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// Who shall have it.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        self.destination.into()
    }

    /// DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.version_class_label.get().to_be_bytes()[0] << 4 | self.version_class_label.get().to_be_bytes()[1] >> 4
    }

    /// The congestion mark.
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_traffic_class(self.traffic_class())
    }

    /// Sets traffic class and flow label, the latter of 20 bits.
    #[inline]
    pub fn set_class_and_label(&mut self, class: u8, label: u32) {
        self.version_class_label = U32::new(6 << 28 | u32::from(class) << 20 | label & 0xf_ffff);
    }

    /// Sets the congestion mark.
    #[inline]
    pub fn set_ecn(&mut self, ecn: Ecn) {
        let class = u32::from(ecn.in_traffic_class(self.traffic_class()));
        self.version_class_label = U32::new(self.version_class_label.get() & !(0xff << 20) | class << 20);
    }
}

/// Where the extension headers lead: the upper protocol, its offset, and whether it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Protocol number behind the last extension.
    pub protocol: u8,
    /// Bytes of extensions walked.
    pub offset: usize,
    /// A fragment header was among them and this is not all of the packet.
    pub fragment: bool,
    /// It is not the first part of it either, so that what lies here is no header.
    pub later: bool,
}

/// How many extension headers are walked before giving up; real packets have one or two.
const MAX_EXTENSIONS: usize = 8;

/// Walks the extension headers in `payload`, the first of which is `next`.
///
/// `None` if they are cut short or too many: the packet is still forwarded, but nothing
/// behind the fixed header is looked at.
#[inline]
pub fn upper(mut next: u8, payload: &[u8]) -> Option<Upper> {
    let mut offset = 0;
    let (mut fragment, mut later) = (false, false);
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            // Hop-by-hop, routing, destination options: length in 8-byte units, the first not counted.
            0 | 43 | 60 => 8 + 8 * usize::from(*payload.get(offset + 1)?),
            44 => {
                let field = payload.get(offset + 2..offset + 4)?;
                // Offset and the "more" flag; the two reserved bits between do not count.
                let field = u16::from_be_bytes([field[0], field[1]]);
                fragment |= field & 0xfff9 != 0;
                later |= field & 0xfff8 != 0;
                8
            }
            // Authentication header (RFC 4302): length in 4-byte units, two not counted.
            51 => 8 + 4 * usize::from(*payload.get(offset + 1)?),
            protocol => return Some(Upper { protocol, offset, fragment, later }),
        };
        next = *payload.get(offset)?;
        offset += length;
        if offset > payload.len() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_walked_to_the_upper_protocol() {
        let hop_by_hop_then_fragment = [44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4];
        let first = Upper { protocol: 17, offset: 16, fragment: true, later: false };
        assert_eq!(upper(0, &hop_by_hop_then_fragment), Some(first));
        assert_eq!(upper(17, &[]), Some(Upper { protocol: 17, offset: 0, fragment: false, later: false }));
        assert!(upper(44, &[17, 0, 0, 8, 0, 0, 0, 9]).is_some_and(|upper| upper.fragment && upper.later));
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        // RFC 6946: offset 0 and no more fragments.
        let whole = Upper { protocol: 6, offset: 8, fragment: false, later: false };
        assert_eq!(upper(44, &[6, 0, 0, 0, 0, 0, 0, 9]), Some(whole));
    }

    #[test]
    fn endless_or_truncated_extensions_are_given_up() {
        assert_eq!(upper(0, &[0; 8 * 20]), None, "a chain longer than any real one");
        assert_eq!(upper(0, &[17, 9, 0, 0, 0, 0, 0, 0]), None, "length beyond the packet");
        assert_eq!(upper(44, &[17, 0]), None);
    }

    #[test]
    fn the_traffic_class_straddles_two_bytes() {
        let mut header = Ipv6::new(17, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 0);
        header.set_ecn(Ecn::Ce);
        assert_eq!((header.ecn(), header.traffic_class()), (Ecn::Ce, 3));
        assert_eq!(header.as_bytes()[..2], [0x60, 0x30]);
    }
}
