//! Networks and endpoints come and go while the daemon runs.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use rig::{Daemon, Home, Namespace, ask as run, ask_refused as refused, eventually, host};
use serde_json::{Value, json};

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";

/// The links of `host`, by what does not change by itself.
fn links(host: &Namespace) -> Value {
    serde_json::from_str(&host.ip("-d -j link")).unwrap()
}

#[test]
fn a_container_is_connected_with_address_route_and_mtu_and_disconnected_without_a_trace() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    let before = links(&host);
    let (web, db) = (Namespace::new(), Namespace::new());
    let create = "network create blue --vni 5000 --subnet 10.50.0.0/24 --gateway 10.50.0.1 --peer 192.0.2.2";
    assert_eq!(run(&home, create), "blue\n");
    assert_eq!(run(&home, create), "blue\n", "asking again changes nothing");
    let connect =
        |name: &str, ns: &Namespace| format!("network connect blue --netns /run/netns/{} --name {name}", ns.0);
    assert!(run(&home, &connect("web", &web)).ends_with(" 10.50.0.2\n"));
    assert!(run(&home, &connect("db", &db)).ends_with(" 10.50.0.3\n"));
    assert!(run(&home, &connect("db", &db)).ends_with(" 10.50.0.3\n"), "the same again");

    let link: Value = serde_json::from_str(&web.ip("-d -j link show eth0")).unwrap();
    assert_eq!((&link[0]["mtu"], &link[0]["address"]), (&json!(1450), &json!("02:42:0a:32:00:02")));
    assert_eq!(link[0]["gso_max_size"], 65_485);
    assert!(web.ip("route").contains("default via 10.50.0.1 dev eth0"), "{}", web.ip("route"));
    assert!(web.ip("addr show dev eth0").contains("inet 10.50.0.2/24 brd 10.50.0.255"));
    assert!(web.pings("10.50.0.3", 5));

    let endpoint = home.json("endpoint inspect blue --name web");
    assert_eq!((&endpoint["state"], &endpoint["owner"]), (&json!("attached"), &json!("api")));
    assert_eq!(home.json("network inspect blue")["endpoints"], json!(["web", "db"]));
    assert!(refused(&home, "network rm blue").contains("has endpoints: web, db"));

    run(&home, "network disconnect blue --name web");
    assert!(!web.ip("link").contains("eth0"));
    assert!(refused(&home, "network disconnect blue --name web").contains("no such endpoint: blue/web"));
    // What was released just now is not given out again at once.
    assert!(run(&home, &connect("web", &web)).ends_with(" 10.50.0.4\n"));
    run(&home, "network disconnect blue --name web");
    run(&home, "network disconnect blue --name db");
    run(&home, "network rm blue");
    assert_eq!(links(&host), before);
    assert_eq!(home.json("network ls"), json!([]));
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn an_existing_device_is_connected_and_left_as_it_was_found() {
    let host = host();
    let home = Home::with(&format!("{UPLINK}[[network]]\nname = \"blue\"\nvni = 5000\n"));
    let (web, db) = (host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24"));
    let before = links(&host);
    let daemon = Daemon::start(&host, &home);
    run(&home, "network connect blue --interface p0 --name web");
    run(&home, "network connect blue --interface p1 --name db");
    assert!(web.pings("10.0.0.2", 5));
    assert!(refused(&home, "network connect blue --interface p1 --name db2").contains("interface = \"p1\": also"));
    run(&home, "network disconnect blue --name web");
    assert!(!db.pings("10.0.0.1", 1));
    run(&home, "network disconnect blue --name db");
    assert_eq!(home.json("stats")["imbalance"], 0);
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(links(&host), before);
}

#[test]
fn peers_come_and_go() {
    let host = host();
    let home = Home::with(&format!("{UPLINK}[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"192.0.2.9\"]\n"));
    let _daemon = Daemon::start(&host, &home);
    run(&home, "peer add 192.0.2.2 --network blue");
    run(&home, "peer add 192.0.2.2 --network blue");
    assert_eq!(home.json("network inspect blue")["peers"], json!(["192.0.2.9", "192.0.2.2"]));
    host.ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev u0");
    eventually("its next hop is known", || {
        home.json("peer ls").as_array().unwrap().iter().any(|peer| peer["mac"] == "02:00:00:00:00:02")
    });
    run(&home, "peer del 192.0.2.2 --network blue");
    assert!(refused(&home, "peer del 192.0.2.2 --network blue").contains("no such peer: blue/192.0.2.2"));
    let owned = "peer blue/192.0.2.9 comes from the configuration file; change it there and reload";
    assert!(refused(&home, "peer del 192.0.2.9 --network blue").contains(owned));
    let own = "vxlane: address = 192.0.2.1: this is our own VTEP address\n";
    assert_eq!(refused(&home, "peer add 192.0.2.1 --network blue"), own);
}
