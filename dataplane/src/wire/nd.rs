//! Neighbour discovery for IPv6: the messages of RFC 4861 and their options.

use std::net::Ipv6Addr;

use zerocopy::IntoBytes;

use super::{EtherType, Ethernet, Ipv6, Layers, MacAddr, checksum, protocol};

/// A message that passes the checks of RFC 4861 sections 6.1, 7.1 and 8.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The IPv6 address that it is from.
    pub source: Ipv6Addr,
    /// The IPv6 address that it is to.
    pub destination: Ipv6Addr,
    /// Whom a solicitation, advertisement or redirect is about; unspecified otherwise.
    pub target: Ipv6Addr,
    /// The first byte behind the checksum: [`ROUTER`], [`SOLICITED`] and [`OVERRIDE`] of an advertisement.
    pub flags: u8,
    /// The Ethernet address of who speaks, as its option says: of the source in a
    /// solicitation, of the target in an advertisement.
    pub link_layer: Option<MacAddr>,
    /// It has options beyond the link-layer addresses and the nonce (RFC 3971 section 5.3.2).
    pub has_others: bool,
}

/// The five messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where is a router?
    RouterSolicitation,
    /// Here is a router.
    RouterAdvertisement,
    /// Who has the target address?
    Solicitation,
    /// The target address is here.
    Advertisement,
    /// The target is better reached by another router.
    Redirect,
}

/// The sender of an advertisement is a router.
pub const ROUTER: u8 = 0x80;
/// An advertisement answers a solicitation.
pub const SOLICITED: u8 = 0x40;
/// An advertisement replaces what was known.
pub const OVERRIDE: u8 = 0x20;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const NONCE: u8 = 14;

/// Room for every frame that is written here.
pub const MAX_FRAME: usize = Ethernet::LEN + Ipv6::LEN + LEN;
/// A solicitation or advertisement with one option.
const LEN: usize = 32;

/// The message in `frame` is not one that a node may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// The message in `frame`; `None` if there is none.
///
/// # Errors
/// [`Invalid`] if the hop limit is not 255 (somebody beyond a router sent it), if lengths, code or
/// checksum are wrong, or if an option ends where it begins or beyond the message.
pub fn parse(frame: &[u8], layers: &Layers) -> Option<Result<Message, Invalid>> {
    let transport = layers.transport.filter(|transport| transport.protocol == protocol::ICMPV6)?;
    let segment = frame.get(transport.offset..transport.offset + transport.length)?;
    let kind = match segment.first()? {
        133 => Kind::RouterSolicitation,
        134 => Kind::RouterAdvertisement,
        135 => Kind::Solicitation,
        136 => Kind::Advertisement,
        137 => Kind::Redirect,
        _ => return None,
    };
    let header = Ipv6::new_checked(frame.get(Ethernet::LEN..)?)?;
    Some(checked(kind, header, segment).ok_or(Invalid))
}

fn checked(kind: Kind, header: &Ipv6, segment: &[u8]) -> Option<Message> {
    let (source, destination) = (header.source(), header.destination());
    let pseudo = checksum::pseudo_v6(source, destination, protocol::ICMPV6, segment.len());
    let sound = header.hop_limit == 255
        && segment.get(1) == Some(&0)
        && checksum::fold(checksum::sum(segment) + pseudo) == 0xffff;
    let flags = *segment.get(4).filter(|_| sound)?;
    let (target, options) = match kind {
        Kind::RouterSolicitation => (Ipv6Addr::UNSPECIFIED, segment.get(8..)?),
        Kind::RouterAdvertisement => (Ipv6Addr::UNSPECIFIED, segment.get(16..)?),
        Kind::Redirect => (address(segment)?, segment.get(40..)?),
        Kind::Solicitation | Kind::Advertisement => (address(segment)?, segment.get(24..)?),
    };
    let is_probe = source.is_unspecified();
    let (link_layer, has_others) = walk(kind, options)?;
    let makes_sense = match kind {
        // RFC 4861 section 7.1.1; and 4.3: who asks a group says where to answer.
        Kind::Solicitation if is_probe => link_layer.is_none() && is_solicited_node(destination),
        Kind::Solicitation => link_layer.is_some() || !destination.is_multicast(),
        Kind::Advertisement => !destination.is_multicast() || flags & SOLICITED == 0,
        Kind::RouterSolicitation => !is_probe || link_layer.is_none(),
        Kind::RouterAdvertisement | Kind::Redirect => source.is_unicast_link_local(),
    };
    let message = Message { kind, source, destination, target, flags, link_layer, has_others };
    (makes_sense && !target.is_multicast()).then_some(message)
}

fn address(segment: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*segment.get(8..24)?.first_chunk::<16>()?))
}

/// The link-layer address of who speaks, and whether there are options of other kinds.
fn walk(kind: Kind, mut options: &[u8]) -> Option<(Option<MacAddr>, bool)> {
    let speaker = if matches!(kind, Kind::Advertisement) { TARGET_LINK_LAYER } else { SOURCE_LINK_LAYER };
    let (mut link_layer, mut has_others) = (None, false);
    while let [option, units, ..] = *options {
        let length = usize::from(units) * 8;
        if length == 0 {
            return None;
        }
        let (whole, rest) = options.split_at_checked(length)?;
        if option == speaker {
            link_layer = whole.get(2..8)?.first_chunk().map(|bytes| MacAddr(*bytes));
        }
        has_others |= !matches!(option, SOURCE_LINK_LAYER | TARGET_LINK_LAYER | NONCE);
        options = rest;
    }
    options.is_empty().then_some((link_layer, has_others))
}

/// ff02::1:ff00:0/104, to which questions about an address go (RFC 4291 section 2.7.1).
fn is_solicited_node(address: Ipv6Addr) -> bool {
    address.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]
}

/// Writes the answer to the solicitation `asked` of the station `to`: its target is at `mac`.
/// Returns the length of the frame.
///
/// To a probe, whose sender has no address yet, the answer goes to all nodes (RFC 4861 section 7.2.4).
pub fn write_advertisement(asked: &Message, to: MacAddr, mac: MacAddr, flags: u8, out: &mut [u8]) -> Option<usize> {
    let (flags, destination) = match asked.source {
        source if source.is_unspecified() => (flags, ALL_NODES),
        source => (flags | SOLICITED, source),
    };
    let to = if destination == ALL_NODES { MacAddr([0x33, 0x33, 0, 0, 0, 1]) } else { to };
    write(136, flags, asked.target, (TARGET_LINK_LAYER, mac), (asked.target, destination), to, out)
}

/// Writes the question, from `source` at `mac`, who has `target`; only `to` gets it. Returns the
/// length of the frame.
pub fn write_solicitation(
    source: Ipv6Addr,
    mac: MacAddr,
    target: Ipv6Addr,
    to: MacAddr,
    out: &mut [u8],
) -> Option<usize> {
    write(135, 0, target, (SOURCE_LINK_LAYER, mac), (source, target), to, out)
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn write(
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    (option, mac): (u8, MacAddr),
    (source, destination): (Ipv6Addr, Ipv6Addr),
    to: MacAddr,
    out: &mut [u8],
) -> Option<usize> {
    let mut segment = [0; LEN];
    (segment[0], segment[4]) = (kind, flags);
    segment[8..24].copy_from_slice(&target.octets());
    (segment[24], segment[25]) = (option, 1);
    segment[26..].copy_from_slice(&mac.0);
    let pseudo = checksum::pseudo_v6(source, destination, protocol::ICMPV6, LEN);
    let sum = !checksum::fold(checksum::sum(&segment) + pseudo);
    segment[2..4].copy_from_slice(&sum.to_be_bytes());
    let ethernet = Ethernet { destination: to, source: mac, ether_type: EtherType::IPV6 };
    ethernet.write_to_prefix(out).ok()?;
    let packet = out.get_mut(Ethernet::LEN..)?;
    Ipv6::new(protocol::ICMPV6, source, destination, u16::try_from(LEN).ok()?).write_to_prefix(packet).ok()?;
    packet.get_mut(Ipv6::LEN..Ipv6::LEN + LEN)?.copy_from_slice(&segment);
    Some(MAX_FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
    const FROM: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const TO: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn parsed(frame: &[u8]) -> Option<Result<Message, Invalid>> {
        parse(frame, &Layers::walk(frame))
    }

    fn question() -> Vec<u8> {
        let mut frame = vec![0; MAX_FRAME];
        write_solicitation(FROM, A, TO, B, &mut frame).unwrap();
        frame
    }

    /// `question` with some bytes of its message changed and its checksum right.
    fn changed(edit: impl FnOnce(&mut Vec<u8>)) -> Option<Result<Message, Invalid>> {
        let mut frame = question();
        edit(&mut frame);
        let length = frame.len() - 54;
        frame[18..20].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        frame[56..58].fill(0);
        let pseudo = checksum::sum(&frame[22..54]) + 58 + length as u64;
        let sum = !checksum::fold(checksum::sum(&frame[54..]) + pseudo);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        parsed(&frame)
    }

    #[test]
    fn an_answer_says_what_rfc_9161_section_3_3_wants() {
        let asked = parsed(&question()).unwrap().unwrap();
        assert_eq!(
            (asked.kind, asked.target, asked.link_layer, asked.has_others),
            (Kind::Solicitation, TO, Some(A), false)
        );
        let mut frame = [0; MAX_FRAME];
        assert_eq!(write_advertisement(&asked, A, B, OVERRIDE, &mut frame), Some(86));
        let answer = parsed(&frame).unwrap().unwrap();
        let expected = Message {
            kind: Kind::Advertisement,
            source: TO,
            destination: FROM,
            target: TO,
            flags: OVERRIDE | SOLICITED,
            link_layer: Some(B),
            has_others: false,
        };
        assert_eq!(answer, expected);
        assert_eq!((&frame[..6], &frame[6..12]), (&A.0[..], &B.0[..]));
    }

    #[test]
    fn b12_messages_that_rfc_4861_has_dropped_are_invalid() {
        assert_eq!(changed(|frame| frame[21] = 254), Some(Err(Invalid)), "hop limit");
        assert_eq!(changed(|frame| frame[55] = 1), Some(Err(Invalid)), "code");
        assert_eq!(changed(|frame| frame[79] = 0), Some(Err(Invalid)), "option of length 0");
        assert_eq!(changed(|frame| frame[79] = 2), Some(Err(Invalid)), "option beyond the end");
        assert_eq!(changed(|frame| frame.truncate(70)), Some(Err(Invalid)), "cut short");
        assert_eq!(changed(|frame| frame.truncate(79)), Some(Err(Invalid)), "half an option");
        assert_eq!(changed(|frame| frame[62] = 0xff), Some(Err(Invalid)), "about a group");
        assert_eq!(changed(|frame| frame[22..38].fill(0)), Some(Err(Invalid)), "a probe that says who probes");
        let to_group = |frame: &mut Vec<u8>| frame[38] = 0xff;
        assert!(changed(to_group).unwrap().is_ok());
        let without_option = |frame: &mut Vec<u8>| {
            to_group(frame);
            frame.truncate(78);
        };
        assert_eq!(changed(without_option), Some(Err(Invalid)), "asks a group and does not say who asks");
        let mut corrupt = question();
        corrupt[70] ^= 1;
        assert_eq!(parsed(&corrupt), Some(Err(Invalid)), "checksum");
        assert_eq!(changed(|frame| frame[54] = 128), None, "an echo request is none of these");
    }

    #[test]
    fn options_that_a_proxy_could_not_answer_for_are_told() {
        let with = |option: u8| changed(move |frame| frame.extend([option, 1, 0, 0, 0, 0, 0, 0])).unwrap().unwrap();
        assert!(!with(14).has_others, "a nonce (RFC 7527)");
        assert!(with(11).has_others, "a key (RFC 3971)");
        assert_eq!(with(11).link_layer, Some(A));
    }
}
