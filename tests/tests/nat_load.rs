//! While the way out is busy, the host keeps its own traffic and endpoints keep theirs.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use vxlane_tests::{
    netns::Netns,
    peer::VxlaneOptions,
    soak,
    traffic::pace::{Amount, Pace},
    traffic::udp::{self, Sink, UdpOptions},
    ways_out::{self, OUTSIDE, PATIENCE, SERVER, WaysOut},
};

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

/// Sends a few bytes to an echo and wants them back, each time over a new connection.
fn talk(ns: &Netns, to: SocketAddr) {
    let mut stream = ways_out::connect(ns, to).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

fn bound(ns: &Netns, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind(at(address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Answers every datagram, for as long as somebody asks.
fn answer_all(ns: &Netns, address: Ipv4Addr, port: u16) {
    let socket = bound(ns, address, port);
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if socket.send_to(&buffer[..length], from).is_err() {
                return;
            }
        }
    });
}

fn ask(socket: &UdpSocket, to: SocketAddr) {
    let mut buffer = [0; 64];
    socket.send_to(b"question", to).unwrap();
    assert_eq!(socket.recv_from(&mut buffer).unwrap(), (8, to));
}

#[test]
fn the_hosts_own_services_and_questions_are_untouched_while_the_way_out_is_flooded() {
    let rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    let web = rig.container("blue", "web", &[]).unwrap();
    let (host, time) = (rig.host().ns(), soak::choose(Duration::from_secs(3), Duration::from_secs(60)));
    ways_out::serve(host, at(OUTSIDE, 22), ways_out::echo).unwrap();
    ways_out::serve(&rig.server, at(SERVER, 80), ways_out::echo).unwrap();
    answer_all(host, OUTSIDE, 53);
    answer_all(&rig.server, SERVER, 53);
    let sink = Sink::listen(&rig.server, SERVER).unwrap();
    let (from_outside, from_host) = (bound(&rig.server, SERVER, 0), bound(host, OUTSIDE, 0));
    let mut rounds = 0;
    let sent = thread::scope(|scope| {
        let options = UdpOptions { flows: 16, pace: Pace::Flood, amount: Amount::Time(time), ..UdpOptions::default() };
        let (web, target) = (&web, sink.address());
        let flood = scope.spawn(move || udp::send(web, target, &options).unwrap());
        let end = Instant::now() + time;
        while Instant::now() < end {
            talk(&rig.server, at(OUTSIDE, 22));
            talk(host, at(SERVER, 80));
            ask(&from_outside, at(OUTSIDE, 53));
            ask(&from_host, at(SERVER, 53));
            rounds += 1;
        }
        flood.join().unwrap()
    });
    let received = sink.packets();
    println!("{rounds} rounds of the host beside {} packets sent, {received} received", sent.packets);
    assert!(rounds >= 3 && received > 1000, "{rounds} rounds, {received} packets");
    assert_eq!(rig.vtep.account().unwrap().number(&["drops", "nat_no_session"]), 0, "nothing of the host was taken");
}

#[test]
fn f13_a_flood_of_new_sessions_from_one_endpoint_leaves_the_others_able_to_open() {
    let extra = "[nat]\nendpoint_limit = 500\n".to_owned();
    let rig = WaysOut::start(&VxlaneOptions { extra, ..VxlaneOptions::default() }).unwrap();
    let (bad, good) = (rig.container("blue", "bad", &[]).unwrap(), rig.container("blue", "good", &[]).unwrap());
    ways_out::serve(&rig.server, at(SERVER, 80), ways_out::echo).unwrap();
    let mut early = ways_out::connect(&bad, at(SERVER, 80)).unwrap();
    let socket = bound(&bad, Ipv4Addr::UNSPECIFIED, 0);
    for port in 1000..6000 {
        // A port that is closed, or one session too many: the kernel tells of it with the next call.
        while socket.send_to(b"x", at(SERVER, port)).is_err() {}
    }
    talk(&good, at(SERVER, 80));
    early.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    early.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here", "a session that exists goes on");
    let nat = rig.vtep.cli(&["nat", "show", "--json"]).unwrap();
    let of =
        |name: &str| nat["sessions"].as_array().unwrap().iter().filter(|session| session["endpoint"] == name).count();
    assert_eq!((of("bad"), of("good")), (500, 1));
    let refused = rig.vtep.account().unwrap().number(&["drops", "nat_endpoint_limit"]);
    // Some of the 5,000 come faster than their ring takes them.
    assert!(refused >= 1000, "{refused} of 5000");
}

#[test]
fn bad_settings_are_refused_with_field_value_and_reason() {
    for (extra, expected) in [
        ("[nat]\nports = \"80-90\"\n", "nat.ports = \"80-90\": ports below 1024 are those of the host's own services"),
        ("[nat]\nports = \"x\"\n", "nat.ports = \"x\": not a list of ports"),
        ("[nat.timeouts]\nudp = 30\n", "nat.timeouts.udp = 30: must be at least 120 (RFC 4787 REQ-5)"),
        ("[nat]\nendpoint_limit = 0\n", "nat.endpoint_limit = 0: nobody could leave"),
        ("[nat]\nclamp_mss = 100\n", "nat.clamp_mss = 100: every host can take 536 bytes"),
    ] {
        let options = VxlaneOptions { extra: extra.to_owned(), ..VxlaneOptions::default() };
        let error = WaysOut::start(&options).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    let create =
        ["network", "create", "in", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "--internal", "--json"];
    let error = rig.vtep.cli(&[&create[..], &["--nat", "masquerade"]].concat()).unwrap_err().to_string();
    assert!(error.contains("nat = \"masquerade\": an internal network has no way out"), "{error}");
}
