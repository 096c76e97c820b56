//! Out of the overlay and back through the gateway, on simulated hosts.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use etherparse::{IpHeaders, IpNumber, Ipv4Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use ipnetwork::Ipv4Network;
use vxlane_dataplane::{
    ids::{NetworkId, PortId},
    nat::NatConfig,
    tables::{Gateway, Outside, Route},
    verdict::DropReason,
    wire::{MacAddr, Vni, checksum},
};
use vxlane_tests::sim::{GATEWAY, NetworkPlan, Place, Sim, at};

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const ROUTER_MAC: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const WEB: Place = Place { host: 0, network: 0, port: 0 };

fn mac(place: Place) -> MacAddr {
    MacAddr([2, 0, 0, 0, u8::try_from(place.network).unwrap(), u8::try_from(place.port).unwrap()])
}

fn gateway_mac() -> MacAddr {
    Gateway::mac_of(Vni::new(5000).unwrap())
}

fn host() -> Ipv4Addr {
    Sim::address(0)
}

/// An IPv4 packet with everything that tests change.
#[derive(Clone, Copy)]
struct Ip {
    from: Ipv4Addr,
    to: Ipv4Addr,
    ttl: u8,
    dont_fragment: bool,
}

impl Ip {
    fn new(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        Self { from, to, ttl: 64, dont_fragment: true }
    }

    fn udp(self, source: MacAddr, destination: MacAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len() + 8).unwrap();
        let (from, to) = (self.from.octets(), self.to.octets());
        let mut ip = Ipv4Header::new(length, self.ttl, IpNumber::UDP, from, to).unwrap();
        ip.dont_fragment = self.dont_fragment;
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(source.0, destination.0).ip(IpHeaders::Ipv4(ip, Default::default()));
        builder.udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
        frame
    }
}

fn leaving(payload: &[u8]) -> Vec<u8> {
    Ip::new(INSIDE, SERVER).udp(mac(WEB), gateway_mac(), (1000, 53), payload)
}

/// What can be read off a UDP frame, whose checksums are right.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    macs: (MacAddr, MacAddr),
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    ttl: u8,
    payload: Vec<u8>,
}

fn seen(frame: &[u8]) -> Seen {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else {
        panic!("not UDP: {frame:02x?}")
    };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let whole = udp.to_header().calc_checksum_ipv4_raw(header.source, header.destination, udp.payload()).unwrap();
    assert_eq!(udp.checksum(), whole, "UDP checksum");
    Seen {
        macs: (MacAddr(frame[6..12].try_into().unwrap()), MacAddr(frame[..6].try_into().unwrap())),
        from: (header.source.into(), udp.source_port()),
        to: (header.destination.into(), udp.destination_port()),
        ttl: header.time_to_live,
        payload: udp.payload().to_vec(),
    }
}

/// Type and code of an ICMP error, who sent it, and the packet it quotes.
fn error(frame: &[u8]) -> (u8, u8, Ipv4Addr, Vec<u8>) {
    assert_eq!((frame[23], checksum::fold(checksum::sum(&frame[34..]))), (1, 0xffff), "ICMP with a right checksum");
    let from: [u8; 4] = frame[26..30].try_into().unwrap();
    (frame[34], frame[35], from.into(), frame[42..].to_vec())
}

fn routes() -> Vec<(Ipv4Network, Route)> {
    let router = Route::Uplink { gateway: Some(Ipv4Addr::new(192, 0, 2, 254)), mtu: 1500 };
    [
        ("0.0.0.0/0", router),
        ("192.0.2.0/24", Route::Uplink { gateway: None, mtu: 1500 }),
        ("203.0.113.0/24", Route::Elsewhere),
        ("203.0.113.128/25", Route::Unreachable),
        ("100.64.0.0/10", Route::Uplink { gateway: Some(Ipv4Addr::new(192, 0, 2, 254)), mtu: 1280 }),
    ]
    .map(|(prefix, route)| (prefix.parse().unwrap(), route))
    .to_vec()
}

fn nat_config() -> NatConfig {
    NatConfig::new(vec![host()], "20000-29999".parse().unwrap())
}

fn with(config: NatConfig) -> Sim {
    let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 2), NetworkPlan::new(6000, 1)]);
    sim.give_way_out(0, config, &routes(), &[(Ipv4Addr::new(192, 0, 2, 254), ROUTER_MAC)]);
    sim
}

fn sim() -> Sim {
    with(nat_config())
}

/// Sends `frame` out and returns the port that stands for its sender.
fn goes_out(sim: &mut Sim, frame: &[u8]) -> u16 {
    sim.send(WEB, frame);
    let sent = sim.sent(0);
    assert_eq!(sent.len(), 1, "one frame out");
    seen(&sent[0]).from.1
}

#[test]
fn a_packet_leaves_by_the_uplink_with_the_hosts_address_and_the_answer_comes_back() {
    let mut sim = sim();
    sim.send(WEB, &leaving(b"question"));
    let sent = sim.sent(0);
    assert_eq!(sent.len(), 1);
    let out = seen(&sent[0]);
    assert!((20_000..30_000).contains(&out.from.1));
    let expected = Seen {
        macs: (Sim::uplink_mac(0), ROUTER_MAC),
        from: (host(), out.from.1),
        to: (SERVER, 53),
        ttl: 63,
        payload: b"question".to_vec(),
    };
    assert_eq!(out, expected);

    sim.inject(0, &Ip::new(SERVER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, out.from.1), b"answer"));
    let back: Vec<Seen> = sim.received(WEB).iter().map(|frame| seen(frame)).collect();
    let expected = Seen {
        macs: (gateway_mac(), mac(WEB)),
        from: (SERVER, 53),
        to: (INSIDE, 1000),
        ttl: 63,
        payload: b"answer".to_vec(),
    };
    assert_eq!((back, sim.deliveries()), (vec![expected], vec![]));
    let counters = sim.counters(0);
    assert_eq!((counters.received, counters.transmitted, counters.drops.total()), (2, 2, 0));
}

#[test]
fn an_answer_to_a_station_that_has_fallen_silent_still_reaches_it() {
    let mut sim = sim();
    let port = goes_out(&mut sim, &leaving(b"question"));
    sim.adopt(0, |tables| {
        let mut network = tables.network(NetworkId(0)).unwrap().clone();
        network.ageing = 1;
        tables.set_network(NetworkId(0), network);
    });
    sim.pass(Duration::from_secs(5));
    sim.inject(0, &Ip::new(SERVER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), b"answer"));
    assert_eq!(sim.deliveries(), [(WEB, 1), (at(0, 0, 1), 1)], "flooded at this host, into no tunnel");
}

#[test]
fn time_to_live_ends_at_the_gateway_and_its_address_says_so() {
    let mut sim = sim();
    let frame = Ip { ttl: 1, ..Ip::new(INSIDE, SERVER) }.udp(mac(WEB), gateway_mac(), (1000, 53), b"trace");
    sim.send(WEB, &frame);
    let errors = sim.received(WEB);
    assert_eq!(errors.len(), 1);
    let (kind, code, from, quoted) = error(&errors[0]);
    assert_eq!((kind, code, from), (11, 0, GATEWAY));
    assert_eq!(quoted, frame[14..], "what was sent, unchanged");
    let counters = sim.counters(0);
    assert_eq!((counters.drops[DropReason::TtlExceeded], counters.replies, sim.nat(0).report().sessions), (1, 1, 0));
}

#[test]
fn time_to_live_of_an_answer_ends_at_the_hosts_address() {
    let mut sim = sim();
    let port = goes_out(&mut sim, &leaving(b"question"));
    let last = Ip { ttl: 1, ..Ip::new(SERVER, host()) };
    sim.inject(0, &last.udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), b"answer"));
    let (kind, code, from, _) = error(&sim.sent(0)[0]);
    assert_eq!((kind, code, from, sim.received(WEB).len()), (11, 0, host(), 0));
}

#[test]
fn rfc4787_req13_a_packet_too_long_for_its_route_is_answered_with_the_routes_mtu() {
    let mut sim = sim();
    let far = Ipv4Addr::new(100, 64, 0, 1);
    let long = |dont_fragment| {
        let ip = Ip { dont_fragment, ..Ip::new(INSIDE, far) };
        ip.udp(mac(WEB), gateway_mac(), (1000, 53), &[7; 1300])
    };
    sim.send(WEB, &long(true));
    let told = sim.received(WEB);
    let (kind, code, from, _) = error(&told[0]);
    assert_eq!((kind, code, from, &told[0][40..42]), (3, 4, GATEWAY, &[5, 0][..]), "1280 bytes");
    sim.send(WEB, &Ip::new(INSIDE, far).udp(mac(WEB), gateway_mac(), (1000, 53), &[7; 1252]));
    assert_eq!(sim.sent(0).len(), 1, "1280 bytes fit");
    assert_eq!(sim.counters(0).drops[DropReason::MtuExceeded], 1);
}

#[test]
fn rfc4787_req13_an_answer_too_long_for_the_network_is_refused_to_the_server() {
    let mut sim = sim();
    let port = goes_out(&mut sim, &leaving(b"question"));
    sim.inject(0, &Ip::new(SERVER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), &[7; 1450]));
    let told = sim.sent(0);
    let (kind, code, from, _) = error(&told[0]);
    assert_eq!((kind, code, from, &told[0][40..42]), (3, 4, host(), &1450u16.to_be_bytes()[..]));
    assert_eq!(&told[0][..6], &ROUTER_MAC.0, "back the way it came");
}

#[test]
fn what_has_no_route_is_refused_and_counted_by_its_reason() {
    let mut sim = sim();
    let mut send = |to: [u8; 4]| {
        sim.send(WEB, &Ip::new(INSIDE, to.into()).udp(mac(WEB), gateway_mac(), (1000, 53), b"?"));
        sim.received(WEB).first().map(|frame| error(frame)).map(|(kind, code, ..)| (kind, code))
    };
    assert_eq!(send([203, 0, 113, 1]), Some((3, 0)), "by another device");
    assert_eq!(send([203, 0, 113, 200]), Some((3, 0)), "unreachable");
    for nobody in [[0, 0, 0, 0], [127, 0, 0, 1], [169, 254, 1, 1], [224, 0, 0, 1], [255; 4], [10, 0, 0, 9]] {
        assert_eq!(send(nobody), None, "{nobody:?}");
    }
    let drops = sim.counters(0).drops;
    let of = |reason| drops[reason];
    assert_eq!((of(DropReason::RouteElsewhere), of(DropReason::NoRoute)), (1, 1));
    assert_eq!((of(DropReason::InvalidDestination), drops.total(), sim.nat(0).report().sessions), (6, 8, 0));
}

#[test]
fn a_neighbour_that_is_not_known_is_wanted_and_no_session_comes_of_it() {
    let mut sim = sim();
    let neighbours = [Ipv4Addr::new(192, 0, 2, 77), Ipv4Addr::new(192, 0, 2, 78)];
    for neighbour in [neighbours[0], neighbours[1], neighbours[0]] {
        sim.send(WEB, &Ip::new(INSIDE, neighbour).udp(mac(WEB), gateway_mac(), (1000, 53), b"?"));
    }
    assert_eq!((sim.sent(0).len(), sim.wanted(0)), (0, neighbours.map(IpAddr::V4).to_vec()));
    assert_eq!((sim.counters(0).drops[DropReason::NextHopUnresolved], sim.nat(0).report().sessions), (3, 0));
}

#[test]
fn f15_an_internal_network_has_no_way_out_and_an_endpoint_no_other_address() {
    let mut sim = sim();
    sim.adopt(0, |tables| {
        let mut network = tables.network(NetworkId(0)).unwrap().clone();
        network.internal = true;
        tables.set_network(NetworkId(0), network);
    });
    for to in [SERVER, host(), Sim::address(1), Ipv4Addr::new(192, 0, 2, 254)] {
        sim.send(WEB, &Ip::new(INSIDE, to).udp(mac(WEB), gateway_mac(), (1000, 53), b"let me out"));
    }
    sim.send(WEB, &Ip::new(Ipv4Addr::new(10, 9, 9, 9), SERVER).udp(mac(WEB), gateway_mac(), (1000, 53), b"spoof"));
    assert_eq!((sim.sent(0).len(), sim.received(WEB).len()), (0, 4), "told, but not let out");
    let drops = sim.counters(0).drops;
    assert_eq!((drops[DropReason::NoWayOut], drops[DropReason::InvalidSource], drops.total()), (4, 1, 5));
}

#[test]
fn sessions_end_when_their_network_loses_its_way_out() {
    let mut sim = sim();
    let port = goes_out(&mut sim, &leaving(b"question"));
    sim.adopt(0, |tables| {
        let mut network = tables.network(NetworkId(0)).unwrap().clone();
        network.masquerade = false;
        tables.set_network(NetworkId(0), network);
    });
    assert_eq!(sim.nat(0).report().sessions, 0);
    sim.inject(0, &Ip::new(SERVER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), b"late"));
    assert_eq!((sim.deliveries(), sim.counters(0).drops[DropReason::NatNoSession]), (vec![], 1));
}

#[test]
fn what_nobody_asked_for_goes_nowhere_and_other_addresses_are_not_ours() {
    let mut sim = sim();
    sim.inject(0, &Ip::new(SERVER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, 20_000), b"?"));
    sim.inject(0, &Ip::new(SERVER, Sim::address(1)).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, 20_000), b"?"));
    let drops = sim.counters(0).drops;
    assert_eq!(drops[DropReason::NatNoSession], 1);
    assert_eq!((drops[DropReason::OuterNotOurs], drops.total(), sim.deliveries()), (1, 2, vec![]));
}

#[test]
fn rfc4787_req9_two_endpoints_reach_each_other_by_their_outside_addresses() {
    let mut sim = sim();
    let other = at(0, 1, 0);
    let listening = {
        let vni = Vni::new(6000).unwrap();
        sim.send(other, &Ip::new(INSIDE, SERVER).udp(mac(other), Gateway::mac_of(vni), (7000, 53), b"here I am"));
        seen(&sim.sent(0)[0]).from.1
    };
    sim.send(WEB, &Ip::new(INSIDE, host()).udp(mac(WEB), gateway_mac(), (1000, listening), b"hello"));
    let got = sim.received(other);
    assert_eq!((got.len(), sim.sent(0).len()), (1, 0), "never on the wire");
    let got = seen(&got[0]);
    assert_eq!((got.from.0, got.to, got.ttl), (host(), (INSIDE, 7000), 63), "from an outside address, one hop");
    assert_eq!(got.macs, (Gateway::mac_of(Vni::new(6000).unwrap()), mac(other)));
}

#[test]
fn rfc5508_req8_when_ports_run_out_newcomers_are_told_and_counted_and_sessions_live_on() {
    let mut config = nat_config();
    config.ports = "20000-20003".parse().unwrap();
    let mut sim = with(config);
    let send = |sim: &mut Sim, port| {
        sim.send(WEB, &Ip::new(INSIDE, SERVER).udp(mac(WEB), gateway_mac(), (port, 53), b"?"));
        sim.sent(0).len()
    };
    assert_eq!((1..=5).map(|port| send(&mut sim, port)).collect::<Vec<_>>(), [1, 1, 1, 1, 0]);
    let (kind, code, from, _) = error(&sim.received(WEB)[0]);
    assert_eq!((kind, code, from), (3, 13, GATEWAY));
    assert_eq!(send(&mut sim, 1), 1, "an established session goes on");
    assert_eq!(sim.counters(0).drops[DropReason::NatNoPort], 1);
}

/// The fragments of the packet in `frame`, as parts of datagram number `identification`.
fn fragments(frame: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
    let last = (frame.len() - 34).div_ceil(size) - 1;
    let fragment = |(number, part): (usize, &[u8])| {
        let mut ip = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        ip.identification = identification;
        ip.dont_fragment = false;
        ip.more_fragments = number < last;
        ip.fragment_offset = etherparse::IpFragOffset::try_new(u16::try_from(number * size / 8).unwrap()).unwrap();
        ip.set_payload_len(part.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        [&frame[..14], &ip.to_bytes()[..], part].concat()
    };
    frame[34..].chunks(size).enumerate().map(fragment).collect()
}

#[test]
fn rfc4787_req14_fragments_come_back_in_and_out_of_order_and_are_accounted_for() {
    let mut sim = sim();
    let port = goes_out(&mut sim, &leaving(b"question"));
    let answer = Ip::new(SERVER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), &[9; 600]);
    for (identification, order) in [(1, [0, 1]), (2, [1, 0])] {
        let parts = fragments(&answer, 400, identification);
        for part in order {
            sim.inject(0, &parts[part]);
        }
        let got = sim.received(WEB);
        assert_eq!(got.iter().map(Vec::len).sum::<usize>(), parts.iter().map(Vec::len).sum::<usize>());
        assert!(got.iter().all(|frame| frame[30..34] == INSIDE.octets()), "all of them to the endpoint");
    }
    let counters = sim.counters(0);
    assert_eq!((counters.held, counters.released, counters.drops.total()), (1, 1, 0));
    let stranger =
        fragments(&Ip::new(ROUTER, host()).udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), &[9; 600]), 400, 3);
    sim.inject(0, &stranger[1]);
    sim.pass(Duration::from_secs(10));
    let counters = sim.counters(0);
    assert_eq!((counters.held, counters.released, counters.drops[DropReason::NatFragment]), (2, 2, 1), "in vain");
}

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

#[test]
fn rfc4787_req14_fragments_leave_with_one_address_and_one_identification() {
    let mut sim = sim();
    let parts = fragments(&leaving(&[3; 600]), 400, 4);
    for part in &parts {
        sim.send(WEB, part);
    }
    let sent = sim.sent(0);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|frame| frame[26..30] == host().octets()));
    assert_eq!(sent[0][18..20], sent[1][18..20], "identification");
}

/// What the fragments in `frames` are together, as one frame; in order, and with right headers.
fn whole(frames: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut whole = frames[0][..34].to_vec();
    for (number, frame) in frames.iter().enumerate() {
        let ip = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert!(frame.len() <= 14 + mtu && frame.len() == 14 + usize::from(ip.total_len), "{} bytes", frame.len());
        assert_eq!(usize::from(ip.fragment_offset.value()) * 8, whole.len() - 34);
        assert_eq!(ip.more_fragments, number + 1 < frames.len());
        assert_eq!(frame[18..20], frames[0][18..20], "identification");
        whole.extend_from_slice(&frame[34..]);
    }
    let mut ip = Ipv4Header::from_slice(&whole[14..]).unwrap().0;
    ip.more_fragments = false;
    ip.set_payload_len(whole.len() - 34).unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    whole[14..34].copy_from_slice(&ip.to_bytes());
    whole
}

#[test]
fn rfc4787_req13_a_a_packet_that_may_be_fragmented_leaves_in_fragments_that_its_route_takes() {
    let mut sim = sim();
    let far = Ipv4Addr::new(100, 64, 0, 1);
    let payload: Vec<u8> = (0..1400).map(|byte: u32| byte.to_be_bytes()[3]).collect();
    let ip = Ip { dont_fragment: false, ..Ip::new(INSIDE, far) };
    let mut identifications = Vec::new();
    for _ in 0..2 {
        sim.send(WEB, &ip.udp(mac(WEB), gateway_mac(), (1000, 53), &payload));
        let sent = sim.sent(0);
        assert_eq!(sent.len(), 2);
        identifications.push(sent[0][18..20].to_vec());
        let out = seen(&whole(&sent, 1280));
        assert_eq!((out.macs, out.from.0, out.to, out.ttl), ((Sim::uplink_mac(0), ROUTER_MAC), host(), (far, 53), 63));
        assert_eq!(out.payload, payload);
    }
    assert_ne!(identifications[0], identifications[1], "two datagrams");
    let counters = sim.counters(0);
    assert_eq!((counters.fragmented, counters.copies, counters.transmitted, counters.drops.total()), (2, 2, 4, 0));
}

#[test]
fn rfc4787_req13_a_an_answer_that_may_be_fragmented_reaches_its_endpoint_in_fragments() {
    let mut sim = sim();
    let port = goes_out(&mut sim, &leaving(b"question"));
    let answer = Ip { dont_fragment: false, ..Ip::new(SERVER, host()) };
    sim.inject(0, &answer.udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), &[7; 1460]));
    let got = sim.received(WEB);
    assert_eq!(got.len(), 2);
    let got = seen(&whole(&got, 1450));
    assert_eq!((got.from, got.to, got.payload), ((SERVER, 53), (INSIDE, 1000), vec![7; 1460]));

    // The later part of a datagram that comes in fragments already: too long for the network, too.
    let parts = fragments(&answer.udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), &[9; 2000]), 1480, 77);
    parts.iter().for_each(|part| sim.inject(0, part));
    let got = sim.received(WEB);
    assert_eq!(got.len(), 3);
    assert_eq!(seen(&whole(&got, 1450)).payload, [9; 2000]);
    assert_eq!((sim.counters(0).fragmented, sim.counters(0).drops.total()), (2, 0));
}

#[test]
fn rfc4787_req13_a_what_would_become_too_many_fragments_is_dropped_and_counted() {
    let mut sim = sim();
    sim.adopt(0, |tables| {
        let narrow = Route::Uplink { gateway: Some(Ipv4Addr::new(192, 0, 2, 254)), mtu: 60 };
        let neighbours = [(Ipv4Addr::new(192, 0, 2, 254), ROUTER_MAC)];
        let outside = Outside::new(PortId(0), Sim::uplink_mac(0), [("0.0.0.0/0".parse().unwrap(), narrow)], neighbours);
        tables.set_outside(Arc::new(outside));
    });
    let ip = Ip { dont_fragment: false, ..Ip::new(INSIDE, SERVER) };
    sim.send(WEB, &ip.udp(mac(WEB), gateway_mac(), (1000, 53), &[1; 1280 - 8]));
    assert_eq!(sim.sent(0).len(), 32, "1280 bytes in parts of 40");
    sim.send(WEB, &ip.udp(mac(WEB), gateway_mac(), (1000, 53), &[1; 1281 - 8]));
    assert_eq!((sim.sent(0).len(), sim.counters(0).drops[DropReason::MtuExceeded]), (0, 1));
}
