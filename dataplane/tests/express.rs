//! The programs of the express lane alone: what they send to workers, and that they leave no trace.
//!
//! Needs root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to stop"
)]

mod rig;

use std::time::Duration;

use rig::*;
use vxlane_dataplane::{
    attach::{
        AttachMode, Role, Steer,
        express::{Express, ExpressError},
    },
    ids::PortId,
    port::{
        Receive, Transmit,
        xdp::{BindMode, Config, XdpReceive, XdpSocket, XdpTransmit},
    },
};

/// The lane in `near`, with the test as its worker.
struct Lane {
    express: Express,
    rx: XdpReceive,
    tx: XdpTransmit,
    steer: Steer,
}

impl Lane {
    fn new(rig: &Rig) -> Self {
        rig.near.ip("link add punt type veth peer name ring");
        for end in ["punt", "ring"] {
            rig.near.ip(&format!("link set {end} arp off up"));
        }
        rig.near.inside(|| {
            let mut express = Express::load().expect("load");
            express.set_up(NEAR_IP.into(), 4789, "punt", None).expect("set up");
            let mut steer = Steer::load().expect("load");
            let attached = steer.attach("ring", Role::Lane, AttachMode::Native, 1).expect("attach");
            let config = Config { bind: BindMode::Copy, ..Config::new("ring", 0) };
            let (rx, tx) = XdpSocket::open(&config).expect("open");
            steer.serve(attached.ifindex, 0, rx.socket()).expect("serve");
            Self { express, rx, tx, steer }
        })
    }

    fn attach(&mut self, rig: &Rig, role: Role, port: u16) {
        rig.near.inside(|| self.express.attach(VETH, role, PortId(port))).expect("attach");
    }

    /// The next frame for a worker, or `None` after a second of none.
    fn next(&mut self) -> Option<Vec<u8>> {
        for _ in 0..200 {
            if self.rx.take() > 0 {
                let frame = self.rx.frame(0).to_vec();
                self.rx.release();
                return Some(frame);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn send(&mut self, frame: &[u8]) {
        self.tx.put(&[], frame).expect("put");
        self.tx.submit();
    }
}

fn tagged(frame: &[u8], port: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &port.to_be_bytes(), &frame[12..]].concat()
}

#[test]
fn a_frame_without_a_flow_reaches_the_worker_with_the_tag_of_its_port_and_the_answer_comes_back() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    lane.attach(&rig, Role::Access, 0xabc);
    let mut far = rig.far.packets(VETH);
    for (number, length) in [60, 61, 64, 1000, 1514].into_iter().enumerate() {
        let sent = frame(number as u32, length);
        far.send(&sent);
        assert_eq!(lane.next(), Some(tagged(&sent, 0xabc)), "{length} bytes");
        let answer = [&FAR_MAC[..], &NEAR_MAC, &sent[12..]].concat();
        lane.send(&tagged(&answer, 0xabc));
        assert_eq!(far.receive(&answer[..18]), Some(answer), "{length} bytes");
    }
    lane.send(&tagged(&frame(9, 60), 0xabd));
    eventually("a frame for no port is counted", || lane.express.counters().unwrap().no_exit == 1);
    let counters = lane.express.counters().unwrap();
    assert_eq!((counters.misses, counters.sent, counters.hits, counters.no_tag), (5, 5, 0, 0));
}

#[test]
fn a_tag_of_the_endpoints_own_stays_behind_ours_and_names_no_port() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    lane.attach(&rig, Role::Access, 5);
    let sent = tagged(&frame(1, 60), 7);
    rig.far.packets(VETH).send(&sent);
    assert_eq!(lane.next(), Some(tagged(&sent, 5)));
}

#[test]
fn on_an_uplink_what_is_not_vxlan_to_us_stays_the_hosts() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    lane.attach(&rig, Role::Uplink, 0);
    rig.far.exec("ping", &["-c3", "-i0.1", "-W2", "10.9.0.1"]);
    let counters = lane.express.counters().unwrap();
    assert_eq!(counters.misses, 0);
    assert!(counters.passed >= 3, "{counters:?}");
}

#[test]
fn a_port_that_is_detached_sends_nothing_to_workers_and_can_come_back() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    let mut far = rig.far.packets(VETH);
    for round in 0..2 {
        lane.attach(&rig, Role::Access, 1);
        far.send(&frame(round, 60));
        assert!(lane.next().is_some(), "attached");
        lane.express.detach(PortId(1)).expect("detach");
        far.send(&frame(round, 61));
        assert_eq!(lane.next(), None, "detached");
    }
    assert!(matches!(lane.express.detach(PortId(1)), Err(ExpressError::NotAttached(PortId(1)))));
}

#[test]
fn what_is_no_veth_cannot_have_this_lane() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    let refused = rig.near.inside(|| lane.express.attach("lo", Role::Access, PortId(1))).unwrap_err();
    assert_eq!(refused.to_string(), "lo cannot have the express lane: it is no veth");
}

#[test]
fn what_no_worker_is_there_for_is_dropped_and_never_the_hosts() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    lane.attach(&rig, Role::Access, 1);
    let mut far = rig.far.packets(VETH);
    far.send(&frame(1, 60));
    assert!(lane.next().is_some());
    let Lane { mut express, rx, tx, steer } = lane;
    drop((rx, tx));
    let mut host = rig.near.packets("ring");
    let before = steer.counters().unwrap().no_worker;
    // The kernel takes a moment to let go of a socket, and drops what comes for it meanwhile.
    eventually("frames are counted", || {
        far.send(&frame(2, 60));
        steer.counters().unwrap().no_worker > before
    });
    assert_eq!(host.receive(&NEAR_MAC), None, "nothing for the host");
    let counters = steer.counters().unwrap();
    assert_eq!((counters.passed(), express.counters().unwrap().no_exit), (0, 0));
    express.detach(PortId(1)).unwrap();
}
