//! What goes through address translation goes on while the daemon is replaced, or killed.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use vxlane_tests::{
    netns::Netns,
    peer::VxlaneOptions,
    ways_out::{self, OUTSIDE, PATIENCE, SERVER, SERVER_V6, WaysOut},
};

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn start() -> WaysOut {
    WaysOut::start(&VxlaneOptions::default()).unwrap()
}

/// Bytes of a download, sent no faster than takes this long.
const LENGTH: usize = 6 << 20;
const PIECES: usize = 300;
const PAUSE: Duration = Duration::from_millis(10);

/// A server of downloads that take some three seconds.
fn serve_slowly(ns: &Netns) -> SocketAddr {
    let serve = |mut stream: TcpStream, _| {
        for piece in ways_out::bytes(7, LENGTH).chunks(LENGTH.div_ceil(PIECES)) {
            if stream.write_all(piece).is_err() {
                return;
            }
            // The pace is what the test is about: it is to last longer than what happens meanwhile.
            thread::sleep(PAUSE);
        }
    };
    ways_out::serve(ns, at(SERVER, 0), serve).unwrap()
}

/// What the way out says of its sessions, but for what changes with time.
fn sessions(rig: &WaysOut) -> Vec<Value> {
    let nat = rig.vtep.cli(&["nat", "show", "--json"]).unwrap();
    let mut sessions = nat["sessions"].as_array().unwrap().clone();
    for session in &mut sessions {
        for changing in ["expires", "age", "out_packets", "out_bytes", "back_packets", "back_bytes", "worker"] {
            session[changing].take();
        }
    }
    sessions.sort_by_key(ToString::to_string);
    sessions
}

#[test]
fn f2_a_download_goes_on_byte_for_byte_through_planned_restarts_and_sessions_are_the_same() {
    let rig = start();
    let web = rig.container("blue", "web", &["--publish", "8080:80/tcp"]).unwrap();
    let service = serve_slowly(&rig.server);
    let echo = ways_out::serve(&web, at(Ipv4Addr::UNSPECIFIED, 80), ways_out::echo).unwrap();
    assert_eq!(echo.port(), 80);
    // Both ways: what the container has called, and what has called the container.
    let mut published = ways_out::connect(&rig.server, at(OUTSIDE, 8080)).unwrap();
    let talk = |stream: &mut TcpStream| {
        stream.write_all(b"still there?").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    };
    talk(&mut published);
    let mut download = ways_out::connect(&web, service).unwrap();
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        download.read_to_end(&mut got).map(|_| got)
    });
    let before = sessions(&rig);
    assert_eq!(before.len(), 2, "{before:?}");
    for _ in 0..2 {
        rig.vtep.restart().unwrap();
        assert_eq!(sessions(&rig), before);
        talk(&mut published);
    }
    assert!(!reading.is_finished(), "the restarts fell into the download");
    assert!(reading.join().unwrap().unwrap() == ways_out::bytes(7, LENGTH), "every byte, in order");
    let age = |nat: &Value| nat["sessions"][0]["age"].as_u64().unwrap();
    assert!(age(&rig.vtep.cli(&["nat", "show", "--json"]).unwrap()) >= 2, "sessions are as old as they were");
}

#[test]
fn f1_after_a_kill_what_was_established_for_some_seconds_goes_on() {
    let mut rig = start();
    let web = rig.container("blue", "web", &[]).unwrap();
    let service = ways_out::serve(&rig.server, at(SERVER, 0), ways_out::echo).unwrap();
    let mut stream = ways_out::connect(&web, service).unwrap();
    let client = web.run(|| UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    client.send_to(b"x", at(SERVER, 9)).unwrap();
    let before = sessions(&rig);
    // They are kept every five seconds; a log line would not say more than that it was tried.
    thread::sleep(Duration::from_secs(7));
    rig.kill_and_start_again().unwrap();
    assert_eq!(sessions(&rig), before);
    let start = Instant::now();
    stream.write_all(b"after").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn connections_over_ipv6_go_on_after_a_kill_and_through_a_planned_restart() {
    let mut rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    rig.speak_v6().unwrap();
    let six = ["--vni", "6006", "--subnet6", "fd00:60::/64", "--gateway6", "fd00:60::1", "--json"];
    rig.vtep.cli(&[&["network", "create", "six"], &six[..]].concat()).unwrap();
    let web = rig.container("six", "web", &[]).unwrap();
    let service = ways_out::serve(&rig.server, at(SERVER_V6, 0), ways_out::echo).unwrap();
    let mut stream = ways_out::connect(&web, service).unwrap();
    let client = web.run(|| UdpSocket::bind(at(Ipv6Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    client.send_to(b"x", at(SERVER_V6, 9)).unwrap();
    ways_out::until("both are known", || sessions(&rig).len() == 2);
    let before = sessions(&rig);
    // As above.
    thread::sleep(Duration::from_secs(7));
    rig.kill_and_start_again().unwrap();
    let mut goes_on = || {
        stream.write_all(b"still there?").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    };
    goes_on();
    assert_eq!(sessions(&rig), before);
    rig.vtep.restart().unwrap();
    goes_on();
    assert_eq!(sessions(&rig), before);
}
