//! Frames of every kind that the two lanes may see, right ones and wrong ones, as values that shrink.

use etherparse::{EtherType, Icmpv4Type, Icmpv6Type, IpNumber, TcpHeader};
use proptest::{collection::vec, option, prelude::*, sample::select};
use vxlane_tests::{
    frames::{Checksum, Talk, Vxlan, ethernet, tagged},
    lab::{MacAddr, Station},
    traffic::offload::{SegmentKind, Segments, Work},
};

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Udp4(u16, u16),
    Udp6(u16, u16),
    Tcp4,
    Tcp6,
    Echo4,
    Icmp6(u8),
    Other4(u8),
    Other6(u8),
    NotIp(u16),
}

/// What is done to a frame that was right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit {
    /// IPv4 options, or as many words of an IPv6 extension header.
    Options(u8),
    /// The words with flags and fragment offset of IPv4.
    Fragment(u16),
    Vlan(u16, u16),
    /// Bytes behind the end of the packet.
    Trailer(usize),
    /// Bytes that are missing at the end.
    Cut(usize),
    /// A length field that says otherwise.
    Length(u16),
    /// A first byte that says otherwise.
    First(u8),
}

/// Whom a frame is from or to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// The station that is known.
    Known,
    /// One that nobody has.
    Nobody,
    /// Everybody.
    Broadcast,
    /// A group.
    Group,
}

/// A frame.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    kind: Kind,
    payload: usize,
    tos: u8,
    ttl: u8,
    identification: u16,
    dont_fragment: bool,
    ip_checksum: Checksum,
    checksum: Checksum,
    /// Which of the sender's IP addresses.
    address: u8,
    to: Who,
    is_stranger: bool,
    edit: Option<Edit>,
    number: u32,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let port = || prop_oneof![8 => any::<u16>(), 1 => select(vec![0, 53, 67, 68, 546, 547, 4789])];
    prop_oneof![
        6 => (port(), port()).prop_map(|(from, to)| Kind::Udp4(from, to)),
        4 => (port(), port()).prop_map(|(from, to)| Kind::Udp6(from, to)),
        1 => select(vec![Kind::Udp4(67, 68), Kind::Udp4(68, 67), Kind::Udp6(547, 546), Kind::Udp6(546, 547)]),
        5 => Just(Kind::Tcp4),
        4 => Just(Kind::Tcp6),
        3 => Just(Kind::Echo4),
        3 => select(vec![1, 3, 128, 129, 130, 143, 255]).prop_map(Kind::Icmp6),
        1 => select(vec![0, 2, 4, 41, 47, 50, 132, 255]).prop_map(Kind::Other4),
        1 => select(vec![0, 43, 44, 50, 59, 60, 132, 255]).prop_map(Kind::Other6),
        1 => select(vec![0x0001, 0x0600, 0x0842, 0x8847, 0x88cc, 0x9000, 0xffff]).prop_map(Kind::NotIp),
    ]
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (1u8..=10).prop_map(Edit::Options),
        select(vec![0x2000, 0x2001, 0x0001, 0x00b9, 0x8000, 0xc000, 0x4000, 0x6000]).prop_map(Edit::Fragment),
        (select(vec![0x8100, 0x88a8]), any::<u16>()).prop_map(|(protocol, control)| Edit::Vlan(protocol, control)),
        (1usize..60).prop_map(Edit::Trailer),
        (1usize..80).prop_map(Edit::Cut),
        prop_oneof![any::<u16>(), 0u16..80].prop_map(Edit::Length),
        any::<u8>().prop_map(Edit::First),
    ]
}

fn checksums() -> impl Strategy<Value = Checksum> {
    prop_oneof![8 => Just(Checksum::Right), 1 => Just(Checksum::Zero), 1 => Just(Checksum::Wrong)]
}

/// Frames of all kinds.
pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let payload = prop_oneof![6 => 0usize..200, 3 => 0usize..1500, 2 => 1360usize..1480];
    let fields = (select(vec![0, 1, 64, 255]), any::<u16>(), any::<bool>(), checksums(), checksums());
    let who =
        prop_oneof![12 => Just(Who::Known), 1 => Just(Who::Nobody), 1 => Just(Who::Broadcast), 1 => Just(Who::Group)];
    let ends = (0u8..3, who, prop::bool::weighted(0.05));
    let edit = option::weighted(0.3, edits());
    (kinds(), payload, any::<u8>(), fields, ends, edit, any::<u32>()).prop_map(
        |(kind, payload, tos, (ttl, identification, dont_fragment, ip_checksum, checksum), ends, edit, number)| {
            let (address, to, is_stranger) = ends;
            Shape {
                kind,
                payload,
                tos,
                ttl,
                identification,
                dont_fragment,
                ip_checksum,
                checksum,
                address,
                to,
                is_stranger,
                edit,
                number,
            }
        },
    )
}

impl Shape {
    /// The frame that this is between two stations.
    pub(crate) fn frame(&self, from: Station, to: Station) -> Vec<u8> {
        let talk = self.talk(from, to);
        let payload: Vec<u8> = self.number.to_be_bytes().into_iter().cycle().take(self.payload).collect();
        let frame = match self.kind {
            Kind::Udp4(source, destination) => talk.udp4(source, destination, &payload),
            Kind::Udp6(source, destination) => talk.udp6(source, destination, &payload),
            Kind::Tcp4 => talk.tcp4(self.tcp(), &payload),
            Kind::Tcp6 => talk.tcp6(self.tcp(), &payload),
            Kind::Echo4 => talk.icmp4(Icmpv4Type::Unknown { type_u8: 8, code_u8: 0, bytes5to8: [1; 4] }, &payload),
            Kind::Icmp6(kind) => {
                talk.icmp6(Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [1; 4] }, &payload)
            }
            Kind::Other4(protocol) => talk.ipv4(IpNumber(protocol), &payload),
            Kind::Other6(protocol) => talk.ipv6(IpNumber(protocol), &payload),
            Kind::NotIp(ether_type) => {
                let payload = if payload.len() < 2 { &[0, 0] } else { &payload[..] };
                ethernet(talk.to.mac, talk.from.mac, EtherType(ether_type), payload)
            }
        };
        self.edit.map_or(frame.clone(), |edit| edited(frame, edit))
    }

    fn talk(&self, from: Station, to: Station) -> Talk {
        let [.., last] = from.ipv4.octets();
        let (mut from, mut to) = (from, to);
        from.ipv4 = [10, 0, self.address, last].into();
        let mut groups = from.ipv6.segments();
        groups[6] = self.address.into();
        from.ipv6 = groups.into();
        if self.is_stranger {
            from.mac.0[4] ^= 0x40;
        }
        to.mac = match self.to {
            Who::Known => to.mac,
            Who::Nobody => MacAddr([2, 0x99, 9, 9, 9, 9]),
            Who::Broadcast => MacAddr::BROADCAST,
            Who::Group => MacAddr([1, 0, 0x5e, 1, 2, 3]),
        };
        Talk {
            ttl: self.ttl,
            tos: self.tos,
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            ip_checksum: self.ip_checksum,
            checksum: self.checksum,
            ..Talk::new(from, to)
        }
    }

    fn tcp(&self) -> TcpHeader {
        let [a, b, c, d] = self.number.to_be_bytes();
        let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let mut header = TcpHeader::new(source, destination, self.number, 512);
        (header.ack, header.psh, header.cwr, header.ece) = (true, a & 1 != 0, b & 1 != 0, c & 1 != 0);
        header
    }
}

/// `frame`, of which one thing is not as it was.
fn edited(mut frame: Vec<u8>, edit: Edit) -> Vec<u8> {
    let is_v4 = frame[12..14] == [8, 0] && frame.len() >= 34;
    match edit {
        Edit::Options(words) if is_v4 => {
            let words = words.min(10);
            frame[14] = 0x45 + words;
            let total = u16::from_be_bytes([frame[16], frame[17]]) + u16::from(words) * 4;
            frame[16..18].copy_from_slice(&total.to_be_bytes());
            frame.splice(34..34, std::iter::repeat_n(1, usize::from(words) * 4));
            mend(&mut frame);
        }
        Edit::Fragment(word) if is_v4 => {
            frame[20..22].copy_from_slice(&word.to_be_bytes());
            mend(&mut frame);
        }
        Edit::Options(_) | Edit::Fragment(_) => {}
        Edit::Vlan(protocol, control) => frame = tagged(&frame, protocol, control),
        Edit::Trailer(bytes) => frame.extend(std::iter::repeat_n(0xee, bytes)),
        // Shorter ones, which no Ethernet carries, are filled up on the way from a worker to a program.
        Edit::Cut(bytes) => frame.truncate(frame.len().saturating_sub(bytes).max(16)),
        Edit::Length(length) => {
            let place = if is_v4 { 16 } else { 18 };
            if let Some(field) = frame.get_mut(place..place + 2) {
                field.copy_from_slice(&length.to_be_bytes());
            }
            if is_v4 {
                mend(&mut frame);
            }
        }
        Edit::First(byte) => {
            if let Some(first) = frame.get_mut(14) {
                *first = byte;
            }
        }
    }
    frame
}

/// Makes the checksum of the IPv4 header right.
fn mend(frame: &mut [u8]) {
    let end = (14 + usize::from(frame[14] & 15) * 4).min(frame.len());
    frame[24..26].fill(0);
    let sum: u32 = frame[14..end].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// What is around a frame from another VTEP.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    tos: u8,
    ttl: u8,
    identification: u16,
    dont_fragment: bool,
    ip_checksum: Checksum,
    udp_checksum: Checksum,
    source_port: u16,
    header: Option<usize>,
    is_foreign: bool,
    edit: Option<Edit>,
}

/// What may be around a frame.
pub(crate) fn tunnels() -> impl Strategy<Value = Tunnel> {
    let ip_checksum = prop_oneof![12 => Just(Checksum::Right), 1 => Just(Checksum::Wrong)];
    let udp_checksum = prop_oneof![8 => Just(Checksum::Zero), 2 => Just(Checksum::Right), 1 => Just(Checksum::Wrong)];
    let ip = (any::<u8>(), select(vec![0, 1, 64, 255]), any::<u16>(), any::<bool>(), ip_checksum);
    let udp = (udp_checksum, any::<u16>(), option::weighted(0.2, 0usize..64));
    (ip, udp, prop::bool::weighted(0.03), option::weighted(0.15, edits())).prop_map(
        |((tos, ttl, identification, dont_fragment, ip_checksum), udp, is_foreign, edit)| {
            let (udp_checksum, source_port, header) = udp;
            Tunnel {
                tos,
                ttl,
                identification,
                dont_fragment,
                ip_checksum,
                udp_checksum,
                source_port,
                header,
                is_foreign,
                edit,
            }
        },
    )
}

impl Tunnel {
    /// `frame` in a tunnel, from one VTEP to another as `around` is.
    pub(crate) fn wrap(&self, around: &Vxlan, frame: &[u8]) -> Vec<u8> {
        let mut vxlan = around.clone();
        vxlan.source_port = self.source_port;
        vxlan.outer = Talk {
            tos: self.tos,
            ttl: self.ttl,
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            ip_checksum: self.ip_checksum,
            checksum: self.udp_checksum,
            ..vxlan.outer
        };
        if self.is_foreign {
            vxlan.outer.from.ipv4 = [192, 0, 2, 99].into();
            vxlan.outer.from.ipv6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 99].into();
        }
        let vxlan = self.header.map_or(vxlan.clone(), |bit| vxlan.flipped(bit));
        let frame = vxlan.wrap(frame);
        self.edit.map_or(frame.clone(), |edit| edited(frame, edit))
    }
}

/// A frame that is more than one, or not finished.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    shape: Shape,
    kind: SegmentKind,
    length: usize,
    segment: Option<u16>,
}

/// Frames with work left to the device.
pub(crate) fn unfinished() -> impl Strategy<Value = Unfinished> {
    let kind = select(vec![SegmentKind::Tcp4, SegmentKind::Tcp6, SegmentKind::Udp]);
    let segment = option::weighted(0.7, prop_oneof![Just(1348u16), 400u16..1360]);
    (shapes(), kind, 0usize..1300, 0usize..12_000, segment).prop_map(|(shape, kind, short, long, segment)| {
        let length = if segment.is_some() { long } else { short };
        Unfinished { shape: Shape { edit: None, to: Who::Known, is_stranger: false, ..shape }, kind, length, segment }
    })
}

impl Unfinished {
    /// The frame, and what is left to do.
    pub(crate) fn frame(&self, from: Station, to: Station) -> (Vec<u8>, Work) {
        let [a, b, c, d] = self.shape.number.to_be_bytes();
        let ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (kind, transport, at) = match self.kind {
            SegmentKind::Tcp4 => (Kind::Tcp4, 34, 16),
            SegmentKind::Tcp6 => (Kind::Tcp6, 54, 16),
            SegmentKind::Udp => (Kind::Udp4(ports.0, ports.1), 34, 6),
        };
        // The kernel takes a packet for whole whose segments would be longer than it.
        let segment = self.segment.filter(|&segment| self.length > usize::from(segment));
        let checksum = Checksum::Right;
        let shape = Shape { kind, payload: self.length, checksum, ip_checksum: checksum, ..self.shape.clone() };
        let mut frame = shape.frame(from, to);
        let pseudo = pseudo(&frame, transport);
        let place = usize::from(transport) + usize::from(at);
        frame[place..place + 2].copy_from_slice(&pseudo.to_be_bytes());
        let segments = segment.map(|size| Segments { kind: self.kind, size });
        (frame, Work { checksum: Some((transport, at)), segments })
    }
}

/// The folded sum of the pseudo header.
fn pseudo(frame: &[u8], transport: u16) -> u16 {
    let (addresses, protocol) = if transport == 34 { (&frame[26..34], frame[23]) } else { (&frame[22..54], frame[20]) };
    let words = addresses.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let length = u32::try_from(frame.len() - usize::from(transport)).unwrap_or(0);
    let sum = words.sum::<u32>() + u32::from(protocol) + length;
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Many frames at once; few, once a difference was found.
pub(crate) fn batch<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    vec(one, 1..=200)
}
