//! Containers leave the overlay through the daemon's own address translation, and real stacks
//! at both ends see nothing odd.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use vxlane_tests::{
    netns::Netns,
    peer::VxlaneOptions,
    ways_out::{self, GATEWAY, OUTSIDE, PATIENCE, SERVER, WaysOut},
};

fn start() -> WaysOut {
    WaysOut::start(&VxlaneOptions::default()).unwrap()
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

fn udp(ns: &Netns, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(at(address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What one ping with this time to live is told, and by whom.
fn ping(ns: &Netns, to: Ipv4Addr, ttl: u8) -> String {
    let mut ping = ns.command("ping");
    ping.args(["-n", "-c", "1", "-W", "5", "-t", &ttl.to_string(), &to.to_string()]);
    String::from_utf8(ping.output().unwrap().stdout).unwrap()
}

/// The law of the counters holds and nothing was dropped for a reason that is not among `but`.
#[track_caller]
fn nothing_dropped_but(rig: &WaysOut, but: &[&str]) {
    let account = rig.vtep.account().unwrap();
    let drops = account.stats["drops"].as_object().unwrap();
    let others: Vec<_> = drops.iter().filter(|(reason, _)| !but.contains(&reason.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Drops that any container causes by itself: multicast to nobody, a neighbour not yet known.
const USUAL: &[&str] = &["no_receiver", "next_hop_unresolved"];

#[test]
fn tcp_udp_and_ping_go_out_with_the_hosts_address_and_come_back() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    let (told, seen) = mpsc::channel();
    let service = ways_out::serve(&rig.server, at(SERVER, 0), move |stream, from| {
        told.send(from).unwrap();
        ways_out::echo(stream, from);
    });
    let data = ways_out::bytes(1, 1 << 20);
    let mut stream = ways_out::connect(&web, service.unwrap()).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sent = data.clone();
    let writing = thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == data, "a mebibyte came back unchanged");
    let from = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(from.ip(), OUTSIDE);
    assert!(from.port() < 30_000 || from.port() > 61_000, "{from}");

    let (server, client) = (udp(&rig.server, SERVER, 0), udp(&web, Ipv4Addr::UNSPECIFIED, 0));
    client.send_to(b"question", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"question"[..], OUTSIDE.into()));
    server.send_to(b"answer", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], server.local_addr().unwrap()));

    let pong = ping(&web, SERVER, 64);
    assert!(pong.contains("1 received") && pong.contains("ttl=62"), "two routers on the way: {pong}");
    let nat = rig.vtep.cli(&["nat", "show", "--network", "blue", "--json"]).unwrap();
    let sessions = nat["sessions"].as_array().unwrap();
    let mut kinds: Vec<_> = sessions.iter().map(|session| session["protocol"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["icmp", "tcp", "udp"]);
    assert!(sessions.iter().all(|session| session["endpoint"] == "web" && session["network"] == "blue"));
    assert_eq!(rig.vtep.cli(&["nat", "flush", "--network", "blue", "--json"]).unwrap()["sessions"], 3);
    nothing_dropped_but(&rig, USUAL);
}

#[test]
fn every_hop_on_the_way_out_tells_its_name() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    let first = ping(&web, SERVER, 1);
    assert!(first.contains(&format!("From {GATEWAY}")) && first.contains("Time to live exceeded"), "{first}");
    let second = ping(&web, SERVER, 2);
    let router = rig.lab.host("R").address();
    assert!(second.contains(&format!("From {router}")) && second.contains("Time to live exceeded"), "{second}");
    let third = ping(&web, SERVER, 3);
    assert!(third.contains("1 received"), "{third}");
    let nobody = ping(&web, Ipv4Addr::new(198, 51, 100, 99), 64);
    assert!(nobody.contains("Destination Host Unreachable"), "the router's own error comes through: {nobody}");
}

#[test]
fn sixty_four_downloads_at_once_arrive_unchanged() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    const LENGTH: usize = 256 << 10;
    let service = ways_out::serve(&rig.server, at(SERVER, 0), |mut stream, _| {
        let mut seed = [0; 8];
        if stream.read_exact(&mut seed).is_ok() {
            // A client that has gone will say so itself.
            let _ = stream.write_all(&ways_out::bytes(u64::from_be_bytes(seed), LENGTH));
        }
    });
    let service = service.unwrap();
    let streams: Vec<_> = (0..64).map(|_| ways_out::connect(&web, service).unwrap()).collect();
    let downloads = streams.into_iter().zip(0u64..).map(|(mut stream, seed)| {
        thread::spawn(move || {
            stream.write_all(&seed.to_be_bytes()).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got == ways_out::bytes(seed, LENGTH)
        })
    });
    let downloads: Vec<_> = downloads.collect();
    assert!(downloads.into_iter().all(|download| download.join().unwrap()));
}

#[test]
fn the_mtu_of_a_hop_of_1280_bytes_is_found_out_through_the_translation() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    // By its route: a veth of 1280 bytes would not tell the server what it drops of its answers.
    rig.lab.host("R").ns().ip(&format!("route replace {SERVER}/32 dev s0 mtu 1280")).unwrap();
    let service = ways_out::serve(&rig.server, at(SERVER, 0), ways_out::echo).unwrap();
    ways_out::there_and_back(&web, service, 200_000);
    let route = web.ip(&format!("route get {SERVER}")).unwrap();
    assert!(route.contains("mtu 1280"), "the container was told: {route}");
}

#[test]
fn rfc4787_req13_a_datagrams_too_long_for_the_way_arrive_in_fragments_both_ways() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    let router = rig.lab.host("R").address();
    rig.host().ns().ip(&format!("route replace default via {router} mtu 1280")).unwrap();
    for ns in [&rig.server, &web] {
        // Sockets made from now on send without "don't fragment".
        ns.sysctl("net/ipv4/ip_no_pmtu_disc", "1").unwrap();
    }
    let (server, client) = (udp(&rig.server, SERVER, 0), udp(&web, Ipv4Addr::UNSPECIFIED, 0));
    let (question, answer) = (ways_out::bytes(1, 1400), ways_out::bytes(2, 1470));
    let mut buffer = vec![0; 2000];
    // The route is news to the daemon for a moment, in which only answers have to be cut.
    let cut = || rig.vtep.cli(&["stats", "--json"]).unwrap()["fragmented"].as_u64().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut before, mut in_round) = (cut(), 0);
    while in_round < 2 {
        assert!(Instant::now() < deadline, "the route's MTU is not seen");
        client.send_to(&question, server.local_addr().unwrap()).unwrap();
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == question, "{length} bytes, put together by the server's kernel");
        server.send_to(&answer, from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == answer && from == server.local_addr().unwrap(), "{length} bytes");
        let now = cut();
        (before, in_round) = (now, now - before);
    }
    assert_eq!(in_round, 2, "the question and the answer");
    nothing_dropped_but(&rig, USUAL);
}

#[test]
fn a_connection_can_be_closed_one_way_first_and_a_reset_gets_through() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    // The server sends only after the client has sent its end.
    let service = ways_out::serve(&rig.server, at(SERVER, 0), |mut stream, _| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(&all);
        }
    });
    let mut stream = ways_out::connect(&web, service.unwrap()).unwrap();
    stream.write_all(b"half").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "half");

    // Closing with unread bytes makes the kernel send a reset.
    let service = ways_out::serve(&rig.server, at(SERVER, 0), |mut stream, _| {
        let _ = stream.read_exact(&mut [0; 1]);
    });
    let mut stream = ways_out::connect(&web, service.unwrap()).unwrap();
    stream.write_all(&[1; 100]).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let refused = web.run(|| std::net::TcpStream::connect_timeout(&at(SERVER, 9), PATIENCE)).unwrap();
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_neighbour_that_the_host_does_not_know_is_found_while_the_packet_is_sent_again() {
    let rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    let router = rig.lab.host("R");
    rig.host().ns().ip("neigh flush dev uplink").unwrap();
    router.ns().ip("addr add 192.0.2.77/24 dev uplink").unwrap();
    let service = ways_out::serve(router.ns(), at(Ipv4Addr::new(192, 0, 2, 77), 0), ways_out::echo).unwrap();
    let before = Instant::now();
    let mut stream = ways_out::connect(&web, service).unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "with the first repetition, a second later");
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn f15_an_internal_network_has_no_way_out() {
    let rig = start();
    let options = ["--vni", "6000", "--subnet", "10.60.0.0/24", "--gateway", "10.60.0.1", "--internal", "--json"];
    rig.vtep.cli(&[&["network", "create", "inside"][..], &options].concat()).unwrap();
    let (db, other) = (rig.container("inside", "db", &[]).unwrap(), rig.container("inside", "other", &[]).unwrap());
    db.ip("route add default via 10.60.0.1").unwrap();
    assert!(ping(&db, Ipv4Addr::new(10, 60, 0, 3), 64).contains("1 received"), "its neighbour is there");
    for outside in [SERVER, OUTSIDE, rig.lab.host("R").address(), Ipv4Addr::new(10, 50, 0, 1)] {
        assert!(!ping(&db, outside, 64).contains("1 received"), "{outside}");
    }
    let service = ways_out::serve(rig.host().ns(), at(OUTSIDE, 0), ways_out::echo).unwrap();
    assert!(ways_out::connect(&db, service).is_err(), "nor any service of the host");
    db.ip("addr add 10.50.0.9/32 dev eth0").unwrap();
    let spoofed = db.command("ping").args(["-c", "1", "-W", "1", "-I", "10.50.0.9", &SERVER.to_string()]).output();
    assert!(!spoofed.unwrap().status.success());
    assert_eq!(rig.vtep.cli(&["nat", "show", "--json"]).unwrap()["sessions"], serde_json::json!([]));
    drop(other);
}
