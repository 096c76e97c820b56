//! vxlane beside other VTEPs and beside itself, both ways, with endpoint offloads on.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Mutex, time::Duration};

use vxlane_tests::{
    lab::{Lab, LabOptions, Underlay},
    peer::{Account, KernelOptions, Segment, Vtep, VtepKind, VxlaneOptions},
    rig::Rig,
    traffic::{
        pace::{Amount, Pace},
        ping::{PingOptions, ping},
        tcp::{self, TcpOptions, Way},
        udp::{self, UdpOptions},
    },
};

/// So many packets or bytes of what is sent where these tests run for the first time; a sixteenth
/// where they run again in another lane.
fn share(count: u64) -> u64 {
    if is_again() { count / 16 } else { count }
}

fn is_again() -> bool {
    std::env::var_os("VXLANE_EXPRESS").is_some()
}

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
    // is not ours to answer for, and what we lose is counted. Of fewer packets it would be a larger part.
    let pace = Pace::Rate(if is_again() { 10_000 } else { 20_000 });
    for (from, to, ours) in [(&rig.left, &rig.right, true), (&rig.right, &rig.left, false)] {
        let options = UdpOptions { pace, amount: Amount::Packets(share(PACKETS)), ..UdpOptions::default() };
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
    check_ourselves(Underlay::V4, &VxlaneOptions::default(), "192.0.2.2", 1400);
}

#[test]
fn over_ipv6_without_checksums_they_do_so_too() {
    let _alone = ALONE.lock();
    let options = VxlaneOptions { zero_checksums: true, ..VxlaneOptions::default() };
    check_ourselves(Underlay::V6, &options, "2001:db8::2", 1382);
}

/// Two hosts with vxlane; the second has the address `far`, and so many bytes of a ping fit.
fn check_ourselves(underlay: Underlay, options: &VxlaneOptions, far: &str, longest: u16) {
    let lab = LabOptions { wire_offload: true, underlay, ..LabOptions::default() };
    let kind = VtepKind::Vxlane(options.clone());
    let rig = Rig::start(&lab, [&kind, &kind]).unwrap();
    check_pings_of(&rig, &[56, longest]);
    check_udp(&rig, 25_000, 200_000);
    check_streams(&rig);
    for side in 0..2 {
        check_nothing_dropped(&account(&rig, side));
    }
    if is_again() {
        return;
    }
    let shown = rig.vteps[0].as_vxlane().unwrap().cli(&["express", "show", "--json"]).unwrap();
    for end in ["src_vtep", "dst_vtep"] {
        assert!(shown["flows"].as_array().unwrap().iter().any(|flow| flow[end] == far), "{shown}");
    }
    for side in 0..2 {
        // Four hundred thousand packets and the streams passed; workers saw what began them.
        let lanes = rig.vteps[side].as_vxlane().unwrap().cli(&["stats", "--lane", "--json"]).unwrap();
        let all = account(&rig, side).number(&["received"]);
        assert!(lanes[0]["received"].as_u64().unwrap() < all / 4, "{lanes}");
    }
}

#[test]
fn over_ipv6_vxlane_and_the_kernel_carry_packets_and_verified_streams_of_1430_bytes() {
    let _alone = ALONE.lock();
    for wire_offload in [false, true] {
        let rig = start_v6(wire_offload, &VtepKind::vxlane(), &VtepKind::kernel());
        check_pings_of(&rig, &[56, 1382]);
        check_udp(&rig, 20_000, 40_000);
        check_streams(&rig);
    }
}

#[test]
fn rfc6936_4_3_over_ipv6_a_kernel_without_checksums_is_heard_only_where_that_was_asked_for() {
    let _alone = ALONE.lock();
    let kernel = |extra: &str| VtepKind::Kernel(KernelOptions { extra: extra.to_owned(), ..KernelOptions::default() });
    let strict = start_v6(false, &VtepKind::vxlane(), &kernel("udp6zerocsumtx"));
    let options = PingOptions { count: 3, ..PingOptions::default() };
    let report = ping(strict.left.ns(), strict.right.ipv4(), &options).unwrap();
    assert!(!report.complete(), "{report:?}");
    let account = account(&strict, 0);
    assert!(account.number(&["drops", "udp6_zero_csum"]) > 0, "{account:?}");
    assert_eq!(account.number(&["dropped"]), account.number(&["drops", "udp6_zero_csum"]), "{account:?}");
    drop(strict);
    let lenient = VtepKind::Vxlane(VxlaneOptions { zero_checksums: true, ..VxlaneOptions::default() });
    let rig = start_v6(false, &lenient, &kernel("udp6zerocsumtx udp6zerocsumrx"));
    check_pings_of(&rig, &[56, 1382]);
    check_udp(&rig, 20_000, 20_000);
    check_streams(&rig);
}

#[test]
fn over_ipv6_vxlane_and_open_vswitch_carry_packets_and_verified_streams() {
    let _alone = ALONE.lock();
    let rig = start_v6(false, &VtepKind::vxlane(), &VtepKind::ovs());
    check_pings_of(&rig, &[56, 1382]);
    check_streams(&rig);
    check_nothing_dropped(&account(&rig, 0));
}

#[test]
fn over_ipv6_vxlane_and_vxlane_carry_packets_and_verified_streams() {
    let _alone = ALONE.lock();
    let rig = start_v6(true, &VtepKind::vxlane(), &VtepKind::vxlane());
    check_pings_of(&rig, &[56, 1382]);
    check_udp(&rig, 20_000, 40_000);
    check_streams(&rig);
    check_nothing_dropped(&account(&rig, 1));
}

#[test]
fn one_network_has_a_kernel_over_ipv4_and_another_over_ipv6() {
    let _alone = ALONE.lock();
    let options = LabOptions { underlay: Underlay::Both, ..LabOptions::default() };
    let lab = Lab::with(&["a", "b", "c"], &options).unwrap();
    let network = lab.network("blue", 5000);
    let [a, b, c] = ["a", "b", "c"].map(|host| lab.host(host));
    let containers = [a, b, c].map(|host| host.container("c0", &network).unwrap());
    let remotes =
        [vec![b.address().into(), c.address_v6().into()], vec![a.address().into()], vec![a.address_v6().into()]];
    let kinds = [VtepKind::vxlane(), VtepKind::kernel(), VtepKind::kernel()];
    let vteps: Vec<Box<dyn Vtep>> = [a, b, c]
        .into_iter()
        .zip(&containers)
        .zip(remotes)
        .zip(&kinds)
        .map(|(((host, container), remotes), kind)| {
            kind.start(host, &[Segment { network: &network, containers: vec![container], remotes }]).unwrap()
        })
        .collect();
    for far in &containers[1..] {
        for (from, to) in [(&containers[0], far), (far, &containers[0])] {
            let options = PingOptions { count: 20, size: 1382, ..PingOptions::default() };
            let report = ping(from.ns(), to.ipv4(), &options).unwrap();
            assert!(report.complete(), "{report:?}\n{}", vteps[0].diagnosis());
        }
    }
    let account = vteps[0].as_vxlane().unwrap().account().unwrap();
    check_nothing_dropped(&account);
    // What came out of one tunnel does not enter the other: the two kernels do not hear each other.
    let options = PingOptions { count: 3, ..PingOptions::default() };
    let report = ping(containers[1].ns(), containers[2].ipv4(), &options).unwrap();
    assert!(!report.complete(), "{report:?}");
}

/// Each test here loads the machine: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn start(wire_offload: bool, peer: &VtepKind) -> Rig {
    let options = LabOptions { wire_offload, ..LabOptions::default() };
    Rig::start(&options, [&VtepKind::vxlane(), peer]).unwrap()
}

fn start_v6(wire_offload: bool, near: &VtepKind, far: &VtepKind) -> Rig {
    let options = LabOptions { wire_offload, underlay: Underlay::V6, ..LabOptions::default() };
    Rig::start(&options, [near, far]).unwrap()
}

fn check_pings(rig: &Rig) {
    check_pings_of(rig, &[56, 1400]);
}

/// Echoes both ways, over IPv4 and IPv6, with payloads of these sizes.
fn check_pings_of(rig: &Rig, sizes: &[u16]) {
    for (from, to) in [(&rig.left, &rig.right), (&rig.right, &rig.left)] {
        for &size in sizes {
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
            amount: Amount::Packets(share(packets)),
            ..UdpOptions::default()
        };
        let (sent, received) = udp::exchange(from, to, &options).unwrap();
        assert!(received.exactly(sent.packets), "{sent:?} {received:?}\n{}", rig.diagnosis());
    }
    check_nothing_dropped(&account(rig, 0));
}

/// TCP both ways at once, every byte compared.
fn check_streams(rig: &Rig) {
    let options = TcpOptions {
        bytes: share(64 << 20),
        way: Way::Both,
        patience: Duration::from_secs(20),
        ..TcpOptions::default()
    };
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
