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

use etherparse::PacketBuilder;
use rig::{
    lane::{Lane, tagged},
    *,
};
use vxlane_abi::express::{Encap, FlowKey, KIND_SEND, Way};
use vxlane_dataplane::{
    attach::{Role, express::ExpressError},
    ids::{NetworkId, PortId},
    link::Link,
};

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
    drop(lane.take_halves());
    let Lane { mut express, steer, .. } = lane;
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

#[test]
fn a_flow_ends_with_the_epoch_of_its_own_network_and_of_no_other() {
    let rig = Rig::new();
    let mut lane = Lane::new(&rig);
    lane.attach(&rig, Role::Access, 1);
    let (mut flows, epochs) = (lane.express.flows().unwrap(), lane.express.epochs());
    let ifindex = rig.near.inside(|| Link::get(VETH)).unwrap().index;
    let networks = [0, 1, 2, u16::MAX].map(NetworkId);
    let address = |network: NetworkId| [10, 50, network.0.to_be_bytes()[0], network.0.to_be_bytes()[1]];
    for network in networks {
        let mut key = FlowKey { ifindex, destination: NEAR_MAC, source: FAR_MAC, address: [0; 16] };
        key.address[..4].copy_from_slice(&address(network));
        let (number, epoch, never) = (network.0.into(), epochs.of(network), u64::MAX);
        let way = Way {
            expires: never,
            confirm: never,
            epoch,
            ages: never,
            network: number,
            ifindex,
            longest: 1514,
            kind: KIND_SEND,
            worker: 0,
            from: 1,
            to: 1,
        };
        flows.put_flow(&key, &Encap { way, ip_sum: 0, headers: [0; 70], reserved: [0; 6] }).unwrap();
    }
    let mut far = rig.far.packets(VETH);
    for ended in 0..=networks.len() {
        for network in networks {
            let mut packet = Vec::new();
            PacketBuilder::ipv4(address(network), [10, 60, 0, 1], 64).udp(1, 2).write(&mut packet, b"flow").unwrap();
            far.send(&[&NEAR_MAC[..], &FAR_MAC, &[8, 0], &packet].concat());
        }
        let expected = |round: u64| (0..=round).fold((0, 0), |(hits, stale), ended| (hits + 4 - ended, stale + ended));
        let counted = || {
            let counters = lane.express.counters().unwrap();
            (counters.hits, counters.stale)
        };
        eventually("the frames of networks that have not ended hit", || counted() == expected(ended as u64));
        networks.get(ended).inspect(|&&network| epochs.end(network));
    }
}
