//! The Internet checksum (RFC 1071), changed in place (RFC 1624), and finished for a sender
//! that left it to hardware.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The one's complement sum of `bytes` as 16-bit words, not yet folded; an odd last byte
/// counts as the upper half of a word.
///
/// Sums can be added. Up to 2^32 bytes cannot overflow it: a sum of 32-bit words in 64 bits.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    u64::from(fold_native(sum_native(bytes)).to_be())
}

/// Whether `bytes` with the checksum among them add up to all ones, in any byte order.
#[inline]
pub fn holds(bytes: &[u8]) -> bool {
    fold_native(sum_native(bytes)) == 0xffff
}

#[inline]
fn sum_native(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // Native order: RFC 1071 section 2(B), one swap at the end instead of one a word.
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

/// [`sum`] of eight bytes, without a loop: what the two addresses of IPv4 are.
#[inline]
pub fn sum_of_8(bytes: &[u8; 8]) -> u64 {
    let bits = u64::from_be_bytes(*bytes);
    (bits >> 32) + (bits & 0xffff_ffff)
}

/// Folds a sum to 16 bits. Not complemented: a checksum is `!fold(sum)`.
#[inline]
pub fn fold(sum: u64) -> u16 {
    fold_native(sum)
}

#[inline]
fn fold_native(sum: u64) -> u16 {
    // Both halves added to both halves: the upper one gets the carry of the lower one, which is
    // the end-around carry of one's complement.
    fold_32((sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32)
}

/// [`fold`] of a sum that is known to be short.
#[inline]
pub fn fold_32(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The pseudo header of TCP and UDP over IPv4 (RFC 9293 section 3.1).
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> u64 {
    let words = |address: Ipv4Addr| {
        let bits = u64::from(address.to_bits());
        (bits >> 16) + (bits & 0xffff)
    };
    words(source) + words(destination) + u64::from(protocol) + length as u64
}

/// The pseudo header of upper protocols over IPv6 (RFC 8200 section 8.1).
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: usize) -> u64 {
    sum(&source.octets()) + sum(&destination.octets()) + u64::from(protocol) + length as u64
}

/// The checksum after a 16-bit field that it covers went from `before` to `after`
/// (RFC 1624 equation 3).
#[inline]
pub fn update(checksum: u16, before: u16, after: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!before) + u64::from(after))
}

/// What replacing a covered 16-bit field changes, for [`apply`]. Changes can be added.
#[inline]
pub fn change(before: u16, after: u16) -> u64 {
    u64::from(!before) + u64::from(after)
}

/// [`change`] of two fields, as of an IPv4 address.
#[inline]
pub fn change_of_4(before: [u8; 4], after: [u8; 4]) -> u64 {
    u64::from(!u32::from_be_bytes(before)) + u64::from(u32::from_be_bytes(after))
}

/// [`change`] of eight fields, as of an IPv6 address.
#[inline]
pub fn change_of_16(before: &[u8; 16], after: &[u8; 16]) -> u64 {
    let complement = |word: &[u8; 4]| u64::from(!u32::from_be_bytes(*word));
    before.as_chunks().0.iter().map(complement).sum::<u64>() + sum(after)
}

/// The same change to fields that begin at an odd offset (RFC 1071 section 2(B)).
#[inline]
pub fn swapped(change: u64) -> u64 {
    u64::from(fold(change).swap_bytes())
}

/// The checksum after `change`s to what it covers (RFC 1624 equation 3).
#[inline]
pub fn apply(checksum: u16, change: u64) -> u16 {
    !fold(u64::from(!checksum) + change)
}

/// Finishes the checksum at `segment[at..at + 2]` if the sender left it to hardware.
///
/// Linux leaves the folded pseudo header sum in the field for a device to complete
/// (`CHECKSUM_PARTIAL`, `include/linux/skbuff.h`), and a veth hands frames over like that.
/// Completing is the identity on a segment whose checksum is right and happens to have
/// that value: with `P` the pseudo sum, `D` the data's and `C` a right checksum,
/// `P + D + C = 0xffff`, so `C = P` gives `!(D + P) = C`. Anything else is left as it came,
/// right or wrong: we repair what was not yet computed, never what was corrupted.
#[inline(never)]
pub fn finish(segment: &mut [u8], at: usize, pseudo: u64, zero_means_none: bool) {
    let Some(&field) = segment.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return };
    if u16::from_be_bytes(field) != fold(pseudo) {
        return;
    }
    let mut checksum = !fold(sum(segment));
    if checksum == 0 && zero_means_none {
        checksum = 0xffff;
    }
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    /// 0 and 0xffff are the same number in one's complement.
    fn same(left: u16, right: u16) -> bool {
        left % 0xffff == right % 0xffff
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_rfc_1071_loop(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(same(fold(sum(&bytes)), reference(&bytes)));
        }

        #[test]
        fn an_update_equals_a_recomputation(mut bytes in prop::collection::vec(any::<u8>(), 4..64), after: u16) {
            let before = u16::from_be_bytes([bytes[2], bytes[3]]);
            let old = !reference(&bytes);
            bytes[2..4].copy_from_slice(&after.to_be_bytes());
            prop_assert!(same(update(old, before, after), !reference(&bytes)));
        }

        #[test]
        fn a_change_of_two_words_equals_a_recomputation(mut bytes in prop::collection::vec(any::<u8>(), 8..64), after: [u8; 4], at in 0..2usize) {
            let old = !reference(&bytes);
            let at = at * 2;
            let before = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            bytes[at..at + 4].copy_from_slice(&after);
            prop_assert!(same(apply(old, change_of_4(before, after)), !reference(&bytes)));
            let odd = u16::from_be_bytes([bytes[5], bytes[6]]);
            let old = !reference(&bytes);
            bytes[5..7].copy_from_slice(&after[..2]);
            let change = swapped(change(odd, u16::from_be_bytes([after[0], after[1]])));
            prop_assert!(same(apply(old, change), !reference(&bytes)));
        }

        #[test]
        fn finishing_completes_a_partial_checksum(payload in prop::collection::vec(any::<u8>(), 8..1500), source: u32, destination: u32) {
            let mut segment = payload;
            let pseudo = pseudo_v4(source.into(), destination.into(), 17, segment.len());
            segment[6..8].copy_from_slice(&fold(pseudo).to_be_bytes());
            finish(&mut segment, 6, pseudo, true);
            prop_assert!(same(fold(sum(&segment) + pseudo), 0xffff));
            prop_assert_ne!(&segment[6..8], &[0, 0]);
            let finished = segment.clone();
            finish(&mut segment, 6, pseudo, true);
            prop_assert_eq!(finished, segment, "a finished checksum is left alone");
        }

        #[test]
        fn finishing_leaves_any_other_value_as_it_came(payload in prop::collection::vec(any::<u8>(), 8..100), pseudo in 1u64..0xffff) {
            let mut segment = payload.clone();
            prop_assume!(segment[6..8] != fold(pseudo).to_be_bytes());
            finish(&mut segment, 6, pseudo, true);
            prop_assert_eq!(payload, segment);
        }
    }

    #[test]
    fn both_pseudo_headers_agree_with_their_bytes() {
        let (a, b) = (Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(192, 0, 2, 200));
        let bytes = [10, 1, 2, 3, 192, 0, 2, 200, 0, 17, 0x05, 0xdc];
        assert_eq!(fold(pseudo_v4(a, b, 17, 1500)), reference(&bytes));
        let (c, d): (Ipv6Addr, Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2:0:3".parse().unwrap());
        let bytes = [&c.octets()[..], &d.octets(), &[0, 0, 5, 0xdc, 0, 0, 0, 6]].concat();
        assert_eq!(fold(pseudo_v6(c, d, 6, 1500)), reference(&bytes));
    }
}
