//! Cuts an IPv4 packet into fragments that a link can take (RFC 791 section 3.2).

use zerocopy::IntoBytes;

use super::{Ethernet, Ipv4};

/// The fragments of a packet, in order, each behind the Ethernet header of the whole.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    ethernet: Ethernet,
    whole: Ipv4,
    rest: &'a [u8],
    /// Where `rest` belongs, in units of 8 bytes.
    offset: u16,
    /// Payload bytes of every fragment but the last.
    step: usize,
}

/// Bytes in front of the payload of a fragment.
pub const HEAD: usize = Ethernet::LEN + Ipv4::LEN;
/// Fragments that one packet may become: fewer than any link needs that is worth the name.
const MOST: usize = 32;
/// The end of the longest packet, in units of 8 bytes.
const END: usize = 1 << 13;

impl<'a> Fragments<'a> {
    /// The fragments of the packet in `frame`, none with more than `mtu` bytes of network layer.
    /// The packet may be a fragment itself.
    ///
    /// `None` if that cannot be done: it is not IPv4, empty or not to be fragmented, has IP options, of
    /// which not all belong into every fragment, would become more than 32, or would reach beyond
    /// the longest packet that there can be.
    pub fn of(frame: &'a [u8], mtu: u16) -> Option<Self> {
        let (ethernet, packet) = Ethernet::split(frame)?;
        let whole = *Ipv4::new_checked(packet)?;
        let rest = packet.get(Ipv4::LEN..usize::from(whole.total_length.get()))?;
        let step = usize::from(mtu).checked_sub(Ipv4::LEN)? / 8 * 8;
        let offset = whole.fragment_offset();
        let fits = step > 0
            && !rest.is_empty()
            && whole.header_len() == Ipv4::LEN
            && !whole.dont_fragment()
            && rest.len().div_ceil(step) <= MOST
            && usize::from(offset) + rest.len().div_ceil(8) <= END;
        fits.then_some(Self { ethernet: *ethernet, whole, rest, offset, step })
    }
}

impl<'a> Iterator for Fragments<'a> {
    type Item = ([u8; HEAD], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (part, rest) = self.rest.split_at(self.step.min(self.rest.len()));
        let more = !rest.is_empty() || self.whole.more_fragments();
        let header = self.whole.of_fragment(u16::try_from(part.len()).ok()?, self.offset, more);
        let mut head = [0; HEAD];
        self.ethernet.write_to_prefix(&mut head).ok()?;
        header.write_to_suffix(&mut head).ok()?;
        // `of` made sure that the end of all parts can be told in 13 bits; the step is a multiple of 8.
        self.offset += u16::try_from(part.len() / 8).ok()?;
        self.rest = rest;
        Some((head, part))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv4;

    fn frame(payload: &[u8], edit: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let mut header = Ipv4Header::new(length, 64, IpNumber::UDP, [10, 0, 0, 2], [198, 51, 100, 7]).unwrap();
        (header.dont_fragment, header.identification) = (false, 7);
        edit(&mut header);
        header.header_checksum = header.calc_header_checksum();
        [&[2; 12][..], &[8, 0], &header.to_bytes(), payload].concat()
    }

    fn offset(of: u16) -> IpFragOffset {
        IpFragOffset::try_new(of).unwrap()
    }

    proptest! {
        #[test]
        fn the_fragments_of_a_packet_or_of_a_fragment_are_the_whole_again(
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            mtu in 148..1500u16,
            (first, more) in (0..200u16, any::<bool>()),
        ) {
            // Only the last fragment of a packet may have an odd length.
            let payload = &payload[..if more { (payload.len() / 8 * 8).max(1) } else { payload.len() }];
            let whole = frame(payload, |ip| (ip.fragment_offset, ip.more_fragments) = (offset(first), more));
            let parts: Vec<_> = Fragments::of(&whole, mtu).unwrap().collect();
            let mut seen = Vec::new();
            for (index, (head, body)) in parts.iter().enumerate() {
                let (ip, _) = Ipv4Header::from_slice(&head[14..]).unwrap();
                prop_assert!(ipv4::checksum_holds(&head[14..]));
                prop_assert!(ip.total_len <= mtu);
                prop_assert_eq!(usize::from(ip.total_len), 20 + body.len());
                prop_assert_eq!(usize::from(ip.fragment_offset.value()), usize::from(first) + seen.len() / 8);
                prop_assert_eq!(ip.more_fragments, more || index + 1 < parts.len());
                prop_assert_eq!((ip.identification, ip.time_to_live, ip.dont_fragment), (7, 64, false));
                prop_assert_eq!(&head[..14], &whole[..14]);
                seen.extend_from_slice(body);
            }
            prop_assert_eq!(seen, payload);
        }
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        let (plain, payload) = (|_: &mut Ipv4Header| {}, [7; 2000]);
        assert_eq!(Fragments::of(&frame(&payload, plain), 1500).unwrap().count(), 2);
        let refused = [
            ("must not be", frame(&payload, |ip| ip.dont_fragment = true), 1500),
            ("no room for eight bytes", frame(&payload, plain), 27),
            ("no room for a header", frame(&payload, plain), 19),
            ("more than 32", frame(&payload, plain), 20 + 56),
            ("beyond the end", frame(&payload, |ip| ip.fragment_offset = offset(8191)), 1500),
            ("options", frame(&payload, |ip| ip.options = [1; 4].into()), 1500),
            ("cut off", frame(&payload, plain)[..600].to_vec(), 1500),
        ];
        for (why, frame, mtu) in refused {
            assert!(Fragments::of(&frame, mtu).is_none(), "{why}");
        }
        assert_eq!(Fragments::of(&frame(&payload, plain), 20 + 64).unwrap().count(), 32);
    }
}
