//! Who gets which frame, through real daemons, programs and rings, and through foreign VTEPs beside.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use vxlane_tests::{
    frames::Talk,
    lab::{Container, Lab, MacAddr, Network, Station},
    peer::{Segment, Vtep, VtepKind, VxlaneOptions},
    process::await_value,
    traffic::{
        pace::{Amount, Pace},
        ping::{PingOptions, ping},
        raw::{Heading, RawSender, Watch, expect_counts},
    },
};

const LIMIT: Duration = Duration::from_secs(3);

/// Three hosts with a VTEP each, two containers on the first and one on the others.
///
/// Fields go in this order when dropped: VTEPs before what they connect.
struct Three {
    vteps: Vec<Box<dyn Vtep>>,
    /// `a0` and `a1`, then those of the other hosts.
    containers: [Container; 4],
    network: Network,
    _lab: Lab,
}

impl Three {
    fn new(kinds: [&VtepKind; 3]) -> Self {
        let lab = Lab::new(&["a", "b", "c"]).unwrap();
        let network = Network::new("blue", 5000);
        let containers = [("a", "c0"), ("a", "c1"), ("b", "c0"), ("c", "c0")]
            .map(|(host, name)| lab.host(host).container(name, &network).unwrap());
        let [a0, a1, b, c] = &containers;
        let start = |(host, kind): (&str, &VtepKind), here: &[&Container]| {
            kind.start(lab.host(host), &[Segment::of(&lab, host, &network, here)]).unwrap()
        };
        let vteps = vec![start(("a", kinds[0]), &[a0, a1]), start(("b", kinds[1]), &[b]), start(("c", kinds[2]), &[c])];
        let three = Self { vteps, containers, network, _lab: lab };
        for other in &three.containers[1..] {
            let report = ping(three.containers[0].ns(), other.ipv4(), &PingOptions::default()).unwrap();
            assert!(report.complete(), "{report:?}\n{}", three.diagnosis());
        }
        three
    }

    fn diagnosis(&self) -> String {
        self.vteps.iter().map(|vtep| vtep.diagnosis()).collect()
    }

    /// A station that no container has.
    fn stranger(&self, last: u8) -> Station {
        Station { mac: MacAddr([2, 0x99, 0, 0, 0, last]), ..self.network.station(9, last) }
    }

    /// Sends ten frames from one container to `to`, and wants so many at each.
    fn check_ten(&self, from: usize, to: Station, expected: [u64; 4]) {
        let frame = Talk::new(self.containers[from].station(), to).udp4(7, 9, b"ten of these");
        let watches = self.containers.each_ref().map(|container| watch(container, &frame));
        RawSender::open(self.containers[from].ns(), "eth0").unwrap().send_times(&frame, 10).unwrap();
        let counts: Vec<(&Watch, u64)> = watches.iter().zip(expected).collect();
        expect_counts(&counts, LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", self.diagnosis()));
    }
}

fn watch(container: &Container, frame: &[u8]) -> Watch {
    let wanted = frame.to_vec();
    Watch::start(container.ns(), "eth0", Heading::Incoming, move |seen| seen == wanted).unwrap()
}

/// Ten frames to nobody reach everybody else ten times, wherever they come from; ten to somebody
/// who has been heard reach him alone; and ten to somebody who has not, everybody again.
fn check_floods(kinds: [&VtepKind; 3]) {
    let three = Three::new(kinds);
    three.check_ten(0, three.stranger(1), [0, 10, 10, 10]);
    three.check_ten(2, three.stranger(2), [10, 10, 0, 10]);
    for (to, expected) in [(1, [0, 10, 0, 0]), (2, [0, 0, 10, 0]), (3, [0, 0, 0, 10])] {
        three.check_ten(0, three.containers[to].station(), expected);
    }
    three.check_ten(2, three.containers[3].station(), [0, 0, 0, 10]);
    // A new station behind a host that is known: unknown until it is heard.
    let late = three.stranger(3);
    three.check_ten(0, late, [0, 10, 10, 10]);
    let greeting = Talk::new(late, three.containers[0].station()).udp4(7, 9, b"here I am");
    let heard = watch(&three.containers[0], &greeting);
    RawSender::open(three.containers[3].ns(), "eth0").unwrap().send(&greeting).unwrap();
    expect_counts(&[(&heard, 1)], LIMIT).unwrap();
    three.check_ten(0, late, [0, 0, 0, 10]);
}

#[test]
fn a_flood_reaches_every_port_and_every_host_once_and_what_is_learned_goes_to_one() {
    let ours = VtepKind::vxlane();
    check_floods([&ours, &ours, &ours]);
}

#[test]
fn a_flood_reaches_every_port_and_every_host_once_beside_the_kernel_and_open_vswitch() {
    check_floods([&VtepKind::vxlane(), &VtepKind::kernel(), &VtepKind::ovs()]);
}

#[test]
fn a_station_that_falls_silent_is_forgotten_though_traffic_towards_it_goes_on() {
    let forgetful = VtepKind::Vxlane(VxlaneOptions { ageing: Some(2), ..VxlaneOptions::default() });
    let three = Three::new([&forgetful, &VtepKind::kernel(), &VtepKind::kernel()]);
    let silent = three.stranger(4);
    let greeting = Talk::new(silent, three.containers[0].station()).udp4(7, 9, b"once");
    RawSender::open(three.containers[2].ns(), "eth0").unwrap().send(&greeting).unwrap();
    let knows = || {
        let table = three.vteps[0].as_vxlane().unwrap().cli(&["fdb", "show", "--json"]).unwrap();
        table.to_string().contains(&silent.mac.to_string())
    };
    await_value("the silent station in the table", LIMIT, || knows().then_some(()), || three.diagnosis()).unwrap();
    // For twice the ageing time it is sent to, and says nothing.
    let towards = Talk::new(three.containers[0].station(), silent).udp4(7, 9, b"anybody there?");
    let sender = RawSender::open(three.containers[0].ns(), "eth0").unwrap();
    let elsewhere = watch(&three.containers[3], &towards);
    sender.cycle(std::slice::from_ref(&towards), Pace::Rate(200), Amount::Time(Duration::from_secs(4))).unwrap();
    assert!(!knows());
    assert!((1..800).contains(&elsewhere.count()), "flooded again at the end: {} of 800", elsewhere.count());
    three.check_ten(0, silent, [0, 10, 10, 10]);
}

#[test]
fn two_networks_with_equal_addresses_never_leak_into_each_other() {
    let lab = Lab::new(&["a", "b"]).unwrap();
    let networks = [Network::new("blue", 5000), Network::new("green", 6000)];
    // The same two stations in both networks, each pair on both hosts.
    let place = |network: &Network, host: &str, number: u8| {
        let station = networks[0].station(1, number);
        lab.host(host).container_as(&format!("{}{number}", network.name), network, station).unwrap()
    };
    let pairs = networks.each_ref().map(|network| [place(network, "a", 1), place(network, "b", 2)]);
    let segments = |host, side: usize| {
        let here = pairs.each_ref().map(|pair| &pair[side]);
        [0, 1].map(|index| Segment::of(&lab, host, &networks[index], &[here[index]]))
    };
    let ours = VtepKind::vxlane();
    let _vteps = [ours.start(lab.host("a"), &segments("a", 0)), ours.start(lab.host("b"), &segments("b", 1))]
        .map(Result::unwrap);
    for (inside, outside) in [(0, 1), (1, 0)] {
        let ([from, to], [other_from, other_to]) = (&pairs[inside], &pairs[outside]);
        let report = ping(from.ns(), to.ipv4(), &PingOptions::default()).unwrap();
        assert!(report.complete(), "{report:?}");
        let mark = networks[inside].name.clone().into_bytes();
        let known = Talk::new(from.station(), to.station()).udp4(7, 9, &mark);
        let nobody = Station { mac: MacAddr([2, 0x99, 0, 0, 0, 9]), ..to.station() };
        let unknown = Talk::new(from.station(), nobody).udp4(7, 9, &mark);
        for frame in [known, unknown] {
            let watches = [to, other_from, other_to].map(|container| watch(container, &frame));
            RawSender::open(from.ns(), "eth0").unwrap().send_times(&frame, 10).unwrap();
            let [there, leaked_here, leaked_there] = &watches;
            expect_counts(&[(there, 10), (leaked_here, 0), (leaked_there, 0)], LIMIT).unwrap();
        }
    }
}
