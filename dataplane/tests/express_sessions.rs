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
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use etherparse::{PacketBuilder, TcpHeader};
use ipnetwork::Ipv4Network;
use rig::{lane::Lane, *};
use vxlane_dataplane::{
    attach::{Role as Place, express::ExpressCounters},
    clock::Clock,
    express::Epochs,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, WorkerId},
    nat::{Nat, NatConfig, Protocol, SessionView},
    port::xdp::{XdpReceive, XdpTransmit},
    tables::{Gateway, LocalVtep, Network, Outside, Port, Role, Route, Tables},
    wire::{MacAddr, Vni},
    worker::{Breath, Worker},
};

const NETWORK: NetworkId = NetworkId(3);
const UPLINK: PortId = PortId(0);
const ACCESS: PortId = PortId(1);
const RING: PortId = PortId(2);
/// The endpoint, behind `access` in the far namespace.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 2);
const WEB_MAC: [u8; 6] = [2, 0x50, 0, 0, 0, 2];
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Its router has the far end of the uplink.
const ROUTER_MAC: [u8; 6] = FAR_MAC;

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
        let gateway = Gateway::new(vni, Ipv4Network::new(Ipv4Addr::new(10, 50, 0, 1), 24).ok(), None);
        let network = Network { ports: vec![ACCESS], gateway: Some(gateway), masquerade: true, ..Network::new(vni) };
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
        let config = NatConfig::new(vec![NEAR_IP.into()], [20_000..=20_063].into_iter().flatten().collect());
        drop(worker.use_nat(Some(Box::new(Nat::new(
            config,
            WorkerId(0),
            1,
            Arc::clone(&lane.express.ours().boards().v4),
        )))));
        let clock = Clock::start();
        worker.tick(clock.now());
        let (endpoint, router) = (rig.far.packets("endpoint"), rig.far.packets(VETH));
        Self { worker, clock, epochs, lane, gateway: gateway.mac.0, endpoint, router, _rig: rig }
    }

    fn counters(&self) -> ExpressCounters {
        self.lane.express.counters().unwrap()
    }

    /// Has the endpoint send `packet`, and returns the frame that the router gets, or the endpoint.
    fn out(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.forget();
        let frame = [&self.gateway[..], &WEB_MAC, &[8, 0], packet].concat();
        self.endpoint.send(&frame);
        self.carry(Side::Router)
    }

    /// Has the router send `packet`, and returns the frame that the endpoint gets.
    fn back(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.forget();
        self.router.send(&[&NEAR_MAC[..], &ROUTER_MAC, &[8, 0], packet].concat());
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

    fn sessions(&mut self) -> Vec<SessionView> {
        let now = self.clock.now();
        self.worker.with_nat(|nat| nat.page(now, 0, 100).0).unwrap()
    }

    /// A TCP connection from the endpoint to the server; returns its port outside.
    fn connect(&mut self, port: u16) -> u16 {
        let syn = self.out(&segment(WEB, port, SERVER, 80, &|tcp| tcp.syn = true, b"")).expect("SYN leaves");
        let outside = u16::from_be_bytes([syn[34], syn[35]]);
        let both = |tcp: &mut TcpHeader| (tcp.syn, tcp.ack) = (true, true);
        self.back(&segment(SERVER, 80, NEAR_IP.into(), outside, &both, b"")).expect("SYN comes back");
        self.out(&segment(WEB, port, SERVER, 80, &|tcp| tcp.ack = true, b"")).expect("ACK leaves");
        outside
    }

    /// A UDP exchange between the endpoint and the server; returns its port outside.
    fn ask(&mut self, port: u16) -> u16 {
        let question = self.out(&datagram(WEB, port, SERVER, 53, b"question")).expect("leaves");
        let outside = u16::from_be_bytes([question[34], question[35]]);
        self.back(&datagram(SERVER, 53, NEAR_IP.into(), outside, b"answer")).expect("comes back");
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
    let router = Ipv4Addr::from(FAR_IP);
    let default =
        (Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0).unwrap(), Route::Uplink { gateway: Some(router), mtu: 1500 });
    Outside::new(UPLINK, MacAddr(NEAR_MAC), [default], [(router, MacAddr(ROUTER_MAC))])
}

fn segment(
    from: Ipv4Addr,
    port: u16,
    to: Ipv4Addr,
    to_port: u16,
    edit: &dyn Fn(&mut TcpHeader),
    data: &[u8],
) -> Vec<u8> {
    let mut tcp = TcpHeader::new(port, to_port, 0x0102_0304, 1000);
    edit(&mut tcp);
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.octets(), to.octets(), 64).tcp_header(tcp).write(&mut packet, data).unwrap();
    packet
}

fn datagram(from: Ipv4Addr, port: u16, to: Ipv4Addr, to_port: u16, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(port, to_port).write(&mut packet, data).unwrap();
    packet
}

/// `packet` with its IP header changed, and the checksum of that right.
fn changed(mut packet: Vec<u8>, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    edit(&mut packet);
    packet[10..12].fill(0);
    let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Address and port of the source, then of the destination.
type Ends = (Ipv4Addr, u16, Ipv4Addr, u16);

/// Packets of a TCP session and of a UDP session, one way, that an established session has. Those of
/// UDP are between the ends that they `became` when they are translated.
fn ordinary(tcp: Ends, udp: Ends, became: Ends) -> Vec<(&'static str, Vec<u8>)> {
    let acked = |tcp: &mut TcpHeader| tcp.ack = true;
    let segment = |edit: &dyn Fn(&mut TcpHeader), data: &[u8]| segment(tcp.0, tcp.1, tcp.2, tcp.3, edit, data);
    let datagram = |data: &[u8]| datagram(udp.0, udp.1, udp.2, udp.3, data);
    let plain = || segment(&acked, b"data");
    // A sum of zero is written as its twin: with one of these words the translated one comes out so.
    let sum = |data: &[u8]| self::datagram(became.0, became.1, became.2, became.3, data)[26..28] == [0xff, 0xff];
    let zero = (0..=u16::MAX).map(u16::to_be_bytes).find(|word| sum(word)).expect("one word makes up for the rest");
    vec![
        ("an acknowledgment", segment(&acked, b"")),
        ("an odd number of bytes", segment(&acked, b"odd")),
        ("a full segment", segment(&acked, &[0x5a; 1400])),
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
        ("DSCP and a congestion mark", changed(plain(), |packet| packet[1] = 0xb9 | 3)),
        ("a hop before its last", changed(plain(), |packet| packet[8] = 2)),
        ("the longest life", changed(plain(), |packet| packet[8] = 255)),
        ("no DF, and an identification", changed(plain(), |packet| packet[4..8].copy_from_slice(&[0xab, 0xcd, 0, 0]))),
        ("a wrong TCP checksum stays wrong", changed(plain(), |packet| packet[36] ^= 0x55)),
        ("a datagram", datagram(b"answer")),
        ("an empty datagram", datagram(b"")),
        ("without a checksum", changed(datagram(b"answer"), |packet| packet[26..28].fill(0))),
        ("a checksum that becomes zero", datagram(&zero)),
        ("a wrong UDP checksum stays wrong", changed(datagram(b"answer"), |packet| packet[26] ^= 0x55)),
    ]
}

/// Packets that workers want to see, also in the middle of a session.
fn odd(tcp: Ends, udp: Ends) -> Vec<(&'static str, Vec<u8>)> {
    let acked = |tcp: &mut TcpHeader| tcp.ack = true;
    let segment = |edit: &dyn Fn(&mut TcpHeader), data: &[u8]| segment(tcp.0, tcp.1, tcp.2, tcp.3, edit, data);
    let datagram = || datagram(udp.0, udp.1, udp.2, udp.3, b"answer");
    let plain = || segment(&acked, b"data");
    vec![
        ("the last hop", changed(plain(), |packet| packet[8] = 1)),
        ("a wrong IP checksum", {
            let mut packet = plain();
            packet[10] ^= 1;
            packet
        }),
        (
            "options of IP",
            changed(datagram(), |packet| {
                packet.splice(20..20, [1, 1, 1, 1]);
                (packet[0], packet[3]) = (0x46, packet[3] + 4);
            }),
        ),
        ("a first fragment", changed(datagram(), |packet| packet[6] = 0x20)),
        ("another fragment", changed(datagram(), |packet| packet[7] = 1)),
        ("a UDP length that is too long", changed(datagram(), |packet| packet[25] += 1)),
        ("a UDP length that is too short", changed(datagram(), |packet| packet[25] = 7)),
        ("a TCP header that is too short", changed(plain(), |packet| packet[32] = 0x40)),
        ("a TCP header that is too long", changed(plain(), |packet| packet[32] = 0xf0)),
        ("SYN", segment(&|tcp| tcp.syn = true, b"")),
        ("FIN", segment(&|tcp| (tcp.ack, tcp.fin) = (true, true), b"")),
        ("RST", segment(&|tcp| tcp.rst = true, b"")),
    ]
}

#[test]
fn both_lanes_send_the_same_bytes_and_workers_get_what_they_want_to_see() {
    let mut host = Host::new();
    let local = Ipv4Addr::from(NEAR_IP);
    for (way, number) in [(Way::Out, 1000), (Way::Back, 1001)] {
        let (tcp, udp) = (host.connect(number), host.ask(number));
        let (tcp, udp, became) = match way {
            Way::Out => ((WEB, number, SERVER, 80), (WEB, number, SERVER, 53), (local, udp, SERVER, 53)),
            Way::Back => ((SERVER, 80, local, tcp), (SERVER, 53, local, udp), (SERVER, 53, WEB, number)),
        };
        for (what, packet) in ordinary(tcp, udp, became) {
            let (by_worker, by_lane, hits) = host.both(way, &packet);
            assert!(by_worker.is_some(), "{what}, {way:?}");
            if way == Way::Out && packet[6] & 0x40 == 0 {
                assert_eq!(hits, 0, "a worker gives it its identification: {what}");
                continue;
            }
            assert_eq!((by_lane, hits), (by_worker, 1), "{what}, {way:?}");
        }
        for (what, packet) in odd(tcp, udp) {
            for (_, plain) in [&ordinary(tcp, udp, became)[0], &ordinary(tcp, udp, became)[10]] {
                assert_eq!(host.both(way, plain).2, 1, "the lane is open before {what}, {way:?}");
            }
            let hits = host.counters().hits;
            host.send(way, &packet);
            assert_eq!(host.counters().hits, hits, "{what}, {way:?}");
        }
    }
}

#[test]
fn a_session_counts_what_took_the_lane_and_lives_by_it() {
    let mut host = Host::new();
    let outside = host.connect(1000);
    let before = host.sessions()[0];
    let data = segment(WEB, 1000, SERVER, 80, &|tcp| tcp.ack = true, b"four");
    let answer = segment(SERVER, 80, NEAR_IP.into(), outside, &|tcp| tcp.ack = true, b"");
    assert!(host.back(&answer).is_some());
    let hits = host.counters().hits;
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..10 {
        assert!(host.out(&data).is_some() && host.back(&answer).is_some());
    }
    assert_eq!(host.counters().hits - hits, 20);
    let after = host.sessions()[0];
    assert_eq!((after.out.packets() - before.out.packets(), after.out.bytes() - before.out.bytes()), (10, 440));
    assert_eq!((after.back.packets() - before.back.packets(), after.back.bytes() - before.back.bytes()), (11, 440));
    assert!(after.deadline.since(before.deadline).to_duration() >= Duration::from_millis(180), "{before:?} {after:?}");
}

#[test]
fn rfc4787_req6_what_comes_in_by_the_lane_keeps_no_udp_session_alive() {
    let mut host = Host::new();
    let outside = host.ask(2000);
    let (question, answer) =
        (datagram(WEB, 2000, SERVER, 53, b"more"), datagram(SERVER, 53, NEAR_IP.into(), outside, b"more"));
    assert!(host.out(&question).is_some() && host.back(&answer).is_some());
    let (before, hits) = (host.sessions()[0].deadline, host.counters().hits);
    std::thread::sleep(Duration::from_millis(200));
    assert!(host.back(&answer).is_some());
    assert_eq!((host.sessions()[0].deadline, host.counters().hits - hits), (before, 1));
    assert!(host.out(&question).is_some());
    assert_eq!(host.counters().hits - hits, 2);
    assert!(host.sessions()[0].deadline > before);
}

#[test]
fn a_session_that_ends_is_out_of_the_lane_at_once() {
    let mut host = Host::new();
    let (tcp, udp) = (host.connect(1000), host.ask(2000));
    let answers = [
        segment(SERVER, 80, NEAR_IP.into(), tcp, &|tcp| tcp.ack = true, b"late"),
        datagram(SERVER, 53, NEAR_IP.into(), udp, b"late"),
    ];
    for answer in &answers {
        assert!(host.back(answer).is_some() && host.back(answer).is_some());
    }
    let hits = host.counters().hits;
    assert!(hits >= 2, "{hits}");
    assert_eq!(host.worker.with_nat(|nat| nat.retain(|session| session.protocol == Protocol::Tcp)), Some(1));
    assert_eq!((host.back(&answers[1]), host.counters().hits), (None, hits), "ended by command");
    let (reset, data) = (
        segment(WEB, 1000, SERVER, 80, &|tcp| tcp.rst = true, b""),
        segment(WEB, 1000, SERVER, 80, &|tcp| tcp.ack = true, b"x"),
    );
    assert!(host.back(&answers[0]).is_some());
    assert_eq!(host.counters().hits, hits + 1);
    assert!(host.out(&reset).is_some());
    assert!(host.back(&answers[0]).is_some(), "a reset may be a forgery");
    assert_eq!(host.counters().hits, hits + 1, "but what follows it a worker sees");
    assert!(host.out(&data).is_some() && host.out(&data).is_some());
    assert_eq!(host.counters().hits, hits + 2, "which opens the lane again");
    let fin = |from, port, to, to_port| segment(from, port, to, to_port, &|tcp| (tcp.ack, tcp.fin) = (true, true), b"");
    assert!(host.out(&fin(WEB, 1000, SERVER, 80)).is_some());
    assert!(host.back(&answers[0]).is_some() && host.back(&answers[0]).is_some());
    let half = host.counters().hits;
    assert!(half > hits + 2, "half closed goes on");
    assert!(host.back(&fin(SERVER, 80, NEAR_IP.into(), tcp)).is_some());
    assert!(host.out(&data).is_some());
    assert_eq!(host.counters().hits, half, "closed does not");
}

#[test]
fn a_change_outside_sends_the_next_packet_to_a_worker_and_the_lane_goes_the_new_way() {
    let mut host = Host::new();
    host.connect(1000);
    let data = segment(WEB, 1000, SERVER, 80, &|tcp| tcp.ack = true, b"data");
    assert!(host.out(&data).is_some() && host.out(&data).is_some());
    let (hits, stale) = (host.counters().hits, host.counters().stale);
    host.epochs.end_outside();
    assert!(host.out(&data).is_some());
    assert_eq!((host.counters().hits, host.counters().stale), (hits, stale + 1));
    assert!(host.out(&data).is_some());
    assert_eq!(host.counters().hits, hits + 1);
}
