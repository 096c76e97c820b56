//! Tunnels over IPv6, and over both families in one network, between simulated hosts.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use etherparse::PacketBuilder;
use vxlane_dataplane::{
    ids::{NetworkId, VtepId},
    tables::{LocalVtep, Tables, Vtep, ZeroChecksums},
    verdict::DropReason,
    wire::Ecn,
};
use vxlane_tests::{
    frames::{Checksum, Vxlan},
    lab,
    sim::{NetworkPlan, Place, Sim, Underlay, at},
};

const VNI: u32 = 5000;

fn mac(place: Place) -> [u8; 6] {
    [2, 0, 0, 0, u8::try_from(place.host).unwrap(), u8::try_from(place.port).unwrap()]
}

fn udp(from: Place, to: [u8; 6], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let addresses = [1, 2].map(|last| [10, 0, 0, last]);
    let builder = PacketBuilder::ethernet2(mac(from), to).ipv4(addresses[0], addresses[1], 64);
    builder.udp(ports[0], ports[1]).write(&mut frame, payload).unwrap();
    frame
}

/// Three hosts: the first and the last know each other by IPv4, and the one between by IPv6.
fn mixed() -> Sim {
    let underlay = |near: usize, far: usize| if far - near == 1 { Underlay::V6 } else { Underlay::V4 };
    Sim::mesh_over(3, &[NetworkPlan::new(VNI, 1)], underlay)
}

/// Two hosts over IPv6.
fn two() -> Sim {
    Sim::mesh_over(2, &[NetworkPlan::new(VNI, 1)], |_, _| Underlay::V6)
}

/// The tunnel from the first host to the second.
fn tunnel() -> Vxlan {
    let end = |host: usize| (lab::MacAddr(Sim::uplink_mac(host).0), Sim::address_v6(host));
    Vxlan::new(end(0), end(1), VNI)
}

/// Has `host` go by `local`, with the same peers as before.
fn become_vtep(sim: &mut Sim, host: usize, local: LocalVtep) {
    let peer = 1 - host;
    sim.adopt(host, |tables| {
        let mut next = Tables::new(local);
        let known = tables.vtep(VtepId(u16::try_from(peer).unwrap())).unwrap().clone();
        let (source, hop) = (Sim::uplink_mac(host), Some(Sim::uplink_mac(peer)));
        next.set_vtep(VtepId(u16::try_from(peer).unwrap()), Vtep::new(local, known.address, known.uplink, source, hop));
        for port in (0..2).map(vxlane_dataplane::ids::PortId) {
            next.set_port(port, tables.port(port).unwrap().clone());
        }
        next.set_network(NetworkId(0), tables.network(NetworkId(0)).unwrap().clone());
        *tables = next;
    });
}

fn zero_checksums(transmit: bool, receive: bool) -> impl Fn(usize) -> LocalVtep {
    move |host| LocalVtep { zero_checksums: ZeroChecksums { transmit, receive }, ..Sim::vtep(host) }
}

#[test]
fn one_network_has_peers_of_both_families() {
    let mut sim = mixed();
    let places = [0, 1, 2].map(|host| at(host, 0, 0));
    for from in places {
        for _ in 0..10 {
            sim.send(from, &udp(from, [0xff; 6], [1, 2], b"to everybody"));
        }
        let others: Vec<_> = places.into_iter().filter(|&to| to != from).map(|to| (to, 10)).collect();
        assert_eq!(sim.deliveries(), others);
    }
    for from in places {
        for to in places.into_iter().filter(|&to| to != from) {
            let frame = udp(from, mac(to), [1, 2], b"to one");
            sim.send(from, &frame);
            assert_eq!(sim.received(to), [frame]);
            assert_eq!(sim.deliveries(), []);
        }
    }
    for host in 0..3 {
        assert_eq!(sim.counters(host).drops.total(), 0);
    }
}

#[test]
fn a_flow_keeps_its_label_and_flows_spread_over_labels() {
    let mut sim = two();
    // A host that is not simulated, so that what is sent to it can be looked at.
    sim.adopt(0, |tables| {
        let (source, hop) = (Sim::uplink_mac(0), Some(vxlane_dataplane::wire::MacAddr([2, 0xee, 0, 0, 0, 1])));
        let uplink = tables.vtep(VtepId(1)).unwrap().uplink;
        tables.set_vtep(VtepId(1), Vtep::new(Sim::vtep(0), Sim::address_v6(1), uplink, source, hop));
    });
    let from = at(0, 0, 0);
    let mut labels = std::collections::HashSet::new();
    for flow in 0..200 {
        let frame = udp(from, [0xff; 6], [1000 + flow, 53], b"x");
        sim.send(from, &frame);
        sim.send(from, &frame);
        let sent = sim.sent(0);
        let label = |frame: &[u8]| u32::from_be_bytes(frame[14..18].try_into().unwrap()) & 0xf_ffff;
        assert_eq!(label(&sent[0]), label(&sent[1]), "RFC 6437: one flow, one label");
        labels.insert(label(&sent[0]));
    }
    assert!(labels.len() > 190 && !labels.contains(&0), "RFC 6438: {} of 200", labels.len());
}

#[test]
fn rfc6040_the_traffic_class_carries_the_mark_there_and_back() {
    let mut sim = two();
    let (from, to) = (at(0, 0, 0), at(1, 0, 0));
    let marked = |mark: u8| {
        let mut frame = udp(from, [0xff; 6], [1, 2], b"marked");
        let mut layers = vxlane_dataplane::wire::Layers::walk(&frame);
        layers.set_ecn(&mut frame, Ecn::from_traffic_class(mark));
        frame
    };
    for inner in 0..4u8 {
        sim.send(from, &marked(inner));
        assert_eq!(sim.received(to), [marked(inner)], "what is sent has the inner mark outside");
        for outer in 0..4u8 {
            let mut tunnel = tunnel();
            tunnel.outer.tos = outer;
            sim.inject(1, &tunnel.wrap(&marked(inner)));
            let merged = Ecn::from_traffic_class(inner).decap(Ecn::from_traffic_class(outer));
            let expected: Vec<_> = merged.into_iter().map(|mark| marked(mark as u8)).collect();
            assert_eq!(sim.received(to), expected, "inner {inner}, outer {outer}");
        }
    }
    assert_eq!(sim.counters(1).drops[DropReason::TunnelEcn], 1);
}

#[test]
fn rfc6935_5_a_zero_checksum_is_dropped_by_name_and_teaches_nothing() {
    let mut sim = two();
    let mut without = tunnel();
    without.outer.checksum = Checksum::Zero;
    sim.inject(1, &without.wrap(&udp(at(0, 0, 0), [0xff; 6], [1, 2], b"unchecked")));
    assert_eq!(sim.deliveries(), []);
    assert_eq!(sim.counters(1).drops[DropReason::OuterZeroUdpChecksum], 1);
    assert_eq!(DropReason::OuterZeroUdpChecksum.name(), "udp6_zero_csum");
    assert_eq!(sim.stations(1), []);
}

#[test]
fn rfc6936_4_3_and_6_sending_and_accepting_none_are_two_choices() {
    for (transmit, receive) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut sim = two();
        become_vtep(&mut sim, 0, zero_checksums(transmit, false)(0));
        become_vtep(&mut sim, 1, zero_checksums(false, receive)(1));
        let frame = udp(at(0, 0, 0), [0xff; 6], [1, 2], b"there");
        sim.send(at(0, 0, 0), &frame);
        let arrives = !transmit || receive;
        assert_eq!(sim.received(at(1, 0, 0)).len(), usize::from(arrives), "{transmit} {receive}");
        // The way back is as it was.
        sim.send(at(1, 0, 0), &udp(at(1, 0, 0), [0xff; 6], [1, 2], b"back"));
        assert_eq!(sim.received(at(0, 0, 0)).len(), 1);
    }
}

#[test]
fn rfc6936_4_7_a_checksum_that_is_there_is_checked_though_none_is_needed() {
    let mut sim = two();
    become_vtep(&mut sim, 1, zero_checksums(false, true)(1));
    let frame = udp(at(0, 0, 0), [0xff; 6], [1, 2], b"checked");
    for (checksum, arrives) in [(Checksum::Right, true), (Checksum::Zero, true), (Checksum::Wrong, false)] {
        let mut tunnel = tunnel();
        tunnel.outer.checksum = checksum;
        // Once as a stranger, by the whole way, and once as a known station.
        for _ in 0..2 {
            sim.inject(1, &tunnel.wrap(&frame));
            assert_eq!(sim.received(at(1, 0, 0)).len(), usize::from(arrives), "{checksum:?}");
        }
    }
    assert_eq!(sim.counters(1).drops[DropReason::OuterBadUdpChecksum], 2);
}

#[test]
fn rfc6936_4_8_and_5_4_without_checksums_nothing_is_told_of_and_strangers_teach_nothing() {
    let mut sim = two();
    become_vtep(&mut sim, 1, zero_checksums(true, true)(1));
    let inner = udp(at(0, 0, 0), [0xff; 6], [1, 2], b"unchecked");
    let mut without = tunnel();
    without.outer.checksum = Checksum::Zero;
    // What a bit on the wire could have made of them: another VNI, another VTEP.
    for bit in 0..24 {
        sim.inject(1, &Vxlan { vni: VNI ^ 1 << bit, ..without.clone() }.wrap(&inner));
    }
    for bit in 0..128 {
        let mut frame = without.wrap(&inner);
        frame[22 + bit / 8] ^= 1 << (bit % 8);
        sim.inject(1, &frame);
    }
    assert_eq!(sim.stations(1), []);
    let drops = sim.counters(1).drops;
    assert_eq!((drops[DropReason::VxlanVniNotFound], drops[DropReason::PeerNotAllowed]), (24, 128));
    sim.inject(1, &without.wrap(&inner));
    assert_eq!((sim.received(at(1, 0, 0)).len(), sim.stations(1).len()), (1, 1));
    assert_eq!(sim.events(1), []);
}

#[test]
fn a_peer_of_a_family_that_we_have_no_address_of_gets_nothing() {
    let mut sim = two();
    become_vtep(&mut sim, 0, LocalVtep { v6: None, ..Sim::vtep(0) });
    sim.send(at(0, 0, 0), &udp(at(0, 0, 0), [0xff; 6], [1, 2], b"no way"));
    assert_eq!(sim.deliveries(), []);
    assert_eq!(sim.counters(0).drops[DropReason::NextHopUnresolved], 1);
}
