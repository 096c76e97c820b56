//! The configuration file is read again while traffic flows.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::fs;

use rig::{Daemon, Home, Namespace, ask, ask_refused, host, probe::Probe};
use serde_json::{Value, json};

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";
const BLUE: &str = "[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"192.0.2.2\"]\n\
                    [[endpoint]]\nnetwork = \"blue\"\ninterface = \"p0\"\n\
                    [[endpoint]]\nnetwork = \"blue\"\ninterface = \"p1\"\n";
const RED: &str = "[[network]]\nname = \"red\"\nvni = 6000\npeers = [\"192.0.2.3\"]\n\
                   [[endpoint]]\nnetwork = \"red\"\ninterface = \"p2\"\n\
                   [[endpoint]]\nnetwork = \"red\"\ninterface = \"p3\"\n";

/// A host whose daemon has `blue` with two containers that talk, and whose file can change.
struct Rig {
    home: Home,
    control: String,
    host: Namespace,
    blue: [Namespace; 2],
    red: [Namespace; 2],
}

impl Rig {
    fn new() -> Self {
        let host = host();
        let home = Home::with(&format!("{UPLINK}{BLUE}"));
        let text = fs::read_to_string(home.config()).unwrap();
        let control = text[text.find("\n[control]").unwrap()..].to_owned();
        let blue = [host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24")];
        let red = [host.container("p2", "10.0.0.1/24"), host.container("p3", "10.0.0.2/24")];
        Self { home, control, host, blue, red }
    }

    fn write(&self, text: &str) {
        fs::write(self.home.config(), format!("{text}{}", self.control)).unwrap();
    }

    fn state(&self) -> [Value; 2] {
        [self.home.json("network ls"), self.home.json("endpoint ls")]
    }
}

#[test]
fn what_the_file_says_now_comes_and_goes_and_nothing_else_is_disturbed() {
    let rig = Rig::new();
    let daemon = Daemon::start(&rig.host, &rig.home);
    let own = Namespace::new();
    ask(&rig.home, "network create green --vni 7000 --subnet 10.7.0.0/24");
    ask(&rig.home, &format!("network connect green --netns /run/netns/{} --name own", own.0));
    ask(&rig.home, "peer add 192.0.2.9 --network blue");
    let before = rig.state();
    assert!(rig.blue[0].pings("10.0.0.2", 2));
    let probe = Probe::start(&rig.blue[0], &rig.blue[1], "10.0.0.2");
    for _ in 0..5 {
        rig.write(&format!("{UPLINK}{BLUE}{RED}"));
        ask(&rig.home, "reload");
        assert!(rig.red[0].pings("10.0.0.2", 2));
        let network = rig.home.json("network inspect red");
        assert_eq!((&network["owner"], &network["peers"]), (&json!("file"), &json!(["192.0.2.3"])));
        assert_eq!(rig.home.json("endpoint inspect green --name own")["state"], "attached");

        rig.write(&format!("{UPLINK}{BLUE}"));
        ask(&rig.home, "reload");
        assert_eq!(rig.state(), before);
        assert!(!rig.host.ip("-d link show p2").contains("xdp"), "left as found");
    }
    let fate = probe.finish();
    assert_eq!(fate.lost(0..fate.sent), 0, "of {}", fate.sent);
    rig.write(&format!("{UPLINK}{}", BLUE.replace("192.0.2.2", "192.0.2.5")));
    ask(&rig.home, "reload");
    assert_eq!(rig.home.json("network inspect blue")["peers"], json!(["192.0.2.5", "192.0.2.9"]));
    assert_eq!(rig.home.json("stats")["imbalance"], 0);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_each_is_told_with_its_line() {
    let rig = Rig::new();
    let _daemon = Daemon::start(&rig.host, &rig.home);
    ask(&rig.home, "network create green --vni 7000");
    let before = rig.state();
    let probe = Probe::start(&rig.blue[0], &rig.blue[1], "10.0.0.2");
    let good = format!("{UPLINK}{BLUE}{RED}");
    for (from, to, told) in [
        ("vni = 6000", "vni = 5000", ":15: network[1].vni = 5000: also the VNI of network \"blue\""),
        ("vni = 6000", "vni = 16777216", ":15: network[1].vni = 16777216: a VNI has 24 bits: 0 to 16777215"),
        ("vni = 6000", "vni = ", ":15: "),
        ("vni = 6000", "vni = 7000", "network[green].vni = 7000: also the VNI of network \"red\""),
        ("name = \"red\"", "name = \"green\"", "network[green].name = \"green\": also the name of network[1]"),
        ("name = \"red\"", "nome = \"red\"", ":14: unknown key `nome` in [[network]]"),
        ("192.0.2.3", "192.0.2.1", ":16: network[1].peers[0] = 192.0.2.1: this is our own VTEP address"),
        ("192.0.2.3", "239.1.1.1", ":16: network[1].peers[0] = 239.1.1.1: a multicast address"),
        ("192.0.2.3", "192.0.2", ":16: invalid IP address syntax"),
        ("vni = 6000", "vni = 6000\nmtu = 1451", ":16: network[1].mtu = 1451: with 50 bytes of tunnel headers"),
        ("vni = 6000", "vni = 6000\nageing = 0", ":16: network[1].ageing = 0: stations would be forgotten at once"),
        (
            "vni = 6000",
            "vni = 6000\ngateway = \"10.1.0.1\"",
            ":16: network[1].gateway = 10.1.0.1: a gateway needs a subnet",
        ),
        ("network = \"red\"", "network = \"rot\"", ":18: endpoint[2].network = \"rot\": no such network"),
        ("\"p3\"", "\"p9\"", ":22: endpoint[3].interface = \"p9\": no such interface"),
        ("\"p3\"", "\"u0\"", ":22: endpoint[3].interface = \"u0\": this is the uplink"),
        ("\"p3\"", "\"p0\"", ":22: endpoint[3].interface = \"p0\": also the interface of endpoint[0]"),
        (
            "interface = \"u0\"",
            "interface = \"u1\"",
            ":2: underlay.interface = u1: cannot be changed while running; it is u0",
        ),
        (
            "interface = \"u0\"",
            "interface = \"u0\"\nport = 8472",
            ":3: underlay.port = 8472: cannot be changed while running; it is 4789",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        rig.write(&good.replacen(from, to, 1));
        let answer = ask_refused(&rig.home, "reload");
        assert!(answer.contains(told), "{to}: {answer}");
        assert_eq!(rig.state(), before, "{to}");
    }
    let fate = probe.finish();
    assert_eq!(fate.lost(0..fate.sent), 0, "of {}", fate.sent);
    rig.write(&good);
    ask(&rig.home, "reload");
    assert_eq!(rig.home.json("network ls").as_array().unwrap().len(), 3);
}
