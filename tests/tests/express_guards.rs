//! What is refused, limited, kept apart or forgotten in the worker lane is so in the express lane.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use vxlane_tests::{
    alone::{Alone, AloneOptions},
    frames::Talk,
    lab::{MacAddr, Station, Underlay},
    peer::VxlaneOptions,
    process::await_value,
    traffic::{
        offload::{OffloadSender, SegmentKind, Segments, Work},
        pace::{Amount, Pace},
        raw::{Heading, RawSender, Watch, expect_counts},
    },
};

const LIMIT: Duration = Duration::from_secs(5);
const WIRE: &str = vxlane_tests::lab::UPLINK;

fn options(ageing: Option<u32>) -> AloneOptions {
    let vxlane = VxlaneOptions { express: true, ageing, ..VxlaneOptions::default() };
    let others = vec!["b", "c"];
    AloneOptions {
        others,
        containers: 2,
        endpoints: 0..2,
        network: true,
        peers: true,
        mtu: 1450,
        underlay: Underlay::V4,
        vxlane,
    }
}

/// A host on which the test makes the network itself.
fn bare(create: &str) -> Alone {
    let alone = Alone::start(&AloneOptions { endpoints: 0..0, network: false, ..options(None) }).unwrap();
    alone.ask(&format!("network create {create}")).unwrap();
    alone
}

fn endpoint(alone: &Alone, number: usize) -> RawSender {
    RawSender::open(alone.containers[number].ns(), "eth0").unwrap()
}

/// Counts frames that end like `frame`, at the end of container `number`.
fn inside(alone: &Alone, number: usize, frame: &[u8]) -> Watch {
    let wanted = frame.to_vec();
    let filter = move |seen: &[u8]| seen == wanted;
    Watch::start(alone.containers[number].ns(), "eth0", Heading::Incoming, filter).unwrap()
}

/// Counts frames that carry `frame`, on the wire of `host`.
fn outside(alone: &Alone, host: &str, frame: &[u8]) -> Watch {
    let wanted = frame.to_vec();
    let filter = move |seen: &[u8]| seen.len() > wanted.len() && seen.ends_with(&wanted);
    Watch::start(alone.lab.host(host).ns(), WIRE, Heading::Incoming, filter).unwrap()
}

fn said(from: Station, to: Station, what: &str) -> Vec<u8> {
    Talk::new(from, to).udp4(7, 9, what.as_bytes())
}

/// Sends `frame` until it takes the express lane: workers see none of ten more.
fn establish(alone: &Alone, sender: &RawSender, frame: &[u8]) {
    let is_established = || {
        let before = alone.asked().unwrap();
        sender.send_times(frame, 10).unwrap();
        (alone.asked().unwrap() == before).then_some(())
    };
    await_value("express lane", LIMIT, is_established, || alone.ask("status").unwrap()).unwrap();
}

fn drops(alone: &Alone, reason: &str) -> u64 {
    alone.vtep.cli(&["stats", "--json"]).unwrap()["drops"][reason].as_u64().unwrap_or(0)
}

#[test]
fn an_endpoint_with_flows_in_the_express_lane_still_sends_as_itself_alone() {
    let alone = bare("blue --vni 5000 --subnet 10.0.0.0/16 --peer 192.0.2.2 --peer 192.0.2.3");
    for (number, container) in alone.containers.iter().enumerate() {
        let Station { mac, ipv4, .. } = container.station();
        let interface = container.port();
        let place = format!("--interface {interface} --name c{number} --mac {mac} --address {ipv4}");
        alone.ask(&format!("network connect blue {place}")).unwrap();
    }
    let [near, other] = [0, 1].map(|number| alone.containers[number].station());
    let (far, sender, wire) = (alone.station("b"), endpoint(&alone, 0), alone.wire("b").unwrap());
    wire.send(&alone.tunnel("b").wrap(&said(far, near, "here"))).unwrap();
    endpoint(&alone, 1).send(&said(other, near, "here")).unwrap();
    for to in [far, other] {
        establish(&alone, &sender, &said(near, to, "flow"));
        let stranger = Station { mac: MacAddr([2, 0x99, 0, 0, 0, 1]), ..near };
        let foreign = Station { ipv4: [10, 0, 77, 77].into(), ..near };
        for (pretence, reason) in [
            (Station { mac: other.mac, ..near }, "spoofed_mac"),
            (Station { mac: far.mac, ..near }, "spoofed_mac"),
            (stranger, "spoofed_mac"),
            (foreign, "spoofed_address"),
            (Station { ipv4: other.ipv4, ..near }, "spoofed_address"),
        ] {
            let frame = said(pretence, to, "pretence");
            let watches = [inside(&alone, 1, &frame), outside(&alone, "b", &frame), outside(&alone, "c", &frame)];
            let before = drops(&alone, reason);
            sender.send_times(&frame, 50).unwrap();
            let all = || (drops(&alone, reason) == before + 50).then_some(());
            await_value("fifty drops", LIMIT, all, || format!("{reason}: {}", drops(&alone, reason) - before)).unwrap();
            expect_counts(&watches.each_ref().map(|watch| (watch, 0)), LIMIT).unwrap();
        }
        // DHCP is for servers alone, even where the flow is known.
        let frame = Talk::new(near, to).udp4(67, 68, b"an offer");
        let before = drops(&alone, "dhcp_server");
        sender.send_times(&frame, 50).unwrap();
        await_value("drops", LIMIT, || (drops(&alone, "dhcp_server") == before + 50).then_some(()), String::new)
            .unwrap();
    }
}

#[test]
fn a_tunnel_with_flows_in_the_express_lane_delivers_for_its_vtep_and_its_network_alone() {
    let alone = Alone::start(&options(None)).unwrap();
    let (near, far, wire) = (alone.containers[0].station(), alone.station("b"), alone.wire("b").unwrap());
    let tunnel = alone.tunnel("b");
    endpoint(&alone, 0).send(&said(near, far, "here")).unwrap();
    // Nobody else can say that he is this station.
    let from_b = alone.lab.host("b").address();
    alone.ask(&format!("fdb add {} --network blue --dst {from_b}", far.mac)).unwrap();
    endpoint(&alone, 0).send(&said(near, far, "here")).unwrap();
    establish(&alone, &wire, &tunnel.wrap(&said(far, near, "flow")));
    let frame = said(far, near, "pretence");
    let mut unknown = tunnel.clone();
    unknown.outer.from.ipv4 = [192, 0, 2, 99].into();
    let mut unmarked = tunnel.clone();
    unmarked.flags = 0;
    for (what, wrapped, sender) in [
        ("another VTEP of the network", alone.tunnel("c").wrap(&frame), alone.wire("c").unwrap()),
        ("no VTEP", unknown.wrap(&frame), alone.wire("b").unwrap()),
        (
            "another VNI",
            vxlane_tests::frames::Vxlan { vni: 5001, ..tunnel.clone() }.wrap(&frame),
            alone.wire("b").unwrap(),
        ),
        ("no VNI", unmarked.wrap(&frame), alone.wire("b").unwrap()),
    ] {
        let watch = inside(&alone, 0, &frame);
        let count = || alone.vtep.cli(&["stats", "--json"]).unwrap()["dropped"].as_u64().unwrap();
        let before = count();
        sender.send_times(&wrapped, 50).unwrap();
        let found = || format!("{} delivered\n{}", watch.count(), alone.ask("stats").unwrap());
        await_value(what, LIMIT, || (count() == before + 50).then_some(()), found).unwrap();
        expect_counts(&[(&watch, 0)], LIMIT).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    let watch = inside(&alone, 0, &frame);
    wire.send_times(&tunnel.wrap(&frame), 50).unwrap();
    expect_counts(&[(&watch, 50)], LIMIT).unwrap();
}

#[test]
fn stations_beyond_the_limit_are_flooded_to_however_much_they_talk() {
    let alone = bare("blue --vni 5000 --mac-limit 2 --peer 192.0.2.2 --peer 192.0.2.3");
    alone.ask(&format!("network connect blue --interface {} --name c0", alone.containers[0].port())).unwrap();
    let (near, far) = (alone.containers[0].station(), alone.station("b"));
    let beyond = Station { mac: MacAddr([2, 0x99, 0, 0, 0, 2]), ..far };
    let (sender, wire, tunnel) = (endpoint(&alone, 0), alone.wire("b").unwrap(), alone.tunnel("b"));
    sender.send(&said(near, far, "here")).unwrap();
    wire.send(&tunnel.wrap(&said(far, near, "here"))).unwrap();
    establish(&alone, &sender, &said(near, far, "flow"));
    establish(&alone, &wire, &tunnel.wrap(&said(far, near, "flow")));
    let (there, back) = (said(near, beyond, "there"), said(beyond, near, "back"));
    let watches = [inside(&alone, 0, &back), outside(&alone, "b", &there), outside(&alone, "c", &there)];
    for _ in 0..100 {
        wire.send(&tunnel.wrap(&back)).unwrap();
        sender.send(&there).unwrap();
    }
    expect_counts(&watches.each_ref().map(|watch| (watch, 100)), LIMIT).unwrap();
}

#[test]
fn isolated_endpoints_have_no_flow_to_each_other_or_to_another_host() {
    let alone = bare("blue --vni 5000 --isolation --peer 192.0.2.2 --peer 192.0.2.3");
    for (number, container) in alone.containers.iter().enumerate() {
        alone.ask(&format!("network connect blue --interface {} --name c{number}", container.port())).unwrap();
    }
    let [near, other] = [0, 1].map(|number| alone.containers[number].station());
    let (far, wire) = (alone.station("b"), alone.wire("b").unwrap());
    let (to_other, to_far, to_near) = (said(near, other, "x"), said(near, far, "y"), said(far, near, "z"));
    let watches = [inside(&alone, 1, &to_other), outside(&alone, "b", &to_far), inside(&alone, 0, &to_near)];
    endpoint(&alone, 1).send(&said(other, near, "here")).unwrap();
    let before = drops(&alone, "isolated");
    for _ in 0..100 {
        endpoint(&alone, 0).send(&to_other).unwrap();
        endpoint(&alone, 0).send(&to_far).unwrap();
        wire.send(&alone.tunnel("b").wrap(&to_near)).unwrap();
    }
    let all = || (drops(&alone, "isolated") >= before + 300).then_some(());
    await_value("drops", LIMIT, all, || alone.ask("stats").unwrap()).unwrap();
    expect_counts(&watches.each_ref().map(|watch| (watch, 0)), LIMIT).unwrap();
}

/// The ageing time, in seconds.
const AGEING: u32 = 2;

#[test]
fn a_station_that_is_silent_is_forgotten_though_the_express_lane_carries_frames_to_it() {
    let alone = Alone::start(&options(Some(AGEING))).unwrap();
    let (near, far) = (alone.containers[0].station(), alone.station("b"));
    let (sender, frame) = (endpoint(&alone, 0), said(near, far, "anybody there?"));
    alone.wire("b").unwrap().send(&alone.tunnel("b").wrap(&said(far, near, "once"))).unwrap();
    let spoke = Instant::now();
    establish(&alone, &sender, &frame);
    let elsewhere = outside(&alone, "c", &frame);
    let lives = Duration::from_secs(AGEING.into());
    let flooded = || {
        sender.send(&frame).unwrap();
        (elsewhere.count() > 0).then(|| spoke.elapsed())
    };
    let after = await_value("a flood", LIMIT * 2, flooded, || alone.ask("fdb show").unwrap()).unwrap();
    // Nine eighths at most, and what a busy machine takes to look.
    assert!(after >= lives * 15 / 16 && after < lives * 9 / 8 + Duration::from_secs(1), "{after:?}");
}

#[test]
fn stations_that_speak_in_the_express_lane_alone_are_not_forgotten() {
    let alone = Alone::start(&options(Some(AGEING))).unwrap();
    let (near, far) = (alone.containers[0].station(), alone.station("b"));
    let (sender, wire) = (endpoint(&alone, 0), alone.wire("b").unwrap());
    let (there, back) = (said(near, far, "there"), said(far, near, "back"));
    let wrapped = alone.tunnel("b").wrap(&back);
    wire.send(&wrapped).unwrap();
    sender.send(&there).unwrap();
    establish(&alone, &sender, &there);
    establish(&alone, &wire, &wrapped);
    let strays = [outside(&alone, "c", &there), inside(&alone, 1, &back)];
    let (arrived, before) = ([outside(&alone, "b", &there), inside(&alone, 0, &back)], alone.asked().unwrap());
    let time = Amount::Time(Duration::from_secs(u64::from(AGEING) * 3));
    let [there, back] = std::thread::scope(|scope| {
        let back = scope.spawn(|| wire.cycle(std::slice::from_ref(&wrapped), Pace::Rate(500), time).unwrap());
        [sender.cycle(std::slice::from_ref(&there), Pace::Rate(500), time).unwrap(), back.join().unwrap()]
    });
    let asked = alone.asked().unwrap() - before;
    println!("{there} and {back} frames in three ageing times, of which workers saw {asked}");
    let expected = [(&arrived[0], there), (&arrived[1], back), (&strays[0], 0), (&strays[1], 0)];
    expect_counts(&expected, LIMIT).unwrap();
    // Each flow is confirmed twice in an eighth of the ageing time, and workers hear of little else.
    assert!((24..400).contains(&asked), "workers saw {asked} frames");
}

#[test]
fn what_is_still_to_be_segmented_confirms_a_flow_only_when_nothing_else_has_for_a_while() {
    const AGEING: u32 = 16;
    let alone = Alone::start(&options(Some(AGEING))).unwrap();
    let [near, other] = [0, 1].map(|number| alone.containers[number].station());
    endpoint(&alone, 1).send(&said(other, near, "here")).unwrap();
    let small = said(near, other, "small");
    establish(&alone, &endpoint(&alone, 0), &small);
    let sender = OffloadSender::open(alone.containers[0].ns(), "eth0").unwrap();
    let (long, segments) =
        (Talk::new(near, other).udp4(7, 9, &[0; 20_000]), Segments { kind: SegmentKind::Udp, size: 1_000 });
    let cut = Work { checksum: Some((34, 6)), segments: Some(segments) };
    let confirms = || alone.vtep.cli(&["express", "show", "--json"]).unwrap()["frames"]["confirms"].as_u64().unwrap();
    // Sends until so many confirmations more; returns when the last round began, and frames for workers.
    let until = |more: u64, with_small: bool| {
        let (before, asked) = (confirms(), alone.asked().unwrap());
        let round = || {
            let start = Instant::now();
            (0..50).for_each(|_| sender.send(&long, cut).unwrap());
            if with_small {
                sender.send(&small, Work::default()).unwrap();
            }
            (confirms() >= before + more).then_some(start)
        };
        let last = await_value("confirmations", LIMIT, round, || alone.ask("express show").unwrap()).unwrap();
        (last, alone.asked().unwrap() - asked, confirms() - before)
    };
    let (last, asked, confirmed) = until(2, true);
    assert_eq!(asked, confirmed, "a small one each time");
    let (_, asked, confirmed) = until(1, false);
    let (after, life) = (last.elapsed(), Duration::from_secs(AGEING.into()) / 8);
    println!("without small ones {asked} frames for {confirmed} confirmations, after {after:?}");
    assert_eq!(asked, confirmed * 20, "all segments of one");
    assert!(after >= life * 3 / 4, "{after:?} after the last");
}
