//! Networks leave the express lane and come back under traffic: no packet is lost, none is wrong.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    thread,
    time::{Duration, Instant},
};

use vxlane_tests::{
    lab::LabOptions,
    peer::{Vtep, VtepKind, VxlaneOptions},
    rig::Rig,
    soak,
    traffic::{
        pace::{Amount, Pace},
        tcp::{self, TcpOptions, Way},
        udp::{self, UdpOptions},
    },
};

#[test]
fn no_packet_is_lost_or_wrong_while_networks_leave_the_express_lane_and_come_back() {
    let time = soak::choose(Duration::from_secs(4), Duration::from_secs(300));
    // Both hosts at once, and often: what could go wrong lies around the moment of the change.
    let switched = Some(Duration::from_millis(50));
    let kind = VtepKind::Vxlane(VxlaneOptions { express: true, switched, ..VxlaneOptions::default() });
    let options = LabOptions { wire_offload: true, ..LabOptions::default() };
    let rig = Rig::start(&options, [&kind, &kind]).unwrap();
    let ends = [(&rig.left, &rig.right), (&rig.right, &rig.left)];
    let numbered = |from, to| {
        let (pace, amount) = (Pace::Rate(5_000), Amount::Time(time));
        let options = UdpOptions { payload: 200, flows: 4, pace, amount, batch: 4, ..UdpOptions::default() };
        let (sent, received) = udp::exchange(from, to, &options).unwrap();
        assert!(received.exactly(sent.packets), "{sent:?} {received:?}\n{}", rig.diagnosis());
        sent.packets
    };
    let packets: u64 = thread::scope(|scope| {
        let senders = ends.map(|(from, to)| scope.spawn(|| numbered(from, to)));
        senders.map(|sender| sender.join().unwrap()).iter().sum()
    });
    // Apart from those: streams fill rings, and what finds no room in one is lost in any lane.
    for vtep in &rig.vteps {
        let account = vtep.as_vxlane().unwrap().account().unwrap();
        assert_eq!((account.number(&["dropped"]), account.lost_in_kernel()), (0, 0), "{account:?}");
    }
    let options = TcpOptions { bytes: 16 << 20, way: Way::Both, patience: Duration::from_secs(20), seed: 1 };
    let began = Instant::now();
    while began.elapsed() < time {
        let stream = tcp::stream(&rig.left, &rig.right, &options);
        stream.unwrap_or_else(|error| panic!("{error}\n{}", rig.diagnosis()));
    }
    let vxlanes = rig.vteps.each_ref().map(|vtep| vtep.as_vxlane().unwrap());
    let switches = vxlanes.map(|vtep| vtep.switches());
    println!("{packets} packets in {time:?} while the hosts switched {switches:?} times");
    for (vxlane, switches) in vxlanes.iter().zip(switches) {
        // A reload takes its time where others use the machine, too.
        assert!(switches >= time.as_secs() * 3, "{switches} switches, {}", vxlane.diagnosis());
    }
}
