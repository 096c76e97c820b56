//! ARP, neighbour discovery, the gateway, guards and isolation, on simulated hosts.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use etherparse::PacketBuilder;
use vxlane_dataplane::{
    bridge::Origin,
    events::Event,
    ids::{NetworkId, PortId, VtepId, WorkerId},
    tables::{Gateway, Guard, Network, Port, Role, Tables},
    verdict::DropReason,
    wire::{
        Arp, Layers, MacAddr, Vni,
        arp::Operation,
        nd::{self, Kind, Message},
    },
};
use vxlane_tests::sim::{NetworkPlan, Place, Sim, at};

const BLUE: usize = 0;
const ID: NetworkId = NetworkId(0);
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Three endpoints of host 0 and one of host 1.
const A: Place = Place { host: 0, network: BLUE, port: 0 };
const B: Place = Place { host: 0, network: BLUE, port: 1 };
const C: Place = Place { host: 0, network: BLUE, port: 2 };
const FAR: Place = Place { host: 1, network: BLUE, port: 0 };

fn mac(place: Place) -> MacAddr {
    MacAddr([2, 0, 0, 0, u8::try_from(place.host).unwrap(), u8::try_from(place.port).unwrap() + 1])
}

fn v4(place: Place) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, u8::try_from(place.host).unwrap(), u8::try_from(place.port).unwrap() + 11)
}

fn v6(place: Place) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, place.host.try_into().unwrap(), u16::try_from(place.port).unwrap() + 11)
}

fn port(place: Place) -> PortId {
    PortId(u16::try_from(place.port).unwrap() + 1)
}

fn gateway() -> Gateway {
    Gateway::new(Vni::new(5000).unwrap(), "10.0.0.1/16".parse().ok(), "fd00::1/64".parse().ok())
}

/// Two hosts with three endpoints each on a network with a gateway.
fn sim() -> Sim {
    sim_with(|_| {})
}

fn sim_with(edit: impl Fn(&mut Network)) -> Sim {
    let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 3)]);
    for host in 0..2 {
        change(&mut sim, host, |network| {
            network.gateway = Some(gateway());
            edit(network);
        });
    }
    sim
}

fn change(sim: &mut Sim, host: usize, edit: impl FnOnce(&mut Network)) {
    sim.adopt(host, |tables| {
        let mut network = tables.network(ID).unwrap().clone();
        edit(&mut network);
        tables.set_network(ID, network);
    });
}

/// Makes `place` the port that leads to the host itself.
fn make_host_port(tables: &mut Tables, place: Place) {
    let mut network = tables.network(ID).unwrap().clone();
    network.ports.retain(|&other| other != port(place));
    network.host = Some(port(place));
    tables.set_network(ID, network);
    tables.set_port(port(place), Port::new(Role::Host(ID), WorkerId(0)));
}

fn guarded(sim: &mut Sim, place: Place, addresses: &[IpAddr]) {
    let guard = Guard { mac: mac(place), addresses: addresses.to_vec() };
    sim.adopt(place.host, |tables| {
        let guarded = Port { guard: Some(Arc::new(guard)), ..Port::new(Role::Access(ID), WorkerId(0)) };
        tables.set_port(port(place), guarded);
    });
}

fn arp(from: MacAddr, to: MacAddr, packet: Arp) -> Vec<u8> {
    let mut frame = vec![0; 60];
    packet.write(to, &mut frame).unwrap();
    frame[6..12].copy_from_slice(&from.0);
    frame
}

/// "Who has `target`?", asked by everybody's neighbour at `place`.
fn who_has(place: Place, target: Ipv4Addr) -> Vec<u8> {
    arp(mac(place), MacAddr::BROADCAST, Arp::request(mac(place), v4(place), target))
}

/// "Is `target` taken?" (RFC 5227).
fn probe(place: Place, target: Ipv4Addr) -> Vec<u8> {
    arp(mac(place), MacAddr::BROADCAST, Arp::request(mac(place), Ipv4Addr::UNSPECIFIED, target))
}

/// "I have `address`", to everybody.
fn announce(place: Place, address: Ipv4Addr) -> Vec<u8> {
    arp(mac(place), MacAddr::BROADCAST, Arp::request(mac(place), address, address))
}

/// An answer in `frame`: who has which address.
fn told(frame: &[u8]) -> (Ipv4Addr, MacAddr) {
    let arp = Arp::new_checked(&frame[14..]).unwrap();
    assert_eq!(arp.operation(), Operation::Reply);
    assert_eq!(frame[6..12], arp.sender_mac.0, "RFC 9161 section 3.3: the answer's Ethernet source is the answer");
    (arp.sender(), arp.sender_mac)
}

fn solicitation(place: Place, source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let payload = [&target.octets(), options].concat();
    icmpv6(place, MacAddr([0x33, 0x33, 0xff, x, y, z]), (source, group), 135, 0, &payload)
}

fn icmpv6(
    place: Place,
    to: MacAddr,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    kind: u8,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(mac(place).0, to.0).ipv6(source.octets(), destination.octets(), 255);
    builder.icmpv6_raw(kind, 0, [flags, 0, 0, 0]).write(&mut frame, payload).unwrap();
    frame
}

fn source_option(mac: MacAddr) -> Vec<u8> {
    [&[1, 1], &mac.0[..]].concat()
}

fn advertisement(place: Place, target: Ipv6Addr, flags: u8) -> Vec<u8> {
    let payload = [&target.octets()[..], &[2, 1], &mac(place).0].concat();
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    icmpv6(place, MacAddr([0x33, 0x33, 0, 0, 0, 1]), (target, all), 136, flags, &payload)
}

fn message(frame: &[u8]) -> Message {
    nd::parse(frame, &Layers::walk(frame)).unwrap().unwrap()
}

fn udp(from: MacAddr, to: MacAddr, source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(from.0, to.0).ipv4(source.octets(), destination.octets(), 64);
    builder.udp(1000, port).write(&mut frame, b"payload").unwrap();
    frame
}

fn drops(sim: &mut Sim, host: usize) -> Vec<(DropReason, u64)> {
    sim.counters(host).drops.nonzero().collect()
}

#[test]
fn the_gateway_answers_arp_on_every_host_and_nobody_else_hears_the_question() {
    let mut sim = sim();
    for place in [A, FAR] {
        sim.send(place, &who_has(place, GATEWAY_V4));
        let answers = sim.received(place);
        assert_eq!(answers.iter().map(|answer| told(answer)).collect::<Vec<_>>(), [(GATEWAY_V4, gateway().mac)]);
        assert_eq!(answers[0].len(), 42);
        assert_eq!(sim.deliveries(), []);
        let counters = sim.counters(place.host);
        assert_eq!((counters.received, counters.transmitted, counters.answered), (1, 1, 1));
        assert_eq!(counters.drops.total(), 0);
    }
}

#[test]
fn the_gateway_answers_neighbour_discovery_for_its_global_and_its_link_local_address() {
    let mut sim = sim();
    for target in [GATEWAY_V6, gateway().link_local()] {
        sim.send(A, &solicitation(A, v6(A), target, &source_option(mac(A))));
        let answers = sim.received(A);
        let answer = message(&answers[0]);
        assert_eq!((answers.len(), answer.kind, answer.target), (1, Kind::Advertisement, target));
        assert_eq!((answer.source, answer.destination, answer.link_layer), (target, v6(A), Some(gateway().mac)));
        assert_eq!(answer.flags, nd::ROUTER | nd::SOLICITED | nd::OVERRIDE);
        assert_eq!(sim.deliveries(), []);
    }
    sim.send(A, &solicitation(A, Ipv6Addr::UNSPECIFIED, GATEWAY_V6, &[]));
    let answer = message(&sim.received(A)[0]);
    assert_eq!(answer.flags, nd::ROUTER | nd::OVERRIDE, "to a probe, which has no address to answer to");
    assert_eq!(answer.destination, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
}

#[test]
fn the_gateway_answers_echo_with_any_payload() {
    let mut sim = sim();
    for length in [0, 1, 56, 1400] {
        let payload: Vec<u8> = (0..length).map(|n: usize| n.to_le_bytes()[0]).collect();
        let mut asked = Vec::new();
        let builder = PacketBuilder::ethernet2(mac(A).0, gateway().mac.0);
        let v4_builder = builder.ipv4(v4(A).octets(), GATEWAY_V4.octets(), 64);
        v4_builder.icmpv4_echo_request(7, 9).write(&mut asked, &payload).unwrap();
        let mut expected = Vec::new();
        let builder = PacketBuilder::ethernet2(gateway().mac.0, mac(A).0);
        let v4_builder = builder.ipv4(GATEWAY_V4.octets(), v4(A).octets(), 64);
        v4_builder.icmpv4_echo_reply(7, 9).write(&mut expected, &payload).unwrap();
        sim.send(A, &asked);
        let got = sim.received(A).remove(0);
        // Only the fragment field differs: etherparse forbids fragments, we allow them.
        assert_eq!((&got[..20], &got[26..]), (&expected[..20], &expected[26..]));

        let mut asked = Vec::new();
        let builder = PacketBuilder::ethernet2(mac(A).0, gateway().mac.0);
        let v6_builder = builder.ipv6(v6(A).octets(), GATEWAY_V6.octets(), 64);
        v6_builder.icmpv6_echo_request(7, 9).write(&mut asked, &payload).unwrap();
        let mut expected = Vec::new();
        let builder = PacketBuilder::ethernet2(gateway().mac.0, mac(A).0);
        let v6_builder = builder.ipv6(GATEWAY_V6.octets(), v6(A).octets(), 64);
        v6_builder.icmpv6_echo_reply(7, 9).write(&mut expected, &payload).unwrap();
        sim.send(A, &asked);
        assert_eq!(sim.received(A), [expected]);
    }
    assert_eq!((sim.counters(0).answered, drops(&mut sim, 0)), (8, vec![]));
}

#[test]
fn rfc9161_3_3_a_known_address_is_answered_here_and_no_tunnel_carries_the_question() {
    let mut sim = sim();
    sim.send(B, &announce(B, v4(B)));
    assert_eq!(sim.deliveries().len(), 5, "the announcement goes everywhere");
    sim.send(A, &who_has(A, v4(B)));
    assert_eq!(told(&sim.received(A)[0]), (v4(B), mac(B)));
    assert_eq!(sim.deliveries(), []);
    assert_eq!(sim.counters(1).received, 1, "the announcement alone");
}

#[test]
fn rfc9161_3_6_an_unknown_address_is_flooded_so_that_a_silent_host_is_reached() {
    let mut sim = sim();
    sim.send(A, &who_has(A, v4(FAR)));
    assert_eq!(sim.deliveries(), [B, C, FAR, at(1, BLUE, 1), at(1, BLUE, 2)].map(|place| (place, 1)));
    sim.send(A, &solicitation(A, v6(A), v6(FAR), &source_option(mac(A))));
    assert_eq!(sim.deliveries().len(), 5);
}

#[test]
fn rfc9161_3_2_nothing_is_learned_from_tunnels() {
    let mut sim = sim();
    sim.send(FAR, &announce(FAR, v4(FAR)));
    sim.send(FAR, &advertisement(FAR, v6(FAR), nd::OVERRIDE));
    sim.deliveries();
    sim.send(A, &who_has(A, v4(FAR)));
    sim.send(A, &solicitation(A, v6(A), v6(FAR), &source_option(mac(A))));
    assert_eq!(sim.received(FAR).len(), 2, "host 0 had to ask");
    assert_eq!(sim.counters(0).answered, 0);
}

#[test]
fn rfc9161_3_2_nd_is_learned_from_advertisements_that_override_and_never_from_solicitations() {
    let mut sim = sim();
    let question = solicitation(A, v6(A), v6(B), &source_option(mac(A)));
    sim.send(B, &solicitation(B, v6(B), v6(C), &source_option(mac(B))));
    sim.send(B, &advertisement(B, v6(B), 0));
    sim.send(A, &question);
    assert_eq!(sim.counters(0).answered, 0);
    sim.send(B, &advertisement(B, v6(B), nd::OVERRIDE | nd::ROUTER));
    sim.deliveries();
    sim.send(A, &question);
    let answer = message(&sim.received(A)[0]);
    assert_eq!((answer.target, answer.link_layer), (v6(B), Some(mac(B))));
    assert_eq!(answer.flags, nd::ROUTER | nd::SOLICITED | nd::OVERRIDE, "a router, as it said itself");
}

#[test]
fn rfc9161_3_2_zero_addresses_are_not_learned() {
    let mut sim = sim();
    sim.send(B, &probe(B, v4(B)));
    sim.send(B, &arp(mac(B), MacAddr::BROADCAST, Arp::request(MacAddr::ZERO, v4(B), v4(C))));
    sim.deliveries();
    sim.send(A, &who_has(A, v4(B)));
    assert_eq!((sim.counters(0).answered, sim.received(B).len()), (0, 1));
}

#[test]
fn rfc9161_3_3_the_owner_is_not_answered_about_itself_but_probes_of_others_are() {
    let mut sim = sim();
    sim.send(B, &announce(B, v4(B)));
    sim.send(B, &advertisement(B, v6(B), nd::OVERRIDE));
    sim.deliveries();
    sim.send(B, &probe(B, v4(B)));
    sim.send(B, &solicitation(B, Ipv6Addr::UNSPECIFIED, v6(B), &[]));
    assert_eq!(sim.received(B), Vec::<Vec<u8>>::new(), "its own address is free for it");
    sim.deliveries();
    sim.send(A, &probe(A, v4(B)));
    assert_eq!(told(&sim.received(A)[0]), (v4(B), mac(B)), "RFC 5227: taken");
    sim.send(A, &solicitation(A, Ipv6Addr::UNSPECIFIED, v6(B), &[]));
    assert_eq!(message(&sim.received(A)[0]).link_layer, Some(mac(B)), "RFC 4862: taken");
    assert_eq!(sim.deliveries(), []);
}

#[test]
fn rfc9161_3_3_a_question_to_one_station_goes_to_that_station() {
    let mut sim = sim();
    sim.send(B, &announce(B, v4(B)));
    sim.send(B, &advertisement(B, v6(B), nd::OVERRIDE));
    sim.deliveries();
    sim.send(A, &arp(mac(A), mac(B), Arp::request(mac(A), v4(A), v4(B))));
    let nud = icmpv6(A, mac(B), (v6(A), v6(B)), 135, 0, &v6(B).octets());
    sim.send(A, &nud);
    assert_eq!(sim.deliveries(), [(B, 2)]);
}

#[test]
fn rfc9161_3_3_only_arp_in_the_form_of_rfc_826_is_answered() {
    let mut sim = sim();
    for (at, value) in [(15, 6), (18, 8), (19, 16), (21, 3)] {
        let mut odd = who_has(A, GATEWAY_V4);
        odd[at] = value;
        sim.send(A, &odd);
        assert_eq!(sim.received(A).len(), 0, "byte {at}");
    }
    assert_eq!(sim.counters(0).answered, 0);
}

#[test]
fn rfc9161_3_3_options_that_no_proxy_can_answer_go_to_the_owner() {
    let mut sim = sim();
    sim.send(B, &advertisement(B, v6(B), nd::OVERRIDE));
    sim.deliveries();
    let nonce = [source_option(mac(A)), vec![14, 1, 1, 2, 3, 4, 5, 6]].concat();
    sim.send(A, &solicitation(A, v6(A), v6(B), &nonce));
    assert_eq!(sim.received(A).len(), 1);
    let signed = [source_option(mac(A)), vec![12, 1, 0, 0, 0, 0, 0, 0]].concat();
    sim.send(A, &solicitation(A, v6(A), v6(B), &signed));
    assert_eq!((sim.received(A).len(), sim.received(B).len()), (0, 1));
}

#[test]
fn rfc9161_3_2_what_control_says_is_never_overridden() {
    let mut sim = sim_with(|network| {
        network.neighbours = Arc::new([(v4(FAR).into(), mac(FAR)), (v6(FAR).into(), mac(FAR))].into());
    });
    sim.send(A, &who_has(A, v4(FAR)));
    assert_eq!(told(&sim.received(A)[0]), (v4(FAR), mac(FAR)), "though it never said a word");
    sim.send(B, &announce(B, v4(FAR)));
    sim.send(B, &advertisement(B, v6(FAR), nd::OVERRIDE));
    assert_eq!((sim.deliveries(), drops(&mut sim, 0)), (vec![], vec![(DropReason::SpoofedAddress, 2)]));
    sim.send(A, &who_has(A, v4(FAR)));
    assert_eq!(told(&sim.received(A)[0]), (v4(FAR), mac(FAR)));
}

#[test]
fn rfc9161_3_5_a_binding_is_asked_after_at_each_third_of_its_time_and_then_forgotten() {
    let mut sim = sim();
    sim.send(B, &announce(B, v4(B)));
    sim.send(B, &advertisement(B, v6(B), nd::OVERRIDE));
    sim.deliveries();
    sim.pass(Duration::from_secs(95));
    assert_eq!(sim.deliveries(), []);
    sim.pass(Duration::from_secs(13));
    let asked = sim.received(B);
    assert_eq!(asked.len(), 2, "once for each address, and its owner alone");
    let arps: Vec<_> = asked.iter().filter_map(|frame| Arp::new_checked(&frame[14..])).collect();
    assert_eq!((arps[0].sender(), arps[0].target(), arps.len()), (Ipv4Addr::UNSPECIFIED, v4(B), 1));
    assert!(asked.iter().all(|frame| frame[..6] == mac(B).0), "to the owner");
    assert_eq!(sim.deliveries(), []);
    let question = asked.iter().find(|frame| frame[12] == 0x86).unwrap();
    assert_eq!((message(question).source, message(question).target), (gateway().link_local(), v6(B)));

    // It answers for IPv4 alone.
    let reply = Arp::request(gateway().mac, Ipv4Addr::UNSPECIFIED, v4(B)).reply(mac(B));
    sim.send(B, &arp(mac(B), gateway().mac, reply));
    assert_eq!(drops(&mut sim, 0), [(DropReason::AnswerTaken, 1)]);
    sim.pass(Duration::from_secs(90));
    assert_eq!(sim.received(B).len(), 0);
    sim.pass(Duration::from_secs(20));
    assert_eq!(sim.received(B).len(), 2, "the second third of one, the first of the other");
    sim.pass(Duration::from_secs(130));
    sim.deliveries();
    sim.send(A, &solicitation(A, v6(A), v6(B), &source_option(mac(A))));
    assert_eq!(sim.received(B).len(), 1, "forgotten, hence flooded");
    sim.deliveries();
    sim.send(A, &who_has(A, v4(B)));
    assert_eq!(told(&sim.received(A)[0]), (v4(B), mac(B)), "heard since");
}

#[test]
fn rfc9161_3_7_a_new_owner_is_believed_when_the_former_one_does_not_object_in_30_seconds() {
    let mut sim = sim();
    sim.send(B, &announce(B, v4(B)));
    sim.deliveries();
    sim.send(C, &announce(C, v4(B)));
    sim.deliveries();
    sim.pass(Duration::from_secs(1));
    let confirm = sim.received(B);
    let asked = Arp::new_checked(&confirm[0][14..]).unwrap();
    assert_eq!((confirm.len(), asked.sender(), asked.target()), (1, Ipv4Addr::UNSPECIFIED, v4(B)));
    assert_eq!(sim.deliveries(), [], "the former owner alone is asked");
    sim.send(A, &who_has(A, v4(B)));
    assert_eq!(sim.received(A).len(), 0, "nobody is told while it is contested");
    sim.deliveries();
    sim.pass(Duration::from_secs(38));
    sim.send(A, &who_has(A, v4(B)));
    assert_eq!(told(&sim.received(A)[0]), (v4(B), mac(C)));
    assert_eq!(sim.events(0), []);
}

#[test]
fn rfc9161_3_7_five_contradictions_make_a_duplicate_that_is_held_for_540_seconds() {
    let mut sim = sim();
    let contested = v4(B);
    sim.send(B, &announce(B, contested));
    for claimant in [C, B, C, B, C, B, C, B] {
        sim.send(claimant, &announce(claimant, contested));
    }
    sim.deliveries();
    sim.pass(Duration::from_secs(1));
    let event = Event::AddressClaimedTwice { network: ID, address: contested.into(), stations: [mac(B), mac(C)] };
    assert_eq!(sim.events(0), [event], "told once");
    sim.deliveries();
    sim.send(A, &who_has(A, contested));
    assert_eq!(sim.received(A).len(), 0, "nobody is told");
    assert_eq!((sim.received(B).len(), sim.received(C).len()), (1, 1), "the two may say so themselves");
    sim.pass(Duration::from_secs(545));
    sim.send(C, &announce(C, contested));
    sim.deliveries();
    sim.send(A, &who_has(A, contested));
    assert_eq!(told(&sim.received(A)[0]), (contested, mac(C)), "the hold is over");
}

#[test]
fn f9_bindings_beyond_the_limit_of_a_network_are_flooded_and_the_known_stay() {
    let mut sim = sim_with(|network| network.mac_limit = 8);
    sim.send(B, &announce(B, v4(B)));
    for n in 0..1000u16 {
        let [high, low] = n.to_be_bytes();
        sim.send(C, &announce(C, Ipv4Addr::new(10, 0, 100 + high, low)));
    }
    sim.deliveries();
    sim.send(A, &who_has(A, v4(B)));
    assert_eq!(told(&sim.received(A)[0]), (v4(B), mac(B)));
    sim.send(A, &who_has(A, Ipv4Addr::new(10, 0, 103, 0)));
    assert_eq!((sim.received(A).len(), sim.received(C).len()), (0, 1));
}

#[test]
fn b7_nobody_takes_over_a_local_endpoint_or_the_gateway() {
    let mut sim = sim();
    change(&mut sim, 0, |network| network.stations = Arc::new([(mac(B), Origin::Port(port(B)))].into()));
    for stolen in [mac(B), gateway().mac] {
        sim.send(FAR, &udp(stolen, MacAddr::BROADCAST, v4(B), v4(A), 9));
        sim.send(A, &udp(stolen, MacAddr::BROADCAST, v4(B), v4(A), 9));
    }
    assert_eq!(drops(&mut sim, 0), [(DropReason::StationElsewhere, 3)], "the rest got no further than host 1");
}

#[test]
fn b11_nobody_speaks_as_the_gateway_in_arp_or_nd_wherever_it_comes_from() {
    let mut sim = sim();
    change(&mut sim, 1, |network| network.gateway = None);
    for place in [A, FAR] {
        sim.send(place, &announce(place, GATEWAY_V4));
        sim.send(place, &advertisement(place, GATEWAY_V6, nd::OVERRIDE));
        sim.send(place, &advertisement(place, gateway().link_local(), nd::OVERRIDE));
        sim.send(place, &arp(mac(place), mac(B), Arp::request(mac(B), v4(B), GATEWAY_V4).reply(mac(place))));
    }
    assert_eq!(sim.received(B).len() + sim.received(C).len(), 0);
    assert_eq!(drops(&mut sim, 0), [(DropReason::SpoofedAddress, 8)]);
}

#[test]
fn a_guarded_endpoint_cannot_pretend_and_an_operator_hears_of_it_once() {
    let mut sim = sim();
    guarded(&mut sim, A, &[v4(A).into(), v6(A).into()]);
    for _ in 0..100 {
        sim.send(A, &udp(mac(C), MacAddr::BROADCAST, v4(A), v4(B), 9));
        sim.send(A, &udp(mac(A), MacAddr::BROADCAST, v4(C), v4(B), 9));
        sim.send(A, &announce(A, v4(B)));
    }
    assert_eq!(sim.deliveries(), []);
    assert_eq!(drops(&mut sim, 0), [(DropReason::SpoofedMac, 100), (DropReason::SpoofedAddress, 200)]);
    assert_eq!(sim.events(0), [Event::Refused { port: port(A), reason: DropReason::SpoofedMac }]);
    assert_eq!(sim.stations(0).iter().filter(|&&(_, known, _)| known != gateway().mac).count(), 0, "nothing learned");
    sim.send(A, &udp(mac(A), MacAddr::BROADCAST, v4(A), v4(B), 9));
    assert_eq!(sim.deliveries().len(), 5);
}

#[test]
fn nobody_forges_a_tunnel_through_the_gateway() {
    let mut sim = sim();
    let vtep = Sim::address(1);
    sim.send(A, &udp(mac(A), gateway().mac, v4(A), vtep, 4789));
    let mut fragment = udp(mac(A), gateway().mac, v4(A), vtep, 4789);
    fragment[20] = 0x20;
    sim.send(A, &fragment);
    assert_eq!(drops(&mut sim, 0), [(DropReason::ForgedTunnel, 2)]);
    sim.send(A, &udp(mac(A), gateway().mac, v4(A), vtep, 4788));
    assert_eq!(sim.counters(0).drops[DropReason::NoWayOut], 1, "the router's business");
}

#[test]
fn rfc7432_15_1_a_station_that_flaps_between_two_vteps_is_held_and_told_of_once() {
    let mut sim = Sim::mesh(3, &[NetworkPlan::new(5000, 1)]);
    let flapping = MacAddr([2, 7, 7, 7, 7, 7]);
    for n in 0..1000 {
        let place = at(1 + n % 2, BLUE, 0);
        sim.send(place, &udp(flapping, MacAddr::BROADCAST, v4(A), v4(B), 9));
    }
    let held = Origin::Vtep(VtepId(1));
    assert_eq!(sim.events(0), [Event::StationFlaps { network: ID, mac: flapping, held }]);
    assert_eq!(sim.stations(0), [(ID, flapping, held)], "where it was first");
    sim.deliveries();
    sim.pass(Duration::from_secs(541));
    sim.send(at(2, BLUE, 0), &udp(flapping, MacAddr::BROADCAST, v4(A), v4(B), 9));
    assert_eq!(sim.stations(0), [(ID, flapping, Origin::Vtep(VtepId(2)))], "free to move again");
}

#[test]
fn rfc7432_15_2_a_static_station_never_moves() {
    let mut sim = Sim::mesh(3, &[NetworkPlan::new(5000, 1)]);
    let sticky = MacAddr([2, 7, 7, 7, 7, 7]);
    let home = Origin::Vtep(VtepId(1));
    change(&mut sim, 0, |network| network.stations = Arc::new([(sticky, home)].into()));
    for _ in 0..10 {
        sim.send(at(2, BLUE, 0), &udp(sticky, MacAddr::BROADCAST, v4(A), v4(B), 9));
    }
    assert_eq!(sim.received(A).len(), 0);
    assert_eq!(
        (sim.stations(0), drops(&mut sim, 0)),
        (vec![(ID, sticky, home)], vec![(DropReason::StationElsewhere, 10)])
    );
    sim.pass(Duration::from_secs(3600));
    assert_eq!(sim.stations(0), [(ID, sticky, home)], "nor does it age");
    sim.deliveries();
    sim.send(A, &udp(mac(A), sticky, v4(A), v4(B), 9));
    assert_eq!(sim.deliveries(), [(at(1, BLUE, 0), 1)]);
    change(&mut sim, 0, |network| network.stations = Arc::default());
    assert!(sim.stations(0).iter().all(|&(_, mac, _)| mac != sticky), "until control takes it back");
}

#[test]
fn isolated_endpoints_reach_the_gateway_and_nobody_else() {
    let mut sim = sim_with(|network| {
        network.isolation = true;
        network.neighbours = Arc::new([(v4(B).into(), mac(B))].into());
    });
    sim.send(B, &who_has(B, GATEWAY_V4));
    assert_eq!(sim.received(B).len(), 1);
    sim.send(A, &who_has(A, v4(B)));
    for to in [mac(B), mac(FAR), MacAddr::BROADCAST] {
        sim.send(A, &udp(mac(A), to, v4(A), v4(B), 9));
    }
    assert_eq!((sim.deliveries(), drops(&mut sim, 0)), (vec![], vec![(DropReason::Isolated, 4)]));
    change(&mut sim, 1, |network| network.isolation = false);
    sim.send(FAR, &udp(mac(FAR), mac(A), v4(FAR), v4(A), 9));
    assert_eq!((sim.received(A).len(), sim.counters(0).drops[DropReason::Isolated]), (0, 5), "from tunnels, too");
}

#[test]
fn the_host_speaks_as_the_gateway_to_its_own_endpoints_and_to_no_tunnel() {
    let mut sim = sim();
    sim.adopt(0, |tables| make_host_port(tables, C));
    let ours = gateway().mac;
    sim.send(A, &announce(A, v4(A)));
    sim.send(FAR, &announce(FAR, v4(FAR)));
    assert_eq!(sim.received(C).len(), 0, "what everybody hears is not for the host");
    sim.deliveries();
    sim.send(C, &arp(ours, MacAddr::BROADCAST, Arp::request(ours, GATEWAY_V4, v4(A))));
    assert_eq!(told(&sim.received(C)[0]), (v4(A), mac(A)), "known");
    sim.send(C, &arp(ours, MacAddr::BROADCAST, Arp::request(ours, GATEWAY_V4, v4(B))));
    assert_eq!(sim.deliveries(), [(A, 1), (B, 1)], "unknown, and asked for on this host alone");
    sim.send(B, &arp(mac(B), ours, Arp::request(ours, GATEWAY_V4, v4(B)).reply(mac(B))));
    assert_eq!(sim.received(C).len(), 1, "the answer");
    sim.send(C, &udp(ours, mac(A), GATEWAY_V4, v4(A), 9));
    sim.send(C, &udp(ours, mac(FAR), GATEWAY_V4, v4(FAR), 9));
    sim.send(C, &udp(mac(C), mac(A), GATEWAY_V4, v4(A), 9));
    assert_eq!(sim.deliveries(), [(A, 1)]);
    assert_eq!(drops(&mut sim, 0), [(DropReason::SpoofedMac, 1), (DropReason::HostOnlyHere, 1)]);
    sim.send(A, &udp(mac(A), ours, v4(A), GATEWAY_V4, 53));
    assert_eq!(sim.deliveries(), [(C, 1)], "a service at the gateway's address");
    sim.send(A, &udp(mac(A), ours, [192, 0, 2, 7].into(), GATEWAY_V4, 53));
    sim.send(A, &udp(mac(A), ours, v4(A), GATEWAY_V4, 4789));
    sim.send(C, &udp(ours, mac(A), [192, 0, 2, 7].into(), v4(A), 9));
    let refused = [
        DropReason::SpoofedMac,
        DropReason::SpoofedAddress,
        DropReason::ForgedTunnel,
        DropReason::HostOnlyHere,
        DropReason::InvalidSource,
    ];
    assert_eq!(drops(&mut sim, 0), refused.map(|reason| (reason, 1)));
    sim.send(FAR, &udp(mac(FAR), ours, v4(FAR), GATEWAY_V4, 53));
    assert_eq!(sim.counters(1).drops[DropReason::GatewayUnused], 1, "of this host's gateway, not another's");
}

#[test]
fn no_endpoint_tells_the_host_of_routers() {
    let mut sim = sim();
    sim.adopt(0, |tables| make_host_port(tables, C));
    let (from, ours) = ("fe80::5".parse::<Ipv6Addr>().unwrap(), gateway());
    let redirect = [from.octets(), v6(B).octets()].concat();
    for (kind, rest) in [(134, &[0; 8][..]), (137, &redirect)] {
        let builder = PacketBuilder::ethernet2(mac(A).0, ours.mac.0);
        let builder = builder.ipv6(from.octets(), ours.link_local().octets(), 255);
        let mut frame = Vec::new();
        builder.icmpv6_raw(kind, 0, [0; 4]).write(&mut frame, rest).unwrap();
        sim.send(A, &frame);
    }
    assert_eq!((sim.deliveries(), drops(&mut sim, 0)), (vec![], vec![(DropReason::RouterAdvertisement, 2)]));
}

#[test]
fn the_gateway_is_reached_through_no_tunnel() {
    let mut sim = sim();
    change(&mut sim, 1, |network| network.gateway = None);
    sim.send(A, &announce(A, v4(A)));
    sim.send(FAR, &udp(mac(FAR), gateway().mac, v4(FAR), GATEWAY_V4, 53));
    assert_eq!(sim.counters(0).drops[DropReason::GatewayElsewhere], 1);
}

#[test]
fn without_suppression_every_question_but_those_about_the_gateway_is_flooded() {
    let mut sim = sim_with(|network| {
        network.suppression = false;
        network.neighbours = Arc::new([(v4(FAR).into(), mac(FAR))].into());
    });
    sim.send(B, &announce(B, v4(B)));
    sim.deliveries();
    sim.send(A, &who_has(A, v4(B)));
    sim.send(A, &who_has(A, v4(FAR)));
    assert_eq!(sim.deliveries().iter().map(|&(_, count)| count).sum::<usize>(), 10);
    sim.send(A, &who_has(A, GATEWAY_V4));
    assert_eq!(sim.deliveries(), [(A, 1)]);
}
