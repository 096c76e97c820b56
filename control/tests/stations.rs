//! Static stations, what was learned beside them, and the events of it all.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use rig::{Daemon, Home, Namespace, VXLANE};
use serde_json::{Value, json};

/// A host with an uplink `u0` at 192.0.2.1, and a network `blue` with one peer.
fn host() -> (Namespace, Home) {
    let host = Namespace::new();
    host.ip("link add u0 type veth peer name u1");
    host.ip("addr add 192.0.2.1/24 dev u0");
    host.ip("link set u0 up");
    host.ip("link set u1 up");
    let blue = "[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"192.0.2.2\"]\n";
    (host, Home::with(&format!("[underlay]\ninterface = \"u0\"\n{blue}")))
}

/// Runs `arguments`, and returns what they printed, or what was said against them.
fn run(home: &Home, arguments: &str) -> Result<String, String> {
    let output = home.ask(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn a_static_station_is_told_beside_those_that_were_learned_and_outlives_a_flush() {
    let (host, home) = host();
    let (web, _db) = (host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24"));
    let _daemon = Daemon::start(&host, &home);
    run(&home, "network connect blue --interface p0 --name web").unwrap();
    run(&home, "network connect blue --interface p1 --name db").unwrap();

    let add = "fdb add 02:00:00:00:00:0b --network blue --dst 192.0.2.2";
    assert_eq!(run(&home, add), Ok(String::new()));
    assert_eq!(run(&home, add), Ok(String::new()), "asking again changes nothing");
    run(&home, "fdb add 02:00:00:00:00:0c --network blue --dev p1").unwrap();
    let expected = "02:00:00:00:00:0b dst 192.0.2.2 self static\n02:00:00:00:00:0c dev p1 master static\n";
    let statics = || {
        let all = run(&home, "fdb show --network blue").unwrap();
        all.lines().filter(|line| line.ends_with("static")).map(|line| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(statics(), expected);

    assert!(web.pings("10.0.0.2", 2));
    assert!(home.json("fdb show").as_array().unwrap().iter().any(|station| station["state"] == ""));
    run(&home, "fdb flush --network blue").unwrap();
    assert_eq!(statics(), expected);

    run(&home, "fdb del 02:00:00:00:00:0b --network blue").unwrap();
    let gone = "vxlane: no such static station: blue/02:00:00:00:00:0b\n".to_owned();
    assert_eq!(run(&home, "fdb del 02:00:00:00:00:0b --network blue"), Err(gone));
    run(&home, "network disconnect blue --name db").unwrap();
    assert_eq!(statics(), "", "a station does not outlive its place");
}

#[test]
fn a_station_that_cannot_be_is_refused_with_the_reason() {
    let (host, home) = host();
    let _daemon = Daemon::start(&host, &home);
    run(&home, "fdb add 02:00:00:00:00:0b --network blue --dst 192.0.2.2").unwrap();
    for (arguments, reason) in [
        ("02:00:00:00:00:0c --network red --dst 192.0.2.2", "no such network: red"),
        ("02:00:00:00:00:0c --network blue --dst 192.0.2.3", "dst = 192.0.2.3: not a peer of network \"blue\""),
        (
            "02:00:00:00:00:0c --network blue --dev p9",
            "dev = \"p9\": no endpoint of network \"blue\" is on this interface",
        ),
        (
            "01:00:5e:00:00:01 --network blue --dst 192.0.2.2",
            "mac = 01:00:5e:00:00:01: not an address that a station can have",
        ),
        (
            "02:00:00:00:00:0b --network blue --dev p0",
            "mac = 02:00:00:00:00:0b: this station is known already, dst 192.0.2.2",
        ),
    ] {
        assert_eq!(run(&home, &format!("fdb add {arguments}")), Err(format!("vxlane: {reason}\n")));
    }
    let stations = home.json("fdb show");
    assert_eq!(stations.as_array().unwrap().len(), 1, "{stations}");
}

/// `vxlane events --follow`, ended when dropped.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_follows_events_hears_of_every_change_in_turn() {
    let (host, home) = host();
    let daemon = Daemon::start(&host, &home);
    run(&home, "network create red --vni 7").unwrap();
    let mut command = Command::new(VXLANE);
    command.arg("--socket").arg(home.path("s")).args(["events", "--follow", "--json"]).stdout(Stdio::piped());
    let mut follower = Follower(command.spawn().unwrap());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let mut event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event.as_object_mut().unwrap().remove("time").unwrap();
        event
    };
    assert_eq!(next(), json!({"sequence": 1, "event": "network_created", "network": "red", "vni": 7}));
    let web = Namespace::new();
    run(&home, &format!("network connect red --netns /run/netns/{} --name web --mac 02:00:00:00:00:0a", web.0))
        .unwrap();
    let connected = next();
    assert_eq!((&connected["event"], &connected["endpoint"]), (&json!("endpoint_connected"), &json!("web")));
    assert_eq!(connected["mac"], "02:00:00:00:00:0a");
    run(&home, "peer add 192.0.2.9 --network red").unwrap();
    run(&home, "peer add 192.0.2.9 --network red").unwrap();
    assert_eq!(next()["event"], "peer_added");
    run(&home, "peer del 192.0.2.9 --network red").unwrap();
    assert_eq!(next(), json!({"sequence": 4, "event": "peer_removed", "network": "red", "address": "192.0.2.9"}));
    run(&home, "network rm red").unwrap_err();
    run(&home, "network disconnect red --name web").unwrap();
    assert_eq!(next()["event"], "endpoint_disconnected", "and nothing of what was refused");
    run(&home, "network rm red").unwrap();
    assert_eq!(next()["event"], "network_removed");

    let late = run(&home, "events --after 4").unwrap();
    let words: Vec<&str> = late.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(words, ["endpoint_disconnected network red endpoint web", "network_removed network red"]);
    assert_eq!(daemon.terminate(), Some(0));
    assert!(lines.next().is_none_or(|line| line.is_err()), "the follower has ended with the daemon");
}
