//! What the NAT needs to know of a packet, found in one look that refuses what is odd.
//!
//! No session may ever come of a packet that contradicts itself, so everything is checked here:
//! lengths, header checksum, ports and flags that no sane stack sends. Packets with IPv4 options
//! are refused, too; then every field is at a fixed place. Of the extension headers of IPv6 those
//! are stepped over that say nothing about addresses.

use zerocopy::FromBytes;

use super::ports::Protocol;
use crate::{
    verdict::DropReason,
    wire::{Address, Ipv4, Ipv6, Tcp, Udp, Version, checksum, ipv4, protocol, tcp},
};

/// A packet in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<A> {
    pub(super) source: A,
    pub(super) destination: A,
    /// Bytes, without what a link added as padding.
    pub(super) length: usize,
    /// Where its upper protocol begins.
    pub(super) at: usize,
    /// Where a fragment has its identification: 16 bits for IPv4, 32 for IPv6.
    pub(super) identification_at: usize,
    pub(super) kind: Kind<A>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<A> {
    /// All of a segment, datagram or query.
    Whole(Flow),
    /// Its first fragment.
    First(Flow),
    /// A fragment without ports.
    Later,
    /// An ICMP error about another packet.
    Error(Quote<A>),
}

/// Both ports, or what stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    /// Source port, or the identifier of an ICMP request, or zero in its reply.
    pub(super) source: u16,
    /// Destination port, or the identifier of an ICMP reply, or zero in a request.
    pub(super) destination: u16,
    /// TCP flags.
    pub(super) flags: u8,
    /// Whether it is an ICMP reply.
    pub(super) is_reply: bool,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote<A> {
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) flow: Flow,
    /// Its first byte and that of its upper protocol, within the packet that quotes it.
    pub(super) at: usize,
    pub(super) payload: usize,
}

/// The headers of a packet in front of its upper protocol.
struct Headers {
    length: usize,
    protocol: u8,
    at: usize,
    identification_at: usize,
    part: Part,
}

/// What of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Later,
}

/// Bytes of an ICMP header.
pub(super) const ICMP_LEN: usize = 8;

impl<A: Address> Packet<A> {
    /// Looks at the packet that `bytes` begin with.
    ///
    /// # Errors
    /// [`DropReason::NatInvalid`], or for ICMP errors [`DropReason::NatIcmpError`];
    /// [`DropReason::NatUnsupported`] for what has no ports.
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let invalid = DropReason::NatInvalid;
        let headers = match A::VERSION {
            Version::V4 => headers_v4(bytes).ok_or(invalid)?,
            Version::V6 => headers_v6(bytes)?,
        };
        let (source, destination) = ends(bytes).ok_or(invalid)?;
        let Headers { length, at, identification_at, part, protocol } = headers;
        let payload = bytes.get(at..length).ok_or(invalid)?;
        let protocol = Protocol::from_number(A::VERSION, protocol).ok_or(DropReason::NatUnsupported)?;
        let kind = match (part, protocol) {
            (Part::Whole, Protocol::Tcp) => Kind::Whole(tcp_flow(payload, true)?),
            (Part::Whole, Protocol::Udp) => Kind::Whole(udp_flow(payload, true)?),
            (Part::Whole, Protocol::Icmp) => icmp(payload, at, icmp_pseudo::<A>(bytes, payload.len()))?,
            (Part::First, Protocol::Tcp) => Kind::First(tcp_flow(payload, false)?),
            (Part::First, Protocol::Udp) => Kind::First(udp_flow(payload, false)?),
            (Part::First, Protocol::Icmp) => Kind::First(query(A::VERSION, payload)?),
            (Part::Later, _) => Kind::Later,
        };
        Ok(Self { source, destination, length, at, identification_at, kind })
    }
}

/// Source and destination in the header that `bytes` begin with.
#[inline]
fn ends<A: Address>(bytes: &[u8]) -> Option<(A, A)> {
    let address = |at: usize| A::first(bytes.get(at..)?);
    Some((address(A::VERSION.source_at())?, address(A::VERSION.destination_at())?))
}

/// What counts in the checksum of an ICMP message of `length` bytes beside itself.
#[inline]
pub(super) fn icmp_pseudo<A: Address>(bytes: &[u8], length: usize) -> u64 {
    match (A::VERSION, bytes.get(8..Ipv6::LEN)) {
        (Version::V6, Some(addresses)) => checksum::sum(addresses) + u64::from(protocol::ICMPV6) + length as u64,
        _ => 0,
    }
}

#[inline]
fn headers_v4(bytes: &[u8]) -> Option<Headers> {
    let header = Ipv4::new_checked(bytes)?;
    if header.header_len() != Ipv4::LEN || !ipv4::checksum_holds(&bytes[..Ipv4::LEN]) {
        return None;
    }
    let part = match (header.fragment_offset(), header.more_fragments()) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    };
    let (length, protocol) = (usize::from(header.total_length.get()), header.protocol);
    Some(Headers { length, protocol, at: Ipv4::LEN, identification_at: 4, part })
}

#[inline]
fn headers_v6(bytes: &[u8]) -> Result<Headers, DropReason> {
    let header = Ipv6::new_checked(bytes).ok_or(DropReason::NatInvalid)?;
    let length = Ipv6::LEN + usize::from(header.payload_length.get());
    extensions(header.next_header, &bytes[..length])
}

/// Walks the extension headers of the IPv6 packet `bytes`, the first of which is `next`.
///
/// # Errors
/// [`DropReason::NatInvalid`] if they are cut short; [`DropReason::NatUnsupported`] if they are
/// too many, or route the packet elsewhere, or vouch for its addresses.
#[inline]
fn extensions(mut next: u8, bytes: &[u8]) -> Result<Headers, DropReason> {
    let mut headers =
        Headers { length: bytes.len(), protocol: next, at: Ipv6::LEN, identification_at: 0, part: Part::Whole };
    for _ in 0..MOST_EXTENSIONS {
        let (at, is_first) = (headers.at, headers.at == Ipv6::LEN);
        let field = |offset: usize| bytes.get(at + offset).copied().ok_or(DropReason::NatInvalid);
        headers.protocol = next;
        match next {
            HOP_BY_HOP if is_first => headers.at += 8 + 8 * usize::from(field(1)?),
            DESTINATION_OPTIONS => headers.at += 8 + 8 * usize::from(field(1)?),
            FRAGMENT if headers.identification_at == 0 => {
                let offset_and_more = u16::from_be_bytes([field(2)?, field(3)?]);
                headers.identification_at = at + 4;
                headers.at += 8;
                headers.part = match (offset_and_more >> 3, offset_and_more & 1) {
                    // Such an "atomic fragment" is a whole packet (RFC 6946).
                    (0, 0) => Part::Whole,
                    (0, _) => Part::First,
                    _ => Part::Later,
                };
                if headers.part == Part::Later {
                    // What follows is no header.
                    headers.protocol = protocol::UDP;
                    return Ok(headers);
                }
            }
            _ => return Ok(headers),
        }
        next = field(0)?;
    }
    Err(DropReason::NatUnsupported)
}

/// Extension headers of IPv6 (RFC 8200 section 4).
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// As many as there are of these in any real packet.
const MOST_EXTENSIONS: usize = 5;

#[inline]
fn tcp_flow(segment: &[u8], whole: bool) -> Result<Flow, DropReason> {
    let invalid = DropReason::NatInvalid;
    let (header, _) = Tcp::ref_from_prefix(segment).map_err(|_| invalid)?;
    let (source, destination, flags) = (header.source.get(), header.destination.get(), header.flags);
    let length = header.header_len();
    let fits = length >= Tcp::LEN && (length <= segment.len() || !whole);
    let contradicts = flags & tcp::SYN != 0 && flags & (tcp::FIN | tcp::RST) != 0;
    if !fits || contradicts || source == 0 || destination == 0 {
        return Err(invalid);
    }
    Ok(Flow { protocol: Protocol::Tcp, source, destination, flags, is_reply: false })
}

#[inline]
fn udp_flow(datagram: &[u8], whole: bool) -> Result<Flow, DropReason> {
    let invalid = DropReason::NatInvalid;
    let (header, _) = Udp::ref_from_prefix(datagram).map_err(|_| invalid)?;
    let (source, destination) = (header.source.get(), header.destination.get());
    let length = usize::from(header.length.get());
    let fits = length >= Udp::LEN && (length <= datagram.len() || !whole);
    if !fits || source == 0 || destination == 0 {
        return Err(invalid);
    }
    Ok(Flow { protocol: Protocol::Udp, source, destination, flags: 0, is_reply: false })
}

fn icmp<A: Address>(message: &[u8], at: usize, pseudo: u64) -> Result<Kind<A>, DropReason> {
    match (A::VERSION, message.first()) {
        (Version::V4, Some(0 | 8)) | (Version::V6, Some(128 | 129)) => query(A::VERSION, message).map(Kind::Whole),
        // Unreachable, time exceeded, parameter problem (RFC 5508 REQ-10), and "packet too big";
        // source quench is no more (RFC 6633), and a redirect through a NAT would be a lie.
        (Version::V4, Some(3 | 11 | 12)) | (Version::V6, Some(1..=4)) => quote(message, at, pseudo).map(Kind::Error),
        _ => Err(DropReason::NatUnsupported),
    }
}

fn query(version: Version, message: &[u8]) -> Result<Flow, DropReason> {
    let (echo, reply) = match version {
        Version::V4 => (8, 0),
        Version::V6 => (128, 129),
    };
    let flow =
        |source, destination, is_reply| Flow { protocol: Protocol::Icmp, source, destination, flags: 0, is_reply };
    match *message {
        [kind, 0, _, _, high, low, _, _, ..] if kind == echo => Ok(flow(u16::from_be_bytes([high, low]), 0, false)),
        [kind, 0, _, _, high, low, _, _, ..] if kind == reply => Ok(flow(0, u16::from_be_bytes([high, low]), true)),
        _ => Err(DropReason::NatInvalid),
    }
}

/// The packet that the ICMP error `message`, which begins `at`, quotes: its IP header, which may
/// have options or extensions, and at least 8 bytes more (RFC 792). The error's own checksum must
/// be right (RFC 5508 REQ-3).
fn quote<A: Address>(message: &[u8], at: usize, pseudo: u64) -> Result<Quote<A>, DropReason> {
    let bad = DropReason::NatIcmpError;
    let quoted = message.get(ICMP_LEN..).ok_or(bad)?;
    let (protocol, begin) = match A::VERSION {
        Version::V4 => quoted_v4(quoted),
        Version::V6 => quoted_v6(quoted),
    }
    .ok_or(bad)?;
    let payload = quoted.get(begin..).filter(|payload| payload.len() >= 8).ok_or(bad)?;
    if checksum::fold(checksum::sum(message) + pseudo) != 0xffff {
        return Err(bad);
    }
    let ports = || (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
    let flow = match Protocol::from_number(A::VERSION, protocol).ok_or(bad)? {
        Protocol::Icmp => query(A::VERSION, payload).map_err(|_| bad)?,
        protocol @ (Protocol::Tcp | Protocol::Udp) => {
            let (source, destination) = ports();
            Flow { protocol, source, destination, flags: 0, is_reply: false }
        }
    };
    let at = at + ICMP_LEN;
    let (source, destination) = ends(quoted).ok_or(bad)?;
    Ok(Quote { source, destination, flow, at, payload: at + begin })
}

/// The upper protocol of a quoted packet, and where it begins; `None` if it is not to be seen.
fn quoted_v4(quoted: &[u8]) -> Option<(u8, usize)> {
    let (header, _) = Ipv4::ref_from_prefix(quoted).ok()?;
    let sane = header.is_version_4() && header.header_len() >= Ipv4::LEN && header.fragment_offset() == 0;
    sane.then_some((header.protocol, header.header_len()))
}

fn quoted_v6(quoted: &[u8]) -> Option<(u8, usize)> {
    let (header, _) = Ipv6::ref_from_prefix(quoted).ok()?;
    let headers = extensions(header.next_header, quoted).ok()?;
    (quoted[0] >> 4 == 6 && headers.part != Part::Later).then_some((headers.protocol, headers.at))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::v4::{INSIDE, OUTSIDE, ROUTER, SERVER, packets::*},
        *,
    };

    type Packet = super::Packet<std::net::Ipv4Addr>;

    #[test]
    fn b13_what_contradicts_itself_is_refused() {
        use DropReason::{NatInvalid, NatUnsupported};
        let syn = || tcp(INSIDE, SERVER, 1000, 80, tcp::SYN);
        let broken = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = syn();
            edit(&mut packet);
            fix_ip(&mut packet);
            packet
        };
        let cases: [(&str, Vec<u8>, DropReason); 11] = [
            ("data offset 4", broken(&|p| p[32] = 0x40), NatInvalid),
            ("data offset beyond the end", broken(&|p| p[32] = 0xf0), NatInvalid),
            ("SYN and FIN", tcp(INSIDE, SERVER, 1000, 80, tcp::SYN | tcp::FIN), NatInvalid),
            ("SYN and RST", tcp(INSIDE, SERVER, 1000, 80, tcp::SYN | tcp::RST), NatInvalid),
            ("source port 0", tcp(INSIDE, SERVER, 0, 80, tcp::SYN), NatInvalid),
            ("destination port 0", udp(INSIDE, SERVER, 1000, 0, b"x"), NatInvalid),
            ("UDP length too long", edited(udp(INSIDE, SERVER, 1, 2, b"x"), |p| p[25] = 200), NatInvalid),
            ("UDP length too short", edited(udp(INSIDE, SERVER, 1, 2, b"x"), |p| p[25] = 7), NatInvalid),
            ("unknown protocol", broken(&|p| p[9] = 132), NatUnsupported),
            ("IP checksum", edited(syn(), |p| p[10] ^= 1), NatInvalid),
            (
                "IP options",
                broken(&|p| {
                    p.splice(20..20, [1, 1, 1, 1]);
                    p[0] = 0x46;
                    p[3] += 4;
                }),
                NatInvalid,
            ),
        ];
        for (what, packet, reason) in cases {
            assert_eq!(Packet::parse(&packet), Err(reason), "{what}");
        }
        assert!(Packet::parse(&syn()).is_ok());
    }

    #[test]
    fn every_truncation_is_refused_without_a_panic() {
        for packet in [
            tcp(INSIDE, SERVER, 1000, 80, tcp::SYN),
            udp(INSIDE, SERVER, 1000, 53, b"question"),
            echo(INSIDE, SERVER, 7),
            error(ROUTER, OUTSIDE, (11, 0), &udp(OUTSIDE, SERVER, 1000, 53, b"question")),
        ] {
            for length in 0..packet.len() {
                let cut = &packet[..length];
                assert!(Packet::parse(cut).is_err(), "{length} bytes");
                let mut honest = cut.to_vec();
                if length >= 20 {
                    honest[3] = u8::try_from(length).unwrap();
                    fix_ip(&mut honest);
                    let _ = Packet::parse(&honest);
                }
            }
        }
    }

    #[test]
    fn rfc5508_req3_an_error_with_a_wrong_checksum_or_too_short_a_quote_is_refused() {
        let good = error(ROUTER, OUTSIDE, (3, 4), &udp(OUTSIDE, SERVER, 1000, 53, b"question"));
        assert!(matches!(Packet::parse(&good).unwrap().kind, Kind::Error(_)));
        let bad = edited(good, |packet| packet[22] ^= 1);
        assert_eq!(Packet::parse(&bad), Err(DropReason::NatIcmpError));
        let quoted = udp(OUTSIDE, SERVER, 1000, 53, b"question");
        for length in 0..28 {
            let short = error(ROUTER, OUTSIDE, (3, 4), &quoted[..length]);
            assert_eq!(Packet::parse(&short), Err(DropReason::NatIcmpError), "{length} bytes");
        }
        assert!(Packet::parse(&error(ROUTER, OUTSIDE, (3, 4), &quoted[..28])).is_ok());
    }

    #[test]
    fn rfc5508_req3_options_in_a_quoted_header_are_stepped_over() {
        let mut quoted = udp(OUTSIDE, SERVER, 1000, 53, b"question");
        quoted.splice(20..20, [1, 1, 1, 1]);
        quoted[0] = 0x46;
        quoted[3] += 4;
        let Kind::Error(quote) = Packet::parse(&error(ROUTER, OUTSIDE, (3, 1), &quoted)).unwrap().kind else {
            panic!()
        };
        assert_eq!((quote.flow.source, quote.flow.destination, quote.payload), (1000, 53, 52));
    }

    #[test]
    fn rfc5508_req10_source_quench_and_redirect_are_not_supported() {
        for kind in [4, 5, 13, 17, 42] {
            let packet = error(ROUTER, OUTSIDE, (kind, 0), &udp(OUTSIDE, SERVER, 1000, 53, b"question"));
            assert_eq!(Packet::parse(&packet), Err(DropReason::NatUnsupported), "type {kind}");
        }
    }
}
