//! The express lane as people see it: counted with the other, shown with its flows, chosen per network.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use rig::{
    Daemon, Home, Namespace, ask, ask_refused, eventually, host, inside, request, run,
    two::{Two, config},
};
use serde_json::Value;

/// Sends so many bytes in one stream, and returns when all have arrived.
fn stream(from: &Namespace, to: &Namespace, address: &str, bytes: usize) {
    let target = format!("{address}:7701");
    let listener = inside(to, {
        let target = target.clone();
        move || TcpListener::bind(target).unwrap()
    });
    let mut sender = inside(from, move || TcpStream::connect(target).unwrap());
    let sending = thread::spawn(move || sender.write_all(&vec![0x5a; bytes]).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    let mut rest = Vec::new();
    receiver.read_to_end(&mut rest).unwrap();
    sending.join().unwrap();
    assert_eq!(rest.len(), bytes);
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value}"))
}

fn port<'a>(stats: &'a Value, interface: &str) -> &'a Value {
    stats["ports"].as_array().unwrap().iter().find(|port| port["interface"] == interface).unwrap()
}

/// What both lanes have counted together and each, of the same frames: the end of a connection may
/// still be on its way, and neighbours are looked for at any time.
fn counted(home: &Home) -> (Value, Value) {
    let mut found = None;
    eventually("nothing comes in between two questions", || {
        let (stats, lanes) = (home.json("stats"), home.json("stats --lane"));
        let is_still = home.json("stats")["received"] == stats["received"];
        found = is_still.then_some((stats, lanes));
        is_still
    });
    found.unwrap()
}

/// Headers of a segment of TCP over IPv4 with time stamps.
const HEADERS: u64 = 14 + 20 + 32;
const STREAM: usize = 16 << 20;
/// The payload of one, of a packet of 1,450 bytes.
const SEGMENT: u64 = 1450 - 20 - 32;

/// Segments of TCP that a container has sent again, by its kernel's account.
fn sent_again(container: &Namespace) -> u64 {
    let counters = run(container.command("cat").arg("/proc/net/snmp"));
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    columns.find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
}

#[test]
fn counters_of_both_lanes_are_one_and_a_frame_that_is_segmented_later_counts_as_its_segments() {
    let rig = Two::new("");
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    stream(&rig.blue[0], &rig.blue[1], "10.0.0.2", STREAM);
    let again = sent_again(&rig.blue[0]);
    for (side, came_in, left) in [(0, "b0", "u0"), (1, "u0", "b0")] {
        let (stats, lanes) = counted(&rig.homes[side]);
        let lane = |index: usize, path: &str| number(&lanes, &format!("/{index}{path}"));
        assert_eq!((lanes[0]["lane"].as_str(), lanes[1]["lane"].as_str()), (Some("worker"), Some("express")));
        for law in [&stats, &lanes[0], &lanes[1]] {
            assert_eq!(law["imbalance"], 0, "{law}");
        }
        for what in ["received", "transmitted", "dropped"] {
            let path = format!("/{what}");
            assert_eq!(number(&stats, &path), lane(0, &path) + lane(1, &path), "{what}");
        }
        // Nothing is on its way any more: what came in at some port has left by another.
        let sum = |direction: &str| -> u64 {
            lanes[1]["ports"].as_array().unwrap().iter().map(|port| number(port, direction)).sum()
        };
        assert_eq!((sum("/rx_packets"), sum("/tx_packets")), (lane(1, "/received"), lane(1, "/transmitted")));
        let (inward, outward) = (port(&stats, came_in), port(&stats, left));
        let tunnel = if side == 0 { 0 } else { 50 };
        let (packets, bytes) = (number(inward, "/rx_packets"), number(inward, "/rx_bytes"));
        let payload = bytes - packets * (HEADERS + tunnel);
        // Beside the stream there are some pings, and what the connection's begin and end take.
        let most = STREAM as u64 + again * SEGMENT + 100_000;
        assert!((STREAM as u64..most).contains(&payload), "{payload}, {again} segments again, in {inward}");
        assert!(packets >= STREAM as u64 / 1400, "{inward}");
        assert!(lane(1, "/received") * 10 > number(&stats, "/received") * 9, "mostly express: {lanes}");
        let (out_packets, out_bytes) = (number(outward, "/tx_packets"), number(outward, "/tx_bytes"));
        let difference = out_bytes.abs_diff(bytes);
        assert!(
            difference.abs_diff(50 * packets) < 50 * 100 && out_packets.abs_diff(packets) < 100,
            "{inward} {outward}"
        );
        let text = ask(&rig.homes[side], "stats --lane express");
        assert!(text.starts_with("express: received ") && text.contains("(balanced)"), "{text}");
    }
    let (_, metrics) = request(&rig.homes[0], "GET", "/metrics", "");
    let total = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(total("vxlane_network_received_bytes_total{network=\"blue\"}") >= STREAM as f64);
    assert!(total("vxlane_lane_received_frames_total{lane=\"express\"}") >= STREAM as f64 / 1500.0);
}

#[test]
fn flows_are_shown_with_their_way_and_flushed_and_a_network_can_stay_with_the_workers() {
    let rig = Two::new("");
    for (side, peer) in [(0, 2), (1, 1)] {
        ask(&rig.homes[side], &format!("network create green --vni 6000 --express off --peer 192.0.2.{peer}"));
        assert_eq!(rig.homes[side].json("network inspect green")["express"], "off");
    }
    let green = [rig.hosts[0].container("g0", "10.0.0.1/24"), rig.hosts[1].container("g0", "10.0.0.2/24")];
    for home in &rig.homes {
        ask(home, "network connect green --interface g0 --name g0");
    }
    let complaint = ask_refused(&rig.homes[0], "network create green --vni 6000 --peer 192.0.2.2");
    assert!(complaint.contains("network green exists, with off"), "{complaint}");
    assert!(rig.blue[0].pings("10.0.0.2", 5) && green[0].pings("10.0.0.2", 5));
    let flows = rig.flows(0, "blue");
    let outward = flows.iter().find(|flow| flow["dst_vtep"] == "192.0.2.2").unwrap();
    assert_eq!(
        (&outward["from"], &outward["to"], &outward["address"]),
        (&"b0".into(), &"u0".into(), &"10.0.0.1".into())
    );
    let inward = flows.iter().find(|flow| flow["src_vtep"] == "192.0.2.2").unwrap();
    assert_eq!(
        (&inward["from"], &inward["to"], &inward["source"]),
        (&"u0".into(), &"b0".into(), &outward["destination"])
    );
    assert!(
        (1..=30).contains(&number(outward, "/expires")) && (250..=300).contains(&number(outward, "/ages")),
        "{outward}"
    );
    assert_eq!(rig.flows(0, "green"), Vec::<Value>::new());
    let status = rig.homes[0].json("status");
    let why = |interface: &str| {
        let port = status["ports"].as_array().unwrap().iter().find(|port| port["interface"] == interface).unwrap();
        (port["lane"].clone(), port["why"].clone())
    };
    assert_eq!(why("b0"), ("express".into(), Value::Null));
    assert_eq!(why("g0"), ("worker".into(), "express is off for network green".into()));
    // The frames of all ports are those of the rings behind the lane.
    let is_ring = |frames: &Value| frames["interface"].as_str().unwrap().starts_with("vxr");
    assert!(status["frames"].as_array().unwrap().iter().all(is_ring), "{}", status["frames"]);

    let count = flows.len();
    assert_eq!(ask(&rig.homes[0], "express flush --network green"), "0\n");
    assert_eq!(rig.flows(0, "blue").len(), count, "those of another network stay");
    assert_eq!(ask(&rig.homes[0], "express flush"), format!("{count}\n"));
    assert_eq!(rig.flows(0, "blue"), Vec::<Value>::new());
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    eventually("flows are back with the traffic", || rig.flows(0, "blue").len() == count);
    // What a station's place was learned from is gone, and with it what was decided by it.
    ask(&rig.homes[0], "fdb flush --network blue");
    assert_eq!(rig.flows(0, "blue"), Vec::<Value>::new());
    assert!(ask_refused(&rig.homes[0], "express show --network none").contains("no such network: none"));
}

#[test]
fn a_way_out_for_ipv6_comes_and_goes_while_the_lane_is_open() {
    let host = host();
    host.ip("addr add 2001:db8::1/64 dev u0 nodad");
    let home = Home::with(&config(2, ""));
    let _container = host.container("b0", "10.0.0.1/24");
    let _daemon = Daemon::start(&host, &home);
    ask(&home, "network create six --vni 6000 --subnet6 fd00:60::/64 --gateway6 fd00:60::1");
    assert_eq!(home.json("express show")["open"], true);
    assert_eq!(home.json("nat show")["address6"], "2001:db8::1");
    ask(&home, "network rm six");
    assert_eq!(home.json("nat show")["address6"], Value::Null);
    assert_eq!(home.json("express show")["open"], true);
}

#[test]
fn a_lane_that_cannot_be_had_keeps_no_daemon_from_its_work_and_is_there_as_soon_as_it_can_be() {
    let host = host();
    let containers = [1, 2].map(|number| host.container(&format!("b{}", number - 1), &format!("10.0.0.{number}/24")));
    let links: Value = serde_json::from_str(&host.ip("-j link show u0")).unwrap();
    let theirs = format!("vxp{}", links[0]["ifindex"]);
    host.ip(&format!("link add {theirs} type veth peer name other"));
    let home = Home::with(&config(2, ""));
    let _daemon = Daemon::start(&host, &home);
    ask(&home, "network connect blue --interface b1 --name b1");
    assert_eq!(home.json("status")["express"], "off: it could not be made so far");
    assert!(containers[0].pings("10.0.0.2", 3));
    host.ip(&format!("link del {theirs}"));
    eventually("there is a lane", || home.json("status")["express"] == "on");
    let in_lane = || home.json("status")["ports"].as_array().unwrap().iter().all(|port| port["lane"] == "express");
    eventually("everything is in it", in_lane);
    assert!(containers[0].pings("10.0.0.2", 3));
}

#[test]
fn where_there_is_no_lane_the_reason_is_told() {
    let host = host();
    let home = Home::with(&config(2, "").replace("auto", "off"));
    let _container = host.container("b0", "10.0.0.1/24");
    let _daemon = Daemon::start(&host, &home);
    let shown = home.json("express show");
    assert_eq!((&shown["open"], &shown["why"], &shown["choice"]), (&false.into(), &"it is off".into(), &"off".into()));
    assert_eq!(shown["devices"][0]["lane"], "worker");
    let text = ask(&home, "express");
    assert!(text.starts_with("express off, not there: it is off\n"), "{text}");
    assert_eq!(ask(&home, "express flush"), "0\n");
    assert!(ask(&home, "status").contains("worker: it is off"));
}
