//! ARP and neighbour discovery between real stacks, with the kernel's VXLAN at the other end of the tunnel.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vxlane_tests::{
    lab::{Container, Lab, Network, Station, UPLINK},
    netns::Netns,
    peer::{KernelOptions, KernelVtep, Segment, VxlaneOptions, VxlaneVtep, find_binary},
    process::{await_value, stdout},
    traffic::{
        ping::{PingOptions, ping},
        raw::{Heading, Watch},
    },
};

const LIMIT: Duration = Duration::from_secs(10);
/// Where the overlay frame begins in one of the underlay: behind Ethernet, IPv4, UDP and VXLAN.
const INNER: usize = 14 + 20 + 8 + 8;

/// Three containers behind vxlane on host `a`, which were given to it as plain interfaces, and one
/// behind the kernel's VXLAN on host `b`.
///
/// Fields go in this order when dropped: VTEPs before what they connect.
struct Rig {
    vxlane: VxlaneVtep,
    _kernel: KernelVtep,
    near: [Container; 3],
    far: Container,
    lab: Lab,
}

impl Rig {
    fn new() -> Self {
        let lab = Lab::new(&["a", "b"]).unwrap();
        let network = Network::new("blue", 5000);
        let near = ["c0", "c1", "c2"].map(|name| lab.host("a").container(name, &network).unwrap());
        let far = lab.host("b").container("far", &network).unwrap();
        let segment = Segment::of(&lab, "b", &network, &[&far]);
        let kernel = KernelVtep::start(lab.host("b"), &[segment], &KernelOptions::default()).unwrap();
        let vxlane = VxlaneVtep::start(lab.host("a"), &[], &VxlaneOptions::default()).unwrap();
        let this = Self { vxlane, _kernel: kernel, near, far, lab };
        let peer = this.lab.host("b").address();
        this.cli(&format!("network create blue --vni 5000 --subnet 10.0.0.0/16 --gateway 10.0.0.1 --peer {peer}"));
        for container in &this.near {
            let (port, name) = (container.port(), container.name());
            this.cli(&format!("network connect blue --interface {port} --name {name}"));
        }
        this
    }

    fn cli(&self, arguments: &str) -> Value {
        let words: Vec<&str> = arguments.split_whitespace().chain(["--json"]).collect();
        self.vxlane.cli(&words).unwrap()
    }

    /// What comes over the wire to the other host, of overlay frames that `filter` accepts.
    fn on_the_wire(&self, filter: impl Fn(&[u8]) -> bool + Send + 'static) -> Watch {
        let inner = move |frame: &[u8]| frame.get(INNER..).is_some_and(&filter);
        Watch::start(self.lab.host("b").ns(), UPLINK, Heading::Incoming, inner).unwrap()
    }

    /// What vxlane knows of `address`: origin and state.
    fn known(&self, address: impl Into<IpAddr>) -> Option<(String, String)> {
        let address = address.into().to_string();
        let all = self.cli("neigh show --network blue");
        let one = all.as_array().unwrap().iter().find(|one| one["dst"] == address)?.clone();
        Some((one["origin"].as_str()?.to_owned(), one["state"].as_str()?.to_owned()))
    }

    fn conflicts(&self, address: IpAddr) -> usize {
        let mut ask = Command::new(find_binary().unwrap());
        ask.arg("--socket").arg(self.vxlane.socket()).args(["events", "--json"]);
        let text = stdout(&mut ask).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is_it = |event: &Value| event["event"] == "address_conflict" && event["address"] == address.to_string();
        events.filter(is_it).count()
    }
}

/// Pings `target` after forgetting where it is; whether every answer came.
fn asks_and_reaches(from: &Netns, target: impl Into<IpAddr>) -> bool {
    from.ip("neigh flush dev eth0").unwrap();
    let options = PingOptions { count: 2, ..PingOptions::default() };
    ping(from, target, &options).unwrap().complete()
}

fn is_arp_request_for(frame: &[u8], target: [u8; 4]) -> bool {
    frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 1]) && frame.get(38..42) == Some(&target)
}

/// A neighbour solicitation to everybody concerned (RFC 4861 section 4.3).
fn is_solicitation_for(frame: &[u8], target: Ipv6Addr) -> bool {
    frame.first() == Some(&0x33)
        && frame.get(12..14) == Some(&[0x86, 0xdd])
        && frame.get(20) == Some(&58)
        && frame.get(54) == Some(&135)
        && frame.get(62..78) == Some(&target.octets())
}

#[test]
fn the_kernel_at_the_other_end_sees_no_question_about_what_is_known_here() {
    let rig = Rig::new();
    let [asker, other, _] = &rig.near;
    let (here, there) = (other.ipv4().octets(), rig.far.ipv4().octets());
    let about_here = rig.on_the_wire(move |frame| is_arp_request_for(frame, here));
    let about_there = rig.on_the_wire(move |frame| is_arp_request_for(frame, there));
    let about_gateway = rig.on_the_wire(|frame| is_arp_request_for(frame, [10, 0, 0, 1]));

    assert!(asks_and_reaches(asker.ns(), other.ipv4()));
    about_here.await_count(1, LIMIT).unwrap();
    let asked = about_here.count();
    assert_eq!(rig.known(other.ipv4()), Some(("snooped".into(), "reachable".into())), "since it has answered");
    for _ in 0..5 {
        assert!(asks_and_reaches(asker.ns(), other.ipv4()));
    }
    // An endpoint whose addresses we gave is known before it says a word.
    let ours = Netns::new("ours").unwrap();
    rig.cli(&format!("network connect blue --netns /run/netns/{} --name ours --address 10.0.9.9", ours.name()));
    let about_ours = rig.on_the_wire(|frame| is_arp_request_for(frame, [10, 0, 9, 9]));
    assert!(asks_and_reaches(asker.ns(), "10.0.9.9".parse::<IpAddr>().unwrap()));
    assert_eq!(rig.known("10.0.9.9".parse::<IpAddr>().unwrap()), Some(("endpoint".into(), "permanent".into())));
    assert!(asks_and_reaches(asker.ns(), "10.0.0.1".parse::<IpAddr>().unwrap()));
    assert_eq!(rig.known("10.0.0.1".parse::<IpAddr>().unwrap()), Some(("gateway".into(), "permanent".into())));

    // What is behind the tunnel is asked for there each time, and that shows that the watch sees.
    for _ in 0..3 {
        let before = about_there.count();
        assert!(asks_and_reaches(asker.ns(), rig.far.ipv4()));
        about_there.await_count(before + 1, LIMIT).unwrap();
    }
    assert_eq!((about_here.count(), about_ours.count(), about_gateway.count()), (asked, 0, 0));
    assert_eq!(rig.known(rig.far.ipv4()), None, "nothing is learned from tunnels");
    // Whoever is there is answered by the endpoint itself.
    assert!(asks_and_reaches(rig.far.ns(), asker.ipv4()));
    rig.vxlane.account().unwrap();
}

#[test]
fn solicitations_are_answered_here_once_the_owner_has_advertised_itself() {
    let rig = Rig::new();
    let [asker, other, late] = &rig.near;
    let address = other.station().ipv6;
    let on_the_wire = rig.on_the_wire(move |frame| is_solicitation_for(frame, address));
    let far = rig.far.station().ipv6;
    let about_far = rig.on_the_wire(move |frame| is_solicitation_for(frame, far));
    assert!(asks_and_reaches(asker.ns(), address));
    on_the_wire.await_count(1, LIMIT).unwrap();
    let asked = on_the_wire.count();
    assert_eq!(rig.known(address), Some(("snooped".into(), "reachable".into())));
    for _ in 0..5 {
        assert!(asks_and_reaches(asker.ns(), address) && asks_and_reaches(late.ns(), address));
    }
    for _ in 0..2 {
        let before = about_far.count();
        assert!(asks_and_reaches(asker.ns(), far));
        about_far.await_count(before + 1, LIMIT).unwrap();
    }
    assert_eq!(on_the_wire.count(), asked);

    // Duplicate address detection (RFC 4862 section 5.4) is a question like any other.
    late.ns().ip(&format!("address add {address}/64 dev eth0")).unwrap();
    let failed = || Some(late.ns().ip("-6 address show dev eth0 dadfailed").unwrap()).filter(|text| !text.is_empty());
    let said = await_value("failed duplicate address detection", LIMIT, failed, String::new).unwrap();
    assert!(said.contains(&address.to_string()), "{said}");
    assert_eq!(on_the_wire.count(), asked, "and answered here");
    rig.vxlane.account().unwrap();
}

#[test]
fn two_stacks_that_both_advertise_an_address_are_told_of_and_nobody_is_answered() {
    let rig = Rig::new();
    let [first, second, asker] = &rig.near;
    let Station { ipv6: address, .. } = first.station();
    for claimant in [first, second] {
        claimant.ns().sysctl("net/ipv6/conf/eth0/ndisc_notify", "1").unwrap();
    }
    second.ns().ip(&format!("address add {address}/64 dev eth0 nodad")).unwrap();
    // With that setting a stack that gets an Ethernet address, the same perhaps, tells everybody.
    let advertise =
        |claimant: &Container| claimant.ns().ip(&format!("link set eth0 address {}", claimant.mac())).unwrap();
    let contradicted = || {
        advertise(first);
        advertise(second);
        Some(rig.conflicts(address.into())).filter(|&conflicts| conflicts > 0)
    };
    let told = await_value("event of an address conflict", LIMIT, contradicted, || rig.cli("neigh show").to_string());
    assert_eq!(told.unwrap(), 1);
    assert_eq!(rig.known(address), Some(("snooped".into(), "duplicate".into())));
    // Who has it now? Everybody is asked, since nobody here is to be believed.
    let on_the_wire = rig.on_the_wire(move |frame| is_solicitation_for(frame, address));
    assert!(asks_and_reaches(asker.ns(), address));
    on_the_wire.await_count(1, LIMIT).unwrap();
    rig.vxlane.account().unwrap();
}
