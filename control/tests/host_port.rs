//! The host's own port on a network: what passes, what does not, and that it is there when it should be.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use rig::{Daemon, Home, Namespace, ask, eventually, host, inside};
use serde_json::{Value, json};

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";
const CREATE: &str = "network create blue --vni 5000 --subnet 10.50.0.0/24 --gateway 10.50.0.1 --peer 192.0.2.2";
const GATEWAY: &str = "10.50.0.1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A container with an address of `network`, which the daemon gives it.
fn connect(home: &Home, network: &str, name: &str) -> Namespace {
    let container = Namespace::new();
    ask(home, &format!("network connect {network} --netns /run/netns/{} --name {name}", container.0));
    container
}

fn blue() -> (Namespace, Home, Daemon) {
    let (host, home) = (host(), Home::with(UPLINK));
    let daemon = Daemon::start(&host, &home);
    ask(&home, CREATE);
    (host, home, daemon)
}

fn drops(home: &Home, reason: &str) -> u64 {
    home.json("stats")["drops"][reason].as_u64().unwrap_or(0)
}

/// The host's port on `network`, as the daemon tells of it.
fn told(home: &Home, network: &str) -> Value {
    home.json(&format!("network inspect {network}"))["host"].clone()
}

fn attached(home: &Home, network: &str) -> bool {
    told(home, network)["state"] == "attached"
}

/// A connection from `client` to what listens in `server` at `address`, and who called there.
fn connected(client: &Namespace, server: &Namespace, address: &str) -> (TcpStream, TcpStream, SocketAddr) {
    let at: SocketAddr = format!("{address}:7000").parse().unwrap();
    let listener = inside(server, || TcpListener::bind(at).unwrap());
    let calling = inside(client, || TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    let (answering, caller) = listener.accept().unwrap();
    for stream in [&calling, &answering] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (calling, answering, caller)
}

/// Sends some megabytes, every byte of which must arrive in its place.
fn transfer(from: &mut TcpStream, to: &mut TcpStream) {
    let bytes: Vec<u8> = (0..4_u32 << 20).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let mut received = vec![0; bytes.len()];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&bytes).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(received == bytes, "what arrived is not what was sent");
}

#[test]
fn the_host_reaches_its_endpoints_and_they_reach_services_at_the_gateways_address() {
    let (host, home, daemon) = blue();
    let web = connect(&home, "blue", "web");
    let link: Value = serde_json::from_str(&host.ip("-j addr show gw-blue")).unwrap();
    assert_eq!((&link[0]["address"], &link[0]["mtu"]), (&json!("02:76:78:00:13:88"), &json!(1450)));
    assert_eq!(told(&home, "blue")["name"], "gw-blue");
    assert!(host.pings("10.50.0.2", 3));
    let (mut host_end, mut web_end, caller) = connected(&host, &web, "10.50.0.2");
    assert_eq!(caller.ip().to_string(), GATEWAY);
    transfer(&mut host_end, &mut web_end);
    transfer(&mut web_end, &mut host_end);
    let (mut web_end, mut host_end, caller) = connected(&web, &host, GATEWAY);
    assert_eq!(caller.ip().to_string(), "10.50.0.2");
    transfer(&mut web_end, &mut host_end);
    transfer(&mut host_end, &mut web_end);
    assert!(web.pings(GATEWAY, 3), "and the gateway answers as it did");
    let ports = home.json("status")["ports"].as_array().unwrap().clone();
    let ours = ports.iter().find(|port| port["role"] == "host").unwrap();
    assert_eq!((&ours["interface"], &ours["network"]), (&json!("vxg5000"), &json!("blue")));
    assert_eq!(home.json("stats")["imbalance"], 0);
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!host.ip("link").contains("gw-blue"), "left as found");
}

#[test]
fn a_network_that_is_internal_or_has_no_gateway_has_no_port_to_the_host() {
    let (host, home) = (host(), Home::with(UPLINK));
    let _daemon = Daemon::start(&host, &home);
    ask(&home, "network create inner --vni 1 --subnet 10.1.0.0/24 --gateway 10.1.0.1 --internal");
    ask(&home, "network create plain --vni 2 --subnet 10.2.0.0/24");
    for (network, address) in [("inner", "10.1.0.2"), ("plain", "10.2.0.1")] {
        let _web = connect(&home, network, "web");
        assert_eq!(told(&home, network), Value::Null);
        assert!(!host.pings(address, 1));
    }
    assert!(!host.ip("link").contains("gw-") && !host.ip("link").contains("vxg"), "{}", host.ip("link"));
}

#[test]
fn nothing_passes_but_between_the_gateways_address_and_the_subnet() {
    let (host, home, _daemon) = blue();
    let web = connect(&home, "blue", "web");
    let plain = host.container("p0", "10.50.0.9/24");
    ask(&home, "network connect blue --interface p0 --name plain");
    assert!(host.pings("10.50.0.2", 2) && host.pings("10.50.0.9", 2));

    // The host would forward, and does not get anything in.
    host.ip("link add n0 type veth peer name eth0");
    let neighbour = Namespace::new();
    host.ip(&format!("link set eth0 netns {}", neighbour.0));
    host.ip("addr add 203.0.113.1/24 dev n0");
    host.ip("link set n0 up");
    neighbour.ip("addr add 203.0.113.2/24 dev eth0");
    neighbour.ip("link set eth0 up");
    neighbour.ip("route add default via 203.0.113.1");
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    assert!(host.command("sh").args(["-c", forward]).status().unwrap().success());
    let spoofed = || drops(&home, "spoofed_address");
    assert_eq!(spoofed(), 0);
    assert!(!neighbour.pings("10.50.0.2", 1));
    let forwarded = spoofed();
    assert!(forwarded > 0, "a packet that the host would have forwarded");
    let own = inside(&host, || UdpSocket::bind("192.0.2.1:0").unwrap());
    own.send_to(b"as somebody else", "10.50.0.2:9").unwrap();
    eventually("it is dropped", || spoofed() > forwarded);

    // Nor out, from an address that the host would answer elsewhere, or into its tunnels.
    plain.ip("addr add 192.0.2.77/32 dev eth0");
    let odd = inside(&plain, || UdpSocket::bind("192.0.2.77:0").unwrap());
    odd.send_to(b"whose is this", format!("{GATEWAY}:53")).unwrap();
    eventually("it is dropped", || drops(&home, "ip_invalid_source") == 1);
    let forged = inside(&web, || UdpSocket::bind("10.50.0.2:0").unwrap());
    forged.send_to(&[8, 0, 0, 0, 0, 0x13, 0x88, 0], format!("{GATEWAY}:4789")).unwrap();
    eventually("it is dropped", || drops(&home, "forged_tunnel") == 1);

    assert!(!host.pings("10.50.0.99", 1), "nobody has that address");
    assert_eq!(home.json("stats")["imbalance"], 0);
}

/// The addresses of the host's port on `network`.
fn addresses(host: &Namespace, network: &str) -> Vec<String> {
    let link: Value = serde_json::from_str(&host.ip(&format!("-j addr show gw-{network}"))).unwrap();
    let addresses = link[0]["addr_info"].as_array().unwrap().iter();
    let mut addresses: Vec<String> = addresses.map(|one| one["local"].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    addresses
}

#[test]
fn the_host_and_its_endpoints_reach_each_other_over_ipv6() {
    let (host, home) = (host(), Home::with(UPLINK));
    let _daemon = Daemon::start(&host, &home);
    let six = "--subnet6 fd00:60::/64 --gateway6 fd00:60::1 --nat6 none";
    ask(&home, &format!("network create six --vni 6000 {six}"));
    assert!(attached(&home, "six"));
    let web = connect(&home, "six", "web");
    for _ in 0..2 {
        let (mut host_end, mut web_end, caller) = connected(&host, &web, "[fd00:60::2]");
        assert_eq!(caller.ip().to_string(), "fd00:60::1");
        transfer(&mut host_end, &mut web_end);
        transfer(&mut web_end, &mut host_end);
        let (mut web_end, mut host_end, caller) = connected(&web, &host, "[fd00:60::1]");
        assert_eq!(caller.ip().to_string(), "fd00:60::2");
        transfer(&mut web_end, &mut host_end);
        transfer(&mut host_end, &mut web_end);
        host.ip("-6 neigh flush dev gw-six");
        web.ip("-6 neigh flush dev eth0");
    }
    assert!(web.pings("fd00:60::1", 3), "the gateway answers");
    let ours = ["fd00:60::1", "fe80::76:78ff:fe00:1770"];
    assert_eq!(addresses(&host, "six"), ours);
    for change in ["addr del fd00:60::1/64", "-6 addr add fd00:60::99/64 nodad", "addr add 10.9.9.9/24"] {
        host.ip(&format!("{change} dev gw-six"));
        eventually(change, || addresses(&host, "six") == ours && host.pings("fd00:60::2", 1));
    }
    ask(
        &home,
        &format!(
            "network create both --vni 7000 --subnet 10.70.0.0/24 --gateway 10.70.0.1 {}",
            six.replace("60", "70")
        ),
    );
    assert_eq!(addresses(&host, "both"), ["10.70.0.1", "fd00:70::1", "fe80::76:78ff:fe00:1b58"]);
    host.ip("link add n0 type veth peer name n1");
    host.ip("-6 addr add fd00:80::77/65 dev n0 nodad");
    host.ip("link set n0 up");
    ask(&home, &format!("network create late --vni 8000 {}", six.replace("60", "80")));
    let reason = told(&home, "late")["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.starts_with("the host has a route to fd00:80::") && reason.ends_with("the subnet fd00:80::/64"),
        "{reason}"
    );
    assert_eq!(home.json("stats")["imbalance"], 0);
}

#[test]
fn connections_of_the_host_outlive_the_daemon() {
    let (host, home, daemon) = blue();
    let web = connect(&home, "blue", "web");
    let (mut host_end, mut web_end, _) = connected(&host, &web, "10.50.0.2");
    transfer(&mut host_end, &mut web_end);
    let index = host.ip("-o link show gw-blue");
    daemon.kill();
    let daemon = Daemon::start(&host, &home);
    transfer(&mut host_end, &mut web_end);
    ask(&home, "restart");
    transfer(&mut web_end, &mut host_end);
    assert_eq!(host.ip("-o link show gw-blue").split(':').next(), index.split(':').next(), "the same interface");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn what_somebody_does_to_it_is_undone_within_a_moment() {
    let (host, home, _daemon) = blue();
    let _web = connect(&home, "blue", "web");
    let reaches = || host.pings("10.50.0.2", 1);
    assert!(reaches());
    for change in [
        "link del gw-blue",
        "link del vxg5000",
        "addr del 10.50.0.1/24 dev gw-blue",
        "link set gw-blue name other",
        "link set gw-blue address 02:00:00:00:00:99",
        "link set vxg5000 down",
    ] {
        host.ip(change);
        eventually(change, || attached(&home, "blue") && host.ip("link").contains("gw-blue") && reaches());
    }
    host.ip("link set gw-blue mtu 1300");
    host.ip("addr add 10.50.0.200/24 dev gw-blue");
    let is_as_it_was = || {
        let link: Value = serde_json::from_str(&host.ip("-j -4 addr show gw-blue")).unwrap();
        let addresses: Vec<&Value> = link[0]["addr_info"].as_array().unwrap().iter().map(|one| &one["local"]).collect();
        link[0]["mtu"] == 1450 && addresses == [GATEWAY]
    };
    eventually("MTU and address are as they were", is_as_it_was);
    host.ip("link set u0 mtu 1400");
    let mtu = || serde_json::from_str::<Value>(&host.ip("-j link show gw-blue")).unwrap()[0]["mtu"].clone();
    eventually("the uplink's MTU is followed", || mtu() == 1350);
}

#[test]
fn a_subnet_that_the_host_has_elsewhere_stays_there_and_the_reason_is_told() {
    let (host, home) = (host(), Home::with(UPLINK));
    let _daemon = Daemon::start(&host, &home);
    host.ip("link add n0 type veth peer name n1");
    host.ip("addr add 10.50.0.77/25 dev n0");
    host.ip("link set n0 up");
    ask(&home, CREATE);
    assert_eq!(told(&home, "blue")["state"], "absent");
    let reason = "the host has a route to 10.50.0.77/32, which overlaps the subnet 10.50.0.0/24";
    assert_eq!(told(&home, "blue")["reason"], reason);
    assert!(ask(&home, "network inspect blue").contains(&format!("gw-blue absent: {reason}")));
    let web = connect(&home, "blue", "web");
    assert!(web.pings(GATEWAY, 2), "the network is there all the same");
    host.ip("link del n0");
    eventually("there is nothing in the way any more", || attached(&home, "blue"));
    assert!(host.pings("10.50.0.2", 2));
    // Networks may have the same addresses; the host knows one of them.
    ask(&home, "network create green --vni 6000 --subnet 10.50.0.0/24 --gateway 10.50.0.1");
    assert_eq!(told(&home, "green")["state"], "absent");
    ask(&home, "network disconnect blue --name web");
    ask(&home, "network rm blue");
    eventually("now the other", || attached(&home, "green"));
    assert!(host.ip("link").contains("gw-green") && !host.ip("link").contains("gw-blue"));
}

#[test]
fn it_comes_and_goes_with_its_network_however_that_is_told() {
    let (host, home) = (host(), Home::with(UPLINK));
    let text = fs::read_to_string(home.config()).unwrap();
    let network = |gateway: &str| {
        let network = "[[network]]\nname = \"file\"\nvni = 7\nsubnet = \"10.7.0.0/24\"\n";
        format!("{text}{network}gateway = \"{gateway}\"\n")
    };
    let daemon = Daemon::start(&host, &home);
    let has = |what: &str| host.ip("-4 addr").contains(what);
    fs::write(home.config(), network("10.7.0.1")).unwrap();
    ask(&home, "reload");
    assert!(has("10.7.0.1/24"));
    fs::write(home.config(), network("10.7.0.254")).unwrap();
    ask(&home, "reload");
    assert!(has("10.7.0.254/24") && !has("10.7.0.1/24"), "{}", host.ip("addr"));
    let web = Namespace::new();
    ask(&home, &format!("network connect file --netns /run/netns/{} --name web", web.0));
    assert!(host.pings("10.7.0.1", 2), "the address is free now, and is the endpoint's");
    ask(&home, "network disconnect file --name web");
    daemon.kill();
    // While nobody was there the file has lost it.
    fs::write(home.config(), &text).unwrap();
    let daemon = Daemon::start(&host, &home);
    assert!(!host.ip("link").contains("gw-file") && !host.ip("link").contains("vxg7"), "{}", host.ip("link"));
    ask(&home, CREATE);
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!host.ip("link").contains("gw-blue"));
    let daemon = Daemon::start(&host, &home);
    assert!(has("10.50.0.1/24"));
    ask(&home, "network rm blue");
    assert!(!host.ip("link").contains("gw-blue") && !host.ip("link").contains("vxg"));
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn sixteen_of_them_cost_a_bounded_number_of_frames() {
    let (host, home) = (host(), Home::with(UPLINK));
    let _daemon = Daemon::start(&host, &home);
    for network in 1..=16 {
        let addresses = format!("--subnet 10.{network}.0.0/24 --gateway 10.{network}.0.1");
        ask(&home, &format!("network create n{network} --vni {network} {addresses}"));
        assert!(attached(&home, &format!("n{network}")));
    }
    let status = home.json("status");
    let is_lanes = |half: &Value| half["interface"].as_str().unwrap().starts_with("vxr");
    let of_hosts = status["frames"].as_array().unwrap().iter().filter(|half| !is_lanes(half));
    let frames: Vec<u64> = of_hosts.map(|half| half["total"].as_u64().unwrap()).collect();
    assert_eq!(frames.len(), 32);
    // Each ring of 512 frames, and what is on its way.
    assert!(frames.iter().all(|&total| (512..=1024).contains(&total)), "{frames:?}");
    println!("16 ports to the host: {} frames", frames.iter().sum::<u64>());
}
