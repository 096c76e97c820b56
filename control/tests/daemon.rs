//! A daemon's life in namespaces: it forwards, answers, and leaves nothing behind.
//!
//! Needs root.

mod rig;

use rig::{Daemon, Home, Namespace, eventually};
use serde_json::{Value, json};

/// A host with an uplink `u0` at 192.0.2.`number` on a wire to `other`.
fn wire(a: &Namespace, b: &Namespace) {
    a.ip(&format!("link add u0 type veth peer name u0 netns {}", b.0));
    for (host, address) in [(a, "192.0.2.1/24"), (b, "192.0.2.2/24")] {
        host.ip(&format!("addr add {address} dev u0"));
        host.ip("link set u0 up");
    }
}

fn config(peer: &str, endpoints: &[&str]) -> String {
    let endpoint = |name: &&str| format!("[[endpoint]]\nnetwork = \"blue\"\ninterface = \"{name}\"\n");
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!(
        "[underlay]\ninterface = \"u0\"\n[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"{peer}\"]\n{endpoints}"
    )
}

/// The links of `host` without what changes by itself.
#[expect(clippy::unwrap_used, reason = "what `ip -j` prints is JSON")]
fn links(host: &Namespace) -> Value {
    serde_json::from_str(&host.ip("-d -j link")).unwrap()
}

#[test]
fn endpoints_of_one_host_reach_each_other_and_interfaces_are_left_as_found() {
    let (host, other) = (Namespace::new(), Namespace::new());
    wire(&host, &other);
    let (web, db) = (host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24"));
    let before = links(&host);
    let home = Home::with(&config("192.0.2.2", &["p0", "p1"]));
    let daemon = Daemon::start(&host, &home);
    assert_eq!(daemon.ready, "vxlane: ready, 1 networks, 2 endpoints, uplink u0 express copy\n");
    assert!(web.pings("10.0.0.2", 5));
    assert!(db.pings("10.0.0.1", 5));
    assert!(host.pings("192.0.2.2", 2), "the uplink stays the host's");

    let status = home.json("status");
    assert_eq!(status["ports"][0]["role"], "uplink");
    assert_eq!(status["ports"][1]["xdp"], "express");
    assert_eq!(home.json("network ls")[0]["endpoints"], json!(["p0", "p1"]));
    assert_eq!(home.json("endpoint ls")[1]["vni"], 5000);
    let stations = home.json("fdb show --network blue");
    let devices: Vec<_> =
        stations.as_array().unwrap().iter().map(|station| station["ifname"].as_str().unwrap()).collect();
    assert_eq!((devices.contains(&"p0"), devices.contains(&"p1"), devices.len()), (true, true, 2));
    let stats = home.json("stats");
    assert_eq!(stats["imbalance"], 0);
    assert!(stats["received"].as_u64().unwrap() >= 20, "{stats}");
    eventually("the peer's next hop is resolved", || home.json("peer ls")[0]["state"] == "resolved");
    let refused = home.ask("fdb show --network green");
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "vxlane: no such network: green\n");

    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(links(&host), before);
}

#[test]
fn two_hosts_are_one_network_however_late_the_second_comes() {
    let (a, b) = (Namespace::new(), Namespace::new());
    wire(&a, &b);
    b.ip("link set u0 down");
    let (near, far) = (a.container("p0", "10.0.0.1/24"), b.container("p0", "10.0.0.2/24"));
    let (home_a, home_b) = (Home::with(&config("192.0.2.2", &["p0"])), Home::with(&config("192.0.2.1", &["p0"])));
    let daemon_a = Daemon::start(&a, &home_a);
    assert_ne!(home_a.json("peer ls")[0]["state"], "resolved");
    b.ip("link set u0 up");
    let daemon_b = Daemon::start(&b, &home_b);
    for home in [&home_a, &home_b] {
        eventually("the peer's next hop is resolved", || home.json("peer ls")[0]["state"] == "resolved");
    }
    assert!(near.pings("10.0.0.2", 10));
    let stations = home_a.json("fdb show");
    assert!(stations.as_array().unwrap().iter().any(|station| station["dst"] == "192.0.2.2"), "{stations}");
    assert!(far.pings("10.0.0.1", 10));

    // Another MAC address at the same place, as after a failover.
    b.ip("link set u0 address 02:00:00:00:00:99");
    a.ip("neigh del 192.0.2.2 dev u0");
    eventually("the new address is known", || home_a.json("peer ls")[0]["mac"] == "02:00:00:00:00:99");
    eventually("frames pass again", || near.pings("10.0.0.2", 3));
    for daemon in [daemon_a, daemon_b] {
        assert_eq!(daemon.terminate(), Some(0));
    }
}
