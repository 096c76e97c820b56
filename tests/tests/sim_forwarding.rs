//! Forwarding, flooding, learning and isolation, on simulated hosts.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{net::Ipv4Addr, time::Duration};

use etherparse::{IpHeaders, IpNumber, Ipv4Header, PacketBuilder};
use vxlane_dataplane::{
    ids::{NetworkId, VtepId},
    verdict::DropReason,
    wire::{MacAddr, Vni, Vxlan, icmp},
};
use vxlane_tests::sim::{NetworkPlan, Place, Sim, at};
use zerocopy::IntoBytes;

const BLUE: usize = 0;
const GREEN: usize = 1;

/// The MAC address of the container at `place`; networks repeat each other's.
fn mac(place: Place) -> MacAddr {
    MacAddr([2, 0, 0, 0, u8::try_from(place.host).unwrap(), u8::try_from(place.port).unwrap()])
}

fn udp(from: MacAddr, to: MacAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap();
    let mut ip = Ipv4Header::new(length, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    ip.dont_fragment = true;
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(from.0, to.0).ip(IpHeaders::Ipv4(ip, Default::default())).udp(1000, 2000);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn two_networks() -> Sim {
    Sim::mesh(3, &[NetworkPlan::new(5000, 2), NetworkPlan::new(6000, 2)])
}

fn send_ten(sim: &mut Sim, from: Place, to: MacAddr) {
    for n in 0..10 {
        sim.send(from, &udp(mac(from), to, &[n; 40]));
    }
}

#[test]
fn ten_frames_to_an_unknown_mac_arrive_exactly_ten_times_everywhere_else() {
    let mut sim = two_networks();
    send_ten(&mut sim, at(0, BLUE, 0), MacAddr([2, 9, 9, 9, 9, 9]));
    let everyone_else = [at(0, BLUE, 1), at(1, BLUE, 0), at(1, BLUE, 1), at(2, BLUE, 0), at(2, BLUE, 1)];
    assert_eq!(sim.deliveries(), everyone_else.map(|place| (place, 10)));
    let sender = sim.counters(0);
    assert_eq!((sender.received, sender.copies, sender.transmitted, sender.drops.total()), (10, 20, 30, 0));
    for receiver in [1, 2] {
        let counters = sim.counters(receiver);
        assert_eq!((counters.received, counters.copies, counters.transmitted), (10, 10, 20), "never tunnel to tunnel");
    }
}

#[test]
fn after_learning_ten_frames_arrive_ten_times_at_one_place_and_nowhere_else() {
    let mut sim = two_networks();
    sim.send(at(2, BLUE, 1), &udp(mac(at(2, BLUE, 1)), MacAddr::BROADCAST, b"here I am"));
    sim.deliveries();
    send_ten(&mut sim, at(0, BLUE, 0), mac(at(2, BLUE, 1)));
    assert_eq!(sim.deliveries(), [(at(2, BLUE, 1), 10)]);
    sim.send(at(0, BLUE, 1), &udp(mac(at(0, BLUE, 1)), MacAddr::BROADCAST, b"here I am"));
    sim.deliveries();
    send_ten(&mut sim, at(0, BLUE, 0), mac(at(0, BLUE, 1)));
    assert_eq!(sim.deliveries(), [(at(0, BLUE, 1), 10)], "local to local");
}

#[test]
fn what_arrives_is_what_was_sent() {
    let mut sim = two_networks();
    let frame = udp(mac(at(0, BLUE, 0)), MacAddr::BROADCAST, b"every byte of it");
    sim.send(at(0, BLUE, 0), &frame);
    assert_eq!(sim.received(at(1, BLUE, 0)), std::slice::from_ref(&frame));
    assert_eq!(sim.received(at(0, BLUE, 1)), [frame]);
}

#[test]
fn a_station_ages_out_though_traffic_towards_it_goes_on() {
    let mut plan = NetworkPlan::new(5000, 1);
    plan.ageing = 30;
    let mut sim = Sim::mesh(3, &[plan]);
    let silent = at(1, BLUE, 0);
    sim.send(silent, &udp(mac(silent), MacAddr::BROADCAST, b"once"));
    sim.deliveries();
    for _ in 0..30 {
        sim.pass(Duration::from_secs(1));
        send_ten(&mut sim, at(0, BLUE, 0), mac(silent));
        assert_eq!(sim.deliveries(), [(silent, 10)]);
    }
    sim.pass(Duration::from_secs(4));
    send_ten(&mut sim, at(0, BLUE, 0), mac(silent));
    assert_eq!(sim.deliveries(), [(silent, 10), (at(2, BLUE, 0), 10)], "forgotten, so flooded");
    sim.pass(Duration::from_secs(8));
    assert!(sim.stations(0).iter().all(|&(_, known, _)| known != mac(silent)), "and its place is free");
}

#[test]
fn a_station_that_keeps_sending_does_not_age_out() {
    let mut plan = NetworkPlan::new(5000, 1);
    plan.ageing = 30;
    let mut sim = Sim::mesh(3, &[plan]);
    for _ in 0..20 {
        sim.send(at(1, BLUE, 0), &udp(mac(at(1, BLUE, 0)), mac(at(0, BLUE, 0)), b"again"));
        sim.pass(Duration::from_secs(10));
    }
    sim.deliveries();
    send_ten(&mut sim, at(0, BLUE, 0), mac(at(1, BLUE, 0)));
    assert_eq!(sim.deliveries(), [(at(1, BLUE, 0), 10)]);
}

#[test]
fn two_networks_with_equal_addresses_never_leak_into_each_other() {
    let mut sim = two_networks();
    for network in [BLUE, GREEN] {
        for host in 0..3 {
            let place = at(host, network, 0);
            sim.send(place, &udp(mac(place), MacAddr::BROADCAST, b"hello"));
            assert!(sim.deliveries().iter().all(|(at, _)| at.network == network));
        }
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        for network in [BLUE, GREEN] {
            send_ten(&mut sim, at(from, network, 0), mac(at(to, network, 0)));
            assert_eq!(sim.deliveries(), [(at(to, network, 0), 10)]);
        }
    }
}

#[test]
fn a_station_that_moves_is_followed() {
    let mut sim = two_networks();
    let moving = MacAddr([2, 7, 7, 7, 7, 7]);
    for place in [at(1, BLUE, 0), at(2, BLUE, 1), at(0, BLUE, 1), at(1, BLUE, 1)] {
        sim.send(place, &udp(moving, MacAddr::BROADCAST, b"now here"));
        sim.deliveries();
        send_ten(&mut sim, at(0, BLUE, 0), moving);
        assert_eq!(sim.deliveries(), [(place, 10)]);
    }
}

#[test]
fn a_frame_to_its_own_sender_is_dropped_and_counted() {
    let mut sim = two_networks();
    send_ten(&mut sim, at(0, BLUE, 0), mac(at(0, BLUE, 0)));
    assert_eq!(sim.deliveries(), []);
    assert_eq!(sim.counters(0).drops[DropReason::SamePort], 10);
}

#[test]
fn a_full_network_still_reaches_whom_it_does_not_know() {
    let mut plan = NetworkPlan::new(5000, 2);
    plan.mac_limit = 4;
    let mut sim = Sim::mesh(2, &[plan]);
    for station in 0..100 {
        sim.send(at(0, BLUE, 0), &udp(MacAddr([2, 1, 1, 1, 1, station]), MacAddr::BROADCAST, b"flood"));
    }
    assert_eq!((sim.stations(0).len(), sim.stations(1).len()), (4, 4));
    sim.deliveries();
    send_ten(&mut sim, at(1, BLUE, 0), MacAddr([2, 1, 1, 1, 1, 99]));
    assert_eq!(sim.deliveries(), [(at(0, BLUE, 0), 10), (at(0, BLUE, 1), 10), (at(1, BLUE, 1), 10)]);
}

#[test]
fn b7_a_source_that_no_station_has_is_dropped_and_not_learned() {
    let mut sim = two_networks();
    for source in [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1])] {
        sim.send(at(0, BLUE, 0), &udp(source, MacAddr::BROADCAST, b"?"));
    }
    assert_eq!((sim.deliveries(), sim.stations(0)), (vec![], vec![]));
    assert_eq!(sim.counters(0).drops[DropReason::MacInvalidSource], 3);
}

#[test]
fn b8_tagged_frames_and_bridge_control_frames_stay_where_they_are() {
    let mut sim = two_networks();
    let mut tagged = udp(mac(at(0, BLUE, 0)), MacAddr::BROADCAST, b"tagged");
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    sim.send(at(0, BLUE, 0), &tagged);
    sim.send(at(0, BLUE, 0), &udp(mac(at(0, BLUE, 0)), MacAddr([1, 0x80, 0xc2, 0, 0, 0]), b"BPDU"));
    assert_eq!(sim.deliveries(), []);
    let counters = sim.counters(0);
    assert_eq!((counters.drops[DropReason::InnerVlan], counters.drops[DropReason::LinkLocalControl]), (1, 1));
}

/// An overlay frame in a tunnel from `source` to `host`.
fn tunnelled(source: Ipv4Addr, host: usize, vni: u32, inner: &[u8]) -> Vec<u8> {
    let mut payload = Vxlan::new(Vni::new(vni).unwrap()).as_bytes().to_vec();
    payload.extend_from_slice(inner);
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0xbb, 0, 0, 0, 1], Sim::uplink_mac(host).0);
    let builder = builder.ipv4(source.octets(), Sim::address(host).octets(), 64).udp(50_000, 4789);
    builder.write(&mut frame, &payload).unwrap();
    frame
}

#[test]
fn b6_only_peers_of_the_network_are_listened_to() {
    let mut sim = two_networks();
    let inner = udp(MacAddr([2, 6, 6, 6, 6, 6]), MacAddr::BROADCAST, b"let me in");
    let strangers = [[192, 0, 2, 200], [192, 0, 2, 1], [0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]];
    for stranger in strangers {
        sim.inject(0, &tunnelled(stranger.into(), 0, 5000, &inner));
    }
    for _ in 0..100 {
        sim.inject(0, &tunnelled(Sim::address(1), 0, 77, &inner));
    }
    assert_eq!((sim.deliveries(), sim.stations(0)), (vec![], vec![]));
    let counters = sim.counters(0);
    assert_eq!(counters.drops[DropReason::PeerNotAllowed], strangers.len() as u64);
    assert_eq!(counters.drops[DropReason::VxlanVniNotFound], 100);
    sim.inject(0, &tunnelled(Sim::address(1), 0, 5000, &inner));
    assert_eq!(sim.deliveries(), [(at(0, BLUE, 0), 1), (at(0, BLUE, 1), 1)]);
}

#[test]
fn what_came_from_a_tunnel_never_enters_another() {
    let mut sim = two_networks();
    let far = mac(at(2, BLUE, 0));
    sim.send(at(2, BLUE, 0), &udp(far, MacAddr::BROADCAST, b"I am behind host 2"));
    sim.deliveries();
    sim.inject(0, &tunnelled(Sim::address(1), 0, 5000, &udp(MacAddr([2, 6, 6, 6, 6, 6]), far, b"relay me")));
    assert_eq!(sim.deliveries(), []);
    assert_eq!(sim.counters(0).drops[DropReason::SplitHorizon], 1);
}

#[test]
fn b9_a_packet_longer_than_the_mtu_is_counted_and_its_sender_told() {
    let mut sim = two_networks();
    let (from, to) = (at(0, BLUE, 0), at(1, BLUE, 0));
    for _ in 0..50 {
        sim.send(from, &udp(mac(from), mac(to), &[7; 1423]));
    }
    let answers = sim.received(from);
    assert_eq!(answers.len(), 10, "no more than ten in a tenth of a second");
    assert_eq!(icmp::mtu_of_too_big(&answers[0]), Some(1450));
    assert_eq!(sim.deliveries(), []);
    assert_eq!(sim.counters(0).drops[DropReason::MtuExceeded], 50);
    sim.send(from, &udp(mac(from), mac(to), &[7; 1422]));
    assert_eq!(sim.received(to).len(), 1, "1450 bytes fit");
}

#[test]
fn a_peer_without_a_next_hop_costs_counted_drops_and_nobody_else_anything() {
    let mut sim = two_networks();
    sim.adopt(0, |tables| {
        let mut vtep = tables.vtep(VtepId(1)).unwrap().clone();
        vtep.template = None;
        tables.set_vtep(VtepId(1), vtep);
    });
    send_ten(&mut sim, at(0, BLUE, 0), MacAddr::BROADCAST);
    assert_eq!(sim.deliveries(), [(at(0, BLUE, 1), 10), (at(2, BLUE, 0), 10), (at(2, BLUE, 1), 10)]);
    assert_eq!(sim.counters(0).drops[DropReason::NextHopUnresolved], 10);
}

#[test]
fn stations_behind_what_is_gone_are_forgotten_at_the_swap() {
    let mut sim = two_networks();
    for host in [1, 2] {
        sim.send(at(host, BLUE, 0), &udp(mac(at(host, BLUE, 0)), MacAddr::BROADCAST, b"hello"));
    }
    assert_eq!(sim.stations(0).len(), 2);
    sim.adopt(0, |tables| {
        let mut network = tables.network(NetworkId(0)).unwrap().clone();
        network.peers.retain(|&peer| peer != VtepId(1));
        tables.set_network(NetworkId(0), network);
    });
    assert_eq!(sim.stations(0).iter().map(|&(_, mac, _)| mac).collect::<Vec<_>>(), [mac(at(2, BLUE, 0))]);
}
