//! Established sessions of address translation in the express lane: what leaves it is what a worker
//! would have sent, byte for byte, and what a worker has to see it gets.
//!
//! Needs root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to stop"
)]

mod rig;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder, PacketBuilderStep,
    TcpHeader,
};
use ipnetwork::{Ipv4Network, Ipv6Network};
use rig::{lane::Lane, *};
use vxlane_dataplane::{
    attach::{Role as Place, express::ExpressCounters},
    clock::Clock,
    express::Epochs,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, WorkerId},
    nat::{Nat, NatConfig, Protocol, SessionView},
    port::xdp::{XdpReceive, XdpTransmit},
    router::Family,
    tables::{Gateway, LocalVtep, Network, Outside, Port, Role, Route, Tables, WayOut},
    wire::{MacAddr, Version, Vni},
    worker::{Breath, Worker},
};

const NETWORK: NetworkId = NetworkId(3);
const UPLINK: PortId = PortId(0);
const ACCESS: PortId = PortId(1);
const RING: PortId = PortId(2);
/// The endpoint, behind `access` in the far namespace.
const WEB_MAC: [u8; 6] = [2, 0x50, 0, 0, 0, 2];
/// Its router has the far end of the uplink.
const ROUTER_MAC: [u8; 6] = FAR_MAC;

/// An internet protocol, with those who speak it here.
trait Spoken: Family {
    /// The endpoint.
    const WEB: Self;
    const SERVER: Self;
    /// The way out.
    const LOCAL: Self;
    /// Bytes of a header, and where that says how many hops are left.
    const LEN: usize = Self::VERSION.header_len();
    const HOPS: usize;

    fn header(from: Self, to: Self) -> PacketBuilderStep<IpHeaders>;

    /// Has what is special to its header be there, in a segment and in a datagram that go through.
    fn special(plain: &[u8], datagram: &[u8]) -> Vec<(&'static str, Vec<u8>)>;

    /// The same where they go to a worker.
    fn special_odd(plain: &[u8], datagram: &[u8]) -> Vec<(&'static str, Vec<u8>)>;
}

impl Spoken for Ipv4Addr {
    const WEB: Self = Self::new(10, 50, 0, 2);
    const SERVER: Self = Self::new(198, 51, 100, 7);
    const LOCAL: Self = Self::new(NEAR_IP[0], NEAR_IP[1], NEAR_IP[2], NEAR_IP[3]);
    const HOPS: usize = 8;

    fn header(from: Self, to: Self) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ip(IpHeaders::Ipv4(
            Ipv4Header::new(0, 64, IpNumber(0), from.octets(), to.octets()).unwrap(),
            Ipv4Extensions::default(),
        ))
    }

    fn special(plain: &[u8], datagram: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let unmarked = |packet: &mut Vec<u8>| packet[4..8].copy_from_slice(&[0xab, 0xcd, 0, 0]);
        vec![
            ("DSCP and a congestion mark", changed(plain, |packet| packet[1] = 0xb9 | 3)),
            ("no DF, and an identification", changed(plain, unmarked)),
            ("without a checksum", changed(datagram, |packet| packet[26..28].fill(0))),
        ]
    }

    fn special_odd(plain: &[u8], datagram: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let options = |packet: &mut Vec<u8>| {
            packet.splice(20..20, [1, 1, 1, 1]);
            (packet[0], packet[3]) = (0x46, packet[3] + 4);
        };
        let mut wrong = plain.to_vec();
        wrong[10] ^= 1;
        vec![
            ("a wrong IP checksum", wrong),
            ("options of IP", changed(datagram, options)),
            ("a first fragment", changed(datagram, |packet| packet[6] = 0x20)),
            ("another fragment", changed(datagram, |packet| packet[7] = 1)),
        ]
    }
}

impl Spoken for Ipv6Addr {
    const WEB: Self = Self::new(0xfd50, 0, 0, 0, 0, 0, 0, 2);
    const SERVER: Self = Self::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
    const LOCAL: Self = NEAR_IP6;
    const HOPS: usize = 7;

    fn header(from: Self, to: Self) -> PacketBuilderStep<IpHeaders> {
        let header =
            Ipv6Header { source: from.octets(), destination: to.octets(), hop_limit: 64, ..Ipv6Header::default() };
        PacketBuilder::ip(IpHeaders::Ipv6(header, Ipv6Extensions::default()))
    }

    fn special(plain: &[u8], _: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let label = |packet: &mut Vec<u8>| packet[..4].copy_from_slice(&[0x6b, 0xb1, 0x23, 0x45]);
        vec![("DSCP, a congestion mark and a flow label", changed(plain, label))]
    }

    fn special_odd(plain: &[u8], datagram: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        // Of eight bytes, in front of `datagram`.
        let extended = |kind: u8, rest: [u8; 7]| {
            changed(datagram, |packet| {
                let next = std::mem::replace(&mut packet[6], kind);
                packet[5] += 8;
                packet.splice(40..40, [&[next][..], &rest].concat());
            })
        };
        vec![
            ("a payload that is too long", changed(plain, |packet| packet[5] += 1)),
            ("options for every hop", extended(0, [0, 1, 4, 0, 0, 0, 0])),
            ("options for the destination", extended(60, [0, 1, 4, 0, 0, 0, 0])),
            ("a fragment that is all", extended(44, [0, 0, 0, 0, 0, 0, 9])),
            ("a first fragment", extended(44, [0, 0, 1, 0, 0, 0, 9])),
            ("another fragment", extended(44, [0, 0, 8, 0, 0, 0, 9])),
            ("without a checksum", changed(datagram, |packet| packet[46..48].fill(0))),
        ]
    }
}

/// A worker with an endpoint and a way out, both in the express lane.
struct Host {
    worker: Worker<XdpReceive, XdpTransmit>,
    clock: Clock,
    epochs: Arc<Epochs>,
    lane: Lane,
    gateway: [u8; 6],
    endpoint: Packets,
    router: Packets,
    _rig: Rig,
}

impl Host {
    fn new() -> Self {
        let rig = Rig::new();
        rig.near.ip("link add access type veth peer name endpoint");
        rig.near.ip(&format!("link set endpoint netns {}", rig.far.name()));
        rig.near.ip("link set access up");
        rig.far.ip("link set endpoint up");
        let mut lane = Lane::new(&rig);
        let halves = lane.take_halves();
        let legs = rig.near.inside(|| {
            let uplink = lane.express.attach(VETH, Place::Uplink, UPLINK).expect("attach");
            (uplink, lane.express.attach("access", Place::Access, ACCESS).expect("attach"))
        });
        let local = LocalVtep::new(Some(NEAR_IP.into()), None, 4789);
        let mut tables = Tables::new(local);
        let port = |role, leg| Port { express: Some(leg), ..Port::new(role, WorkerId(0)) };
        tables.set_port(UPLINK, port(Role::Uplink, legs.0));
        tables.set_port(ACCESS, port(Role::Access(NETWORK), legs.1));
        let vni = Vni::new(5000).unwrap();
        let gateway = Gateway::new(vni, "10.50.0.1/24".parse().ok(), "fd50::1/64".parse().ok());
        let (gateway, way_out6) = (Some(gateway), WayOut::Masquerade);
        let ports = vec![ACCESS];
        let network = Network { ports, gateway, masquerade: true, way_out6, ..Network::new(vni) };
        let gateway = network.gateway.unwrap().mac.0;
        tables.set_network(NETWORK, network);
        tables.set_outside(Arc::new(outside()));
        let mut worker = Worker::new(WorkerId(0), 1024, Arc::new(tables), Arc::<[Mailbox]>::from([]));
        worker.open_tagged(RING, QueueId(0), halves.0, halves.1).expect("open");
        worker.admit(UPLINK);
        worker.admit(ACCESS);
        let (flows, epochs) = (lane.express.flows().expect("flows"), lane.express.epochs());
        let express =
            vxlane_dataplane::express::Express::new(WorkerId(0), flows, Arc::clone(&epochs), lane.express.uses(), 1024);
        worker.use_express(express);
        lane.express.ours().set_outside_v6(Some(NEAR_IP6), &HashSet::new()).expect("outside");
        let boards = lane.express.ours().boards().clone();
        drop(worker.use_nat(Some(Box::new(Nat::new(config::<Ipv4Addr>(), WorkerId(0), 1, boards.v4)))));
        drop(worker.use_nat(Some(Box::new(Nat::new(config::<Ipv6Addr>(), WorkerId(0), 1, boards.v6)))));
        let clock = Clock::start();
        worker.tick(clock.now());
        let (endpoint, router) = (rig.far.packets("endpoint"), rig.far.packets(VETH));
        Self { worker, clock, epochs, lane, gateway, endpoint, router, _rig: rig }
    }

    fn counters(&self) -> ExpressCounters {
        self.lane.express.counters().unwrap()
    }

    /// Has the endpoint send `packet`, and returns the frame that the router gets, or the endpoint.
    fn out(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.forget();
        self.endpoint.send(&[&self.gateway[..], &WEB_MAC, &ether_type(packet), packet].concat());
        self.carry(Side::Router)
    }

    /// Has the router send `packet`, and returns the frame that the endpoint gets.
    fn back(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.forget();
        self.router.send(&[&NEAR_MAC[..], &ROUTER_MAC, &ether_type(packet), packet].concat());
        self.carry(Side::Endpoint)
    }

    /// Forgets what has come before, such as errors about packets that were refused.
    fn forget(&mut self) {
        while self.router.poll(&[]).is_some() || self.endpoint.poll(&[]).is_some() {}
    }

    /// Lets the worker breathe until there is a frame at `side`, or nothing has come for a while.
    fn carry(&mut self, side: Side) -> Option<Vec<u8>> {
        let (socket, head): (&mut Packets, &[u8]) = match side {
            Side::Router => (&mut self.router, &ROUTER_MAC),
            Side::Endpoint => (&mut self.endpoint, &WEB_MAC),
        };
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(50) {
            if self.worker.breathe(self.clock.now()) != Breath::Idle {
                quiet = Instant::now();
            }
            if let Some(frame) = socket.poll(head) {
                return Some(frame);
            }
        }
        None
    }

    fn send(&mut self, way: Way, packet: &[u8]) -> Option<Vec<u8>> {
        match way {
            Way::Out => self.out(packet),
            Way::Back => self.back(packet),
        }
    }

    /// What becomes of `packet` at a worker, and what in the express lane: whichever it was.
    fn both(&mut self, way: Way, packet: &[u8]) -> (Option<Vec<u8>>, Option<Vec<u8>>, u64) {
        self.epochs.end(NETWORK);
        let before = self.counters().hits;
        let by_worker = self.send(way, packet);
        assert_eq!(self.counters().hits, before, "its flow has ended");
        let by_lane = self.send(way, packet);
        (by_worker, by_lane, self.counters().hits - before)
    }

    fn sessions<A: Spoken>(&mut self) -> Vec<SessionView<A>> {
        let now = self.clock.now();
        self.worker.with_nat::<A, _>(|nat| nat.page(now, 0, 100).0).unwrap()
    }

    /// A TCP connection from the endpoint to the server; returns its port outside.
    fn connect<A: Spoken>(&mut self, port: u16) -> u16 {
        let syn = self.out(&segment(A::WEB, port, A::SERVER, 80, &|tcp| tcp.syn = true, b"")).expect("SYN leaves");
        let outside = source_port::<A>(&syn);
        let both = |tcp: &mut TcpHeader| (tcp.syn, tcp.ack) = (true, true);
        self.back(&segment(A::SERVER, 80, A::LOCAL, outside, &both, b"")).expect("SYN comes back");
        self.out(&segment(A::WEB, port, A::SERVER, 80, &|tcp| tcp.ack = true, b"")).expect("ACK leaves");
        outside
    }

    /// A UDP exchange between the endpoint and the server; returns its port outside.
    fn ask<A: Spoken>(&mut self, port: u16) -> u16 {
        let question = self.out(&datagram(A::WEB, port, A::SERVER, 53, b"question")).expect("leaves");
        let outside = source_port::<A>(&question);
        self.back(&datagram(A::SERVER, 53, A::LOCAL, outside, b"answer")).expect("comes back");
        outside
    }
}

#[derive(Clone, Copy)]
enum Side {
    Router,
    Endpoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    Back,
}

fn outside() -> Outside {
    let (router, mac) = (Ipv4Addr::from(FAR_IP), MacAddr(ROUTER_MAC));
    let everybody = Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).unwrap();
    let route = Route::Uplink { gateway: Some(router), mtu: 1500 };
    let v4 = Outside::new(UPLINK, MacAddr(NEAR_MAC), [(everybody, route)], [(router, mac)]);
    let everybody = Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).unwrap();
    let route = Route::Uplink { gateway: Some(FAR_IP6), mtu: 1500 };
    v4.with_v6([(everybody, route)], [(FAR_IP6, mac)])
}

fn config<A: Spoken>() -> NatConfig<A> {
    NatConfig::new(vec![A::LOCAL], [20_000..=20_063].into_iter().flatten().collect())
}

fn ether_type(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] }
}

/// Of the TCP or UDP packet in `frame`.
fn source_port<A: Spoken>(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[14 + A::LEN], frame[15 + A::LEN]])
}

fn segment<A: Spoken>(from: A, port: u16, to: A, to_port: u16, edit: &dyn Fn(&mut TcpHeader), data: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(port, to_port, 0x0102_0304, 1000);
    edit(&mut tcp);
    let mut packet = Vec::new();
    A::header(from, to).tcp_header(tcp).write(&mut packet, data).unwrap();
    packet
}

fn datagram<A: Spoken>(from: A, port: u16, to: A, to_port: u16, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    A::header(from, to).udp(port, to_port).write(&mut packet, data).unwrap();
    packet
}

/// `packet` with its IP header changed, and the checksum of that right, if it has one.
fn changed(packet: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = packet.to_vec();
    edit(&mut packet);
    if packet[0] >> 4 == 6 {
        return packet;
    }
    packet[10..12].fill(0);
    let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Address and port of the source, then of the destination.
type Ends<A> = (A, u16, A, u16);

/// Packets of a TCP session and of a UDP session, one way, that an established session has. Those of
/// UDP are between the ends that they `became` when they are translated.
fn ordinary<A: Spoken>(tcp: Ends<A>, udp: Ends<A>, became: Ends<A>) -> Vec<(&'static str, Vec<u8>)> {
    let acked = |tcp: &mut TcpHeader| tcp.ack = true;
    let segment = |edit: &dyn Fn(&mut TcpHeader), data: &[u8]| segment(tcp.0, tcp.1, tcp.2, tcp.3, edit, data);
    let datagram = |data: &[u8]| datagram(udp.0, udp.1, udp.2, udp.3, data);
    let plain = segment(&acked, b"data");
    // A sum of zero is written as its twin: with one of these words the translated one comes out so.
    let sum = |data: &[u8]| {
        self::datagram(became.0, became.1, became.2, became.3, data)[A::LEN + 6..A::LEN + 8] == [0xff, 0xff]
    };
    let zero = (0..=u16::MAX).map(u16::to_be_bytes).find(|word| sum(word)).expect("one word makes up for the rest");
    let mut all = A::special(&plain, &datagram(b"answer"));
    all.extend([
        ("an acknowledgment", segment(&acked, b"")),
        ("an odd number of bytes", segment(&acked, b"odd")),
        ("a full segment", segment(&acked, &[0x5a; 1420][A::LEN..])),
        (
            "PSH, URG, ECE and CWR",
            segment(&|tcp| (tcp.ack, tcp.psh, tcp.urg, tcp.ece, tcp.cwr) = (true, true, true, true, true), b"x"),
        ),
        (
            "options",
            segment(
                &|tcp| {
                    acked(tcp);
                    tcp.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
                },
                b"x",
            ),
        ),
        ("a hop before its last", changed(&plain, |packet| packet[A::HOPS] = 2)),
        ("the longest life", changed(&plain, |packet| packet[A::HOPS] = 255)),
        ("a wrong TCP checksum stays wrong", changed(&plain, |packet| packet[A::LEN + 16] ^= 0x55)),
        ("a datagram", datagram(b"answer")),
        ("an empty datagram", datagram(b"")),
        ("a checksum that becomes zero", datagram(&zero)),
        ("a wrong UDP checksum stays wrong", changed(&datagram(b"answer"), |packet| packet[A::LEN + 6] ^= 0x55)),
    ]);
    all
}

/// Packets that workers want to see, also in the middle of a session.
fn odd<A: Spoken>(tcp: Ends<A>, udp: Ends<A>) -> Vec<(&'static str, Vec<u8>)> {
    let acked = |tcp: &mut TcpHeader| tcp.ack = true;
    let segment = |edit: &dyn Fn(&mut TcpHeader), data: &[u8]| segment(tcp.0, tcp.1, tcp.2, tcp.3, edit, data);
    let datagram = datagram(udp.0, udp.1, udp.2, udp.3, b"answer");
    let plain = segment(&acked, b"data");
    let mut all = A::special_odd(&plain, &datagram);
    all.extend([
        ("the last hop", changed(&plain, |packet| packet[A::HOPS] = 1)),
        ("a UDP length that is too long", changed(&datagram, |packet| packet[A::LEN + 5] += 1)),
        ("a UDP length that is too short", changed(&datagram, |packet| packet[A::LEN + 5] = 7)),
        ("a TCP header that is too short", changed(&plain, |packet| packet[A::LEN + 12] = 0x40)),
        ("a TCP header that is too long", changed(&plain, |packet| packet[A::LEN + 12] = 0xf0)),
        ("SYN", segment(&|tcp| tcp.syn = true, b"")),
        ("FIN", segment(&|tcp| (tcp.ack, tcp.fin) = (true, true), b"")),
        ("RST", segment(&|tcp| tcp.rst = true, b"")),
    ]);
    all
}

/// Has each test be run for either internet protocol.
macro_rules! for_both {
    ($($test:ident)*) => {
        mod ipv4 {
            $(#[test]
            fn $test() {
                super::$test::<std::net::Ipv4Addr>();
            })*
        }

        mod ipv6 {
            $(#[test]
            fn $test() {
                super::$test::<std::net::Ipv6Addr>();
            })*
        }
    };
}

for_both! {
    both_lanes_send_the_same_bytes_and_workers_get_what_they_want_to_see
    a_session_counts_what_took_the_lane_and_lives_by_it
    rfc4787_req6_what_comes_in_by_the_lane_keeps_no_udp_session_alive
    a_session_that_ends_is_out_of_the_lane_at_once
    a_change_outside_sends_the_next_packet_to_a_worker_and_the_lane_goes_the_new_way
}

fn both_lanes_send_the_same_bytes_and_workers_get_what_they_want_to_see<A: Spoken>() {
    let mut host = Host::new();
    for (way, number) in [(Way::Out, 1000), (Way::Back, 1001)] {
        let (tcp, udp) = (host.connect::<A>(number), host.ask::<A>(number));
        let (tcp, udp, became) = match way {
            Way::Out => {
                ((A::WEB, number, A::SERVER, 80), (A::WEB, number, A::SERVER, 53), (A::LOCAL, udp, A::SERVER, 53))
            }
            Way::Back => {
                ((A::SERVER, 80, A::LOCAL, tcp), (A::SERVER, 53, A::LOCAL, udp), (A::SERVER, 53, A::WEB, number))
            }
        };
        for (what, packet) in ordinary(tcp, udp, became) {
            let (by_worker, by_lane, hits) = host.both(way, &packet);
            assert!(by_worker.is_some(), "{what}, {way:?}");
            if A::VERSION == Version::V4 && way == Way::Out && packet[6] & 0x40 == 0 {
                assert_eq!(hits, 0, "a worker gives it its identification: {what}");
                continue;
            }
            assert_eq!((by_lane, hits), (by_worker, 1), "{what}, {way:?}");
        }
        for (what, packet) in odd(tcp, udp) {
            let ordinary = ordinary(tcp, udp, became);
            for (_, plain) in ordinary.iter().filter(|(what, _)| ["an acknowledgment", "a datagram"].contains(what)) {
                assert_eq!(host.both(way, plain).2, 1, "the lane is open before {what}, {way:?}");
            }
            let hits = host.counters().hits;
            host.send(way, &packet);
            assert_eq!(host.counters().hits, hits, "{what}, {way:?}");
        }
    }
}

fn a_session_counts_what_took_the_lane_and_lives_by_it<A: Spoken>() {
    let mut host = Host::new();
    let outside = host.connect::<A>(1000);
    let before = host.sessions::<A>()[0];
    let data = segment(A::WEB, 1000, A::SERVER, 80, &|tcp| tcp.ack = true, b"four");
    let answer = segment(A::SERVER, 80, A::LOCAL, outside, &|tcp| tcp.ack = true, b"");
    assert!(host.back(&answer).is_some());
    let hits = host.counters().hits;
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..10 {
        assert!(host.out(&data).is_some() && host.back(&answer).is_some());
    }
    assert_eq!(host.counters().hits - hits, 20);
    let after = host.sessions::<A>()[0];
    assert_eq!(
        (after.out.packets() - before.out.packets(), after.out.bytes() - before.out.bytes()),
        (10, 10 * (A::LEN as u64 + 24))
    );
    assert_eq!(
        (after.back.packets() - before.back.packets(), after.back.bytes() - before.back.bytes()),
        (11, 11 * (A::LEN as u64 + 20))
    );
    assert!(after.deadline.since(before.deadline).to_duration() >= Duration::from_millis(180), "{before:?} {after:?}");
}

fn rfc4787_req6_what_comes_in_by_the_lane_keeps_no_udp_session_alive<A: Spoken>() {
    let mut host = Host::new();
    let outside = host.ask::<A>(2000);
    let (question, answer) =
        (datagram(A::WEB, 2000, A::SERVER, 53, b"more"), datagram(A::SERVER, 53, A::LOCAL, outside, b"more"));
    assert!(host.out(&question).is_some() && host.back(&answer).is_some());
    let (before, hits) = (host.sessions::<A>()[0].deadline, host.counters().hits);
    std::thread::sleep(Duration::from_millis(200));
    assert!(host.back(&answer).is_some());
    assert_eq!((host.sessions::<A>()[0].deadline, host.counters().hits - hits), (before, 1));
    assert!(host.out(&question).is_some());
    assert_eq!(host.counters().hits - hits, 2);
    assert!(host.sessions::<A>()[0].deadline > before);
}

fn a_session_that_ends_is_out_of_the_lane_at_once<A: Spoken>() {
    let mut host = Host::new();
    let (tcp, udp) = (host.connect::<A>(1000), host.ask::<A>(2000));
    let answers = [
        segment(A::SERVER, 80, A::LOCAL, tcp, &|tcp| tcp.ack = true, b"late"),
        datagram(A::SERVER, 53, A::LOCAL, udp, b"late"),
    ];
    for answer in &answers {
        assert!(host.back(answer).is_some() && host.back(answer).is_some());
    }
    let hits = host.counters().hits;
    assert!(hits >= 2, "{hits}");
    assert_eq!(host.worker.with_nat::<A, _>(|nat| nat.retain(|session| session.protocol == Protocol::Tcp)), Some(1));
    assert_eq!((host.back(&answers[1]), host.counters().hits), (None, hits), "ended by command");
    let (reset, data) = (
        segment(A::WEB, 1000, A::SERVER, 80, &|tcp| tcp.rst = true, b""),
        segment(A::WEB, 1000, A::SERVER, 80, &|tcp| tcp.ack = true, b"x"),
    );
    assert!(host.back(&answers[0]).is_some());
    assert_eq!(host.counters().hits, hits + 1);
    assert!(host.out(&reset).is_some());
    assert!(host.back(&answers[0]).is_some(), "a reset may be a forgery");
    assert_eq!(host.counters().hits, hits + 1, "but what follows it a worker sees");
    assert!(host.out(&data).is_some() && host.out(&data).is_some());
    assert_eq!(host.counters().hits, hits + 2, "which opens the lane again");
    let fin = |from, port, to, to_port| segment(from, port, to, to_port, &|tcp| (tcp.ack, tcp.fin) = (true, true), b"");
    assert!(host.out(&fin(A::WEB, 1000, A::SERVER, 80)).is_some());
    assert!(host.back(&answers[0]).is_some() && host.back(&answers[0]).is_some());
    let half = host.counters().hits;
    assert!(half > hits + 2, "half closed goes on");
    assert!(host.back(&fin(A::SERVER, 80, A::LOCAL, tcp)).is_some());
    assert!(host.out(&data).is_some());
    assert_eq!(host.counters().hits, half, "closed does not");
}

fn a_change_outside_sends_the_next_packet_to_a_worker_and_the_lane_goes_the_new_way<A: Spoken>() {
    let mut host = Host::new();
    host.connect::<A>(1000);
    let data = segment(A::WEB, 1000, A::SERVER, 80, &|tcp| tcp.ack = true, b"data");
    assert!(host.out(&data).is_some() && host.out(&data).is_some());
    let (hits, stale) = (host.counters().hits, host.counters().stale);
    host.epochs.end_outside();
    assert!(host.out(&data).is_some());
    assert_eq!((host.counters().hits, host.counters().stale), (hits, stale + 1));
    assert!(host.out(&data).is_some());
    assert_eq!(host.counters().hits, hits + 1);
}

#[test]
fn sessions_of_both_protocols_with_one_number_are_told_apart() {
    let mut host = Host::new();
    let (v4, v6) = (host.ask::<Ipv4Addr>(2000), host.ask::<Ipv6Addr>(2000));
    let answers = [
        datagram(Ipv4Addr::SERVER, 53, Ipv4Addr::LOCAL, v4, b"more"),
        datagram(Ipv6Addr::SERVER, 53, Ipv6Addr::LOCAL, v6, b"more"),
    ];
    let questions = [
        datagram(Ipv4Addr::WEB, 2000, Ipv4Addr::SERVER, 53, b"more"),
        datagram(Ipv6Addr::WEB, 2000, Ipv6Addr::SERVER, 53, b"more"),
    ];
    for packet in &questions {
        assert!(host.out(packet).is_some() && host.out(packet).is_some());
    }
    for packet in &answers {
        assert!(host.back(packet).is_some() && host.back(packet).is_some());
    }
    // The first question and both answers went by way of the worker, or one of them: all are counted.
    let counts = |session: &vxlane_dataplane::nat::Traffic| session.packets();
    let (by_v4, by_v6) = (host.sessions::<Ipv4Addr>()[0], host.sessions::<Ipv6Addr>()[0]);
    assert_eq!((counts(&by_v4.out), counts(&by_v4.back)), (3, 3));
    assert_eq!((counts(&by_v6.out), counts(&by_v6.back)), (3, 3));
    assert_eq!(host.worker.with_nat::<Ipv4Addr, _>(|nat| nat.retain(|_| false)), Some(1));
    let hits = host.counters().hits;
    assert!(host.back(&answers[0]).is_none(), "its session has ended");
    assert!(host.back(&answers[1]).is_some() && host.out(&questions[1]).is_some());
    assert_eq!(host.counters().hits, hits + 2, "and that of the same number has not");
}
