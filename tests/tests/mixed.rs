//! Everything at once, for a while: no packet is lost without a counter, and nothing grows.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use vxlane_tests::{
    frames::Talk,
    lab::{Container, LabOptions, MacAddr, Station},
    peer::{Account, VtepKind},
    rig::Rig,
    soak,
    traffic::{
        pace::{Amount, Pace},
        ping::{PingOptions, ping},
        raw::RawSender,
        tcp::{self, TcpOptions, Way},
        udp::{self, UdpOptions},
    },
};

#[test]
fn a_mixed_run_loses_nothing_that_no_counter_explains_and_grows_nothing() {
    let rig = Rig::start(
        &LabOptions { wire_offload: true, ..LabOptions::default() },
        [&VtepKind::vxlane(), &VtepKind::vxlane()],
    );
    let rig = rig.unwrap();
    run(&rig, Duration::from_secs(3));
    let before = sizes(&rig);
    let began = Instant::now();
    let tally = run(&rig, soak::choose(Duration::from_secs(12), Duration::from_secs(600)));
    let (after, explained) = (sizes(&rig), explained(&rig));
    println!(
        "{:.0?}: {tally:?}, {explained} explained; [RSS KiB, descriptors] before {before:?}, after {after:?}",
        began.elapsed()
    );
    let lost = tally.lost.load(Ordering::Relaxed);
    assert!(lost <= explained, "{lost} lost, {explained} explained\n{}", rig.diagnosis());
    assert!(tally.sent.load(Ordering::Relaxed) > 10_000 && tally.bytes.load(Ordering::Relaxed) > 1 << 20, "{tally:?}");
    for (before, after) in before.iter().zip(after) {
        assert!(after[0] <= before[0] + 1024, "resident memory in KiB: {before:?}, then {after:?}");
        assert_eq!(before[1], after[1], "open descriptors");
    }
}

/// What the ends of the traffic have seen.
#[derive(Debug, Default)]
struct Tally {
    /// Numbered datagrams.
    sent: AtomicU64,
    /// Datagrams that never came, and pings that were not answered.
    lost: AtomicU64,
    /// Echo requests answered.
    pings: AtomicU64,
    /// Bytes of streams, each compared.
    bytes: AtomicU64,
    /// Frames to stations that nobody has, and from stations that nobody had before.
    strange: AtomicU64,
}

/// Datagrams and streams both ways, pings, floods and new stations, all at once, for `time`.
fn run(rig: &Rig, time: Duration) -> Tally {
    let tally = Tally::default();
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for (from, to) in [(&rig.left, &rig.right), (&rig.right, &rig.left)] {
            scope.spawn(|| repeat(end, || datagrams(from, to, &tally)));
            scope.spawn(|| repeat(end, || strangers(from, to, &tally)));
        }
        scope.spawn(|| repeat(end, || streams(rig, &tally)));
        scope.spawn(|| repeat(end, || pings(rig, &tally)));
    });
    tally
}

fn repeat(end: Instant, mut work: impl FnMut()) {
    while Instant::now() < end {
        work();
    }
}

fn datagrams(from: &Container, to: &Container, tally: &Tally) {
    let (pace, amount) = (Pace::Rate(4_000), Amount::Time(Duration::from_secs(2)));
    let options = UdpOptions { payload: 300, flows: 16, pace, amount, batch: 8, ..UdpOptions::default() };
    let (sent, received) = udp::exchange(from, to, &options).unwrap();
    assert_eq!((received.corrupted, received.duplicates), (0, 0), "{received:?}");
    tally.sent.fetch_add(sent.packets, Ordering::Relaxed);
    tally.lost.fetch_add(sent.packets - received.distinct - received.socket_drops, Ordering::Relaxed);
}

fn streams(rig: &Rig, tally: &Tally) {
    let options =
        TcpOptions { bytes: 32 << 20, way: Way::Both, patience: Duration::from_secs(20), ..TcpOptions::default() };
    tcp::stream(&rig.left, &rig.right, &options).unwrap_or_else(|error| panic!("{error}\n{}", rig.diagnosis()));
    tally.bytes.fetch_add(2 * options.bytes, Ordering::Relaxed);
}

fn pings(rig: &Rig, tally: &Tally) {
    let options = PingOptions { count: 200, size: 1400, ..PingOptions::default() };
    let report = ping(rig.left.ns(), rig.right.ipv4(), &options).unwrap();
    tally.pings.fetch_add(u64::from(report.received), Ordering::Relaxed);
    tally.lost.fetch_add(u64::from(report.sent - report.received), Ordering::Relaxed);
}

/// Frames to nobody, which are flooded, each from a station that was never heard before.
fn strangers(from: &Container, to: &Container, tally: &Tally) {
    let sender = RawSender::open(from.ns(), "eth0").unwrap();
    let station = |first: u8, number: u64| {
        let [.., a, b, c, d] = number.to_be_bytes();
        Station { mac: MacAddr([first, 0, a, b, c, d]), ..to.station() }
    };
    let side = u64::from(from.station().mac.0[5]) << 24;
    let frames: Vec<Vec<u8>> = (0..64)
        .map(|_| tally.strange.fetch_add(1, Ordering::Relaxed) | side)
        .map(|number| Talk::new(station(0x06, number), station(0x0a, number)).udp4(7, 9, b"strange"))
        .collect();
    let amount = Amount::Packets(frames.len() as u64);
    sender.cycle(&frames, Pace::Rate(200), amount).unwrap();
}

/// Resident memory in KiB and open descriptors of each daemon.
fn sizes(rig: &Rig) -> Vec<[u64; 2]> {
    let size = |process: u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
        [resident, fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64]
    };
    rig.vteps.iter().flat_map(|vtep| vtep.processes()).map(size).collect()
}

/// Every packet that some counter says was lost: ours, the rings', the devices' and the sockets'.
fn explained(rig: &Rig) -> u64 {
    let accounts: Vec<Account> = rig.vteps.iter().map(|vtep| vtep.as_vxlane().unwrap().account().unwrap()).collect();
    let ours: u64 = accounts.iter().map(|account| account.number(&["dropped"]) + account.lost_in_kernel()).sum();
    let hosts = rig.lab.hosts().map(|host| host.ns());
    let devices: u64 = hosts.chain([rig.left.ns(), rig.right.ns()]).map(|ns| ns.lost_by_links().unwrap()).sum();
    ours + devices
}
