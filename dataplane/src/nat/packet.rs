//! What the NAT needs to know of an IPv4 packet, found in one look that refuses what is odd.
//!
//! No session may ever come of a packet that contradicts itself, so everything is checked here:
//! lengths, header checksum, ports and flags that no sane stack sends. Packets with IP options
//! are refused, too; then every field is at a fixed place.

use std::net::Ipv4Addr;

use zerocopy::FromBytes;

use super::ports::Protocol;
use crate::{
    verdict::DropReason,
    wire::{Ipv4, Tcp, Udp, checksum, ipv4, tcp},
};

/// An IPv4 packet in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// Bytes, without what a link added as padding.
    pub(super) length: usize,
    pub(super) kind: Kind,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All of a segment, datagram or query.
    Whole(Flow),
    /// Its first fragment.
    First(Flow),
    /// A fragment without ports.
    Later,
    /// An ICMP error about another packet.
    Error(Quote),
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
pub(super) struct Quote {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) flow: Flow,
    /// Its first byte and that of its upper protocol, within the packet that quotes it.
    pub(super) at: usize,
    pub(super) payload: usize,
}

const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;
/// Bytes of an ICMP header.
pub(super) const ICMP_LEN: usize = 8;

impl Packet {
    /// Looks at the packet that `bytes` begin with.
    ///
    /// # Errors
    /// [`DropReason::NatInvalid`], or for ICMP errors [`DropReason::NatIcmpError`].
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let invalid = DropReason::NatInvalid;
        let header = Ipv4::new_checked(bytes).ok_or(invalid)?;
        let (source, destination) = (header.source(), header.destination());
        if header.header_len() != Ipv4::LEN || !ipv4::checksum_holds(&bytes[..Ipv4::LEN]) {
            return Err(invalid);
        }
        let length = usize::from(header.total_length.get());
        let payload = bytes.get(Ipv4::LEN..length).ok_or(invalid)?;
        let protocol = Protocol::from_number(header.protocol).ok_or(DropReason::NatUnsupported)?;
        let kind = match (header.fragment_offset(), header.more_fragments()) {
            (0, false) => match protocol {
                Protocol::Tcp => Kind::Whole(tcp_flow(payload, true)?),
                Protocol::Udp => Kind::Whole(udp_flow(payload, true)?),
                Protocol::Icmp => icmp(payload)?,
            },
            (0, true) => Kind::First(match protocol {
                Protocol::Tcp => tcp_flow(payload, false)?,
                Protocol::Udp => udp_flow(payload, false)?,
                Protocol::Icmp => query(payload)?,
            }),
            _ => Kind::Later,
        };
        Ok(Self { source, destination, length, kind })
    }
}

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

fn icmp(message: &[u8]) -> Result<Kind, DropReason> {
    match message.first() {
        Some(&(ECHO | ECHO_REPLY)) => query(message).map(Kind::Whole),
        // Unreachable, time exceeded, parameter problem (RFC 5508 REQ-10); source quench is no
        // more (RFC 6633), and a redirect through a NAT would be a lie.
        Some(3 | 11 | 12) => quote(message).map(Kind::Error),
        _ => Err(DropReason::NatUnsupported),
    }
}

fn query(message: &[u8]) -> Result<Flow, DropReason> {
    let flow =
        |source, destination, is_reply| Flow { protocol: Protocol::Icmp, source, destination, flags: 0, is_reply };
    match *message {
        [ECHO, 0, _, _, high, low, _, _, ..] => Ok(flow(u16::from_be_bytes([high, low]), 0, false)),
        [ECHO_REPLY, 0, _, _, high, low, _, _, ..] => Ok(flow(0, u16::from_be_bytes([high, low]), true)),
        _ => Err(DropReason::NatInvalid),
    }
}

/// The packet that the ICMP error `message` quotes: its IP header, which may have options, and
/// at least 8 bytes more (RFC 792). The error's own checksum must be right (RFC 5508 REQ-3).
fn quote(message: &[u8]) -> Result<Quote, DropReason> {
    let bad = DropReason::NatIcmpError;
    let quoted = message.get(ICMP_LEN..).ok_or(bad)?;
    let (header, _) = Ipv4::ref_from_prefix(quoted).map_err(|_| bad)?;
    let payload = quoted.get(header.header_len()..).filter(|payload| payload.len() >= 8).ok_or(bad)?;
    let sane = header.is_version_4() && header.header_len() >= Ipv4::LEN && header.fragment_offset() == 0;
    if !sane || checksum::fold(checksum::sum(message)) != 0xffff {
        return Err(bad);
    }
    let ports = || (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
    let flow = match Protocol::from_number(header.protocol).ok_or(bad)? {
        Protocol::Icmp => query(payload).map_err(|_| bad)?,
        protocol @ (Protocol::Tcp | Protocol::Udp) => {
            let (source, destination) = ports();
            Flow { protocol, source, destination, flags: 0, is_reply: false }
        }
    };
    let at = Ipv4::LEN + ICMP_LEN;
    let (source, destination) = (header.source(), header.destination());
    Ok(Quote { source, destination, flow, at, payload: at + header.header_len() })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::packets::*, *};

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
            error(ROUTER, OUTSIDE, 11, 0, &udp(OUTSIDE, SERVER, 1000, 53, b"question")),
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
        let good = error(ROUTER, OUTSIDE, 3, 4, &udp(OUTSIDE, SERVER, 1000, 53, b"question"));
        assert!(matches!(Packet::parse(&good).unwrap().kind, Kind::Error(_)));
        let bad = edited(good, |packet| packet[22] ^= 1);
        assert_eq!(Packet::parse(&bad), Err(DropReason::NatIcmpError));
        let quoted = udp(OUTSIDE, SERVER, 1000, 53, b"question");
        for length in 0..28 {
            let short = error(ROUTER, OUTSIDE, 3, 4, &quoted[..length]);
            assert_eq!(Packet::parse(&short), Err(DropReason::NatIcmpError), "{length} bytes");
        }
        assert!(Packet::parse(&error(ROUTER, OUTSIDE, 3, 4, &quoted[..28])).is_ok());
    }

    #[test]
    fn rfc5508_req3_options_in_a_quoted_header_are_stepped_over() {
        let mut quoted = udp(OUTSIDE, SERVER, 1000, 53, b"question");
        quoted.splice(20..20, [1, 1, 1, 1]);
        quoted[0] = 0x46;
        quoted[3] += 4;
        let Kind::Error(quote) = Packet::parse(&error(ROUTER, OUTSIDE, 3, 1, &quoted)).unwrap().kind else { panic!() };
        assert_eq!((quote.flow.source, quote.flow.destination, quote.payload), (1000, 53, 52));
    }

    #[test]
    fn rfc5508_req10_source_quench_and_redirect_are_not_supported() {
        for kind in [4, 5, 13, 17, 42] {
            let packet = error(ROUTER, OUTSIDE, kind, 0, &udp(OUTSIDE, SERVER, 1000, 53, b"question"));
            assert_eq!(Packet::parse(&packet), Err(DropReason::NatUnsupported), "type {kind}");
        }
    }
}
