//! Real stacks behind the express lane's address translation: nothing odd for them, little for the
//! workers, and an end at once when something ends.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vxlane_tests::{
    netns::Netns,
    peer::{Vtep, VxlaneOptions},
    process::await_value,
    ways_out::{self, OUTSIDE, OUTSIDE_V6, PATIENCE, SERVER, SERVER_V6, WaysOut},
};

/// An internet protocol, with who speaks it.
struct Family {
    /// Its network, of which the first container has the address `inside`.
    network: &'static str,
    inside: IpAddr,
    /// Anybody's address.
    any: IpAddr,
    server: IpAddr,
    outside: IpAddr,
    /// Of `ip`.
    option: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        network: "blue",
        inside: IpAddr::V4(Ipv4Addr::new(10, 50, 0, 2)),
        any: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        server: IpAddr::V4(SERVER),
        outside: IpAddr::V4(OUTSIDE),
        option: "-4",
    },
    Family {
        network: "six",
        inside: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x60, 0, 0, 0, 0, 0, 2)),
        any: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        server: IpAddr::V6(SERVER_V6),
        outside: IpAddr::V6(OUTSIDE_V6),
        option: "-6",
    },
];

fn start(workers: u16) -> WaysOut {
    let rig = WaysOut::start(&VxlaneOptions { express: true, workers, ..VxlaneOptions::default() }).unwrap();
    rig.speak_v6().unwrap();
    let six = ["--vni", "6000", "--subnet6", "fd00:60::/64", "--gateway6", "fd00:60::1", "--json"];
    rig.vtep.cli(&[&["network", "create", "six"][..], &six].concat()).unwrap();
    rig
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn udp(ns: &Netns, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = at(address, port);
    let socket = ns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Packets of all sessions that are told of, as they are on the wire.
fn packets(rig: &WaysOut) -> u64 {
    let nat = rig.vtep.cli(&["nat", "show", "--json"]).unwrap();
    let of = |session: &Value| session["out_packets"].as_u64().unwrap() + session["back_packets"].as_u64().unwrap();
    nat["sessions"].as_array().unwrap().iter().map(of).sum()
}

/// Frames that workers have seen.
fn seen(rig: &WaysOut) -> u64 {
    rig.vtep.cli(&["stats", "--lane", "worker", "--json"]).unwrap()[0]["received"].as_u64().unwrap()
}

#[test]
fn many_downloads_and_an_upload_arrive_unchanged_and_workers_see_next_to_nothing_of_them() {
    for (workers, family) in [1, 2].into_iter().flat_map(|workers| FAMILIES.map(|family| (workers, family))) {
        let rig = start(workers);
        let web = rig.container(family.network, "web", &[]).unwrap();
        const LENGTH: usize = 1 << 20;
        let service = ways_out::serve(&rig.server, at(family.server, 0), |mut stream, _| {
            let mut seed = [0; 8];
            if stream.read_exact(&mut seed).is_ok() {
                // A client that has gone will say so itself.
                let _ = stream.write_all(&ways_out::bytes(u64::from_be_bytes(seed), LENGTH));
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).map(|_| stream.write_all(&rest));
            }
        });
        let service = service.unwrap();
        let streams: Vec<_> = (0..16).map(|_| ways_out::connect(&web, service).unwrap()).collect();
        let downloads = streams.into_iter().zip(0u64..).map(|(mut stream, seed)| {
            thread::spawn(move || {
                stream.write_all(&seed.to_be_bytes()).unwrap();
                let mut got = vec![0; LENGTH];
                stream.read_exact(&mut got).unwrap();
                assert!(got == ways_out::bytes(seed, LENGTH), "download {seed}");
                // Half closed, and the rest comes back.
                let data = ways_out::bytes(seed + 100, LENGTH / 4);
                stream.write_all(&data).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                assert!(back == data, "upload {seed}");
            })
        });
        downloads.collect::<Vec<_>>().into_iter().for_each(|download| download.join().unwrap());
        let (all, seen) = (packets(&rig), seen(&rig));
        println!("{}: {workers} workers saw {seen} of {all} packets", family.network);
        assert!(all > 16 * (LENGTH as u64 * 3 / 2) / 1448, "{all} packets");
        assert!(seen < all / 5, "{seen} of {all}");
    }
}

#[test]
fn every_datagram_of_a_long_talk_is_counted_and_few_come_to_a_worker() {
    let rig = start(1);
    let web = rig.container("blue", "web", &["--publish", "8053:53/udp"]).unwrap();
    let talks = FAMILIES.map(|family| {
        let inside = match family.network {
            "blue" => None,
            network => Some(rig.container(network, network, &[]).unwrap()),
        };
        let client = udp(inside.as_ref().unwrap_or(&web), family.any, 0);
        (udp(&rig.server, family.server, 0), client, family, inside)
    });
    let (caller, service) = (udp(&rig.server, SERVER, 0), udp(&web, Ipv4Addr::UNSPECIFIED, 53));
    let mut buffer = [0; 1500];
    for round in 0_u32..500 {
        let data = ways_out::bytes(round.into(), 1 + round as usize * 2);
        for (server, client, family, _) in &talks {
            client.send_to(&data, server.local_addr().unwrap()).unwrap();
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from.ip()), (&data[..], family.outside));
            server.send_to(&data, from).unwrap();
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&data[..], server.local_addr().unwrap()));
        }

        caller.send_to(&data, at(OUTSIDE, 8053)).unwrap();
        let (length, from) = service.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&data[..], caller.local_addr().unwrap()), "the client's own address");
        service.send_to(&data, from).unwrap();
        let (length, from) = caller.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&data[..], at(OUTSIDE, 8053)));
    }
    assert_eq!(packets(&rig), 3000);
    let seen = seen(&rig);
    assert!(seen < 200, "{seen}");
}

/// A server that sends numbered datagrams to an endpoint, for as long as the test goes on.
struct Chatter {
    next: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
}

impl Chatter {
    /// Has `client` ask, and the server answer with a datagram every tenth of a millisecond or so.
    fn start(rig: &WaysOut, family: &Family, client: &UdpSocket) -> Self {
        let server = udp(&rig.server, family.server, 0);
        client.send_to(b"begin", server.local_addr().unwrap()).unwrap();
        let (_, to) = server.recv_from(&mut [0; 16]).unwrap();
        let this = Self { next: Arc::default(), over: Arc::default() };
        let (next, over) = (Arc::clone(&this.next), Arc::clone(&this.over));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // The host says that nobody listens once the session has ended.
                let _ = server.send_to(&next.fetch_add(1, Ordering::SeqCst).to_be_bytes(), to);
                thread::sleep(Duration::from_micros(100));
            }
        });
        // Both ends have spoken, which opens the way back; an answer opens the way out.
        let mut buffer = [0; 4];
        client.recv_from(&mut buffer).unwrap();
        this
    }

    fn sent(&self) -> u32 {
        self.next.load(Ordering::SeqCst)
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The highest number that comes in until there is silence for a while.
fn last_heard(socket: &UdpSocket) -> Option<u32> {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut buffer, mut last) = ([0; 4], None);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end && socket.recv_from(&mut buffer).is_ok() {
        last = last.max(Some(u32::from_be_bytes(buffer)));
    }
    last
}

#[test]
fn nothing_sent_after_a_flush_has_returned_arrives() {
    let rig = start(1);
    for family in &FAMILIES {
        let web = rig.container(family.network, family.network, &[]).unwrap();
        let client = udp(&web, family.any, 0);
        let chatter = Chatter::start(&rig, family, &client);
        for _ in 0..100 {
            client.recv_from(&mut [0; 4]).unwrap();
        }
        let before = seen(&rig);
        for _ in 0..100 {
            client.recv_from(&mut [0; 4]).unwrap();
        }
        assert!(seen(&rig) - before < 50, "it took the express lane");
        rig.vtep.cli(&["nat", "flush", "--network", family.network, "--json"]).unwrap();
        let after = chatter.sent();
        let last = last_heard(&client).unwrap();
        assert!(last < after, "{last} came, {after} was next when the flush had returned");
    }
}

#[test]
fn sessions_are_shown_each_way_with_what_becomes_of_their_packets_and_decided_anew_after_a_flush() {
    let rig = start(1);
    for family in &FAMILIES {
        are_shown_and_decided_anew(&rig, family);
    }
}

fn are_shown_and_decided_anew(rig: &WaysOut, family: &Family) {
    let network = family.network;
    let web = rig.container(network, network, &[]).unwrap();
    let (server, client) = (udp(&rig.server, family.server, 0), udp(&web, family.any, 4000));
    let remote = server.local_addr().unwrap();
    let talk = || {
        client.send_to(b"question", remote).unwrap();
        let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
        server.send_to(b"answer", from).unwrap();
        client.recv_from(&mut [0; 16]).unwrap();
        from
    };
    let shown = || rig.vtep.cli(&["express", "show", "--network", network, "--json"]).unwrap()["sessions"].clone();
    let await_both = || {
        let both = || Some(talk()).filter(|_| shown().as_array().unwrap().len() == 2);
        await_value("a session each way", PATIENCE, both, || shown().to_string()).unwrap()
    };
    let (inside, outside) = (&*at(family.inside, 4000).to_string(), await_both().to_string());
    let status = rig.vtep.cli(&["status", "--json"]).unwrap();
    let port = |role: &str| {
        let mut ports = status["ports"].as_array().unwrap().iter();
        let is_its = |port: &&Value| port["role"] == role && (role == "uplink" || port["network"] == network);
        ports.find(is_its).unwrap()["interface"].clone()
    };
    let [access, uplink] = ["access", "uplink"].map(port);
    for (from, to, source, destination, new_source, new_destination) in [
        (&access, &uplink, inside, &*remote.to_string(), Some(&*outside), None),
        (&uplink, &access, &*remote.to_string(), &*outside, None, Some(inside)),
    ] {
        let shown = shown();
        let session = shown.as_array().unwrap().iter().find(|session| session["from"] == *from).unwrap();
        let rest = ["expires", "ages"].map(|name| session[name].as_u64().unwrap());
        let expected = json!({
            "network": network, "protocol": "udp", "worker": 0, "expires": rest[0], "ages": rest[1],
            "from": from, "source": source, "new_source": new_source,
            "to": to, "destination": destination, "new_destination": new_destination,
        });
        assert_eq!(*session, expected);
        assert!(rest[0] <= 30 && rest[1] > rest[0], "{rest:?}");
    }
    let flush = ["express", "flush", "--network", network, "--json"];
    assert_eq!(rig.vtep.cli(&flush).unwrap(), json!({ "flows": 0, "sessions": 2 }));
    assert_eq!(shown(), json!([]));
    assert_eq!(await_both().to_string(), outside, "the session itself goes on");
    rig.vtep.cli(&["nat", "flush", "--network", network, "--json"]).unwrap();
    assert_eq!(shown(), json!([]));
}

#[test]
fn sessions_go_on_when_the_pair_to_the_workers_is_made_anew() {
    let rig = start(1);
    let talks = FAMILIES.map(|family| {
        let inside = rig.container(family.network, family.network, &[]).unwrap();
        let bind = |ns: &Netns, address: IpAddr| {
            let socket = udp(ns, address, 0);
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket
        };
        (bind(&inside, family.any), bind(&rig.server, family.server))
    });
    // Where it is from, as the server sees it, once the answer has come back.
    let talk = |(client, server): &(UdpSocket, UdpSocket)| {
        client.send_to(b"question", server.local_addr().unwrap()).unwrap();
        let (_, from) = server.recv_from(&mut [0; 16]).ok()?;
        server.send_to(b"answer", from).unwrap();
        client.recv_from(&mut [0; 16]).ok().map(|_| from)
    };
    let said = || rig.vtep.diagnosis();
    let before = talks.each_ref().map(|both| await_value("an answer", PATIENCE, || talk(both), said).unwrap());
    let host = rig.host().ns();
    let punt = || -> Option<(u64, String)> {
        let punt = host.punt().unwrap()?;
        Some((punt["ifindex"].as_u64().unwrap(), punt["ifname"].as_str().unwrap().to_owned()))
    };
    let (old, name) = punt().unwrap();
    host.ip(&format!("link del {name}")).unwrap();
    await_value("another pair", PATIENCE, || punt().filter(|(index, _)| *index != old), said).unwrap();
    let after = talks.each_ref().map(|both| await_value("an answer again", PATIENCE, || talk(both), said).unwrap());
    assert_eq!(after, before, "by the ports that were lent before");
}

#[test]
fn who_gets_the_address_of_an_endpoint_that_is_gone_gets_nothing_of_its_sessions() {
    let rig = start(1);
    for (family, option) in FAMILIES.iter().zip(["--address", "--address6"]) {
        let web = rig.container(family.network, "web", &[]).unwrap();
        let client = udp(&web, family.any, 4000);
        let _chatter = Chatter::start(&rig, family, &client);
        for _ in 0..100 {
            client.recv_from(&mut [0; 4]).unwrap();
        }
        // This one prints nothing, which is no JSON.
        let _ = rig.vtep.cli(&["network", "disconnect", family.network, "--name", "web"]);
        let heir = rig.container(family.network, "heir", &[option, &family.inside.to_string()]).unwrap();
        assert_eq!(last_heard(&udp(&heir, family.any, 4000)), None);
    }
}

#[test]
fn a_route_that_is_taken_away_ends_what_the_lane_does_and_one_that_comes_back_begins_it_again() {
    let rig = start(1);
    for Family { network, any, server: address, option, .. } in FAMILIES {
        let web = rig.container(network, network, &[]).unwrap();
        let (server, client) = (udp(&rig.server, address, 0), udp(&web, any, 0));
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let reaches = || {
            // A refusal of the packet before is told with this one.
            let _ = client.send_to(b"question", server.local_addr().unwrap());
            let (_, from) = server.recv_from(&mut [0; 16]).ok()?;
            server.send_to(b"answer", from).ok()
        };
        for _ in 0..10 {
            reaches().unwrap();
        }
        for (change, wanted) in [("add", false), ("del", true)] {
            rig.host().ns().ip(&format!("{option} route {change} unreachable {address}")).unwrap();
            let done = || (reaches().is_some() == wanted).then_some(());
            await_value("packets follow the routes", PATIENCE, done, || format!("{change}: still {wanted}")).unwrap();
            assert_eq!(reaches().is_some(), wanted);
        }
    }
}
