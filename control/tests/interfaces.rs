//! Interfaces go, come back, change, and lose our program while the daemon runs.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use rig::{Daemon, Home, Namespace, ask, host, probe::Probe, thief::take_program_off};
use serde_json::json;

const BLUE: &str =
    "[underlay]\ninterface = \"u0\"\n[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"192.0.2.2\"]\n";
/// How soon it is done. It takes less than a second where nothing else runs (the time is printed), and
/// these tests load two processors by themselves.
const SOON: Duration = Duration::from_secs(4);

/// Waits until `condition` holds, which must be soon.
#[track_caller]
fn soon(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    println!("{what}: after {:?}", start.elapsed());
}

/// A host with a daemon and endpoints `p0`, `p1` and `p2` on `blue`, all three by the API.
struct Rig {
    daemon: Daemon,
    home: Home,
    host: Namespace,
}

impl Rig {
    fn new() -> (Self, [Namespace; 3]) {
        Self::of(Home::with(BLUE))
    }

    fn of(home: Home) -> (Self, [Namespace; 3]) {
        let host = host();
        let containers =
            [1, 2, 3].map(|number| host.container(&format!("p{}", number - 1), &format!("10.0.0.{number}/24")));
        let daemon = Daemon::start(&host, &home);
        for name in ["p0", "p1", "p2"] {
            ask(&home, &format!("network connect blue --interface {name} --name {name}"));
        }
        (Self { daemon, home, host }, containers)
    }

    fn is_attached(&self, name: &str) -> bool {
        self.home.json(&format!("endpoint inspect blue --name {name}"))["state"] == "attached"
    }

    /// Descriptors and kilobytes.
    fn weight(&self) -> (usize, u64) {
        let process = format!("/proc/{}", self.daemon.pid());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes = line.trim().trim_end_matches(" kB").parse().unwrap();
        (fs::read_dir(format!("{process}/fd")).unwrap().count(), kilobytes)
    }

    /// Processor time that the daemon has used.
    fn used(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // `utime` and `stime`, in hundredths of a second (proc(5)).
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

#[test]
fn a_container_that_comes_and_goes_is_followed_and_the_others_lose_nothing() {
    let (rig, [a, b, c]) = Rig::new();
    assert!(a.pings("10.0.0.3", 2));
    let probe = Probe::start(&a, &c, "10.0.0.3");
    let mut gone = Some(b);
    let mut weights = Vec::new();
    for _ in 0..if env::var_os("VXLANE_SOAK").is_some() { 100 } else { 8 } {
        // With its namespace the container's end goes, and with that ours.
        drop(gone.take());
        soon("it is missed", || !rig.is_attached("p1"));
        gone = Some(rig.host.container("p1", "10.0.0.2/24"));
        soon("it is attached again", || rig.is_attached("p1"));
        weights.push(rig.weight());
    }
    assert!(gone.as_ref().unwrap().pings("10.0.0.1", 3));
    let fate = probe.finish();
    assert_eq!(fate.lost(0..fate.sent), 0, "of {} in {} cycles", fate.sent, weights.len());
    println!(
        "{} cycles, none of {} lost, {:?} to {:?}",
        weights.len(),
        fate.sent,
        weights[0],
        weights[weights.len() - 1]
    );
    let (descriptors, kilobytes) = weights[0];
    assert!(weights.iter().all(|weight| weight.0 <= descriptors + 1 && weight.1 <= kilobytes + 8192), "{weights:?}");
    assert_eq!(rig.home.json("stats")["imbalance"], 0);
    assert_eq!(rig.daemon.terminate(), Some(0));
}

#[test]
fn an_interface_that_is_down_costs_nothing_and_is_taken_up_again() {
    let (rig, [a, b, _c]) = Rig::new();
    assert!(a.pings("10.0.0.2", 2));
    rig.host.ip("link set p1 down");
    soon("it is missed", || !rig.is_attached("p1"));
    // Frames for it go on coming; nobody may try again and again to send them.
    let before = rig.used();
    let start = Instant::now();
    assert!(!a.pings("10.0.0.2", 10));
    let busy = (rig.used() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(busy < 0.1, "{:.1} % of a processor", busy * 100.0);
    rig.host.ip("link set p1 up");
    soon("it is attached again", || rig.is_attached("p1"));
    assert!(b.pings("10.0.0.1", 3) && a.pings("10.0.0.2", 3));
}

#[test]
fn an_uplink_that_is_made_anew_carries_the_tunnels_again() {
    let (rig, [a, _b, c]) = Rig::new();
    let far = Namespace::new();
    let wire = || {
        rig.host.ip(&format!("link add u0 type veth peer name u0 netns {}", far.0));
        for (host, number) in [(&rig.host, 1), (&far, 2)] {
            host.ip("link set u0 up");
            host.ip(&format!("addr add 192.0.2.{number}/24 dev u0"));
        }
    };
    let peer = |home: &Home| home.json("peer ls")[0]["state"] == "resolved";
    let uplink = || rig.home.json("status")["ports"].as_array().unwrap().iter().any(|port| port["interface"] == "u0");
    let probe = Probe::start(&a, &c, "10.0.0.3");
    for _ in 0..3 {
        rig.host.ip("link del u0");
        soon("it is missed", || !uplink());
        wire();
        soon("it is attached again", uplink);
        soon("the peer is known again", || peer(&rig.home));
    }
    let fate = probe.finish();
    assert_eq!(fate.lost(0..fate.sent), 0, "local traffic needs no uplink");
    let remote = far.container("p0", "10.0.0.9/24");
    let home = Home::with(
        &(BLUE.replace("192.0.2.2", "192.0.2.1") + "[[endpoint]]\nnetwork = \"blue\"\ninterface = \"p0\"\n"),
    );
    let _far = Daemon::start(&far, &home);
    assert!(remote.pings("10.0.0.1", 3));
}

#[test]
fn the_mtu_of_the_uplink_is_followed_into_networks_and_containers() {
    let (rig, _containers) = Rig::new();
    let web = Namespace::new();
    ask(&rig.home, "network create green --vni 7000 --subnet 10.7.0.0/24");
    ask(&rig.home, "network create fixed --vni 7001 --mtu 1300");
    ask(&rig.home, &format!("network connect green --netns /run/netns/{} --name web", web.0));
    for (uplink, inside) in [(1400, 1350), (1800, 1750), (1500, 1450)] {
        rig.host.ip(&format!("link set u1 mtu {uplink}"));
        rig.host.ip(&format!("link set u0 mtu {uplink}"));
        soon("networks follow", || rig.home.json("network inspect green")["mtu"] == inside);
        soon("containers follow", || web.ip("link show eth0").contains(&format!("mtu {inside} ")));
        assert_eq!(rig.home.json("network inspect blue")["mtu"], inside);
        assert_eq!(rig.home.json("network inspect fixed")["mtu"], 1300);
        soon("the uplink is attached", || rig.home.json("status")["ports"].as_array().unwrap().len() == 5);
    }
    assert_eq!(rig.home.json("network ls")[0]["endpoints"], json!(["p0", "p1", "p2"]));
}

#[test]
fn a_program_that_somebody_took_off_is_put_on_again() {
    let (rig, [a, b, _c]) = Rig::of(Home::with_rings(BLUE));
    let link: serde_json::Value = serde_json::from_str(&rig.host.ip("-d -j link show p1")).unwrap();
    let program = |host: &Namespace| {
        let link: serde_json::Value = serde_json::from_str(&host.ip("-d -j link show p1")).unwrap();
        link[0]["xdp"]["prog"]["id"].as_u64()
    };
    assert!(program(&rig.host).is_some());
    take_program_off(&rig.daemon, u32::try_from(link[0]["ifindex"].as_u64().unwrap()).unwrap());
    soon("it is on again", || program(&rig.host).is_some() && rig.is_attached("p1"));
    assert!(a.pings("10.0.0.2", 3) && b.pings("10.0.0.1", 3));
}
