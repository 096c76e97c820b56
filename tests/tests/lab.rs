//! The lab itself works, shown with the kernel and Open vSwitch as peers.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use vxlane_tests::frames::{self, Talk, tagged};
use vxlane_tests::lab::{Container, Lab, LabOptions, MacAddr, Network};
use vxlane_tests::peer::{OvsOptions, OvsPort, Segment, VtepKind, VxlaneOptions, VxlaneVtep, XdpMode};
use vxlane_tests::rig::Rig;
use vxlane_tests::traffic::pace::{Amount, Pace};
use vxlane_tests::traffic::ping::{PingOptions, ping};
use vxlane_tests::traffic::raw::{Heading, RawSender, Watch, expect_counts};
use vxlane_tests::traffic::tcp::{self, TcpOptions, Way};
use vxlane_tests::traffic::udp::{self, UdpOptions};

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

#[test]
fn kernel_and_ovs_with_a_polling_thread_reach_each_other() {
    let port = OvsPort::AfxdpPmd(XdpMode::Generic, 0b10);
    check_reach(&VtepKind::kernel(), &VtepKind::Ovs(OvsOptions { port }));
}

#[test]
fn a_flood_reaches_every_kernel_host_once() {
    check_flood(&VtepKind::kernel());
}

#[test]
fn a_flood_reaches_every_ovs_host_once() {
    check_flood(&VtepKind::ovs());
}

#[test]
fn a_wire_with_offload_carries_super_frames_and_one_without_does_not() {
    for wire_offload in [false, true] {
        let options = LabOptions { wire_offload, ..LabOptions::default() };
        let lab = Lab::with(&["a", "b"], &options).unwrap();
        let rig = Rig::on(lab, [&VtepKind::kernel(), &VtepKind::kernel()]).unwrap();
        let large = Watch::start(rig.lab.host("b").ns(), "uplink", Heading::Incoming, |frame| frame.len() > 1514);
        let large = large.unwrap();
        tcp::stream(&rig.left, &rig.right, &TcpOptions::default()).unwrap();
        assert_eq!(large.count() > 0, wire_offload, "{}", large.count());
    }
}

#[test]
fn a_watch_sees_vlan_tags_where_they_were() {
    let lab = Lab::new(&["a", "b"]).unwrap();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let blue = Network::new("blue", 5000);
    let plain = Talk::new(blue.station(1, 1), blue.station(2, 1)).udp4(1, 2, b"tagged");
    let single = tagged(&plain, 0x8100, 0x6005);
    let double = tagged(&single, 0x88a8, 7);
    for frame in [single, double] {
        let wanted = frame.clone();
        let watch = Watch::start(b.ns(), "uplink", Heading::Incoming, move |f| f == wanted);
        let watch = watch.unwrap();
        RawSender::open(a.ns(), "uplink").unwrap().send_times(&frame, 3).unwrap();
        expect_counts(&[(&watch, 3)], Duration::from_secs(2)).unwrap();
    }
}

#[test]
fn the_kernel_sends_what_the_frame_builder_reads() {
    let lab = Lab::new(&["a", "b"]).unwrap();
    let rig = Rig::on(lab, [&VtepKind::kernel(), &VtepKind::kernel()]).unwrap();
    let inner = Talk::new(rig.left.station(), rig.right.station()).udp4(5, 6, b"inner");
    let wanted = inner.clone();
    let uplink = rig.lab.host("a").ns();
    let watch = Watch::start(uplink, "uplink", Heading::Outgoing, move |frame| {
        frames::unwrap(frame).is_some_and(|tunnel| tunnel.inner == wanted && tunnel.vni() == 5000)
    });
    let watch = watch.unwrap();
    RawSender::open(rig.left.ns(), "eth0").unwrap().send(&inner).unwrap();
    expect_counts(&[(&watch, 1)], Duration::from_secs(2)).unwrap();
}

#[test]
fn the_vxlane_driver_waits_for_ready_and_speaks_to_the_socket() {
    let lab = Lab::new(&["a", "b"]).unwrap();
    let blue = Network::new("blue", 5000);
    let c0 = lab.host("a").container("c0", &blue).unwrap();
    let segment = Segment::of(&lab, "a", &blue, &[&c0]);
    let stub = Stub::new(STUB);
    let mut vtep = VxlaneVtep::start(lab.host("a"), std::slice::from_ref(&segment), &stub.options()).unwrap();
    let config = fs::read_to_string(vtep.config_path()).unwrap();
    for line in ["interface = \"uplink\"", "vni = 5000", "peers = [\"192.0.2.2\"]", "interface = \"p-c0\""] {
        assert!(config.contains(line), "{line} is not in {config}");
    }
    let answer = vtep.cli(&["fdb", "show", "--json"]).unwrap();
    assert_eq!(answer["arguments"], "fdb show --json");
    vtep.start_again(lab.host("a")).unwrap();
    assert!(vtep.stderr().contains("ready"));
    let stub = Stub::new("#!/bin/sh\necho no such device >&2\nexit 3\n");
    let error = VxlaneVtep::start(lab.host("a"), &[segment], &stub.options()).unwrap_err();
    assert!(error.to_string().contains("no such device"), "{error}");
}

/// Two hosts with VTEPs of the given kinds carry pings, numbered UDP and checked TCP.
fn check_reach(left: &VtepKind, right: &VtepKind) {
    let rig = Rig::start(&LabOptions::default(), [left, right]).unwrap();
    // Open vSwitch's packet sockets hold some 270 small packets. On a busy machine its thread
    // may wait tens of milliseconds for a CPU, so 10,000 per second would lose some in there.
    let probe = UdpOptions { pace: Pace::Rate(1_000), amount: Amount::Packets(1_000), ..UdpOptions::default() };
    for (from, to) in [(&rig.left, &rig.right), (&rig.right, &rig.left)] {
        let report = ping(from.ns(), to.ipv4(), &PingOptions::default()).unwrap();
        assert!(report.complete(), "{report:?}\n{}", rig.diagnosis());
        let report = ping(from.ns(), to.station().ipv6, &PingOptions::default()).unwrap();
        assert!(report.complete(), "{report:?}\n{}", rig.diagnosis());
        let (sent, received) = udp::exchange(from, to, &probe).unwrap();
        assert!(received.exactly(sent.packets), "{received:?}\n{}", rig.diagnosis());
    }
    let options = TcpOptions { bytes: 1 << 20, way: Way::Both, ..TcpOptions::default() };
    tcp::stream(&rig.left, &rig.right, &options).unwrap();
}

/// On three hosts, a frame to nobody known reaches all other containers exactly once.
fn check_flood(kind: &VtepKind) {
    let lab = Lab::new(&["a", "b", "c"]).unwrap();
    let blue = Network::new("blue", 5000);
    let names = ["a", "b", "c"];
    let containers = names.map(|host| lab.host(host).container("c0", &blue).unwrap());
    let neighbour = lab.host("a").container("c1", &blue).unwrap();
    let [first, second, third] = &containers;
    let start = |host: &str, here: &[&Container]| {
        let segment = Segment::of(&lab, host, &blue, here);
        kind.start(lab.host(host), &[segment]).unwrap()
    };
    let _vteps = [start("a", &[first, &neighbour]), start("b", &[second]), start("c", &[third])];
    for target in [second, third] {
        let report = ping(first.ns(), target.ipv4(), &PingOptions::default()).unwrap();
        assert!(report.complete(), "{report:?}");
    }
    let mut nobody = blue.station(9, 9);
    nobody.mac = MacAddr([2, 0, 0, 0, 0, 0x99]);
    let frame = Talk::new(first.station(), nobody).udp4(7, 9, b"to nobody");
    let watch = |container: &Container| {
        let wanted = frame.clone();
        Watch::start(container.ns(), "eth0", Heading::Incoming, move |f| f == wanted).unwrap()
    };
    let watches = [first, &neighbour, second, third].map(watch);
    let sender = RawSender::open(first.ns(), "eth0").unwrap();
    sender.send_times(&frame, 10).unwrap();
    let [origin, beside, there, elsewhere] = &watches;
    let expected = [(origin, 0), (beside, 10), (there, 10), (elsewhere, 10)];
    expect_counts(&expected, Duration::from_secs(3)).unwrap();
}

/// A program that stands in for the `vxlane` binary.
struct Stub {
    directory: tempfile::TempDir,
}

impl Stub {
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vxlane");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn options(&self) -> VxlaneOptions {
        VxlaneOptions { binary: Some(self.directory.path().join("vxlane")), ..VxlaneOptions::default() }
    }
}

/// Says that it is ready and waits; with a socket given, repeats the other arguments.
const STUB: &str = r#"#!/bin/sh
case "$1" in
run) test -f "$3" && echo "vxlane is ready" >&2 && exec sleep 30 ;;
--socket) shift 2; echo "{\"arguments\": \"$*\"}" ;;
esac
"#;
