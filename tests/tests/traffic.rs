//! The generators and sinks count exactly, shown through the kernel's own VTEPs.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use vxlane_tests::frames::Talk;
use vxlane_tests::lab::{Container, Lab, Network};
use vxlane_tests::peer::{Segment, Vtep, VtepKind};
use vxlane_tests::traffic::pace::{Amount, Pace};
use vxlane_tests::traffic::packets;
use vxlane_tests::traffic::ping::{PingOptions, ping};
use vxlane_tests::traffic::raw::{Heading, RawSender, Watch, expect_counts};
use vxlane_tests::traffic::rr::{self, RrOptions};
use vxlane_tests::traffic::tcp::{self, TcpOptions, Way};
use vxlane_tests::traffic::udp::{self, UdpOptions};

/// A second of 20,000 packets in eight flows.
fn eight_flows() -> UdpOptions {
    UdpOptions {
        payload: 200,
        flows: 8,
        pace: Pace::Rate(20_000),
        amount: Amount::Packets(20_000),
        ..UdpOptions::default()
    }
}

#[test]
fn udp_generator_counts_every_packet() {
    let pair = Pair::new();
    let options = eight_flows();
    let (sent, received) = udp::exchange(&pair.c0, &pair.c1, &options).unwrap();
    assert_eq!(sent.packets, 20_000);
    assert!(received.exactly(20_000), "{received:?}");
    assert_eq!((received.socket_drops, received.flows.len()), (0, 8));
    assert!((15_000.0..21_000.0).contains(&received.pps()), "{}", received.pps());
}

#[test]
fn udp_generator_floods_for_a_given_time() {
    let pair = Pair::new();
    let options =
        UdpOptions { pace: Pace::Flood, amount: Amount::Time(Duration::from_millis(300)), ..UdpOptions::default() };
    let (sent, received) = udp::exchange(&pair.c0, &pair.c1, &options).unwrap();
    println!("sent {:.0}/s, delivered {:.0}/s", sent.pps(), received.pps());
    assert!(sent.elapsed < Duration::from_secs(1));
    assert!(received.distinct > 0 && received.distinct <= sent.packets);
    assert_eq!((received.duplicates, received.corrupted), (0, 0));
}

#[test]
fn packets_past_the_stacks_arrive_sound_and_are_counted() {
    let pair = Pair::new();
    let options = eight_flows();
    let before = udp_counters(&pair.c1);
    let sink = packets::capture(&pair.c1, None).unwrap();
    let sent = packets::send(&pair.c0, pair.c1.station(), sink.address().port(), &options).unwrap();
    let received = sink.finish(sent.packets, Duration::from_secs(1)).unwrap();
    assert_eq!(sent.packets, 20_000);
    assert!(received.exactly(20_000), "{received:?}");
    assert_eq!((received.socket_drops, received.flows.len()), (0, 8));
    assert_eq!(udp_counters(&pair.c1), before, "the receiver's stack has seen none of them");
    // A stack finds their checksums right.
    let sink = udp::Sink::listen(pair.c1.ns(), pair.c1.ipv4()).unwrap();
    let sent = packets::send(&pair.c0, pair.c1.station(), sink.address().port(), &options).unwrap();
    let received = sink.finish(sent.packets, Duration::from_secs(1)).unwrap();
    assert!(received.exactly(20_000), "{received:?}");
}

/// What the UDP stack of `container` has counted.
fn udp_counters(container: &Container) -> String {
    let text = container.ns().run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
    text.lines().filter(|line| line.starts_with("Udp:")).collect()
}

#[test]
fn tcp_stream_is_verified() {
    let pair = Pair::new();
    let options = TcpOptions { way: Way::Both, ..TcpOptions::default() };
    let report = tcp::stream(&pair.c0, &pair.c1, &options).unwrap();
    for stream in [report.forward.unwrap(), report.backward.unwrap()] {
        println!("{:.2} Gbit/s", stream.bits_per_second() / 1e9);
        assert_eq!(stream.bytes, options.bytes);
    }
}

#[test]
fn raw_counter_counts_exactly_ten() {
    let pair = Pair::new();
    let frame = Talk::new(pair.c0.station(), pair.c1.station()).udp4(7, 9, b"ten of these");
    let watch = |container: &Container| {
        let wanted = frame.clone();
        Watch::start(container.ns(), "eth0", Heading::Incoming, move |seen| seen == wanted).unwrap()
    };
    let (here, there, elsewhere) = (watch(&pair.c0), watch(&pair.c1), watch(&pair.c2));
    let sender = RawSender::open(pair.c0.ns(), "eth0").unwrap();
    sender.send_times(&frame, 10).unwrap();
    let limit = Duration::from_secs(2);
    expect_counts(&[(&here, 0), (&there, 10), (&elsewhere, 0)], limit).unwrap();
    assert_eq!(there.frames(), vec![frame.clone(); 10]);
    let error = expect_counts(&[(&there, 9)], limit).unwrap_err();
    assert!(error.to_string().contains("10 of 9"), "{error}");
}

#[test]
fn raw_sender_cycles_through_its_frames() {
    let pair = Pair::new();
    let talk = Talk::new(pair.c0.station(), pair.c1.station());
    let frames: Vec<Vec<u8>> = (0..3).map(|port| talk.udp4(port, 9, b"x")).collect();
    let second = frames[1].clone();
    let all = Watch::start(pair.c1.ns(), "eth0", Heading::Incoming, |f| f.ends_with(b"x")).unwrap();
    let some = Watch::start(pair.c1.ns(), "eth0", Heading::Incoming, move |f| f == second).unwrap();
    let sender = RawSender::open(pair.c0.ns(), "eth0").unwrap();
    let sent = sender.cycle(&frames, Pace::Rate(20_000), Amount::Packets(3_000)).unwrap();
    assert_eq!(sent, 3_000);
    expect_counts(&[(&all, 3_000), (&some, 1_000)], Duration::from_secs(2)).unwrap();
}

#[test]
fn requests_are_answered_and_timed() {
    let pair = Pair::new();
    let options = RrOptions { count: 300, ..RrOptions::default() };
    let report = rr::exchange(&pair.c0, &pair.c1, &options).unwrap();
    println!("p50 {:?} p99 {:?} p99.9 {:?}", report.p50(), report.p99(), report.p999());
    assert_eq!((report.sent, report.lost), (300, 0));
    assert!(report.p50() <= report.p99() && report.p99() <= report.p999());
    assert!(report.p50() > Duration::ZERO);
}

/// Two hosts with the kernel's VTEPs: c0 on the first, c1 and c2 on the second, all known.
///
/// Fields go in this order when dropped: VTEPs before what they connect.
struct Pair {
    _vteps: [Box<dyn Vtep>; 2],
    c0: Container,
    c1: Container,
    c2: Container,
    _lab: Lab,
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::new(&["a", "b"]).unwrap();
        let blue = Network::new("blue", 5000);
        let c0 = lab.host("a").container("c0", &blue).unwrap();
        let c1 = lab.host("b").container("c1", &blue).unwrap();
        let c2 = lab.host("b").container("c2", &blue).unwrap();
        let start = |host: &str, containers: &[&Container]| {
            let segment = Segment::of(&lab, host, &blue, containers);
            VtepKind::kernel().start(lab.host(host), &[segment]).unwrap()
        };
        let vteps = [start("a", &[&c0]), start("b", &[&c1, &c2])];
        for target in [&c1, &c2] {
            let report = ping(c0.ns(), target.ipv4(), &PingOptions::default()).unwrap();
            assert!(report.complete(), "{report:?}");
        }
        Self { _vteps: vteps, c0, c1, c2, _lab: lab }
    }
}
