//! UDP headers (RFC 768).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16};

/// A UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// Header and payload, in bytes.
    pub length: U16,
    /// Over pseudo header, header and payload; zero says that the sender made none.
    pub checksum: U16,
}

impl Udp {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// The header at the start of `segment` and its payload, as long as the header says.
    ///
    /// `None` if the length is less than the header or more than `segment` has.
    #[inline]
    pub fn split(segment: &[u8]) -> Option<(&Self, &[u8])> {
        let (header, _) = Self::ref_from_prefix(segment).ok()?;
        let payload = segment.get(Self::LEN..usize::from(header.length.get()))?;
        Some((header, payload))
    }
}
