//! Of several networks a container leaves by the gateway with the highest priority.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use rig::{Daemon, Home, Namespace, ask, host};

/// The default routes of a container: `via` and `dev` of each.
fn doors(container: &Namespace) -> Vec<String> {
    listed(&container.ip("route show default"))
}

/// The same for IPv6.
fn doors_v6(container: &Namespace) -> Vec<String> {
    listed(&container.ip("-6 route show default"))
}

fn listed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().skip(1).take(4).collect::<Vec<_>>().join(" ")).collect()
}

fn connect(home: &Home, network: &str, container: &Namespace, ifname: &str, more: &str) {
    let netns = format!("/run/netns/{}", container.0);
    ask(home, &format!("network connect {network} --netns {netns} --ifname {ifname} --name web {more}"));
}

fn rig() -> (Namespace, Home) {
    let home = Home::with("[underlay]\ninterface = \"u0\"\n");
    (host(), home)
}

fn create(home: &Home, network: &str, number: u8, more: &str) {
    let (subnet, gateway) = (format!("10.{number}.0.0/24"), format!("10.{number}.0.1"));
    ask(home, &format!("network create {network} --vni {number} --subnet {subnet} --gateway {gateway} {more}"));
}

#[test]
fn the_default_route_leads_to_the_gateway_of_the_highest_priority_and_moves_with_it() {
    let (host, home) = rig();
    let _daemon = Daemon::start(&host, &home);
    for (network, number, more) in [("blue", 50, ""), ("red", 60, ""), ("amber", 70, ""), ("inside", 80, "--internal")]
    {
        create(&home, network, number, more);
    }
    let web = Namespace::new();
    connect(&home, "blue", &web, "eth0", "");
    assert_eq!(doors(&web), ["via 10.50.0.1 dev eth0"]);
    connect(&home, "red", &web, "eth1", "");
    assert_eq!(doors(&web), ["via 10.50.0.1 dev eth0"], "of equals, the name that comes first");
    connect(&home, "amber", &web, "eth2", "--gateway-priority 5");
    assert_eq!(doors(&web), ["via 10.70.0.1 dev eth2"]);
    connect(&home, "inside", &web, "eth3", "--gateway-priority 100");
    assert_eq!(doors(&web), ["via 10.70.0.1 dev eth2"], "an internal network has no way out");

    connect(&home, "red", &web, "eth1", "--gateway-priority 6");
    assert_eq!(doors(&web), ["via 10.60.0.1 dev eth1"], "changed while it is connected");
    let endpoints = home.json("endpoint ls");
    let priority = |network: &str| {
        endpoints.as_array().unwrap().iter().find(|one| one["network"] == network).unwrap()["gateway_priority"].clone()
    };
    assert_eq!([priority("red"), priority("blue")], [6, 0]);
    connect(&home, "red", &web, "eth1", "--gateway-priority -1");
    connect(&home, "amber", &web, "eth2", "--gateway-priority -2");
    assert_eq!(doors(&web), ["via 10.50.0.1 dev eth0"], "also downwards");

    ask(&home, "network disconnect blue --name web");
    assert_eq!(doors(&web), ["via 10.60.0.1 dev eth1"], "the next best, as soon as the best is gone");
    ask(&home, "network disconnect red --name web");
    ask(&home, "network disconnect amber --name web");
    assert_eq!(doors(&web), [""; 0], "nobody is left");
}

#[test]
fn ipv6_has_a_default_route_of_its_own_by_the_same_priority() {
    let (host, home) = rig();
    let _daemon = Daemon::start(&host, &home);
    create(&home, "blue", 50, "--subnet6 fd00:50::/64 --gateway6 fd00:50::1");
    create(&home, "red", 60, "");
    ask(&home, "network create amber --vni 70 --subnet6 fd00:70::/64 --gateway6 fd00:70::1");
    let web = Namespace::new();
    connect(&home, "blue", &web, "eth0", "");
    connect(&home, "red", &web, "eth1", "--gateway-priority 1");
    let both = |web: &Namespace| [doors(web), doors_v6(web)].concat();
    assert_eq!(both(&web), ["via 10.60.0.1 dev eth1", "via fd00:50::1 dev eth0"], "red has no IPv6");
    connect(&home, "amber", &web, "eth2", "--gateway-priority 2");
    assert_eq!(both(&web), ["via 10.60.0.1 dev eth1", "via fd00:70::1 dev eth2"]);
    connect(&home, "blue", &web, "eth0", "--gateway-priority 3");
    assert_eq!(both(&web), ["via 10.50.0.1 dev eth0", "via fd00:50::1 dev eth0"], "replaced, not added");
    ask(&home, "network disconnect blue --name web");
    assert_eq!(both(&web), ["via 10.60.0.1 dev eth1", "via fd00:70::1 dev eth2"]);
}

#[test]
fn a_priority_outlives_the_daemon_and_is_refused_where_routes_are_not_ours() {
    let (host, home) = rig();
    let daemon = Daemon::start(&host, &home);
    create(&home, "blue", 50, "");
    create(&home, "red", 60, "");
    let web = Namespace::new();
    connect(&home, "blue", &web, "eth0", "");
    connect(&home, "red", &web, "eth1", "--gateway-priority 1");
    drop(daemon);
    let _daemon = Daemon::start(&host, &home);
    assert_eq!(doors(&web), ["via 10.60.0.1 dev eth1"]);
    connect(&home, "red", &web, "eth1", "");
    assert_eq!(doors(&web), ["via 10.60.0.1 dev eth1"], "not given is not changed");
    ask(&home, "network disconnect red --name web");
    assert_eq!(doors(&web), ["via 10.50.0.1 dev eth0"]);

    host.ip("link add d0 type veth peer name d1");
    let refused = home.ask("network connect blue --interface d0 --name nic --gateway-priority 3");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--gateway-priority") && said.contains("--interface"), "{said}");
    assert!(!refused.status.success(), "{said}");
}
