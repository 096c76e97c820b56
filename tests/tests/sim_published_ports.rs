//! Ports of the host that lead to endpoints, on a simulated host.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{net::Ipv4Addr, sync::Arc};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use vxlane_dataplane::{
    ids::NetworkId,
    nat::{Filtering, NatConfig, Protocol, Publish},
    tables::{Gateway, Route},
    verdict::DropReason,
    wire::{MacAddr, Vni},
};
use vxlane_tests::sim::{NetworkPlan, Place, Sim, at};

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const ROUTER_MAC: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const WEB: Place = Place { host: 0, network: 0, port: 0 };
const WEB_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn host() -> Ipv4Addr {
    Sim::address(0)
}

fn gateway_mac() -> MacAddr {
    Gateway::mac_of(Vni::new(5000).unwrap())
}

fn udp(macs: (MacAddr, MacAddr), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0).ipv4(from.0.octets(), to.0.octets(), 64);
    builder.udp(from.1, to.1).write(&mut frame, b"hello").unwrap();
    frame
}

/// From the client to a port of the host.
fn call(source: u16, port: u16) -> Vec<u8> {
    udp((ROUTER_MAC, Sim::uplink_mac(0)), (CLIENT, source), (host(), port))
}

/// From the endpoint, through its gateway.
fn answer(port: u16, to: (Ipv4Addr, u16)) -> Vec<u8> {
    udp((WEB_MAC, gateway_mac()), (INSIDE, port), to)
}

/// Source and destination of the UDP packet in `frame`, whose checksum is right.
fn ends(frame: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else { panic!() };
    let (from, to) = (ip.header().source(), ip.header().destination());
    assert_eq!(udp.checksum(), udp.to_header().calc_checksum_ipv4_raw(from, to, udp.payload()).unwrap());
    ((from.into(), udp.source_port()), (to.into(), udp.destination_port()))
}

fn publish(port: u16, inside: u16) -> Publish {
    let (protocol, network) = (Protocol::Udp, NetworkId(0));
    Publish { protocol, port, network, address: INSIDE, inside, mac: WEB_MAC }
}

fn sim(edit: impl FnOnce(&mut NatConfig), publishes: &[Publish]) -> Sim {
    let mut sim = Sim::mesh(1, &[NetworkPlan::new(5000, 2)]);
    let mut config = NatConfig::new(vec![host()], "20000-20009".parse().unwrap());
    edit(&mut config);
    let router = Ipv4Addr::new(192, 0, 2, 254);
    let everywhere = ("0.0.0.0/0".parse().unwrap(), Route::Uplink { gateway: Some(router), mtu: 1500 });
    sim.give_way_out(0, config, &[everywhere], &[(router, ROUTER_MAC)]);
    set(&mut sim, publishes);
    // So that it is known where the endpoint is.
    sim.send(WEB, &udp((WEB_MAC, MacAddr::BROADCAST), (INSIDE, 1), (INSIDE, 1)));
    sim.deliveries();
    sim
}

fn set(sim: &mut Sim, publishes: &[Publish]) {
    sim.adopt(0, |tables| tables.set_publishes(Arc::from(publishes)));
}

#[test]
fn anybody_reaches_a_published_port_and_is_seen_with_his_own_address() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent] {
        let mut sim = sim(|config| config.filtering = filtering, &[publish(8080, 80)]);
        sim.inject(0, &call(5555, 8080));
        let got = sim.received(WEB);
        assert_eq!(got.len(), 1);
        assert_eq!(ends(&got[0]), ((CLIENT, 5555), (INSIDE, 80)));
        sim.send(WEB, &answer(80, (CLIENT, 5555)));
        assert_eq!(sim.sent(0).iter().map(|frame| ends(frame)).collect::<Vec<_>>(), [((host(), 8080), (CLIENT, 5555))]);
        let drops = sim.counters(0).drops;
        assert_eq!(drops.total() - drops[DropReason::NoReceiver], 0);
    }
}

#[test]
fn of_two_ports_for_the_same_endpoint_each_client_is_answered_by_his_own() {
    let mut sim = sim(|_| {}, &[publish(8080, 80), publish(8081, 80)]);
    for (client, port) in [(5001, 8080), (5002, 8081), (5003, 8080)] {
        sim.inject(0, &call(client, port));
        sim.send(WEB, &answer(80, (CLIENT, client)));
        assert_eq!(ends(&sim.sent(0)[0]), ((host(), port), (CLIENT, client)));
    }
}

#[test]
fn another_endpoint_reaches_a_published_port_by_the_hosts_address() {
    let mut sim = sim(|_| {}, &[publish(8080, 80)]);
    let (other, mac, address) = (at(0, 0, 1), MacAddr([2, 0, 0, 0, 0, 3]), Ipv4Addr::new(10, 0, 0, 3));
    sim.send(other, &udp((mac, gateway_mac()), (address, 7000), (host(), 8080)));
    let got = sim.received(WEB);
    let (from, to) = ends(&got[0]);
    assert_eq!((from.0, to), (host(), (INSIDE, 80)), "from an outside address, so that the answer comes back here");
    sim.send(WEB, &answer(80, from));
    assert_eq!(ends(&sim.received(other)[0]), ((host(), 8080), (address, 7000)));
    assert_eq!(sim.sent(0).len(), 0, "nothing of it on the wire");
}

#[test]
fn what_is_no_longer_published_is_closed_and_its_port_is_lent_again_if_it_was_before() {
    let mut sim = sim(|_| {}, &[publish(8080, 80), publish(20_001, 81)]);
    assert_eq!(sim.nat(0).report().free_ports[Protocol::Udp as usize], 9, "one of ten is taken");
    sim.inject(0, &call(5555, 8080));
    sim.inject(0, &call(5555, 20_001));
    assert_eq!((sim.received(WEB).len(), sim.nat(0).report().sessions), (2, 2));
    set(&mut sim, &[publish(8080, 80)]);
    assert_eq!((sim.nat(0).report().sessions, sim.nat(0).report().free_ports[Protocol::Udp as usize]), (1, 10));
    set(&mut sim, &[]);
    sim.inject(0, &call(5555, 8080));
    assert_eq!((sim.received(WEB).len(), sim.counters(0).drops[DropReason::NatNoSession]), (0, 1));
}

#[test]
fn publishing_a_port_that_is_lent_ends_the_sessions_that_have_it() {
    let mut sim = sim(|config| config.ports = "20000".parse().unwrap(), &[]);
    sim.send(WEB, &answer(1000, (CLIENT, 53)));
    assert_eq!(ends(&sim.sent(0)[0]).0.1, 20_000);
    set(&mut sim, &[publish(20_000, 80)]);
    assert_eq!((sim.nat(0).report().sessions, sim.nat(0).report().mappings), (0, 1));
    sim.inject(0, &call(5555, 20_000));
    assert_eq!(ends(&sim.received(WEB)[0]).1, (INSIDE, 80));
}
