//! Any bytes on any port: no panic, every frame accounted for, the tunnel transparent.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::sync::Arc;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use vxlane_dataplane::{
    clock::Instant,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, WorkerId},
    port::memory::{Cable, MemoryReceive, MemoryTransmit},
    tables::{Network, Port, Role, Tables},
    verdict::DropReason,
    wire::{Ecn, Layers, MacAddr, Vni, checksum},
    worker::Worker,
};
use vxlane_tests::sim::{NetworkPlan, Sim, at};

fn overlay(payload: &[u8], tos: u8) -> Vec<u8> {
    let mut ip = etherparse::Ipv4Header::new(
        u16::try_from(payload.len() + 8).unwrap(),
        9,
        etherparse::IpNumber::UDP,
        [10, 0, 0, 1],
        [10, 0, 0, 2],
    )
    .unwrap();
    ip.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    builder.ip(etherparse::IpHeaders::Ipv4(ip, Default::default())).udp(1000, 2000).write(&mut frame, payload).unwrap();
    frame
}

/// What host 0 puts on the underlay for `frame`.
fn encapsulated(frame: &[u8]) -> Vec<u8> {
    let plan = [NetworkPlan::new(5000, 1)];
    let mut sim = Sim::mesh(1, &plan);
    let local = Sim::vtep(0);
    sim.adopt(0, |tables| {
        let peer = vxlane_dataplane::ids::VtepId(1);
        let uplink = PortId(0);
        let next_hop = Some(MacAddr([2, 0xee, 0, 0, 0, 1]));
        tables.set_vtep(
            peer,
            vxlane_dataplane::tables::Vtep::new(local, Sim::address(1), uplink, Sim::uplink_mac(0), next_hop),
        );
        let mut network = tables.network(NetworkId(0)).unwrap().clone();
        network.peers = vec![peer];
        tables.set_network(NetworkId(0), network);
    });
    sim.send(at(0, 0, 0), frame);
    sim.sent(0).pop().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_are_counted_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), from_tunnel: bool) {
        let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 2)]);
        if from_tunnel { sim.inject(1, &bytes) } else { sim.send(at(1, 0, 0), &bytes) }
        prop_assert_eq!(sim.counters(1).received, 1);
        sim.counters(0);
    }

    /// A good tunnel frame with some bytes changed, cut or grown: far more of it gets past
    /// the first check than of random bytes.
    #[test]
    fn mangled_tunnel_frames_are_counted_and_never_a_panic(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((0usize..120, any::<u8>()), 0..6),
        length in 0usize..320,
    ) {
        let mut frame = encapsulated(&overlay(&payload, 0));
        for (index, value) in changes {
            if let Some(byte) = frame.get_mut(index) { *byte = value }
        }
        frame.resize(length.max(1), 0xa5);
        let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 2)]);
        sim.inject(1, &frame);
        prop_assert_eq!(sim.counters(1).received, 1);
    }

    #[test]
    fn the_tunnel_is_transparent_for_any_payload(payload in prop::collection::vec(any::<u8>(), 0..1400)) {
        let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 1)]);
        let frame = overlay(&payload, 0);
        sim.send(at(0, 0, 0), &frame);
        prop_assert_eq!(sim.received(at(1, 0, 0)), vec![frame]);
    }

    #[test]
    fn a_checksum_left_to_hardware_arrives_finished(payload in prop::collection::vec(any::<u8>(), 0..1400)) {
        let right = overlay(&payload, 0);
        let mut partial = right.clone();
        let pseudo = checksum::pseudo_v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, payload.len() + 8);
        partial[40..42].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 2)]);
        sim.send(at(0, 0, 0), &partial);
        prop_assert_eq!(sim.received(at(1, 0, 0)), vec![right.clone()], "through the tunnel");
        prop_assert_eq!(sim.received(at(0, 0, 1)), vec![right.clone()], "to a neighbour on the host");
        let mut tunnel = encapsulated(&right);
        tunnel[50..].copy_from_slice(&partial);
        sim.inject(1, &tunnel);
        prop_assert_eq!(sim.received(at(1, 0, 0)).pop(), Some(right), "from a VTEP behind a veth");
    }
}

#[test]
fn rfc6040_the_whole_matrix_goes_through_the_pipeline() {
    for inner in 0..4u8 {
        let sent = encapsulated(&overlay(b"marked", inner));
        assert_eq!(sent[15] & 3, inner, "normal mode: the outer mark is the inner one");
        for outer in 0..4u8 {
            let mut frame = sent.clone();
            frame[15] = outer;
            frame[24..26].fill(0);
            let sum = !checksum::fold(checksum::sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 1)]);
            sim.inject(1, &frame);
            let expected = Ecn::from_traffic_class(inner).decap(Ecn::from_traffic_class(outer));
            let arrived = sim.received(at(1, 0, 0));
            let mark = arrived.first().map(|frame| Layers::walk(frame).ecn);
            assert_eq!(mark, expected, "inner {inner}, outer {outer}");
            let dropped = sim.counters(1).drops[DropReason::TunnelEcn];
            assert_eq!(dropped, u64::from(expected.is_none()));
            if let Some(frame) = arrived.first() {
                assert!(vxlane_dataplane::wire::ipv4::checksum_holds(&frame[14..34]));
            }
        }
    }
}

#[test]
fn arp_in_a_tunnel_marked_congested_is_delivered() {
    let mut arp = [0u8; 60];
    arp[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6]);
    let mut frame = encapsulated(&arp);
    frame[15] = 3;
    frame[24..26].fill(0);
    let sum = !checksum::fold(checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 1)]);
    sim.inject(1, &frame);
    assert_eq!(sim.received(at(1, 0, 0)), [arp.to_vec()]);
}

type MemoryWorker = Worker<MemoryReceive, MemoryTransmit>;

/// Two workers of one host, each with one access port of the same network.
fn two_workers() -> [(MemoryWorker, Cable); 2] {
    let poll = mio::Poll::new().unwrap();
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
    let mail: Arc<[Mailbox]> = (0..2).map(|_| Mailbox::new(Arc::clone(&waker))).collect();
    let mut tables = Tables::new(Sim::vtep(0));
    for id in 0..2 {
        tables.set_port(PortId(id), Port::new(Role::Access(NetworkId(0)), WorkerId(id)));
    }
    let ports = vec![PortId(0), PortId(1)];
    let vni = Vni::new(5000).unwrap();
    let network = Network { mac_limit: 100, ports, ..Network::new(vni) };
    tables.set_network(NetworkId(0), network);
    let tables = Arc::new(tables);
    [0, 1].map(|id| {
        let mut worker = Worker::new(WorkerId(id), 100, Arc::clone(&tables), Arc::clone(&mail));
        let (receive, transmit, cable) = Cable::plug(64, 2048);
        worker.open(PortId(id), QueueId(0), receive, transmit).unwrap();
        (worker, cable)
    })
}

#[test]
fn a_frame_for_another_workers_port_is_handed_over_and_its_sender_known_there() {
    let [(mut first, left), (mut second, right)] = two_workers();
    let there = overlay(b"there", 0);
    left.send(there.clone());
    first.breathe(Instant(1));
    second.breathe(Instant(2));
    assert_eq!(right.drain(), std::slice::from_ref(&there));
    assert_eq!(second.pipeline.bridge.len(), 1, "the second worker heard of the sender");
    let mut back = there.clone();
    back[..6].copy_from_slice(&there[6..12]);
    back[6..12].copy_from_slice(&there[..6]);
    right.send(back.clone());
    second.breathe(Instant(3));
    first.breathe(Instant(4));
    assert_eq!(left.drain(), [back]);
    for worker in [&mut first, &mut second] {
        let counters = worker.report().counters;
        assert_eq!(
            (counters.imbalance(), counters.drops.total(), counters.handed_over, counters.taken_over),
            (0, 0, 1, 1)
        );
        assert_eq!(counters.copies, 0);
    }
}

#[test]
fn a_worker_that_does_not_keep_up_costs_counted_drops() {
    let [(mut first, left), (mut second, right)] = two_workers();
    for _ in 0..600 {
        left.send(overlay(b"there", 0));
    }
    for _ in 0..10 {
        first.breathe(Instant(1));
    }
    let counters = first.report().counters;
    assert_eq!((counters.handed_over, counters.drops[DropReason::HandoverFull], counters.imbalance()), (512, 88, 0));
    second.breathe(Instant(2));
    let counters = second.report().counters;
    assert_eq!((right.drain().len(), counters.drops[DropReason::TxRingFull], counters.imbalance()), (64, 448, 0));
}
