//! VXLAN headers and network identifiers (RFC 7348 section 5).

use std::{fmt, num::ParseIntError, str::FromStr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U32};

/// A VXLAN network identifier: 24 bits, so that a value in hand is a value on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

/// The number does not fit the 24 bits of a VNI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VNI {0} is out of range: 0 to 16777215")]
pub struct VniOutOfRange(pub u64);

impl Vni {
    /// The greatest VNI.
    pub const MAX: u32 = 0xff_ffff;

    /// The VNI with this number.
    ///
    /// # Errors
    /// [`VniOutOfRange`] if it needs more than 24 bits.
    pub fn new(value: u32) -> Result<Self, VniOutOfRange> {
        if value <= Self::MAX { Ok(Self(value)) } else { Err(VniOutOfRange(value.into())) }
    }

    /// The number.
    #[inline]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The text is not a VNI.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVni {
    /// Not a number at all.
    #[error("`{0}` is not a number")]
    NotANumber(String, #[source] ParseIntError),
    /// More than 24 bits.
    #[error(transparent)]
    OutOfRange(#[from] VniOutOfRange),
}

impl FromStr for Vni {
    type Err = BadVni;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = text.parse::<u32>().map_err(|error| BadVni::NotANumber(text.to_owned(), error))?;
        Ok(Self::new(value)?)
    }
}

/// A VXLAN header: the I flag, the VNI, and bits that are sent as zero and ignored on receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Vxlan {
    flags: U32,
    vni: U32,
}

impl Vxlan {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
    const I_FLAG: u32 = 0x0800_0000;

    /// A header as RFC 7348 section 5 wants it sent: flag I set, every reserved bit zero.
    #[inline]
    pub fn new(vni: Vni) -> Self {
        Self { flags: U32::new(Self::I_FLAG), vni: U32::new(vni.0 << 8) }
    }

    /// The header at the start of `payload`, and the overlay frame behind it.
    #[inline]
    pub fn split(payload: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(payload).ok()
    }

    /// The VNI; `None` if flag I does not vouch for it. Reserved bits are ignored
    /// ("MUST be ... ignored on receipt").
    #[inline]
    pub fn vni(&self) -> Option<Vni> {
        (self.flags.get() & Self::I_FLAG != 0).then_some(Vni(self.vni.get() >> 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_sent_with_flag_i_and_zeros() {
        let header = Vxlan::new(Vni::new(0x12_3456).unwrap());
        assert_eq!(header.as_bytes(), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    }

    #[test]
    fn each_of_the_39_reserved_bits_is_ignored_on_receipt() {
        let clean = Vxlan::new(Vni::new(5000).unwrap());
        let reserved = u64::from_be_bytes([0xf7, 0xff, 0xff, 0xff, 0, 0, 0, 0xff]);
        assert_eq!(reserved.count_ones(), 39);
        for bit in (0..64).filter(|bit| reserved >> bit & 1 == 1) {
            let mangled = u64::from_be_bytes(clean.as_bytes().try_into().unwrap()) ^ 1 << bit;
            let bytes = mangled.to_be_bytes();
            let (header, _) = Vxlan::split(&bytes).unwrap();
            assert_eq!(header.vni(), Some(Vni(5000)), "bit {bit}");
        }
    }

    #[test]
    fn without_flag_i_there_is_no_vni() {
        let bytes = [0xf7, 0, 0, 0, 0, 0x13, 0x88, 0];
        assert_eq!(Vxlan::split(&bytes).unwrap().0.vni(), None);
    }

    #[test]
    fn a_vni_has_24_bits() {
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Ok(16_777_215));
        assert_eq!(Vni::new(1 << 24), Err(VniOutOfRange(1 << 24)));
        assert!("16777216".parse::<Vni>().is_err());
    }
}
