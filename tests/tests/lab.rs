//! The lab itself works, shown with the kernel and Open vSwitch as peers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use vxlane_tests::lab::{Lab, Network};
use vxlane_tests::peer::{OvsOptions, OvsPort, Segment, VtepKind, XdpMode};
use vxlane_tests::traffic::ping::{PingOptions, ping};

#[test]
fn kernel_peers_reach_each_other() {
    check_reach(&VtepKind::kernel(), &VtepKind::kernel());
}

#[test]
fn kernel_and_ovs_reach_each_other() {
    check_reach(&VtepKind::kernel(), &VtepKind::ovs());
}

#[test]
fn kernel_and_ovs_over_af_xdp_reach_each_other() {
    let port = OvsPort::Afxdp(XdpMode::Native);
    check_reach(&VtepKind::kernel(), &VtepKind::Ovs(OvsOptions { port }));
}

/// Two hosts with VTEPs of the given kinds: a container on each pings the other.
fn check_reach(left: &VtepKind, right: &VtepKind) {
    let lab = Lab::new(&["a", "b"]).unwrap();
    let blue = Network::new("blue", 5000);
    let c0 = lab.host("a").container("c0", &blue).unwrap();
    let c1 = lab.host("b").container("c1", &blue).unwrap();
    let near = left
        .start(lab.host("a"), &[Segment::of(&lab, "a", &blue, &[&c0])])
        .unwrap();
    let far = right
        .start(lab.host("b"), &[Segment::of(&lab, "b", &blue, &[&c1])])
        .unwrap();
    for (from, to) in [(&c0, &c1), (&c1, &c0)] {
        let report = ping(from.ns(), to.ipv4(), &PingOptions::default()).unwrap();
        let state = || format!("{}\n{}", near.diagnosis(), far.diagnosis());
        assert!(report.complete(), "{report:?}\n{}", state());
    }
}
