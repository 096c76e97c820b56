//! vxlane beside other VTEPs and beside itself, both ways, with endpoint offloads on.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Mutex, time::Duration};

use vxlane_tests::{
    lab::LabOptions,
    peer::{Account, KernelOptions, VtepKind, VxlaneOptions},
    rig::Rig,
    traffic::{
        pace::{Amount, Pace},
        ping::{PingOptions, ping},
        tcp::{self, TcpOptions, Way},
        udp::{self, UdpOptions},
    },
};

/// UDP packets in each direction; a million in all.
const PACKETS: u64 = 500_000;

#[test]
fn vxlane_and_the_kernel_carry_a_million_packets_and_verified_streams() {
    let _alone = ALONE.lock();
    let rig = start(false, &VtepKind::kernel());
    check_pings(&rig);
    check_udp(&rig, 25_000, PACKETS);
    check_streams(&rig);
}

#[test]
fn vxlane_and_a_kernel_that_leaves_checksums_and_segments_to_the_wire_understand_each_other() {
    let _alone = ALONE.lock();
    for udpcsum in [true, false] {
        let rig = start(true, &VtepKind::Kernel(KernelOptions { udpcsum, ..KernelOptions::default() }));
        check_pings(&rig);
        check_udp(&rig, 20_000, 20_000);
        check_streams(&rig);
    }
}

#[test]
fn vxlane_and_open_vswitch_carry_a_million_packets_and_verified_streams() {
    let _alone = ALONE.lock();
    let rig = start(false, &VtepKind::ovs());
    check_pings(&rig);
    // Its packet sockets hold some 270 frames, so that a late thread loses some: what it loses
    // is not ours to answer for, and what we lose is counted.
    for (from, to, ours) in [(&rig.left, &rig.right, true), (&rig.right, &rig.left, false)] {
        let options =
            UdpOptions { pace: Pace::Rate(20_000), amount: Amount::Packets(PACKETS), ..UdpOptions::default() };
        let before = forwarded(&account(&rig, 0));
        let (sent, received) = udp::exchange(from, to, &options).unwrap();
        let forwarded = forwarded(&account(&rig, 0)) - before;
        assert_eq!((received.corrupted, received.duplicates), (0, 0), "{received:?}");
        assert!(received.distinct >= sent.packets / 10 * 9, "{received:?}\n{}", rig.diagnosis());
        let (least, who) = if ours { (sent.packets, "all that was sent") } else { (received.distinct, "what arrived") };
        assert!(forwarded >= least, "{forwarded} forwarded of {least}, {who}: {received:?}");
    }
    check_nothing_dropped(&account(&rig, 0));
    check_streams(&rig);
}

#[test]
fn vxlane_and_vxlane_carry_packets_and_verified_streams() {
    let _alone = ALONE.lock();
    let rig = start(true, &VtepKind::vxlane());
    check_pings(&rig);
    check_udp(&rig, 25_000, 200_000);
    check_streams(&rig);
    check_nothing_dropped(&account(&rig, 1));
}

#[test]
fn in_the_express_lane_vxlane_and_vxlane_carry_packets_and_verified_streams() {
    let _alone = ALONE.lock();
    let options = LabOptions { wire_offload: true, ..LabOptions::default() };
    let express = VtepKind::Vxlane(VxlaneOptions { express: true, ..VxlaneOptions::default() });
    let rig = Rig::start(&options, [&express, &express]).unwrap();
    check_pings(&rig);
    check_udp(&rig, 25_000, 200_000);
    check_streams(&rig);
    for side in 0..2 {
        let account = account(&rig, side);
        check_nothing_dropped(&account);
        // Four hundred thousand packets and the streams passed; workers saw what began them.
        assert!(account.number(&["received"]) < 100_000, "{account:?}");
    }
}

/// Each test here loads the machine: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn start(wire_offload: bool, peer: &VtepKind) -> Rig {
    let options = LabOptions { wire_offload, ..LabOptions::default() };
    Rig::start(&options, [&VtepKind::vxlane(), peer]).unwrap()
}

fn check_pings(rig: &Rig) {
    for (from, to) in [(&rig.left, &rig.right), (&rig.right, &rig.left)] {
        for size in [56, 1400] {
            let options = PingOptions { count: 20, size, ..PingOptions::default() };
            for target in [to.ipv4().into(), std::net::IpAddr::from(to.station().ipv6)] {
                let report = ping(from.ns(), target, &options).unwrap();
                assert!(report.complete(), "{target}: {report:?}\n{}", rig.diagnosis());
            }
        }
    }
}

/// Numbered packets both ways, each of which arrives once and sound.
fn check_udp(rig: &Rig, rate: u64, packets: u64) {
    for (from, to) in [(&rig.left, &rig.right), (&rig.right, &rig.left)] {
        let options = UdpOptions {
            payload: 200,
            flows: 8,
            pace: Pace::Rate(rate),
            amount: Amount::Packets(packets),
            ..UdpOptions::default()
        };
        let (sent, received) = udp::exchange(from, to, &options).unwrap();
        assert!(received.exactly(sent.packets), "{sent:?} {received:?}\n{}", rig.diagnosis());
    }
    check_nothing_dropped(&account(rig, 0));
}

/// TCP both ways at once, every byte compared.
fn check_streams(rig: &Rig) {
    let options =
        TcpOptions { bytes: 64 << 20, way: Way::Both, patience: Duration::from_secs(20), ..TcpOptions::default() };
    for (from, to) in [(&rig.left, &rig.right), (&rig.right, &rig.left)] {
        tcp::stream(from, to, &options).unwrap_or_else(|error| panic!("{error}\n{}", rig.diagnosis()));
    }
}

fn account(rig: &Rig, side: usize) -> Account {
    rig.vteps[side].as_vxlane().unwrap().account().unwrap()
}

/// Frames that the daemon has sent on, over all ports.
fn forwarded(account: &Account) -> u64 {
    account.number(&["transmitted"])
}

fn check_nothing_dropped(account: &Account) {
    assert_eq!((account.number(&["dropped"]), account.lost_in_kernel()), (0, 0), "{account:?}");
}
