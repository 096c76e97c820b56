//! Many endpoints, many changes, changes that contradict each other; at full length in `cargo xtask soak`.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    collections::HashSet,
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{Daemon, Home, Namespace, ask, host};
use serde_json::Value;

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";

/// `suite`, or `soak` where there is time.
fn choose<T>(suite: T, soak: T) -> T {
    if std::env::var_os("VXLANE_SOAK").is_some_and(|value| value == "1") { soak } else { suite }
}

fn connect(network: &str, name: &str, namespace: &Namespace, ifname: &str) -> String {
    format!("network connect {network} --netns /run/netns/{} --name {name} --ifname {ifname}", namespace.0)
}

/// What a daemon holds of the host.
#[derive(Clone, Debug)]
struct Holdings {
    descriptors: usize,
    maps: usize,
    frames: u64,
    memory: u64,
}

impl Holdings {
    fn of(home: &Home) -> Self {
        let status = home.json("status");
        let process = format!("/proc/{}", status["pid"]);
        let open =
            fs::read_dir(format!("{process}/fd")).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let open: Vec<_> = open.map(|target| target.to_string_lossy().into_owned()).collect();
        let text = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            // Connections that are just being closed come and go.
            descriptors: open.iter().filter(|target| !target.starts_with("socket:")).count(),
            maps: open.iter().filter(|target| target.contains("bpf")).count(),
            frames: status["frames"].as_array().unwrap().iter().filter_map(|frames| frames["total"].as_u64()).sum(),
            memory: resident.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }
}

/// A ping every five milliseconds, until told to stop.
struct Flow(Child);

impl Flow {
    fn start(from: &Namespace, to: &str) -> Self {
        let mut ping = from.command("ping");
        Self(ping.args(["-q", "-i", "0.005", "-w", "600", to]).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// How many were sent and how many answered.
    fn stop(self) -> (u64, u64) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT).unwrap();
        let text = String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap();
        let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

#[test]
fn networks_and_endpoints_come_and_go_and_a_flow_beside_them_loses_nothing() {
    let (host, home) = (host(), Home::with(UPLINK));
    let daemon = Daemon::start(&host, &home);
    let (a, b, passer_by) = (Namespace::new(), Namespace::new(), Namespace::new());
    ask(&home, "network create still --vni 1 --subnet 10.1.0.0/24");
    ask(&home, &connect("still", "a", &a, "eth0"));
    ask(&home, &connect("still", "b", &b, "eth0"));
    assert!(a.pings("10.1.0.2", 3));
    let cycle = || {
        ask(&home, "network create busy --vni 2 --subnet 10.2.0.0/24 --peer 192.0.2.9");
        ask(&home, &connect("busy", "c", &passer_by, "eth0"));
        ask(&home, "network disconnect busy --name c");
        ask(&home, "network rm busy");
    };
    (0..5).for_each(|_| cycle());
    let (before, links) = (Holdings::of(&home), host.ip("-br link").lines().count());
    let flow = Flow::start(&a, "10.1.0.2");
    let cycles = choose(100, 1000);
    let begin = Instant::now();
    (0..cycles).for_each(|_| cycle());
    let time = begin.elapsed();
    let (sent, answered) = flow.stop();
    let after = Holdings::of(&home);
    println!("{cycles} cycles in {time:?}, {answered} of {sent} pings answered, {before:?} then {after:?}");
    // The last one may still have been under way.
    assert!(sent > 100 && answered + 1 >= sent, "{answered} of {sent}");
    assert_eq!((after.descriptors, after.maps, after.frames), (before.descriptors, before.maps, before.frames));
    assert!(after.memory < before.memory + 4096, "KiB: {} then {}", before.memory, after.memory);
    assert_eq!(host.ip("-br link").lines().count(), links);
    assert_eq!(home.json("stats")["imbalance"], 0);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn sixteen_networks_with_256_endpoints_are_connected_and_started_in_time() {
    let (host, home) = (host(), Home::with(UPLINK));
    let daemon = Daemon::start(&host, &home);
    let empty = Holdings::of(&home);
    let containers: Vec<Namespace> = (0..16).map(|_| Namespace::new()).collect();
    let mut times = Vec::new();
    for network in 0..16 {
        ask(&home, &format!("network create n{network} --vni {} --subnet 10.{network}.0.0/24", 100 + network));
        for (number, container) in containers.iter().enumerate() {
            let begin = Instant::now();
            ask(&home, &connect(&format!("n{network}"), &format!("e{number}"), container, &format!("eth{network}")));
            times.push(begin.elapsed());
        }
    }
    let full = Holdings::of(&home);
    assert!(containers[0].pings("10.15.0.16", 3) && containers[15].pings("10.0.0.1", 3));
    assert_eq!(daemon.terminate(), Some(0));
    let begin = Instant::now();
    let daemon = Daemon::start(&host, &home);
    let start = begin.elapsed();
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let each = (full.memory - empty.memory) / 256;
    println!("256 endpoints: start {start:?}, connect median {median:?}, worst {worst:?}, {each} KiB resident each");
    assert_eq!(home.json("endpoint ls").as_array().unwrap().len(), 256);
    assert!(containers[0].pings("10.15.0.16", 3) && containers[15].pings("10.0.0.1", 3));
    // Where others use the machine too it takes longer; soak has it to itself.
    let late = choose(4, 1);
    assert!(start < Duration::from_secs(5) * late, "{start:?}");
    assert!(median < Duration::from_millis(100) * late, "{median:?}");
    assert!(each < 2048, "{each} KiB for each endpoint");
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn of_changes_that_contradict_each_other_each_is_made_whole_or_refused_whole() {
    let (host, home) = (host(), Home::with(UPLINK));
    let daemon = Daemon::start(&host, &home);
    let changes = choose(100, 500);
    let race = |me: usize| {
        let mut done = 0;
        for number in 0..changes {
            let network = (number * 7 + me) % 4;
            let arguments = match (number + me) % 5 {
                0 | 1 => {
                    format!("network create n{network} --vni {} --peer 192.0.2.{}", 10 + (number + me) % 6, 20 + me)
                }
                2 => format!("network rm n{network}"),
                3 => format!("peer add 192.0.2.{} --network n{network}", 30 + number % 3),
                _ => format!("peer del 192.0.2.{} --network n{network}", 30 + number % 3),
            };
            let output = home.ask(&arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(0) => done += 1,
                code => assert!(code == Some(2) && said.starts_with("vxlane: "), "{arguments}: {code:?} {said}"),
            }
        }
        done
    };
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| race(1));
        (race(0), second.join().unwrap())
    });
    assert!(first > 0 && second > 0, "{first} and {second} of {changes}");
    let sorted = || {
        let Value::Array(mut networks) = home.json("network ls") else { panic!("a list") };
        networks.sort_by_key(|network| network["name"].to_string());
        networks
    };
    let before = sorted();
    for key in ["name", "vni"] {
        let values: HashSet<String> = before.iter().map(|network| network[key].to_string()).collect();
        assert_eq!(values.len(), before.len(), "{key} of {before:?}");
    }
    for network in &before {
        // Each was created with a peer, and none is there in part.
        assert!(!network["peers"].as_array().unwrap().is_empty(), "{network}");
    }
    assert_eq!(home.json("stats")["imbalance"], 0);
    assert_eq!(daemon.terminate(), Some(0));
    let _daemon = Daemon::start(&host, &home);
    assert_eq!(sorted(), before, "the store has what was answered");
}
