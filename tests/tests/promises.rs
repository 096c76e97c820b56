//! The figures that vxlane promises, measured beside the kernel in the same run.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, thread, time::Duration};

use vxlane_tests::{
    lab::LabOptions,
    peer::{Account, VtepKind, VxlaneOptions},
    rig::Rig,
    traffic::ping::{PingOptions, ping},
};

fn pair(kind: &VtepKind) -> Rig {
    let options = LabOptions { wire_offload: true, ..LabOptions::default() };
    Rig::start(&options, [kind, kind]).unwrap()
}

/// Without the express lane, which is faster still.
fn by_workers() -> VtepKind {
    VtepKind::Vxlane(VxlaneOptions { express: false, switched: None, ..VxlaneOptions::default() })
}

fn accounts(rig: &Rig) -> [Account; 2] {
    rig.vteps.each_ref().map(|vtep| vtep.as_vxlane().unwrap().account().unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Tests here measure: one at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_hundred_thousand_flood_pings_all_come_back_and_every_frame_is_accounted_for() {
    let _alone = ALONE.lock();
    let rig = pair(&VtepKind::vxlane());
    let options = PingOptions { count: 100_000, interval: None, ..PingOptions::default() };
    let report = ping(rig.left.ns(), rig.right.ipv4(), &options).unwrap();
    assert!(report.complete(), "{report:?}\n{}", rig.diagnosis());
    for account in accounts(&rig) {
        assert!(account.number(&["received"]) >= 200_000, "{account:?}");
        assert_eq!((account.number(&["dropped"]), account.lost_in_kernel()), (0, 0), "{account:?}");
    }
}

#[test]
fn one_flow_of_small_packets_goes_at_least_one_and_a_half_times_as_fast_as_through_the_kernel() {
    let _alone = ALONE.lock();
    let rigs = [pair(&VtepKind::kernel()), pair(&by_workers())];
    let rounds: Vec<[f64; 2]> =
        (0..5).map(|_| rigs.each_ref().map(|rig| rig.flood(64, Duration::from_secs(1)).unwrap().1.pps())).collect();
    let kernel = median(rounds.iter().map(|round| round[0]).collect());
    let ours = median(rounds.iter().map(|round| round[1]).collect());
    println!("kernel {kernel:.0} pps, vxlane {ours:.0} pps, {:.2} times; rounds {rounds:.0?}", ours / kernel);
    assert!(ours >= 1.5 * kernel, "{:.2} times the kernel: {rounds:.0?}\n{}", ours / kernel, rigs[1].diagnosis());
    // What was sent and did not arrive has a counter, here or in the kernel.
    for account in accounts(&rigs[1]) {
        assert_eq!(account.stats["imbalance"], 0);
    }
}

#[test]
fn an_idle_round_trip_takes_at_most_two_and_a_half_times_the_kernels() {
    let _alone = ALONE.lock();
    let rigs = [pair(&VtepKind::kernel()), pair(&by_workers())];
    let mut times = [vec![], vec![]];
    // Far enough apart that everything has gone to sleep in between: that is what idle means.
    let options = PingOptions { count: 20, interval: Some(Duration::from_millis(100)), ..PingOptions::default() };
    for _ in 0..4 {
        for (rig, times) in rigs.iter().zip(&mut times) {
            times.extend(ping(rig.left.ns(), rig.right.ipv4(), &options).unwrap().times);
        }
    }
    let [kernel, ours] = times.map(median);
    println!("kernel {kernel:.3} ms, vxlane {ours:.3} ms, {:.2} times", ours / kernel);
    assert!(ours <= 2.5 * kernel, "kernel {kernel:.3} ms, vxlane {ours:.3} ms");
}

#[test]
fn an_idle_daemon_takes_less_than_two_percent_of_a_core() {
    let _alone = ALONE.lock();
    let rig = pair(&VtepKind::vxlane());
    let process = rig.vteps[0].processes()[0];
    let before = cpu_ticks(process);
    // The time is what is measured: there is no event to await.
    thread::sleep(Duration::from_secs(5));
    let spent = cpu_ticks(process) - before;
    println!("{spent} hundredths of a second of CPU in five seconds: {:.1} %", spent as f64 / 5.0);
    assert!(spent < 10, "{spent} ticks in 5 s");
}

/// User and system time of a process, in hundredths of a second (`proc_pid_stat(5)`).
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}
