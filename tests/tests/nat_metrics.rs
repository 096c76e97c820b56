//! What the metrics page and `vxlane nat show` count of address translation is what there is.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use vxlane_tests::{
    netns::Netns,
    peer::VxlaneOptions,
    ways_out::{self, SERVER, SERVER_V6, WaysOut},
};

/// Sessions that an endpoint may have.
const LIMIT: f64 = 4.0;
/// Sessions that there is room for.
const ROOM: f64 = 1000.0;

/// A network and the internet protocol that it has.
struct Way {
    network: &'static str,
    family: &'static str,
    server: IpAddr,
    any: IpAddr,
    /// What `nat show` calls its workers.
    workers: &'static str,
}

const WAYS: [Way; 2] = [
    Way {
        network: "blue",
        family: "ipv4",
        server: IpAddr::V4(SERVER),
        any: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        workers: "workers",
    },
    Way {
        network: "six",
        family: "ipv6",
        server: IpAddr::V6(SERVER_V6),
        any: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        workers: "workers6",
    },
];

/// The only number that has this name and these labels; `None` if there is no such.
fn number(rig: &WaysOut, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let page = rig.vtep.metrics().unwrap();
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let is_it =
        |line: &&str| line.starts_with(&format!("vxlane_{name}{{")) && labels.iter().all(|of| line.contains(of));
    let found: Vec<&str> = page.lines().filter(is_it).collect();
    assert!(found.len() < 2, "{found:?}");
    found.first().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

impl Way {
    /// Sessions, lent ports, those that were refused for the endpoint's sake, and those ever begun.
    fn counted(&self, rig: &WaysOut) -> [f64; 4] {
        let of = [("network", self.network), ("family", self.family)];
        let limit = [of[0], of[1], ("reason", "nat_endpoint_limit")];
        [("nat_sessions", &of[..]), ("nat_ports_lent", &of[..]), ("nat_refused_sessions_total", &limit[..])]
            .map(|(name, labels)| number(rig, name, labels).unwrap())
            .into_iter()
            .chain(number(rig, "nat_begun_sessions_total", &of[1..]))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    fn free(&self, rig: &WaysOut) -> [f64; 3] {
        let free = |protocol| number(rig, "nat_ports_free", &[("family", self.family), ("protocol", protocol)]);
        ["tcp", "udp", "icmp"].map(|protocol| free(protocol).unwrap())
    }

    fn socket(&self, ns: &Netns) -> UdpSocket {
        ns.run(|| UdpSocket::bind((self.any, 0))).unwrap().unwrap()
    }

    fn are_what_there_is(&self, rig: &WaysOut, web: &Netns) {
        let [tcp, udp, icmp] = self.free(rig);
        assert_eq!((self.counted(rig), udp, icmp), ([0.0; 4], tcp, tcp));
        assert_eq!(number(rig, "nat_sessions_limit", &[("family", self.family)]), Some(ROOM));

        // Three ports, and one of them calls twice.
        let sockets = [(); 3].map(|()| self.socket(web));
        let there = || {
            for (socket, port) in sockets.iter().zip([9, 9, 9]).chain([(&sockets[0], 10)]) {
                socket.send_to(b"x", (self.server, port)).unwrap();
            }
            self.counted(rig) == [LIMIT, 3.0, 0.0, LIMIT]
        };
        ways_out::until("four sessions of three ports", there);
        assert_eq!(self.free(rig), [tcp, udp - 3.0, icmp]);
        self.socket(web).send_to(b"x", (self.server, 9)).unwrap();
        ways_out::until("a fifth is refused", || self.counted(rig) == [LIMIT, 3.0, 1.0, LIMIT]);

        let nat = rig.vtep.cli(&["nat", "show", "--network", self.network, "--json"]).unwrap();
        let worker = &nat[self.workers][0];
        assert_eq!([&worker["sessions"], &worker["mappings"], &worker["begun"]], [4, 3, 4]);
        assert_eq!(worker["free"]["udp"].as_f64(), Some(udp - 3.0));
        let sessions = nat["sessions"].as_array().unwrap();
        let is_ours = |of: &&serde_json::Value| of["network"] == self.network && of["protocol"] == "udp";
        assert_eq!((sessions.len(), sessions.iter().filter(is_ours).count()), (4, 4), "{sessions:?}");
    }

    fn end(&self, rig: &WaysOut, free: [f64; 3]) {
        assert_eq!(rig.vtep.cli(&["nat", "flush", "--network", self.network, "--json"]).unwrap()["sessions"], 4);
        assert_eq!(self.counted(rig), [0.0, 0.0, 1.0, LIMIT], "what was begun and refused stays so");
        assert_eq!(self.free(rig), free, "ports are given back");
    }
}

#[test]
fn sessions_ports_and_refusals_are_counted_by_network_and_internet_protocol() {
    let extra = format!("[nat]\nsessions = {ROOM}\nendpoint_limit = {LIMIT}\n");
    let rig = WaysOut::start(&VxlaneOptions { extra, ..VxlaneOptions::default() }).unwrap();
    rig.speak_v6().unwrap();
    assert_eq!(number(&rig, "nat_sessions", &[("family", "ipv6")]), None, "nobody has a way out for IPv6");
    let six = ["--vni", "6006", "--subnet6", "fd00:60::/64", "--gateway6", "fd00:60::1", "--json"];
    rig.vtep.cli(&[&["network", "create", "six"], &six[..]].concat()).unwrap();
    let free = WAYS.each_ref().map(|way| way.free(&rig));
    let web = WAYS.each_ref().map(|way| rig.container(way.network, &format!("web-{}", way.network), &[]).unwrap());
    for (way, web) in WAYS.iter().zip(&web) {
        way.are_what_there_is(&rig, web);
    }
    for (network, family) in [("blue", "ipv6"), ("six", "ipv4")] {
        assert_eq!(number(&rig, "nat_sessions", &[("network", network), ("family", family)]), Some(0.0), "{network}");
    }
    for (way, free) in WAYS.iter().zip(free) {
        way.end(&rig, free);
    }
}
