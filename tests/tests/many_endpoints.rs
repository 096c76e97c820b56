//! As many endpoints as a large host has: one ring for each worker, an idle processor, and packets
//! that cost what they cost with two.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use vxlane_tests::{
    frames::Talk,
    lab::{Lab, MacAddr, Station},
    netns::Netns,
    peer::{VxlaneOptions, VxlaneVtep, find_binary},
    process, soak,
    traffic::raw::RawSender,
};

/// Endpoints of one host, all on one network, whose containers are one namespace.
struct Crowd {
    // Ends before the namespaces go.
    vtep: VxlaneVtep,
    /// How long that took to start.
    start: Duration,
    senders: Vec<RawSender>,
    _containers: Netns,
    _lab: Lab,
}

fn station(number: u16) -> Station {
    let [high, low] = (number + 1).to_be_bytes();
    Station {
        mac: MacAddr([2, 0, 0, 9, high, low]),
        ipv4: Ipv4Addr::new(10, 9, high, low),
        ipv6: Ipv6Addr::UNSPECIFIED,
    }
}

/// Runs many `ip` commands at once.
fn batch(ns: &Netns, lines: &str) {
    let file = ns.directory().join("batch");
    fs::write(&file, lines).unwrap();
    ns.ip(&format!("-batch {}", file.display())).unwrap();
}

impl Crowd {
    fn new(count: u16) -> Self {
        let lab = Lab::new(&["A"]).unwrap();
        let (host, containers) = (lab.host("A"), Netns::new("crowd").unwrap());
        for ns in [host.ns(), &containers] {
            // Nobody is to speak unasked: what one says here, all hear.
            ns.sysctl("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        let (mut here, mut there) = (String::new(), String::new());
        let mut extra = "[[network]]\nname = \"crowd\"\nvni = 7000\n".to_owned();
        for number in 0..count {
            let MacAddr(mac) = station(number).mac;
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            let name = format!("c{number}");
            writeln!(here, "link add p{number} up type veth peer name {name} netns {}", containers.name()).unwrap();
            writeln!(there, "link set {name} address {mac} up").unwrap();
            write!(extra, "[[endpoint]]\nnetwork = \"crowd\"\ninterface = \"p{number}\"\nmac = \"{mac}\"\n").unwrap();
        }
        batch(host.ns(), &here);
        batch(&containers, &there);
        let senders = (0..count).map(|number| RawSender::open(&containers, &format!("c{number}")).unwrap()).collect();
        let binary = Some(with_few_descriptors(host.ns()));
        let begin = Instant::now();
        let options = VxlaneOptions { binary, express: true, extra, ..VxlaneOptions::default() };
        let vtep = VxlaneVtep::start(host, &[], &options).unwrap();
        Self { vtep, start: begin.elapsed(), senders, _containers: containers, _lab: lab }
    }

    /// Has the daemon detach everything and end; says how long that took.
    fn end(mut self) -> Duration {
        let begin = Instant::now();
        self.vtep.daemon().signal(Signal::SIGTERM).unwrap();
        let status = self.vtep.daemon().wait(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "{status}");
        begin.elapsed()
    }

    /// From each of these endpoints to the next of them, and from the last to the first.
    fn frames(&self, numbers: &[u16]) -> Vec<(usize, Vec<u8>)> {
        let next = numbers.iter().cycle().skip(1);
        let pairs = numbers.iter().zip(next);
        pairs
            .map(|(&from, &to)| (usize::from(from), Talk::new(station(from), station(to)).udp4(7, 9, &[0; 22])))
            .collect()
    }

    /// Has every one of these flows be known.
    fn warm(&self, frames: &[(usize, Vec<u8>)]) {
        let known = || {
            frames.iter().for_each(|(from, frame)| self.senders[*from].send(frame).unwrap());
            let shown = self.vtep.cli(&["express", "show", "--json"]).unwrap();
            (shown["flows"].as_array().unwrap().len() >= frames.len()).then_some(())
        };
        process::await_value("every flow", Duration::from_secs(20), known, || self.vtep.stderr()).unwrap();
    }

    /// What one frame takes, by the best of some rounds: what else the machine does only adds.
    fn cost(&self, frames: &[(usize, Vec<u8>)]) -> Duration {
        let round = || {
            let start = Instant::now();
            let turns = FRAMES / frames.len();
            for _ in 0..turns {
                frames.iter().for_each(|(from, frame)| self.senders[*from].send(frame).unwrap());
            }
            start.elapsed() / u32::try_from(turns * frames.len()).unwrap()
        };
        (0..7).map(|_| round()).min().unwrap()
    }

    /// Processor time that the daemon has used.
    fn used(&self) -> Duration {
        let pid = self.vtep.cli(&["status", "--json"]).unwrap()["pid"].as_u64().unwrap();
        // Of each thread in nanoseconds, first of three numbers (`Documentation/scheduler/sched-stats.rst`).
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let used = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap());
        used.map(|used| Duration::from_nanos(used.split(' ').next().unwrap().parse().unwrap())).sum()
    }
}

/// The daemon, to be started as where a process has few descriptors until it asks for more.
fn with_few_descriptors(host: &Netns) -> PathBuf {
    let (binary, script) = (find_binary().unwrap(), host.directory().join("vxlane"));
    fs::write(&script, format!("#!/bin/sh\nulimit -S -n 64\nexec {} \"$@\"\n", binary.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// Frames of one round.
const FRAMES: usize = 10_000;

#[test]
fn a_packet_among_very_many_endpoints_costs_what_it_costs_between_two_and_silence_costs_nothing() {
    let count = soak::choose(128, 1000);
    let begin = Instant::now();
    let crowds = [Crowd::new(2), Crowd::new(count)];
    let many = &crowds[1];
    println!("{count} endpoints: set up in {:?}, of which the daemon's start is {:?}", begin.elapsed(), many.start);
    assert!(many.start < Duration::from_secs(10), "{:?}", many.start);
    let status = many.vtep.cli(&["status", "--json"]).unwrap();
    let halves = |half: &str| status["frames"].as_array().unwrap().iter().filter(|one| one["half"] == half).count();
    assert_eq!((halves("receive"), halves("transmit")), (1, 1), "one worker, one ring: {}", status["frames"]);
    let ports = status["ports"].as_array().unwrap();
    assert_eq!(ports.iter().filter(|port| port["lane"] == "express").count(), usize::from(count) + 1);
    let shown = many.vtep.cli(&["express", "show", "--json"]).unwrap();
    let by = |device: &serde_json::Value| device["attached"].as_str().unwrap().to_owned();
    let by: Vec<String> = shown["devices"].as_array().unwrap().iter().map(by).collect();
    assert!(by.iter().all(|by| by == "clsact"), "links would take the kernel long: {by:?}");

    // The kernel has told of what the start did to interfaces.
    thread::sleep(Duration::from_secs(1));
    let before = many.used();
    let begin = Instant::now();
    thread::sleep(Duration::from_secs(soak::choose(3, 20)));
    let idle = (many.used() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("idle: {:.2} % of a processor", idle * 100.0);
    assert!(idle < 0.01, "{:.2} % of a processor", idle * 100.0);

    let all: Vec<u16> = (0..count).collect();
    let flows = [crowds[0].frames(&[0, 1]), many.frames(&[0, count / 2]), many.frames(&all)];
    crowds[0].warm(&flows[0]);
    many.warm(&flows[2]);
    many.warm(&flows[1]);
    // In turns, so that what changes on the machine changes for all.
    let mut costs = [Duration::MAX; 3];
    for _ in 0..3 {
        for (index, crowd) in [&crowds[0], many, many].into_iter().enumerate() {
            costs[index] = costs[index].min(crowd.cost(&flows[index]));
        }
    }
    let [two, among, everybody] = costs;
    println!("a frame between two of two {two:?}, between two of {count} {among:?}, each to the next {everybody:?}");
    // Other work on the machine falls on one more than on the other, and on short runs most.
    let most = two.mul_f64(soak::choose(1.5, 1.2));
    assert!(among <= most, "{among:?} where it is {two:?} with two endpoints");
    let stats = many.vtep.cli(&["stats", "--json"]).unwrap();
    assert_eq!(stats["imbalance"], 0);
    let taken = |lane: usize| stats["lanes"][lane]["received"].as_u64().unwrap();
    assert!(taken(1) > taken(0) * 50, "in the express lane: {}", stats["lanes"]);
    let end = crowds.map(Crowd::end)[1];
    println!("{count} endpoints: the daemon's end took {end:?}");
    assert!(end < Duration::from_secs(10), "{end:?}");
}
