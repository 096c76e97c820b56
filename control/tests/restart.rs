//! The daemon is replaced, or killed, while traffic flows.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    env, fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rig::{
    Daemon, Home, Namespace, ask, eventually, host,
    probe::{Away, Fate, Probe, RATE},
};
use serde_json::Value;

/// `suite`, or `soak` in a run that has time.
fn turns(suite: usize, soak: usize) -> usize {
    if env::var_os("VXLANE_SOAK").is_some() { soak } else { suite }
}

/// One test at a time: they measure how long something takes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two hosts with a network of two containers each, all four on `blue`, and two more on `red`
/// with the same addresses, which must not see any of it.
struct Rig {
    hosts: [Namespace; 2],
    homes: [Home; 2],
    blue: [Namespace; 2],
    red: Namespace,
}

impl Rig {
    fn new() -> Self {
        let (near, far) = (Namespace::new(), Namespace::new());
        near.ip(&format!("link add u0 type veth peer name u0 netns {}", far.0));
        for (host, number) in [(&near, 1), (&far, 2)] {
            host.ip(&format!("addr add 192.0.2.{number}/24 dev u0"));
            host.ip("link set u0 up");
        }
        let home = |peer: u8| {
            let network = |name: &str, vni: u32, interface: &str| {
                let network = format!("[[network]]\nname = \"{name}\"\nvni = {vni}\npeers = [\"192.0.2.{peer}\"]\n");
                network + &format!("[[endpoint]]\nnetwork = \"{name}\"\ninterface = \"{interface}\"\n")
            };
            let red = if peer == 1 { network("red", 6000, "r0") } else { String::new() };
            // For the uplink; what endpoints get is less, and `Away` asks how much.
            let ends = "[underlay]\ninterface = \"u0\"\n[dataplane]\nring = 16384\n";
            Home::with_rings(&format!("{ends}{}{red}", network("blue", 5000, "b0")))
        };
        let blue = [near.container("b0", "10.0.0.1/24"), far.container("b0", "10.0.0.2/24")];
        let red = far.container("r0", "10.0.0.2/24");
        Self { homes: [home(2), home(1)], hosts: [near, far], blue, red }
    }

    fn start(&self, side: usize) -> Daemon {
        Daemon::start_as(&rig::binary(), &self.hosts[side], &self.homes[side])
    }

    /// Probes from one host to the other, once the way is known.
    fn probe(&self) -> Probe {
        assert!(self.blue[0].pings("10.0.0.2", 3));
        Probe::start(&self.blue[0], &self.blue[1], "10.0.0.2")
    }

    /// Packets that a container has received.
    fn received(container: &Namespace) -> u64 {
        let link: Value = serde_json::from_str(&container.ip("-s -j link show eth0")).unwrap();
        link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }
}

/// Everything that a daemon says it was asked for and has done.
fn state(home: &Home) -> [Value; 3] {
    let mut stations = home.json("fdb show --network blue");
    for station in stations.as_array_mut().unwrap() {
        station["used"] = Value::Null;
    }
    [home.json("network ls"), home.json("endpoint ls"), stations]
}

/// Descriptors and kilobytes of a process.
fn weight(daemon: &Daemon) -> (usize, u64) {
    let process = format!("/proc/{}", daemon.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes = line.trim().trim_end_matches(" kB").parse().unwrap();
    (fs::read_dir(format!("{process}/fd")).unwrap().count(), kilobytes)
}

/// Neither of the two hosts, which take turns, is to become heavier.
fn check_weights(weights: &[(usize, u64)]) {
    for (turn, &(descriptors, kilobytes)) in weights.iter().enumerate() {
        let (first_descriptors, first_kilobytes) = weights[turn % 2];
        assert!(descriptors <= first_descriptors + 1, "turn {turn}: {weights:?}");
        assert!(kilobytes <= first_kilobytes * 5 / 4 + 4096, "turn {turn}: {weights:?}");
    }
}

#[test]
fn a_planned_restart_loses_nothing_at_ten_thousand_packets_a_second() {
    let _alone = alone();
    let rig = Rig::new();
    let daemons = [rig.start(0), rig.start(1)];
    let probe = rig.probe();
    let (before, pid) = ([state(&rig.homes[0]), state(&rig.homes[1])], daemons[0].pid());
    let programs = rig.hosts[0].ip("-j link show u0");
    let mut weights = Vec::new();
    let mut times = Vec::new();
    let mut away = Away::new(&rig.homes[0], "b0");
    for turn in 0..turns(6, 50) {
        let side = turn % 2;
        let (start, from) = (Instant::now(), probe.sent());
        ask(&rig.homes[side], "restart");
        times.push(start.elapsed());
        assert_eq!(state(&rig.homes[side]), before[side], "turn {turn}");
        weights.push(weight(&daemons[side]));
        away.since(from, &probe);
    }
    let sent = probe.sent();
    let fate = probe.finish();
    times.sort_unstable();
    let (lost, median, longest) = (fate.lost(0..fate.sent), times[times.len() / 2], times[times.len() - 1]);
    println!("{} restarts, {lost} of {sent} lost, median {median:?}, longest {longest:?}", times.len());
    assert!(lost <= away.beyond(), "{away:?}");
    check_weights(&weights);
    assert_eq!(daemons[0].pid(), pid);
    assert_ne!(rig.hosts[0].ip("-j link show u0"), programs, "the program is a new one, too");
    for (daemon, host) in daemons.into_iter().zip(&rig.hosts) {
        assert_eq!(daemon.terminate(), Some(0));
        assert!(!host.ip("-d link").contains("xdp"), "{}", host.ip("-d link"));
    }
}

#[test]
fn after_a_kill_endpoints_come_back_by_themselves_and_little_is_lost() {
    let _alone = alone();
    let rig = Rig::new();
    let mut daemons = [Some(rig.start(0)), Some(rig.start(1))];
    let before = [state(&rig.homes[0]), state(&rig.homes[1])];
    let probe = rig.probe();
    let foreign = Rig::received(&rig.red);
    let mut marks = Vec::new();
    let mut weights = Vec::new();
    for turn in 0..turns(20, 200) {
        let side = turn % 2;
        marks.push(probe.sent());
        daemons[side].take().unwrap().kill();
        let daemon = rig.start(side);
        weights.push(weight(&daemon));
        daemons[side] = Some(daemon);
        probe.await_arrival();
        assert_eq!(state(&rig.homes[side])[..2], before[side][..2], "turn {turn}");
    }
    let fate = probe.finish();
    report(&fate, marks);
    // Floods of blue reach red's host, and none of them red.
    assert!(Rig::received(&rig.red) <= foreign + 20, "{} frames", Rig::received(&rig.red) - foreign);
    check_weights(&weights);
    for home in &rig.homes {
        assert_eq!(home.json("stats")["imbalance"], 0);
    }
}

/// Says what each kill cost, and holds it to a bound.
fn report(fate: &Fate, mut marks: Vec<u64>) {
    marks.push(fate.sent);
    let mut lost: Vec<u64> = marks.windows(2).map(|pair| fate.lost(pair[0]..pair[1])).collect();
    lost.sort_unstable();
    let (median, p99) = (lost[lost.len() / 2], lost[(lost.len() - 1) * 99 / 100]);
    println!(
        "{} kills, {} sent, lost per kill: median {median}, p99 {p99}, most {}",
        lost.len(),
        fate.sent,
        lost[lost.len() - 1]
    );
    assert_eq!(fate.lost(0..marks[0]), 0, "before the first");
    // A burst, while everything that comes during the restart fits into the rings.
    assert!(median <= 64, "{lost:?}");
    assert!(p99 <= RATE / 2, "{lost:?}");
}

#[test]
fn without_a_daemon_the_host_has_its_uplink_and_a_holder_gives_up_in_time() {
    let _alone = alone();
    let rig = Rig::new();
    let daemon = rig.start(0);
    let config = fs::read_to_string(rig.homes[0].config()).unwrap();
    assert!(rig.hosts[0].ip("-d link").contains("xdp"));
    daemon.kill();
    assert!(rig.hosts[0].ip("-d link show b0").contains("xdp"), "kept attached");
    assert!(rig.hosts[0].pings("192.0.2.2", 3), "the uplink stays the host's");
    let shorter = config.replace("hold = 10", "hold = 1");
    fs::write(rig.homes[0].config(), shorter).unwrap();
    // The holder that is there keeps its time; this one is dismissed, and the next has one second.
    let detach = || rig.homes[0].command("detach").arg("--config").arg(rig.homes[0].config()).output().unwrap();
    let output = detach();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!rig.hosts[0].ip("-d link").contains("xdp"));
    let again = detach();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing is kept attached"));

    let daemon = rig.start(0);
    let output = detach();
    assert!(String::from_utf8_lossy(&output.stderr).contains("another daemon uses it"));
    daemon.kill();
    let killed = Instant::now();
    eventually("the holder has detached", || !rig.hosts[0].ip("-d link").contains("xdp"));
    assert!(killed.elapsed() >= Duration::from_millis(900), "{:?}", killed.elapsed());
    assert!(rig.hosts[0].pings("192.0.2.2", 3));
    let _daemon = rig.start(0);
    assert!(rig.hosts[0].ip("-d link show b0").contains("xdp"));
}

#[test]
fn a_restart_into_a_program_or_a_file_that_cannot_be_is_refused() {
    let _alone = alone();
    let rig = Rig::new();
    let program = rig.homes[0].path("vxlane");
    fs::copy(rig::binary(), &program).unwrap();
    let daemon = Daemon::start_as(program.to_str().unwrap(), &rig.hosts[0], &rig.homes[0]);
    let _far = rig.start(1);
    let probe = rig.probe();
    let mut away = Away::new(&rig.homes[0], "b0");
    // Replaced as a package manager does it.
    let replace = |text: &[u8]| {
        let new = rig.homes[0].path("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::metadata(rig::VXLANE).unwrap().permissions()).unwrap();
        fs::rename(new, &program).unwrap();
    };
    let mut marks = vec![("replaced", probe.sent())];
    replace(b"#!/bin/sh\nexit 3\n");
    assert!(rig::ask_refused(&rig.homes[0], "restart").contains("does not run: exit status: 3"));
    marks.push(("refused", probe.sent()));
    replace(&fs::read(rig::binary()).unwrap());
    marks.push(("replaced again", probe.sent()));
    let config = fs::read_to_string(rig.homes[0].config()).unwrap();
    fs::write(rig.homes[0].config(), config.replace("vni = 5000", "vni = 50000000")).unwrap();
    assert!(rig::ask_refused(&rig.homes[0], "restart").contains("network[0].vni = 50000000: a VNI has 24 bits"));
    fs::write(rig.homes[0].config(), config).unwrap();
    let from = probe.sent();
    marks.push(("refused again", from));
    ask(&rig.homes[0], "restart");
    marks.push(("restarted", probe.sent()));
    let restart = away.since(from, &probe);
    let fate = probe.finish();
    let lost: Vec<u64> = (0..fate.sent).filter(|&number| fate.lost(number..number + 1) > 0).collect();
    assert!(lost.iter().all(|number| restart.contains(number)), "{lost:?}; {marks:?}");
    assert!(
        lost.len() as u64 <= away.beyond(),
        "{} of {}; {away:?}; by links {:?}",
        lost.len(),
        fate.sent,
        [&rig.blue[0], &rig.hosts[0], &rig.hosts[1], &rig.blue[1]].map(Namespace::lost_by_links)
    );
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn an_endpoint_that_went_while_nobody_looked_is_waited_for() {
    let _alone = alone();
    let host = host();
    let home = Home::with(
        "[underlay]\ninterface = \"u0\"\n[[network]]\nname = \"blue\"\nvni = 5000\n\
         [[endpoint]]\nnetwork = \"blue\"\ninterface = \"p0\"\n[[endpoint]]\nnetwork = \"blue\"\ninterface = \"p1\"\n",
    );
    let (web, db) = (host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24"));
    Daemon::start(&host, &home).kill();
    host.ip("link del p1");
    let daemon = Daemon::start(&host, &home);
    let state = |name: &str| home.json(&format!("endpoint inspect blue --name {name}"))["state"].clone();
    assert_eq!((state("p0"), state("p1")), ("attached".into(), "absent".into()));
    drop(db);
    let db = host.container("p1", "10.0.0.2/24");
    eventually("it is attached when it is back", || state("p1") == "attached");
    assert!(web.pings("10.0.0.2", 3) && db.pings("10.0.0.1", 3));
    assert_eq!(daemon.terminate(), Some(0));
}
