//! Peers over IPv6: addresses, next hops, MTU, and what is refused.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::collections::BTreeSet;

use rig::{Daemon, Home, Namespace, ask as run, ask_refused as refused, eventually, host};
use serde_json::{Value, json};

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";

/// A host whose uplink has an address of each family, and two more that nobody is to rely on.
fn host_of_both() -> Namespace {
    let host = host();
    host.ip("addr add 2001:db8::d1/64 dev u0 nodad preferred_lft 0");
    host.ip("addr add 2001:db8::1/64 dev u0 nodad");
    host.ip("addr add 2001:db8::d2/64 dev u0 nodad preferred_lft 0");
    host
}

fn link(namespace: &Namespace) -> Value {
    let links: Value = serde_json::from_str(&namespace.ip("-d -j link show eth0")).unwrap();
    links[0].clone()
}

fn peer(home: &Home, address: &str) -> Value {
    let peers = home.json("peer ls");
    peers.as_array().unwrap().iter().find(|peer| peer["address"] == address).unwrap().clone()
}

#[test]
fn a_network_with_a_peer_over_ipv6_has_an_mtu_of_1430_and_so_have_its_containers() {
    let host = host_of_both();
    let home = Home::with(UPLINK);
    let _daemon = Daemon::start(&host, &home);
    let [web, db] = [Namespace::new(), Namespace::new()];
    run(&home, "network create blue --vni 5000 --subnet 10.50.0.0/24 --peer 192.0.2.2");
    run(&home, &format!("network connect blue --netns /run/netns/{} --name web", web.0));
    assert_eq!((&link(&web)["mtu"], &link(&web)["gso_max_size"]), (&json!(1450), &json!(65_485)));
    run(&home, "peer add 2001:db8::2 --network blue");
    assert_eq!(home.json("network inspect blue")["mtu"], 1430);
    assert_eq!(link(&web)["mtu"], 1430, "the one that was there");
    run(&home, &format!("network connect blue --netns /run/netns/{} --name db", db.0));
    assert_eq!((&link(&db)["mtu"], &link(&db)["gso_max_size"]), (&json!(1430), &json!(65_465)));
    assert!(web.pings("10.50.0.2", 3));
    host.ip("link set u0 mtu 1400");
    eventually("it follows the uplink", || home.json("network inspect blue")["mtu"] == 1330);
    host.ip("link set u0 mtu 1500");
    eventually("and back", || home.json("network inspect blue")["mtu"] == 1430);
    run(&home, "peer del 2001:db8::2 --network blue");
    assert_eq!(home.json("network inspect blue")["mtu"], 1450);
    assert_eq!(link(&web)["mtu"], 1450);
    eventually("it is attached with larger frames", || web.pings("10.50.0.2", 1));
}

#[test]
fn next_hops_over_ipv6_are_neighbours_or_routers_and_are_followed() {
    let host = host_of_both();
    let home = Home::with(&format!("{UPLINK}[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"2001:db8::2\"]\n"));
    let _daemon = Daemon::start(&host, &home);
    let status = home.json("status");
    assert_eq!(status["underlay"]["address"], "192.0.2.1");
    assert_eq!(status["underlay"]["address_v6"], "2001:db8::1");
    assert!(run(&home, "status").contains("underlay u0 address 192.0.2.1,2001:db8::1 port 4789 mtu 1500"));
    assert_eq!(peer(&home, "2001:db8::2")["state"], "unresolved");
    host.ip("neigh replace 2001:db8::2 lladdr 02:00:00:00:00:02 dev u0");
    eventually("the neighbour", || peer(&home, "2001:db8::2")["mac"] == "02:00:00:00:00:02");
    run(&home, "peer add 2001:db8:1::9 --network blue");
    assert_eq!(peer(&home, "2001:db8:1::9")["state"], "unreachable");
    host.ip("neigh replace fe80::5 lladdr 02:00:00:00:00:05 dev u0");
    host.ip("route add 2001:db8:1::/64 via fe80::5 dev u0");
    eventually("the router", || {
        let peer = peer(&home, "2001:db8:1::9");
        peer["via"] == "fe80::5" && peer["mac"] == "02:00:00:00:00:05"
    });
    host.ip("route del 2001:db8:1::/64");
    eventually("it is gone", || peer(&home, "2001:db8:1::9")["state"] == "unreachable");
    run(&home, "fdb add 02:00:00:00:00:aa --network blue --dst 2001:db8::2");
    assert!(run(&home, "fdb show").contains("02:00:00:00:00:aa network blue dst 2001:db8::2 self static"));
}

#[test]
fn peers_that_cannot_be_are_refused_with_field_value_and_reason() {
    let host = host_of_both();
    let home = Home::with(&format!("{UPLINK}[[network]]\nname = \"blue\"\nvni = 5000\nmtu = 1450\n"));
    let _daemon = Daemon::start(&host, &home);
    let mtu =
        "network[0].mtu = 1450: with 70 bytes of tunnel headers it does not fit the MTU of u0, 1500; at most 1430";
    let check = |address: &str, expected: &[&str]| {
        let answer = refused(&home, &format!("peer add {address} --network blue"));
        let told: BTreeSet<&str> = answer.lines().map(|line| line.trim_start_matches("vxlane: ")).collect();
        assert_eq!(told, expected.iter().copied().collect(), "{address}");
    };
    check("2001:db8::1", &[mtu, "address = 2001:db8::1: this is our own VTEP address"]);
    let link_local = "address = fe80::2: a link-local address, which says nothing without its link; a global or unique \
                      local one is needed";
    check("fe80::2", &[mtu, link_local]);
    check("2001:db8::2", &[mtu]);
    let create = "network create red --vni 6000 --mtu 1431 --peer 2001:db8::2";
    let reason = "mtu = 1431: with 70 bytes of tunnel headers it does not fit the MTU of u0, 1500; at most 1430";
    assert_eq!(refused(&home, create), format!("vxlane: {reason}\n"));
}

#[test]
fn a_host_without_ipv6_says_so() {
    let host = host();
    let home = Home::with(&format!("{UPLINK}[[network]]\nname = \"blue\"\nvni = 5000\n"));
    let _daemon = Daemon::start(&host, &home);
    let reason = "address = 2001:db8::2: this VTEP has no IPv6 address; see `address` of [underlay]";
    assert_eq!(refused(&home, "peer add 2001:db8::2 --network blue"), format!("vxlane: {reason}\n"));
    assert_eq!(home.json("network inspect blue")["mtu"], 1450);
}

#[test]
fn a_peer_over_ipv6_leaves_the_express_lane_open() {
    let host = host_of_both();
    let home =
        Home::with(&format!("{UPLINK}[dataplane]\nexpress = \"auto\"\n[[network]]\nname = \"blue\"\nvni = 5000\n"));
    let _daemon = Daemon::start(&host, &home);
    assert_eq!(home.json("status")["express"], "on");
    run(&home, "peer add 2001:db8::2 --network blue");
    assert_eq!(peer(&home, "2001:db8::2")["networks"], json!(["blue"]));
    assert_eq!(home.json("status")["express"], "on");
}
