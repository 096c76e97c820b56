//! TCP headers (RFC 9293 section 3.1).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// A TCP header without its options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// Number of the first byte.
    pub sequence: U32,
    /// Number of the byte that is expected next.
    pub acknowledgement: U32,
    offset: u8,
    /// See the constants of this module.
    pub flags: u8,
    /// Bytes that may be sent.
    pub window: U16,
    /// Over pseudo header, header and payload.
    pub checksum: U16,
    /// End of urgent data.
    pub urgent: U16,
}

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// The connection is no more.
pub const RST: u8 = 0x04;
/// The acknowledgement number means something.
pub const ACK: u8 = 0x10;

impl Tcp {
    /// Bytes of a header without options.
    pub const LEN: usize = size_of::<Self>();

    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.offset >> 4) * 4
    }
}

/// Where the value of the maximum segment size option is in the options of a header
/// (RFC 9293 section 3.2), counted from the first option.
pub fn mss_at(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match options.get(at..)? {
            [0, ..] | [] => return None,
            [1, ..] => at += 1,
            [2, 4, _, _, ..] => return Some(at + 2),
            [_, length, ..] if *length >= 2 => at += usize::from(*length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_size_is_found_behind_other_options() {
        assert_eq!(mss_at(&[2, 4, 5, 0xb4]), Some(2));
        assert_eq!(mss_at(&[1, 1, 4, 2, 3, 3, 7, 2, 4, 5, 0xb4, 0]), Some(9));
    }

    #[test]
    fn options_that_end_or_lie_have_no_segment_size() {
        for options in [&[][..], &[0, 2, 4, 5, 0xb4], &[2, 4, 5], &[3, 0, 2, 4, 5, 6], &[8, 200, 1], &[1, 1, 1]] {
            assert_eq!(mss_at(options), None, "{options:?}");
        }
    }
}
