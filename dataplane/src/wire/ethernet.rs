//! Ethernet II headers and the addresses in them (IEEE 802.3 clause 3).

use std::{fmt, str::FromStr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

/// A MAC address.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones: every station of the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros: nobody. Never a source, never learned.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set: multicast or broadcast.
    #[inline]
    pub fn is_group(self) -> bool {
        self.to_u64() & 1 << 40 != 0
    }

    /// Whether a station may send from this address: not a group and not zero.
    #[inline]
    pub fn is_station(self) -> bool {
        !self.is_group() && self.to_u64() != 0
    }

    /// Whether bridges must not forward frames to this address: 01:80:c2:00:00:00 to 0f
    /// (IEEE 802.1D table 7-10: spanning tree, pause, LLDP and the like).
    #[inline]
    pub fn is_link_local_control(self) -> bool {
        self.to_u64() & !0xf == 0x0180_c200_0000
    }

    /// The 48 bits as a number, first byte highest.
    #[inline]
    pub fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address whose [`to_u64`](Self::to_u64) this is; the upper 16 bits are ignored.
    #[inline]
    pub fn from_u64(bits: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The text was not six hexadecimal bytes with colons between them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address such as 02:00:00:00:00:0a")]
pub struct BadMacAddr(String);

impl FromStr for MacAddr {
    type Err = BadMacAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMacAddr(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

/// What follows an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct EtherType(U16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(U16::new(0x0800));
    /// ARP.
    pub const ARP: Self = Self(U16::new(0x0806));
    /// IEEE 802.1Q customer tag.
    pub const VLAN: Self = Self(U16::new(0x8100));
    /// IPv6.
    pub const IPV6: Self = Self(U16::new(0x86dd));
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: Self = Self(U16::new(0x88a8));

    /// The type with this number.
    pub const fn new(value: u16) -> Self {
        Self(U16::new(value))
    }

    /// The number of this type.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// Whether a VLAN tag follows.
    #[inline]
    pub fn is_vlan(self) -> bool {
        self == Self::VLAN || self == Self::SERVICE_VLAN
    }
}

/// An Ethernet II header, without tags and without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Who shall have the frame.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What it carries.
    pub ether_type: EtherType,
}

impl Ethernet {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Where `frame` goes and where it comes from. Reads each address in one piece, which the
    /// compiler does not make of a header whose bytes are looked at one by one.
    #[inline(always)]
    pub fn addresses(frame: &[u8]) -> Option<[MacAddr; 2]> {
        let read = |at: usize| Some(u64::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        Some([MacAddr::from_u64(read(0)? >> 16), MacAddr::from_u64(read(6)? >> 16)])
    }

    /// The header at the start of `frame`, and what follows; `None` if the frame ends before.
    #[inline]
    pub fn split(frame: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(frame).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_reads_back_what_it_prints() {
        let mac = MacAddr([2, 0, 0x5e, 0x10, 0xff, 0x0a]);
        assert_eq!(mac.to_string(), "02:00:5e:10:ff:0a");
        assert_eq!("02:00:5e:10:ff:0a".parse(), Ok(mac));
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
    }

    #[test]
    fn text_that_is_no_mac_address_is_refused() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "02:00:00:00:00:0g",
            "02-00-00-00-00-00",
            "002:0:0:0:0:0",
            "+2:0:0:0:0:0",
        ] {
            let parsed = text.parse::<MacAddr>();
            assert!(parsed.is_err(), "{text} gave {parsed:?}");
        }
    }

    #[test]
    fn only_the_sixteen_control_addresses_stop_at_a_bridge() {
        for last in 0..=255u8 {
            let mac = MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
            assert_eq!(mac.is_link_local_control(), last < 16, "{mac}");
        }
        assert!(!MacAddr([0x01, 0x80, 0xc2, 0, 1, 0]).is_link_local_control());
    }

    #[test]
    fn groups_and_zero_are_no_stations() {
        assert!(!MacAddr::BROADCAST.is_station());
        assert!(!MacAddr::ZERO.is_station());
        assert!(!MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_station());
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_station());
    }
}
