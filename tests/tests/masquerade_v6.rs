//! Containers leave the overlay over IPv6, translated or with their own addresses, and real
//! stacks at both ends see nothing odd.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use vxlane_tests::{
    LabError,
    netns::Netns,
    peer::VxlaneOptions,
    ways_out::{self, OUTSIDE_V6, PATIENCE, ROUTER_V6, SERVER_V6, WaysOut, there_and_back},
};

const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x60, 0, 0, 0, 0, 0, 1);
/// The first container's address.
const WEB: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x60, 0, 0, 0, 0, 0, 2);

/// Everybody speaks IPv6, and the network `six` (fd00:60::/64) is there, with `options`.
fn start(options: &[&str]) -> WaysOut {
    let rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    rig.speak_v6().unwrap();
    network(&rig, "six", "fd00:60::", 6006, options).unwrap();
    rig
}

fn network(rig: &WaysOut, name: &str, prefix: &str, vni: u32, options: &[&str]) -> Result<(), LabError> {
    let (vni, subnet, gateway) = (vni.to_string(), format!("{prefix}/64"), format!("{prefix}1"));
    let create = ["network", "create", name, "--vni", &vni, "--subnet6", &subnet, "--gateway6", &gateway, "--json"];
    rig.vtep.cli(&[&create[..], options].concat()).map(drop)
}

fn at(address: Ipv6Addr, port: u16) -> SocketAddr {
    SocketAddrV6::new(address, port, 0, 0).into()
}

fn udp(ns: &Netns, address: Ipv6Addr) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(at(address, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What one ping with this hop limit is told, and by whom.
fn ping(ns: &Netns, to: Ipv6Addr, hops: u8) -> String {
    let mut ping = ns.command("ping");
    ping.args(["-6", "-n", "-c", "1", "-W", "5", "-t", &hops.to_string(), &to.to_string()]);
    String::from_utf8(ping.output().unwrap().stdout).unwrap()
}

#[test]
fn tcp_udp_and_ping_go_out_with_the_hosts_address_and_come_back() {
    let rig = start(&[]);
    let web = rig.container("six", "web", &[]).unwrap();
    let (told, seen) = mpsc::channel();
    let service = ways_out::serve(&rig.server, at(SERVER_V6, 0), move |stream, from| {
        told.send(from).unwrap();
        ways_out::echo(stream, from);
    });
    there_and_back(&web, service.unwrap(), 1 << 20);
    let from = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(from.ip(), OUTSIDE_V6);
    assert!(from.port() < 30_000 || from.port() > 61_000, "{from}");

    // Longer than a packet, so that fragments go out and come back.
    let question = ways_out::bytes(3, 3000);
    let (server, client) = (udp(&rig.server, SERVER_V6), udp(&web, Ipv6Addr::UNSPECIFIED));
    client.send_to(&question, server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 4096];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert!(buffer[..length] == question && from.ip() == OUTSIDE_V6, "{length} bytes from {from}");
    // The first answer comes in fragments too long for the network, which the server is told.
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let answers = (0..20).find_map(|_| {
        server.send_to(&question, from).unwrap();
        client.recv_from(&mut buffer).ok()
    });
    let (length, from) = answers.unwrap();
    assert!(buffer[..length] == question && from == server.local_addr().unwrap(), "{length} bytes from {from}");

    let pong = ping(&web, SERVER_V6, 64);
    assert!(pong.contains("1 received") && pong.contains("ttl=62"), "two routers on the way: {pong}");
    let nat = rig.vtep.cli(&["nat", "show", "--network", "six", "--json"]).unwrap();
    assert_eq!(nat["address6"], OUTSIDE_V6.to_string());
    let sessions = nat["sessions"].as_array().unwrap();
    let mut kinds: Vec<_> = sessions.iter().map(|session| session["protocol"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["icmp", "tcp", "udp"]);
    assert!(sessions.iter().all(|session| session["endpoint"] == "web" && session["network"] == "six"));
    let inside: SocketAddr = sessions[0]["inside"].as_str().unwrap().parse().unwrap();
    assert_eq!(inside.ip(), WEB);
    let flush = ["nat", "flush", "--network", "six", "--address", &WEB.to_string(), "--json"];
    assert_eq!(rig.vtep.cli(&flush).unwrap()["sessions"], 3);
    assert_eq!(rig.vtep.account().unwrap().stats["imbalance"], 0);
}

#[test]
fn every_hop_on_the_way_out_tells_its_name() {
    let rig = start(&[]);
    let web = rig.container("six", "web", &[]).unwrap();
    for (hops, router) in [(1, GATEWAY), (2, ROUTER_V6)] {
        let told = ping(&web, SERVER_V6, hops);
        assert!(told.contains(&format!("From {router}")) && told.contains("Hop limit"), "hop {hops}: {told}");
    }
    assert!(ping(&web, SERVER_V6, 3).contains("1 received"));
    let nobody = ping(&web, "2001:db8:51::99".parse().unwrap(), 64);
    assert!(nobody.contains("Address unreachable"), "the router's own error comes through: {nobody}");
}

#[test]
fn the_mtu_of_a_hop_of_1400_bytes_is_found_out_through_the_translation() {
    let rig = start(&[]);
    let web = rig.container("six", "web", &[]).unwrap();
    // The MTU of the link itself would have a veth drop what comes the other way and is longer.
    rig.lab.host("R").ns().ip("-6 route replace 2001:db8:51::/64 dev s0 metric 256 mtu lock 1400").unwrap();
    let service = ways_out::serve(&rig.server, at(SERVER_V6, 0), ways_out::echo).unwrap();
    there_and_back(&web, service, 200_000);
    let route = web.ip(&format!("-6 route get {SERVER_V6}")).unwrap();
    assert!(route.contains("mtu 1400"), "the container was told: {route}");
}

#[test]
fn sixteen_connections_at_once_and_iperf3_fare_well() {
    let rig = start(&[]);
    let web = rig.container("six", "web", &[]).unwrap();
    let service = ways_out::serve(&rig.server, at(SERVER_V6, 0), ways_out::echo).unwrap();
    thread::scope(|scope| {
        for number in 0..16 {
            let web = &web;
            scope.spawn(move || there_and_back(web, service, (64 << 10) + number));
        }
    });
    let mut server = rig.server.command("iperf3").args(["-s", "-1", "-p", "5206"]).spawn().unwrap();
    ways_out::until("iperf3 listens", || listens(&rig.server, 5206));
    let to = SERVER_V6.to_string();
    let client = web.command("iperf3").args(["-6", "-c", &to, "-p", "5206", "-n", "32M", "-P", "2", "-J"]).output();
    let told = String::from_utf8(client.unwrap().stdout).unwrap();
    assert!(server.wait().unwrap().success() && !told.contains("\"error\""), "{told}");
}

fn listens(ns: &Netns, port: u16) -> bool {
    let listeners = ns.command("ss").args(["-Hltn"]).output().unwrap();
    String::from_utf8(listeners.stdout).unwrap().contains(&format!(":{port} "))
}

#[test]
fn the_host_keeps_its_own_ipv6_and_is_found_by_its_neighbours() {
    let rig = start(&[]);
    let web = rig.container("six", "web", &[]).unwrap();
    assert!(ping(&web, SERVER_V6, 64).contains("1 received"));
    let (host, router) = (rig.host().ns(), rig.lab.host("R").ns());
    for _ in 0..3 {
        for ns in [host, router] {
            ns.ip("-6 neigh flush dev uplink").unwrap();
        }
        assert!(ping(router, OUTSIDE_V6, 64).contains("1 received"), "the router finds and reaches the host");
        assert!(ping(host, SERVER_V6, 64).contains("1 received"), "the host reaches the server");
    }
    let service = ways_out::serve(host, at(OUTSIDE_V6, 0), ways_out::echo).unwrap();
    there_and_back(&rig.server, service, 100_000);
    there_and_back(host, ways_out::serve(&rig.server, at(SERVER_V6, 0), ways_out::echo).unwrap(), 100_000);
}

#[test]
fn an_address_that_the_host_gets_later_opens_the_way_out() {
    let rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    network(&rig, "six", "fd00:60::", 6006, &[]).unwrap();
    let web = rig.container("six", "web", &[]).unwrap();
    assert!(!ping(&web, SERVER_V6, 64).contains("1 received"), "nobody speaks IPv6 yet");
    rig.speak_v6().unwrap();
    ways_out::until("the way out is open", || ping(&web, SERVER_V6, 64).contains("1 received"));
}

#[test]
fn a_routed_network_is_known_outside_by_its_own_addresses() {
    let rig = start(&["--nat6", "routed"]);
    let (web, db) = (rig.container("six", "web", &[]).unwrap(), rig.container("six", "db", &[]).unwrap());
    rig.lab.host("R").ns().ip(&format!("-6 route add fd00:60::/64 via {OUTSIDE_V6}")).unwrap();
    let (told, seen) = mpsc::channel();
    let service = ways_out::serve(&rig.server, at(SERVER_V6, 0), move |stream, from| {
        told.send(from).unwrap();
        ways_out::echo(stream, from);
    });
    there_and_back(&web, service.unwrap(), 1 << 20);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap().ip(), WEB);

    // The other way round, to whoever has called nobody.
    let inside: Ipv6Addr = "fd00:60::3".parse().unwrap();
    let service = ways_out::serve(&db, at(inside, 0), ways_out::echo).unwrap();
    there_and_back(&rig.server, service, 1 << 20);
    let pong = ping(&rig.server, inside, 64);
    assert!(pong.contains("1 received") && pong.contains("ttl=62"), "{pong}");
    let nobody = ping(&rig.server, "fd00:60::99".parse().unwrap(), 64);
    assert!(nobody.contains("Address unreachable"), "{nobody}");
    let told = ping(&rig.server, inside, 2);
    assert!(told.contains(&format!("From {GATEWAY}")) && told.contains("Hop limit"), "{told}");
    assert_eq!(rig.vtep.cli(&["nat", "show", "--json"]).unwrap()["sessions"], serde_json::json!([]));

    // The network is shorter than the underlay, and who sends too much into it is told.
    let mut long = rig.server.command("ping");
    long.args(["-6", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-M", "do", "-s", "1440", &inside.to_string()]);
    let told = long.output().unwrap();
    let told = [told.stdout, told.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("mtu=1450") || told.contains("mtu: 1450"), "{told}");
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    let rig = start(&["--internal"]);
    let (db, other) = (rig.container("six", "db", &[]).unwrap(), rig.container("six", "other", &[]).unwrap());
    db.ip(&format!("-6 route add default via {GATEWAY}")).unwrap();
    assert!(ping(&db, "fd00:60::3".parse().unwrap(), 64).contains("1 received"), "its neighbour is there");
    for outside in [SERVER_V6, OUTSIDE_V6, ROUTER_V6] {
        assert!(!ping(&db, outside, 64).contains("1 received"), "{outside}");
    }
    rig.lab.host("R").ns().ip(&format!("-6 route add fd00:60::/64 via {OUTSIDE_V6}")).unwrap();
    assert!(!ping(&rig.server, WEB, 64).contains("1 received"));
    drop(other);
    let refused = |options: &[&str], reason: &str| {
        let error = network(&rig, "more", "fd00:61::", 6007, options).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&["--internal", "--nat6", "routed"], "nat6 = \"routed\": an internal network has no way out");
    refused(&["--mtu", "1279"], "mtu = 1279: IPv6 needs at least 1280");
}
