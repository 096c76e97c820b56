//! Out of the overlay and back through the gateway over IPv6, translated or not, on simulated hosts.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use etherparse::{IpHeaders, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use vxlane_dataplane::{
    ids::NetworkId,
    nat::NatConfig,
    tables::{Gateway, Network, Route, WayOut},
    verdict::DropReason,
    wire::{MacAddr, Vni, checksum},
};
use vxlane_tests::sim::{GATEWAY_V6, NetworkPlan, Place, Sim, at};

const INSIDE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);
const ROUTER_MAC: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const WEB: Place = Place { host: 0, network: 0, port: 0 };
const DB: Place = Place { host: 0, network: 0, port: 1 };

fn mac(place: Place) -> MacAddr {
    MacAddr([2, 0, 0, 0, u8::try_from(place.network).unwrap(), u8::try_from(place.port).unwrap()])
}

fn gateway_mac() -> MacAddr {
    Gateway::mac_of(Vni::new(5000).unwrap())
}

/// A packet with everything that tests change.
#[derive(Clone, Copy)]
struct Ip {
    from: Ipv6Addr,
    to: Ipv6Addr,
    hops: u8,
}

impl Ip {
    fn new(from: Ipv6Addr, to: Ipv6Addr) -> Self {
        Self { from, to, hops: 64 }
    }

    fn udp(self, source: MacAddr, destination: MacAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let (source6, destination6) = (self.from.octets(), self.to.octets());
        let ip =
            Ipv6Header { hop_limit: self.hops, source: source6, destination: destination6, ..Ipv6Header::default() };
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(source.0, destination.0).ip(IpHeaders::Ipv6(ip, Default::default()));
        builder.udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
        frame
    }

    /// The same from an endpoint to its gateway.
    fn out(self, place: Place, payload: &[u8]) -> Vec<u8> {
        self.udp(mac(place), gateway_mac(), (1000, 53), payload)
    }

    /// The same from the router.
    fn back(self, port: u16, payload: &[u8]) -> Vec<u8> {
        self.udp(ROUTER_MAC, Sim::uplink_mac(0), (53, port), payload)
    }
}

/// What can be read off a UDP frame, whose checksum is right.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    macs: (MacAddr, MacAddr),
    from: (Ipv6Addr, u16),
    to: (Ipv6Addr, u16),
    hops: u8,
    payload: Vec<u8>,
}

fn seen(frame: &[u8]) -> Seen {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) = (sliced.net, sliced.transport) else {
        panic!("not UDP: {frame:02x?}")
    };
    let header = ip.header().to_header();
    let whole = udp.to_header().calc_checksum_ipv6_raw(header.source, header.destination, udp.payload()).unwrap();
    assert_eq!(udp.checksum(), whole, "UDP checksum");
    Seen {
        macs: (MacAddr(frame[6..12].try_into().unwrap()), MacAddr(frame[..6].try_into().unwrap())),
        from: (header.source.into(), udp.source_port()),
        to: (header.destination.into(), udp.destination_port()),
        hops: header.hop_limit,
        payload: udp.payload().to_vec(),
    }
}

/// Type and code of an ICMPv6 error, who sent it, the number behind its checksum, and the packet it quotes.
fn error(frame: &[u8]) -> ((u8, u8), Ipv6Addr, u32, Vec<u8>) {
    let pseudo = checksum::sum(&frame[22..54]) + 58 + (frame.len() - 54) as u64;
    let sum = checksum::fold(checksum::sum(&frame[54..]) + pseudo);
    assert_eq!((frame[20], sum), (58, 0xffff), "ICMPv6 with a right checksum");
    let from: [u8; 16] = frame[22..38].try_into().unwrap();
    let number = u32::from_be_bytes(frame[58..62].try_into().unwrap());
    ((frame[54], frame[55]), from.into(), number, frame[62..].to_vec())
}

fn sim() -> Sim {
    sim_with(|_| {})
}

fn sim_with(edit: impl FnOnce(&mut NatConfig<Ipv6Addr>)) -> Sim {
    let router = |mtu| Route::Uplink { gateway: Some(ROUTER), mtu };
    let routes = [
        ("::/0", router(1500)),
        ("2001:db8::/64", Route::Uplink { gateway: None, mtu: 1500 }),
        ("2001:db8:ee::/48", Route::Elsewhere),
        ("2001:db8:ff::/48", Route::Unreachable),
        ("2001:db8:aa::/48", router(1400)),
    ]
    .map(|(prefix, route)| (prefix.parse().unwrap(), route));
    let mut sim = Sim::mesh(2, &[NetworkPlan::new(5000, 2), NetworkPlan::new(6000, 1)]);
    let mut config = NatConfig::new(vec![HOST], "20000-29999".parse().unwrap());
    edit(&mut config);
    sim.give_way_out_v6(0, config, &routes, &[(ROUTER, ROUTER_MAC)]);
    sim
}

/// Changes the first network of host 0.
fn edit(sim: &mut Sim, edit: impl FnOnce(&mut Network)) {
    sim.adopt(0, |tables| {
        let mut network = tables.network(NetworkId(0)).unwrap().clone();
        edit(&mut network);
        tables.set_network(NetworkId(0), network);
    });
}

/// A host whose first network leaves as it is; its endpoints are known.
fn routed() -> Sim {
    let mut sim = sim();
    edit(&mut sim, |network| {
        network.way_out6 = WayOut::Routed;
        let known = [(INSIDE, WEB), (OTHER, DB)].map(|(address, place)| (IpAddr::V6(address), mac(place)));
        network.neighbours = Arc::new(known.into());
    });
    // Whoever has spoken is known to the bridge.
    sim.send(WEB, &Ip::new(INSIDE, OTHER).udp(mac(WEB), mac(DB), (1, 2), b"hello"));
    sim.send(DB, &Ip::new(OTHER, INSIDE).udp(mac(DB), mac(WEB), (1, 2), b"hello"));
    sim.deliveries();
    sim.sent(0);
    sim
}

/// Sends `frame` out and returns the port that stands for its sender.
fn goes_out(sim: &mut Sim, frame: &[u8]) -> u16 {
    sim.send(WEB, frame);
    let sent = sim.sent(0);
    assert_eq!(sent.len(), 1, "one frame out");
    seen(&sent[0]).from.1
}

fn sessions(sim: &mut Sim) -> usize {
    sim.nat_v6(0).report().sessions
}

#[test]
fn a_packet_leaves_by_the_uplink_with_the_hosts_address_and_the_answer_comes_back() {
    let mut sim = sim();
    sim.send(WEB, &Ip::new(INSIDE, SERVER).out(WEB, b"question"));
    let sent = sim.sent(0);
    assert_eq!(sent.len(), 1);
    let out = seen(&sent[0]);
    assert!((20_000..30_000).contains(&out.from.1));
    let expected = Seen {
        macs: (Sim::uplink_mac(0), ROUTER_MAC),
        from: (HOST, out.from.1),
        to: (SERVER, 53),
        hops: 63,
        payload: b"question".to_vec(),
    };
    assert_eq!(out, expected);

    sim.inject(0, &Ip::new(SERVER, HOST).back(out.from.1, b"answer"));
    let back: Vec<Seen> = sim.received(WEB).iter().map(|frame| seen(frame)).collect();
    let expected = Seen {
        macs: (gateway_mac(), mac(WEB)),
        from: (SERVER, 53),
        to: (INSIDE, 1000),
        hops: 63,
        payload: b"answer".to_vec(),
    };
    assert_eq!((back, sim.deliveries()), (vec![expected], vec![]));
    let counters = sim.counters(0);
    assert_eq!((counters.received, counters.transmitted, counters.drops.total()), (2, 2, 0));
}

#[test]
fn with_so_many_sessions_that_bursts_are_looked_ahead_at_every_packet_goes_its_own_way() {
    let mut sim = sim_with(|nat| nat.endpoint_limit = u32::MAX);
    let leave = |sim: &mut Sim, port: u16| {
        goes_out(sim, &Ip::new(INSIDE, SERVER).udp(mac(WEB), gateway_mac(), (port, 53), b"question"))
    };
    let ports: Vec<(u16, u16)> = (1000..6000).map(|inside| (inside, leave(&mut sim, inside))).collect();
    assert_eq!(sessions(&mut sim), 5000);
    for &(inside, outside) in ports.iter().rev().step_by(7) {
        assert_eq!(leave(&mut sim, inside), outside);
        sim.inject(0, &Ip::new(SERVER, HOST).back(outside, b"answer"));
        assert_eq!(seen(&sim.received(WEB)[0]).to, (INSIDE, inside));
    }
}

#[test]
fn rfc4443_3_3_hops_end_at_the_gateway_and_at_the_host_and_their_addresses_say_so() {
    let mut sim = sim();
    let frame = Ip { hops: 1, ..Ip::new(INSIDE, SERVER) }.out(WEB, b"trace");
    sim.send(WEB, &frame);
    let (kind, from, _, quoted) = error(&sim.received(WEB)[0]);
    assert_eq!((kind, from), ((3, 0), GATEWAY_V6));
    assert_eq!(quoted, frame[14..], "what was sent, unchanged");
    assert_eq!((sim.counters(0).drops[DropReason::TtlExceeded], sessions(&mut sim)), (1, 0));

    let port = goes_out(&mut sim, &Ip::new(INSIDE, SERVER).out(WEB, b"question"));
    sim.inject(0, &Ip { hops: 1, ..Ip::new(SERVER, HOST) }.back(port, b"answer"));
    let (kind, from, ..) = error(&sim.sent(0)[0]);
    assert_eq!((kind, from, sim.received(WEB).len()), ((3, 0), HOST, 0));
}

#[test]
fn rfc4443_3_2_packets_too_long_for_a_route_or_the_network_are_answered_with_its_mtu() {
    let mut sim = sim();
    let far: Ipv6Addr = "2001:db8:aa::1".parse().unwrap();
    sim.send(WEB, &Ip::new(INSIDE, far).out(WEB, &[7; 1353]));
    let (kind, from, mtu, _) = error(&sim.received(WEB)[0]);
    assert_eq!((kind, from, mtu), ((2, 0), GATEWAY_V6, 1400));
    let port = goes_out(&mut sim, &Ip::new(INSIDE, far).out(WEB, &[7; 1352]));
    sim.inject(0, &Ip::new(far, HOST).back(port, &[7; 1450]));
    let told = sim.sent(0);
    let (kind, from, mtu, _) = error(&told[0]);
    assert_eq!((kind, from, mtu, &told[0][..6]), ((2, 0), HOST, 1450, &ROUTER_MAC.0[..]), "back the way it came");
    assert_eq!(sim.counters(0).drops[DropReason::MtuExceeded], 2);
}

#[test]
fn rfc4443_3_1_what_has_no_route_is_refused_and_counted_by_its_reason() {
    let mut sim = sim();
    let mut send = |to: &str| {
        sim.send(WEB, &Ip::new(INSIDE, to.parse().unwrap()).out(WEB, b"?"));
        sim.received(WEB).first().map(|frame| error(frame).0)
    };
    assert_eq!(send("2001:db8:ee::1"), Some((1, 0)), "by another device");
    assert_eq!(send("2001:db8:ff::1"), Some((1, 0)), "unreachable");
    for nobody in ["::", "::1", "ff0e::1", "fe80::7", "::ffff:192.0.2.1", "fd00::99"] {
        assert_eq!(send(nobody), None, "{nobody}");
    }
    let drops = sim.counters(0).drops;
    assert_eq!((drops[DropReason::RouteElsewhere], drops[DropReason::NoRoute]), (1, 1));
    assert_eq!((drops[DropReason::InvalidDestination], drops.total(), sessions(&mut sim)), (6, 8, 0));
}

#[test]
fn a_neighbour_that_is_not_known_is_wanted_and_no_session_comes_of_it() {
    let mut sim = sim();
    let neighbour: Ipv6Addr = "2001:db8::77".parse().unwrap();
    sim.send(WEB, &Ip::new(INSIDE, neighbour).out(WEB, b"?"));
    sim.send(WEB, &Ip::new(INSIDE, neighbour).out(WEB, b"?"));
    assert_eq!((sim.sent(0).len(), sim.wanted(0)), (0, vec![IpAddr::V6(neighbour)]));
    assert_eq!((sim.counters(0).drops[DropReason::NextHopUnresolved], sessions(&mut sim)), (2, 0));
}

#[test]
fn sources_beyond_the_subnet_are_dropped_and_tunnels_are_not_forged() {
    let mut sim = sim();
    for from in [SERVER, GATEWAY_V6, "fe80::2".parse().unwrap(), Ipv6Addr::UNSPECIFIED] {
        sim.send(WEB, &Ip::new(from, SERVER).out(WEB, b"?"));
    }
    assert_eq!(sim.counters(0).drops[DropReason::InvalidSource], 4);
    sim.send(WEB, &Ip::new(INSIDE, SERVER).udp(mac(WEB), gateway_mac(), (1000, 4789), &[0; 30]));
    assert_eq!(sim.counters(0).drops[DropReason::ForgedTunnel], 1);
    assert_eq!((sim.sent(0).len(), sim.received(WEB).len()), (0, 0));
}

#[test]
fn an_internal_network_and_one_without_a_way_out_are_prohibited_and_their_sessions_end() {
    let mut sim = sim();
    let question = Ip::new(INSIDE, SERVER).out(WEB, b"question");
    let port = goes_out(&mut sim, &question);
    assert_eq!(sessions(&mut sim), 1);
    edit(&mut sim, |network| network.way_out6 = WayOut::None);
    assert_eq!(sessions(&mut sim), 0);
    sim.inject(0, &Ip::new(SERVER, HOST).back(port, b"late"));
    sim.send(WEB, &question);
    edit(&mut sim, |network| (network.way_out6, network.internal) = (WayOut::Routed, true));
    sim.send(WEB, &question);
    let told: Vec<_> = sim.received(WEB).iter().map(|frame| (error(frame).0, error(frame).1)).collect();
    assert_eq!((told, sim.sent(0).len()), (vec![((1, 1), GATEWAY_V6); 2], 0));
    assert_eq!(sim.counters(0).drops[DropReason::NoWayOut], 2);
    sim.inject(0, &Ip::new(SERVER, INSIDE).back(1000, b"into an internal network"));
    assert_eq!(sim.received(WEB).len(), 0);
}

#[test]
fn rfc4787_req9_two_endpoints_of_one_host_meet_at_its_outside_address() {
    let mut sim = sim();
    sim.send(DB, &Ip::new(OTHER, SERVER).out(DB, b"opens"));
    let callee = seen(&sim.sent(0)[0]).from.1;
    sim.send(WEB, &Ip::new(INSIDE, HOST).udp(mac(WEB), gateway_mac(), (1000, callee), b"hairpin"));
    let arrived = seen(&sim.received(DB)[0]);
    assert_eq!((arrived.from.0, arrived.to, arrived.hops), (HOST, (OTHER, 1000), 63));
    assert_eq!(arrived.macs, (gateway_mac(), mac(DB)));
}

#[test]
fn a_routed_network_speaks_with_its_own_addresses_both_ways() {
    let mut sim = routed();
    sim.send(WEB, &Ip::new(INSIDE, SERVER).out(WEB, b"question"));
    let expected = Seen {
        macs: (Sim::uplink_mac(0), ROUTER_MAC),
        from: (INSIDE, 1000),
        to: (SERVER, 53),
        hops: 63,
        payload: b"question".to_vec(),
    };
    assert_eq!(sim.sent(0).iter().map(|frame| seen(frame)).collect::<Vec<_>>(), [expected]);

    // Nobody needs to have called.
    for (place, address) in [(WEB, INSIDE), (DB, OTHER)] {
        sim.inject(0, &Ip::new(SERVER, address).back(80, b"call"));
        let expected = Seen {
            macs: (gateway_mac(), mac(place)),
            from: (SERVER, 53),
            to: (address, 80),
            hops: 63,
            payload: b"call".to_vec(),
        };
        assert_eq!(sim.received(place).iter().map(|frame| seen(frame)).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!((sessions(&mut sim), sim.counters(0).drops.total()), (0, 0));
}

#[test]
fn what_comes_in_for_a_routed_network_and_cannot_be_delivered_is_answered_by_its_gateway() {
    let mut sim = routed();
    let mut told = |frame: &[u8]| {
        sim.inject(0, frame);
        sim.sent(0).first().map(|frame| {
            let (kind, from, number, _) = error(frame);
            assert_eq!((from, &frame[..6]), (GATEWAY_V6, &ROUTER_MAC.0[..]));
            (kind, number)
        })
    };
    let nobody: Ipv6Addr = "fd00::99".parse().unwrap();
    assert_eq!(told(&Ip::new(SERVER, nobody).back(1, b"x")), Some(((1, 3), 0)));
    assert_eq!(told(&Ip { hops: 1, ..Ip::new(SERVER, INSIDE) }.back(1, b"x")), Some(((3, 0), 0)));
    assert_eq!(told(&Ip::new(SERVER, INSIDE).back(1, &[0; 1450])), Some(((2, 0), 1450)));
    assert_eq!(told(&Ip::new(OTHER, INSIDE).back(1, b"from its own prefix")), None);
    assert_eq!(told(&Ip::new(SERVER, GATEWAY_V6).back(1, b"to the gateway")), None);
    assert_eq!(sim.received(WEB).len(), 0);
    let drops = sim.counters(0).drops;
    assert_eq!((drops[DropReason::InvalidSource], drops[DropReason::InvalidDestination], drops.total()), (1, 1, 5));
}

#[test]
fn a_network_that_is_translated_is_not_reached_by_its_own_addresses() {
    let mut sim = sim();
    sim.inject(0, &Ip::new(SERVER, INSIDE).back(80, b"call"));
    assert_eq!((sim.received(WEB).len(), sim.counters(0).drops[DropReason::OuterNotOurs]), (0, 1));
}

#[test]
fn two_networks_with_a_route_between_them_reach_each_other_untranslated() {
    let mut sim = sim();
    let green = at(0, 1, 0);
    let address: Ipv6Addr = "fd01::2".parse().unwrap();
    sim.adopt(0, |tables| {
        let mut other = tables.network(NetworkId(1)).unwrap().clone();
        other.gateway = Some(Gateway::new(other.vni, None, "fd01::1/64".parse().ok()));
        other.neighbours = Arc::new([(IpAddr::V6(address), mac(green))].into());
        let gateway = other.gateway.unwrap().mac;
        tables.set_network(NetworkId(1), other);
        let mut blue = tables.network(NetworkId(0)).unwrap().clone();
        blue.routes = vec![NetworkId(1)];
        tables.set_network(NetworkId(0), blue);
        assert_ne!(gateway, gateway_mac());
    });
    sim.send(WEB, &Ip::new(INSIDE, address).out(WEB, b"across"));
    let arrived = seen(&sim.received(green)[0]);
    assert_eq!((arrived.from.0, arrived.to.0, arrived.hops), (INSIDE, address, 63));
    sim.send(WEB, &Ip::new(INSIDE, "fd01::9".parse().unwrap()).out(WEB, b"nobody"));
    assert_eq!(error(&sim.received(WEB)[0]).0, (1, 3));
}
