//! The tag of a frame on its way between a worker and the express lane: which port it is of.
//!
//! It is a VLAN tag with the number of the port, in front of any that the frame has itself: the
//! kernel knows how to segment what is behind one, and takes it off without moving a byte.

use crate::ids::PortId;

/// Bytes that a tag adds.
const LENGTH: usize = 4;
/// Where it is: behind the two MAC addresses.
const PLACE: usize = 12;
const VLAN: [u8; 2] = [0x81, 0];
/// The kernel takes a tag off only if there is something behind it (`skb_vlan_untag`).
const SHORTEST: usize = 20;

/// The port that `frame` is of, and the frame without its tag.
pub(crate) fn take_off(frame: &mut [u8]) -> Option<(PortId, &mut [u8])> {
    let tag: [u8; LENGTH] = *frame.get(PLACE..)?.first_chunk()?;
    let [a, b, high, low] = tag;
    if [a, b] != VLAN {
        return None;
    }
    frame.copy_within(..PLACE, LENGTH);
    Some((PortId(u16::from_be_bytes([high, low])), &mut frame[LENGTH..]))
}

/// The length of a frame of `length` bytes, which are an Ethernet header at least, with a tag.
pub(crate) fn length(length: usize) -> usize {
    (length + LENGTH).max(SHORTEST)
}

/// Writes `head` + `body`, with a tag that says `port`, into `frame`, which is as long as
/// [`length`] says. An Ethernet header is in one of the two.
pub(crate) fn write(frame: &mut [u8], port: PortId, head: &[u8], body: &[u8]) {
    let [high, low] = port.0.to_be_bytes();
    let (head, body) = if head.is_empty() { body.split_at(PLACE) } else { (head, body) };
    let (addresses, rest) = head.split_at(PLACE);
    let parts: [&[u8]; 4] = [addresses, &[VLAN[0], VLAN[1], high, low], rest, body];
    let mut left = frame;
    for part in parts {
        let (here, beyond) = left.split_at_mut(part.len());
        here.copy_from_slice(part);
        left = beyond;
    }
    left.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &[u8], body: &[u8]) {
        let whole = [head, body].concat();
        let mut frame = vec![0xee; length(whole.len())];
        write(&mut frame, PortId(0xabcd), head, body);
        assert_eq!(frame[..PLACE], whole[..PLACE]);
        let (port, taken) = take_off(&mut frame).unwrap();
        assert_eq!((port, &taken[..whole.len()]), (PortId(0xabcd), &whole[..]));
        assert!(taken[whole.len()..].iter().all(|&byte| byte == 0), "padding");
    }

    #[test]
    fn what_was_tagged_is_found_again_with_its_port() {
        let bytes: Vec<u8> = (0..100).collect();
        for length in 14..100 {
            check(&[], &bytes[..length]);
            check(&bytes[..50], &bytes[..length]);
        }
    }

    #[test]
    fn a_frame_without_a_tag_is_of_no_port() {
        assert!(take_off(&mut [0; 60]).is_none());
        for length in 0..16 {
            assert!(take_off(&mut vec![0x81; length]).is_none(), "{length}");
        }
    }
}
