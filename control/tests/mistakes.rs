//! One table of what people get wrong: each mistake is answered with field, value and reason, wherever it is made.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use rig::{Daemon, Home, Namespace, VXLANE, ask, ask_refused, host, probe::Probe, refusal};
use serde_json::{Value, json};

/// A file without a fault. Every mistake changes one place of it.
const GOOD: &str = r#"[underlay]
interface = "u0"
[dataplane]
workers = 1
ring = 1024
[[network]]
name = "blue"
vni = 5000
subnet = "10.50.0.0/24"
gateway = "10.50.0.1"
peers = ["192.0.2.2"]
[[network]]
name = "inner"
vni = 6000
subnet = "10.60.0.0/24"
gateway = "10.60.0.1"
internal = true
[[endpoint]]
network = "blue"
interface = "p0"
address = "10.50.0.8"
mac = "02:00:00:00:00:08"
[[endpoint]]
network = "blue"
interface = "p1"
address = "10.50.0.9"
mac = "02:00:00:00:00:09"
[[endpoint]]
network = "inner"
interface = "p2"
address = "10.60.0.9"
mac = "02:00:00:00:00:0a"
"#;

/// A mistake, where it can be made, and what is said of it.
struct Mistake {
    /// In the file: what becomes what, and how the field is called.
    file: Option<(&'static str, &'static str, &'static str)>,
    /// In a request: the path, the body, and how the field is called.
    request: Option<(&'static str, &'static str, &'static str)>,
    value: &'static str,
    reason: &'static str,
}

const NETWORKS: &str = "/v1/networks";
const ENDPOINTS: &str = "/v1/networks/blue/endpoints";

const MISTAKES: &[Mistake] = &[
    Mistake {
        file: Some(("vni = 6000", "vni = 16777216", "network[1].vni")),
        request: Some((NETWORKS, r#"{"name":"new","vni":16777216}"#, "vni")),
        value: "16777216",
        reason: "a VNI has 24 bits: 0 to 16777215",
    },
    Mistake {
        file: Some(("vni = 6000", "vni = 5000", "network[1].vni")),
        request: Some((NETWORKS, r#"{"name":"new","vni":5000}"#, "vni")),
        value: "5000",
        reason: "also the VNI of network \"blue\"",
    },
    Mistake {
        file: Some(("name = \"inner\"", "name = \"blue\"", "network[1].name")),
        request: None,
        value: "\"blue\"",
        reason: "also the name of network[0]",
    },
    Mistake {
        file: None,
        request: Some((NETWORKS, r#"{"name":"blue","vni":7}"#, "vni")),
        value: "7",
        reason: "network blue exists, with 5000",
    },
    Mistake {
        file: Some(("name = \"inner\"", "name = \"in/ner\"", "network[1].name")),
        request: Some((NETWORKS, r#"{"name":"in/ner"}"#, "name")),
        value: "\"in/ner\"",
        reason: "a name is letters, digits, `_`, `.` and `-`, and begins with a letter or digit",
    },
    Mistake {
        file: Some(("10.60.0.0/24", "10.60.0.7/24", "network[1].subnet")),
        request: Some((NETWORKS, r#"{"name":"new","subnet":"10.60.0.7/24"}"#, "subnet")),
        value: "10.60.0.7/24",
        reason: "an address of a host; its subnet is 10.60.0.0/24",
    },
    Mistake {
        file: Some(("gateway = \"10.60.0.1\"", "gateway = \"10.61.0.1\"", "network[1].gateway")),
        request: Some((NETWORKS, r#"{"name":"new","subnet":"10.60.0.0/24","gateway":"10.61.0.1"}"#, "gateway")),
        value: "10.61.0.1",
        reason: "not in the subnet 10.60.0.0/24",
    },
    Mistake {
        file: None,
        request: Some((NETWORKS, r#"{"name":"new","gateway":"10.61.0.1"}"#, "gateway")),
        value: "10.61.0.1",
        reason: "a gateway needs a subnet that it is in",
    },
    Mistake {
        file: Some(("vni = 6000", "vni = 6000\nmtu = 1451", "network[1].mtu")),
        request: Some((NETWORKS, r#"{"name":"new","mtu":1451}"#, "mtu")),
        value: "1451",
        reason: "with 50 bytes of tunnel headers it does not fit the MTU of u0, 1500; at most 1450",
    },
    Mistake {
        file: Some(("vni = 6000", "vni = 6000\nmtu = 67", "network[1].mtu")),
        request: Some((NETWORKS, r#"{"name":"new","mtu":67}"#, "mtu")),
        value: "67",
        reason: "IPv4 needs at least 68",
    },
    Mistake {
        file: Some(("vni = 6000", "vni = 6000\nageing = 0", "network[1].ageing")),
        request: Some((NETWORKS, r#"{"name":"new","ageing":0}"#, "ageing")),
        value: "0",
        reason: "stations would be forgotten at once",
    },
    Mistake {
        file: Some(("vni = 6000", "vni = 6000\nflood_limit = 0", "network[1].flood_limit")),
        request: Some((NETWORKS, r#"{"name":"new","flood_limit":0}"#, "flood_limit")),
        value: "0",
        reason: "nobody would find anybody: what is not known yet is flooded",
    },
    Mistake {
        file: Some(("[\"192.0.2.2\"]", "[\"192.0.2.1\"]", "network[0].peers[0]")),
        request: Some(("/v1/networks/blue/peers", r#"{"address":"192.0.2.1"}"#, "address")),
        value: "192.0.2.1",
        reason: "this is our own VTEP address",
    },
    Mistake {
        file: Some(("[\"192.0.2.2\"]", "[\"239.1.1.1\"]", "network[0].peers[0]")),
        request: Some(("/v1/networks/blue/peers", r#"{"address":"239.1.1.1"}"#, "address")),
        value: "239.1.1.1",
        reason: "a multicast address; list each VTEP instead",
    },
    Mistake {
        file: Some(("network = \"inner\"", "network = \"outer\"", "endpoint[2].network")),
        request: None,
        value: "\"outer\"",
        reason: "no such network",
    },
    Mistake {
        file: Some(("\"p2\"", "\"p9\"", "endpoint[2].interface")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"p9"}"#, "interface")),
        value: "\"p9\"",
        reason: "no such interface",
    },
    Mistake {
        file: Some(("\"p2\"", "\"u0\"", "endpoint[2].interface")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"u0"}"#, "interface")),
        value: "\"u0\"",
        reason: "this is the uplink",
    },
    Mistake {
        file: Some(("\"p2\"", "\"p0\"", "endpoint[2].interface")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"p0"}"#, "interface")),
        value: "\"p0\"",
        reason: "also the interface of endpoint[0]",
    },
    Mistake {
        file: Some(("\"p2\"", "\"gw-blue\"", "endpoint[2].interface")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"gw-blue"}"#, "interface")),
        value: "\"gw-blue\"",
        reason: "the host's own port on network \"blue\"",
    },
    Mistake {
        file: Some(("\"p2\"", "\"sixteen-letters-\"", "endpoint[2].interface")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"sixteen-letters-"}"#, "interface")),
        value: "\"sixteen-letters-\"",
        reason: "an interface name has at most 15 characters",
    },
    Mistake {
        file: Some(("10.50.0.9", "10.51.0.9", "endpoint[1].address")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"p3","address":"10.51.0.9"}"#, "address")),
        value: "10.51.0.9",
        reason: "not in the subnet 10.50.0.0/24",
    },
    Mistake {
        file: Some(("10.50.0.9", "10.50.0.1", "endpoint[1].address")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"p3","address":"10.50.0.1"}"#, "address")),
        value: "10.50.0.1",
        reason: "the gateway of network \"blue\"",
    },
    Mistake {
        file: Some(("10.50.0.9", "10.50.0.8", "endpoint[1].address")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"p3","address":"10.50.0.8"}"#, "address")),
        value: "10.50.0.8",
        reason: "also the address of endpoint[0]",
    },
    Mistake {
        file: Some(("02:00:00:00:00:09", "01:00:5e:00:00:09", "endpoint[1].mac")),
        request: Some((ENDPOINTS, r#"{"name":"new","interface":"p3","mac":"01:00:5e:00:00:09"}"#, "mac")),
        value: "01:00:5e:00:00:09",
        reason: "not an address that a station can have",
    },
    Mistake {
        file: Some(("\"10.60.0.9\"", "\"10.60.0.9\"\npublish = [\"80:80\"]", "endpoint[2].publish")),
        request: Some((
            "/v1/networks/inner/endpoints",
            r#"{"name":"new","interface":"p3","address":"10.60.0.8","mac":"02:00:00:00:00:0b","publish":["80:80"]}"#,
            "publish",
        )),
        value: "\"80:80\"",
        reason: "network \"inner\" is internal: nothing leads into it",
    },
    Mistake {
        file: Some(("[\"192.0.2.2\"]", "[\"192.0.2.2\"]\nroutes = [\"inner\"]", "network[0].routes[0]")),
        request: None,
        value: "\"blue\" to \"inner\"",
        reason: "network \"inner\" is internal",
    },
    Mistake {
        file: None,
        request: Some(("/v1/networks/blue/fdb", r#"{"mac":"02:00:00:00:00:0c","dst":"192.0.2.9"}"#, "dst")),
        value: "192.0.2.9",
        reason: "not a peer of network \"blue\"",
    },
    Mistake {
        file: Some(("interface = \"u0\"", "interface = \"u9\"", "underlay.interface")),
        request: None,
        value: "\"u9\"",
        reason: "no such interface",
    },
    Mistake {
        file: Some(("workers = 1", "workers = 0", "dataplane.workers")),
        request: None,
        value: "0",
        reason: "at least one is needed",
    },
    Mistake {
        file: Some(("workers = 1", "workers = 1\ncpus = [999]", "dataplane.cpus")),
        request: None,
        value: "999",
        reason: "no such CPU, or not one we may use",
    },
    Mistake {
        file: Some(("ring = 1024", "ring = 1000", "dataplane.ring")),
        request: None,
        value: "1000",
        reason: "must be a power of two from 64 to 65536",
    },
];

/// A daemon that runs as the good file says, and whose file can change.
struct Rig {
    host: Namespace,
    home: Home,
    control: String,
    containers: [Namespace; 4],
}

impl Rig {
    fn new() -> Self {
        let (host, home) = (host(), Home::with(GOOD));
        let text = fs::read_to_string(home.config()).unwrap();
        let control = text[text.find("\n[control]").unwrap()..].to_owned();
        let ends = [("p0", "10.50.0.8/24"), ("p1", "10.50.0.9/24"), ("p2", "10.60.0.9/24"), ("p3", "10.50.0.7/24")];
        let containers = ends.map(|(interface, address)| host.container(interface, address));
        for (container, last) in containers.iter().zip(["08", "09", "0a"]) {
            container.ip(&format!("link set eth0 address 02:00:00:00:00:{last}"));
        }
        Self { host, home, control, containers }
    }

    /// Puts the mistake into the file, and returns all of that.
    fn write(&self, from: &str, to: &str) -> String {
        assert_eq!(GOOD.matches(from).count(), 1, "{from}");
        let text = GOOD.replace(from, to) + &self.control;
        fs::write(self.home.config(), &text).unwrap();
        text
    }

    fn state(&self) -> [Value; 3] {
        ["network ls", "endpoint ls", "fdb show"].map(|question| {
            let mut all = self.home.json(question);
            all.as_array_mut().unwrap().iter_mut().for_each(|one| drop(one.as_object_mut().unwrap().remove("used")));
            all
        })
    }

    fn post(&self, path: &str, body: &str) -> Value {
        let mut stream = UnixStream::connect(self.home.path("s")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost:\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(matches!(status, 400 | 409), "{body}: {answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

/// What is said of a mistake in the file: the line of its key, or of the table that lacks it, and
/// then field, value and reason.
fn check_file(said: &str, text: &str, mistake: &Mistake, field: &str) {
    let told = format!(": {field} = {}: {}", mistake.value, mistake.reason);
    let line = said.lines().find(|line| line.contains(&told)).unwrap_or_else(|| panic!("{told} is not in {said}"));
    let (place, _) = line.split_once(&told).unwrap();
    let number: usize = place.rsplit_once(".toml:").unwrap().1.parse().unwrap();
    let key = field.rsplit('.').next().unwrap().split('[').next().unwrap();
    let there = text.lines().nth(number - 1).unwrap();
    assert!(there.starts_with(&format!("{key} = ")), "{field} is not in line {number}, {there}");
}

#[test]
fn each_of_many_mistakes_is_answered_with_field_value_and_reason_and_changes_nothing() {
    let rig = Rig::new();
    assert!(MISTAKES.len() >= 16);
    let daemon = Daemon::start(&rig.host, &rig.home);
    let before = rig.state();
    let probe = Probe::start(&rig.containers[0], &rig.containers[1], "10.50.0.9");
    probe.await_arrival();
    for mistake in MISTAKES {
        if let Some((from, to, field)) = mistake.file {
            let text = rig.write(from, to);
            // What a daemon that runs cannot change is refused for that reason first.
            if !field.starts_with("dataplane") && !field.starts_with("underlay") {
                check_file(&ask_refused(&rig.home, "reload"), &text, mistake, field);
            } else {
                assert!(ask_refused(&rig.home, "reload").contains("cannot be changed while running"), "{to}");
            }
        }
        if let Some((path, body, field)) = mistake.request {
            let answer = rig.post(path, body);
            let problem = json!({"field": field, "value": mistake.value, "reason": mistake.reason});
            assert_eq!(answer["problems"], json!([problem]), "{body}");
            assert_eq!(answer["field"], field);
            assert_eq!(answer["message"], format!("{field} = {}: {}", mistake.value, mistake.reason));
        }
        assert_eq!(rig.state(), before, "{} {}", mistake.value, mistake.reason);
    }
    probe.await_arrival();
    let fate = probe.finish();
    assert_eq!(fate.lost(0..fate.sent), 0, "of {}", fate.sent);
    rig.write("u0", "u0");
    ask(&rig.home, "reload");
    assert_eq!(rig.state(), before);
    assert_eq!(daemon.terminate(), Some(0));
    // A daemon that is yet to start says the same, and starts not at all.
    let links = rig.host.ip("-d link");
    for mistake in MISTAKES {
        if let Some((from, to, field)) = mistake.file {
            let text = rig.write(from, to);
            check_file(&refusal(&mut rig.host.command(VXLANE), &rig.home.config()), &text, mistake, field);
        }
    }
    assert_eq!(rig.host.ip("-d link"), links, "every interface is as it was found");
}
