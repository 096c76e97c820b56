//! What IPv4 and IPv6 have in common, so that what is the same for both is written once.

use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{EtherType, Ipv4, Ipv6, checksum, protocol};

/// One of the two internet protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Version {
    /// What frames call it.
    pub const fn ether_type(self) -> EtherType {
        match self {
            Self::V4 => EtherType::IPV4,
            Self::V6 => EtherType::IPV6,
        }
    }

    /// Bytes of a header without options or extensions.
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => Ipv4::LEN,
            Self::V6 => Ipv6::LEN,
        }
    }

    /// Where the source address is in a header.
    pub const fn source_at(self) -> usize {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    /// Where the destination address is in a header.
    pub const fn destination_at(self) -> usize {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }

    /// The number of its own ICMP; see [`protocol`].
    pub const fn icmp(self) -> u8 {
        match self {
            Self::V4 => protocol::ICMP,
            Self::V6 => protocol::ICMPV6,
        }
    }
}

/// An address of IPv4 or of IPv6. What is generic over it is made once for each, so that neither
/// pays for the other.
pub trait Address:
    Copy + Ord + Hash + fmt::Debug + fmt::Display + Into<IpAddr> + Send + Sync + Sized + 'static
{
    /// Whose it is.
    const VERSION: Version;
    /// Nobody's.
    const UNSPECIFIED: Self;

    /// The address that `bytes` begin with.
    fn first(bytes: &[u8]) -> Option<Self>;

    /// Writes this address over the one that `bytes` begin with; returns what that changes in a
    /// checksum over them. `None` if there are fewer bytes, which are unchanged then.
    fn replace(self, bytes: &mut [u8]) -> Option<u64>;

    /// Its bits, the higher ones first.
    fn words(self) -> [u64; 2];

    /// Bits of a prefix.
    type Bits: Copy + Eq + Hash + fmt::Debug + Send + Sync;

    /// Its first `length` bits.
    fn masked(self, length: u8) -> Self::Bits;

    /// The header that `packet` begins with, once its version and lengths make sense.
    fn head(packet: &[u8]) -> Option<Head<Self>>;

    /// Takes one hop off the life of `packet`, which begins with a header.
    fn take_hop(packet: &mut [u8]);
}

/// What a router needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<A> {
    /// Who sent it.
    pub source: A,
    /// Who shall have it.
    pub destination: A,
    /// Hops left.
    pub hops: u8,
    /// Bytes, the header included.
    pub length: usize,
    /// Whether routers must not fragment it, which they never do with IPv6 (RFC 8200 section 5).
    pub dont_fragment: bool,
}

impl Address for Ipv4Addr {
    const VERSION: Version = Version::V4;
    const UNSPECIFIED: Self = Self::UNSPECIFIED;

    #[inline]
    fn first(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<4>().map(|octets| (*octets).into())
    }

    #[inline]
    fn replace(self, bytes: &mut [u8]) -> Option<u64> {
        let field = bytes.first_chunk_mut::<4>()?;
        let before = std::mem::replace(field, self.octets());
        Some(checksum::change_of_4(before, self.octets()))
    }

    #[inline]
    fn words(self) -> [u64; 2] {
        [0, u64::from(self.to_bits())]
    }

    type Bits = u32;

    #[inline]
    fn masked(self, length: u8) -> u32 {
        self.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }

    #[inline]
    fn head(packet: &[u8]) -> Option<Head<Self>> {
        let header = Ipv4::new_checked(packet)?;
        Some(Head {
            source: header.source(),
            destination: header.destination(),
            hops: header.ttl,
            length: header.total_length.get().into(),
            dont_fragment: header.dont_fragment(),
        })
    }

    #[inline]
    fn take_hop(packet: &mut [u8]) {
        let Some(header) = Ipv4::first_mut(packet) else { return };
        let word = |ttl| u16::from_be_bytes([ttl, header.protocol]);
        let (before, after) = (header.ttl, header.ttl.saturating_sub(1));
        header.checksum.set(checksum::update(header.checksum.get(), word(before), word(after)));
        header.ttl = after;
    }
}

impl Address for Ipv6Addr {
    const VERSION: Version = Version::V6;
    const UNSPECIFIED: Self = Self::UNSPECIFIED;

    #[inline]
    fn first(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<16>().map(|octets| (*octets).into())
    }

    #[inline]
    fn replace(self, bytes: &mut [u8]) -> Option<u64> {
        let field = bytes.first_chunk_mut::<16>()?;
        let before = std::mem::replace(field, self.octets());
        Some(checksum::change_of_16(&before, &self.octets()))
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    fn words(self) -> [u64; 2] {
        let bits = self.to_bits();
        [(bits >> 64) as u64, bits as u64]
    }

    type Bits = u128;

    #[inline]
    fn masked(self, length: u8) -> u128 {
        self.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
    }

    #[inline]
    fn head(packet: &[u8]) -> Option<Head<Self>> {
        let header = Ipv6::new_checked(packet)?;
        Some(Head {
            source: header.source(),
            destination: header.destination(),
            hops: header.hop_limit,
            length: Ipv6::LEN + usize::from(header.payload_length.get()),
            dont_fragment: true,
        })
    }

    #[inline]
    fn take_hop(packet: &mut [u8]) {
        if let Some(header) = Ipv6::first_mut(packet) {
            header.hop_limit = header.hop_limit.saturating_sub(1);
        }
    }
}
