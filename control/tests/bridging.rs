//! The gateway, ARP, guards and isolation, with the kernel's own stack in the containers.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use rig::{Daemon, Home, Namespace, ask as run, eventually, host};
use serde_json::Value;

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";
const GATEWAY_MAC: &str = "02:76:78:00:13:88";

/// A daemon with the network blue, VNI 5000, one peer, and `options`.
fn blue(options: &str) -> (Namespace, Home, Daemon) {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    let create = "network create blue --vni 5000 --subnet 10.50.0.0/24 --gateway 10.50.0.1 --peer 192.0.2.2";
    run(&home, &format!("{create} {options}"));
    (host, home, daemon)
}

/// A container on blue that speaks nothing but IPv4.
fn connect(home: &Home, name: &str) -> Namespace {
    let ns = Namespace::new();
    for interfaces in ["all", "default"] {
        let write = format!("echo 1 > /proc/sys/net/ipv6/conf/{interfaces}/disable_ipv6");
        assert!(ns.command("sh").args(["-c", &write]).status().unwrap().success());
    }
    run(home, &format!("network connect blue --netns /run/netns/{} --name {name}", ns.0));
    ns
}

fn drops(home: &Home, reason: &str) -> u64 {
    home.json("stats")["drops"][reason].as_u64().unwrap_or(0)
}

/// Frames that were, or would have been, sent to peers.
fn tunnelled(home: &Home) -> u64 {
    let stats = home.json("stats");
    let uplink = stats["ports"].as_array().unwrap().iter().find(|port| port["interface"] == "u0").unwrap().clone();
    uplink["tx_packets"].as_u64().unwrap() + stats["drops"]["next_hop_unresolved"].as_u64().unwrap_or(0)
}

/// The events of the kind `kind` so far.
fn events(home: &Home, kind: &str) -> Vec<Value> {
    let output = home.ask("events --json");
    let text = String::from_utf8(output.stdout).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == kind).collect()
}

#[test]
fn containers_reach_the_gateway_and_each_other_and_no_tunnel_carries_their_arp() {
    let (_host, home, _daemon) = blue("");
    let (web, db) = (connect(&home, "web"), connect(&home, "db"));
    assert!(web.pings("10.50.0.1", 5), "the gateway");
    assert!(web.ip("neigh show 10.50.0.1").contains(GATEWAY_MAC), "{}", web.ip("neigh"));
    assert!(web.pings("10.50.0.3", 5) && db.pings("10.50.0.2", 5));
    assert_eq!(tunnelled(&home), 0, "everything was known here");
    assert!(!web.pings("10.50.0.99", 1));
    assert!(tunnelled(&home) > 0, "nobody here knows 10.50.0.99");
    assert_eq!(home.json("stats")["imbalance"], 0);
}

#[test]
fn a_container_that_pretends_to_be_another_is_not_heard_and_is_told_of() {
    let (_host, home, _daemon) = blue("");
    let (web, db) = (connect(&home, "web"), connect(&home, "db"));
    web.ip("addr add 10.50.0.9/32 dev eth0");
    let mut ping = web.command("ping");
    let foreign = ping.args(["-q", "-c", "2", "-W", "1", "-I", "10.50.0.9", "10.50.0.3"]).output().unwrap();
    assert!(!foreign.status.success());
    assert!(drops(&home, "spoofed_address") > 0);
    web.ip("link set eth0 address 02:00:00:00:00:99");
    assert!(!web.pings("10.50.0.3", 1));
    assert!(drops(&home, "spoofed_mac") > 0);
    eventually("it is told", || {
        let told = events(&home, "frames_refused");
        told.len() == 1 && told[0]["reason"] == "spoofed_address"
    });
    assert!(db.pings("10.50.0.1", 2), "and nobody else is any the worse for it");
}

#[test]
fn isolated_containers_reach_the_gateway_alone() {
    let (_host, home, _daemon) = blue("--isolation");
    let (web, _db) = (connect(&home, "web"), connect(&home, "db"));
    assert!(web.pings("10.50.0.1", 3));
    assert!(!web.pings("10.50.0.3", 1));
    web.ip("neigh replace 10.50.0.3 lladdr 02:42:0a:32:00:03 dev eth0");
    assert!(!web.pings("10.50.0.3", 1), "nor by an address that it was not told");
    assert!(drops(&home, "isolated") > 0);
}

#[test]
fn two_containers_that_claim_one_address_are_found_out() {
    let (host, home, _daemon) = blue("");
    let claimants = [host.container("p0", "10.50.0.5/24"), host.container("p1", "10.50.0.5/24")];
    run(&home, "network connect blue --interface p0 --name c0");
    run(&home, "network connect blue --interface p1 --name c1");
    eventually("the conflict is told", || {
        for claimant in &claimants {
            claimant.ip("neigh flush dev eth0");
            claimant.pings("10.50.0.1", 1);
        }
        !events(&home, "address_conflict").is_empty()
    });
    let conflict = &events(&home, "address_conflict")[0];
    assert_eq!((conflict["network"].as_str(), conflict["address"].as_str()), (Some("blue"), Some("10.50.0.5")));
}

#[test]
fn whose_address_is_whose_is_told_with_how_that_is_known() {
    let (host, home, _daemon) = blue("");
    let _web = connect(&home, "web");
    let claimant = host.container("p0", "10.50.0.9/24");
    run(&home, "network connect blue --interface p0 --name plain");
    let _db = host.container("p1", "10.50.0.8/24");
    run(&home, "network connect blue --interface p1 --name db --address 10.50.0.8 --mac 02:00:00:00:00:08");
    assert!(claimant.pings("10.50.0.1", 1));
    let all = home.json("neigh show");
    let told: Vec<[&str; 3]> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| ["dst", "origin", "state"].map(|key| one[key].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ["10.50.0.1", "gateway", "permanent"],
            ["10.50.0.2", "endpoint", "permanent"],
            ["10.50.0.8", "static", "permanent"],
            ["10.50.0.9", "snooped", "reachable"],
        ]
    );
    let text = run(&home, "neigh show --network blue");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("10.50.0.1 lladdr {GATEWAY_MAC} router gateway PERMANENT"));
    assert_eq!(lines[2], "10.50.0.8 dev p1 lladdr 02:00:00:00:00:08 static PERMANENT");
    assert!(lines[3].starts_with("10.50.0.9 dev p0 lladdr ") && lines[3].ends_with(" snooped REACHABLE"));
    let statistics = run(&home, "neigh show -s");
    assert!(statistics.contains("10.50.0.9 network blue dev p0 lladdr ") && statistics.contains(" used "));
    assert_eq!(home.json("neigh show --network blue"), all);
    assert!(home.ask("neigh show --network red").stderr.starts_with(b"vxlane: no such network: red"));
    host.ip("link del p0");
    eventually("it goes with its port", || home.json("neigh show").as_array().unwrap().len() == 3);
}

#[test]
fn a_storm_is_cut_off_at_the_limit_of_its_network_and_no_other_notices() {
    let (_host, home, _daemon) = blue("--flood-limit 20");
    run(&home, "network create calm --vni 6000 --subnet 10.60.0.0/24");
    let (web, db) = (connect(&home, "web"), connect(&home, "db"));
    let ends = ["a", "b"].map(|name| {
        let ns = Namespace::new();
        run(&home, &format!("network connect calm --netns /run/netns/{} --name {name}", ns.0));
        ns
    });
    assert_eq!(home.json("network inspect blue")["flood_limit"], 20);
    let received = |ns: &Namespace| {
        let link: Value = serde_json::from_str(&ns.ip("-s -j link show eth0")).unwrap();
        link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let before = received(&db);
    let begin = std::time::Instant::now();
    let mut storm = web.command("ping");
    storm.args(["-q", "-b", "-f", "-w", "2", "10.50.0.255"]);
    let storm = std::thread::spawn(move || storm.output().unwrap());
    assert!(ends[0].pings("10.60.0.2", 20), "not of this network");
    let output = storm.join().unwrap();
    let seconds = begin.elapsed().as_secs() + 2;
    assert!(drops(&home, "flood_limit") > 0, "{}", String::from_utf8_lossy(&output.stdout));
    assert!(received(&db) - before <= 20 * seconds, "{} in {seconds} s", received(&db) - before);
    assert!(web.pings("10.50.0.3", 5), "known stations are reached");
}
