//! Frames of all kinds, given to the short way and to the whole pipeline.

use std::sync::Arc;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::{
    ids::{NetworkId, WorkerId},
    pipeline::Pipeline,
    tables::{Gateway, Guard, LocalVtep, Port, Vtep, ZeroChecksums},
    verdict::{Decision, Verdict},
    vtep::Template,
    wire::{Ecn, checksum},
};

const LOCAL: LocalVtep = end(1);
const REMOTE: LocalVtep = end(2);
const UPLINK: PortId = PortId(0);
const HERE: PortId = PortId(1);
const NEIGHBOUR: PortId = PortId(2);
const NOW: Instant = Instant(1_000_000);

/// Stations: at our port, at the neighbour's, behind the peer, over IPv4 and IPv6, and behind another
/// peer; then nobody known, a group, nobody at all, and the gateway.
const STATIONS: [MacAddr; 9] = [
    MacAddr([2, 0, 0, 0, 0, 1]),
    MacAddr([2, 0, 0, 0, 0, 2]),
    MacAddr([2, 0, 0, 0, 0, 3]),
    MacAddr([2, 0, 0, 0, 0, 4]),
    MacAddr([2, 0, 0, 0, 0, 5]),
    MacAddr([2, 0, 0, 0, 0, 6]),
    MacAddr::BROADCAST,
    MacAddr::ZERO,
    MacAddr([2, b'v', b'x', 0, 0, 7]),
];

/// A VTEP with an address of each family.
const fn end(last: u8) -> LocalVtep {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last as u16);
    let local = LocalVtep::new(Some(Ipv4Addr::new(192, 0, 2, last)), Some(v6), 4789);
    LocalVtep { zero_checksums: ZeroChecksums { transmit: false, receive: true }, ..local }
}

fn tables(guarded: bool, isolation: bool) -> Tables {
    let mut tables = Tables::new(LOCAL);
    tables.set_port(UPLINK, Port::new(Role::Uplink, WorkerId(0)));
    let guard = Guard { mac: STATIONS[0], addresses: vec!["10.0.0.1".parse().unwrap()] };
    let access = Port::new(Role::Access(NetworkId(0)), WorkerId(0));
    tables.set_port(HERE, Port { guard: guarded.then(|| Arc::new(guard)), ..access.clone() });
    tables.set_port(NEIGHBOUR, access);
    let peers = [REMOTE, end(3)].into_iter().flat_map(|peer| peer.addresses().collect::<Vec<_>>());
    for (id, address) in (0..).zip(peers) {
        tables.set_vtep(VtepId(id), Vtep::new(LOCAL, address, UPLINK, MacAddr([4; 6]), Some(MacAddr([6; 6]))));
    }
    let vni = Vni::new(7).unwrap();
    let gateway = Some(Gateway::new(vni, "10.0.0.254/24".parse().ok(), None));
    let (ports, peers) = (vec![HERE, NEIGHBOUR], (0..4).map(VtepId).collect());
    tables.set_network(NetworkId(0), Network { ports, peers, gateway, isolation, ..Network::new(vni) });
    tables
}

fn pipeline(tables: &Tables) -> Pipeline {
    let mut pipeline = Pipeline::new(64);
    pipeline.bridge.adopt(tables);
    let network = tables.network(NetworkId(0)).unwrap();
    let ports = [HERE, NEIGHBOUR].map(Origin::Port);
    let origins = ports.into_iter().chain((0..3).map(|vtep| Origin::Vtep(VtepId(vtep))));
    for (mac, origin) in STATIONS.into_iter().zip(origins) {
        pipeline.bridge.learn(NetworkId(0), network, mac, origin, NOW);
    }
    pipeline
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Underlay {
    V4,
    V6,
    /// Over IPv6 without UDP checksums.
    V6Zero,
}

#[derive(Clone, Debug)]
struct Plan {
    /// The address family of the tunnel that it comes from, if it does.
    from_tunnel: Option<Underlay>,
    guarded: bool,
    isolation: bool,
    source: usize,
    destination: usize,
    kind: u8,
    ecn: [u8; 2],
    partial: bool,
    payload: usize,
    changes: Vec<(prop::sample::Index, u8)>,
    cut: usize,
}

impl Plan {
    fn packet(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(STATIONS[self.source].0, STATIONS[self.destination].0);
        let (from, to, payload) = ([10, 0, 0, 1], [10, 0, 0, 2], vec![0x5a; self.payload]);
        let mut frame = Vec::new();
        match self.kind {
            0 => ethernet.ipv4(from, to, 64).udp(67, 68).write(&mut frame, &payload).unwrap(),
            1 => ethernet.ipv4(from, to, 64).tcp(1000, 80, 1, 1000).write(&mut frame, &payload).unwrap(),
            2 => ethernet.ipv4(from, to, 64).icmpv4_echo_request(1, 2).write(&mut frame, &payload).unwrap(),
            3 => ethernet.ipv6([1; 16], [2; 16], 64).udp(1000, 53).write(&mut frame, &payload).unwrap(),
            4 => ethernet.ipv4([10, 0, 0, 66], to, 64).udp(1000, 53).write(&mut frame, &payload).unwrap(),
            _ => ethernet.ipv4(from, to, 64).udp(1000, 53).write(&mut frame, &payload).unwrap(),
        }
        let mut layers = Layers::walk(&frame);
        layers.set_ecn(&mut frame, Ecn::from_traffic_class(self.ecn[0]));
        if self.partial && self.kind > 4 {
            let pseudo = checksum::pseudo_v4(from.into(), to.into(), 17, 8 + self.payload);
            frame[40..42].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        }
        frame
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = self.packet();
        if let Some(underlay) = self.from_tunnel {
            let (v4, v6) = (LOCAL.addresses().next().unwrap(), LOCAL.addresses().last().unwrap());
            let zero_checksums = ZeroChecksums { transmit: underlay == Underlay::V6Zero, receive: false };
            let remote = LocalVtep { zero_checksums, ..REMOTE };
            let to = if underlay == Underlay::V4 { v4 } else { v6 };
            let template = Template::new(remote, MacAddr([6; 6]), to, MacAddr([4; 6])).unwrap();
            let flow = Flow { source_port: 50_000, ecn: Ecn::from_traffic_class(self.ecn[1]) };
            frame = template.wrap(Vni::new(7).unwrap(), flow, &frame);
        }
        for (index, value) in &self.changes {
            // Headers rather than payload.
            let length = frame.len().min(120);
            frame[index.index(length)] = *value;
        }
        frame.truncate(frame.len() - self.cut.min(frame.len()));
        frame
    }

    fn port(&self) -> PortId {
        if self.from_tunnel.is_some() { UPLINK } else { HERE }
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let underlay = prop::option::of(prop_oneof![Just(Underlay::V4), Just(Underlay::V6), Just(Underlay::V6Zero)]);
    let who = (underlay, any::<bool>(), prop::bool::weighted(0.1), 0..9usize, 0..9usize);
    let what = (0..10u8, any::<[u8; 2]>(), any::<bool>(), prop_oneof![0..40usize, 1400..1500usize]);
    let harm = (
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        prop_oneof![4 => Just(0), 1 => 0..60usize],
    );
    (who, what, harm).prop_map(|(who, what, harm)| Plan {
        from_tunnel: who.0,
        guarded: who.1,
        isolation: who.2,
        source: who.3,
        destination: who.4,
        kind: what.0,
        ecn: what.1,
        partial: what.2,
        payload: what.3,
        changes: harm.0,
        cut: harm.1,
    })
}

fn way(tables: &Tables, plan: &Plan, frame: &mut [u8]) -> Option<Way> {
    let bridge = &mut pipeline(tables).bridge;
    match Entrance::of(tables, bridge, plan.port(), NOW) {
        Entrance::Endpoint(mut endpoint) => endpoint.way(bridge, frame),
        Entrance::Uplink(mut uplink) => uplink.way(bridge, frame).or_else(|| uplink.rare_way(bridge, frame)),
        Entrance::Elsewhere => Elsewhere.way(bridge, frame),
    }
}

/// What the short way says, in the words of the whole one.
fn decision(way: &Way) -> Decision {
    let (verdict, flow) = match way.exit {
        Exit::Port(port) => (Verdict::Deliver(port), None),
        Exit::Tunnel(vtep, _, flow) => (Verdict::Forward(vtep), Some(flow)),
    };
    Decision {
        verdict,
        network: NetworkId(0),
        start: way.start,
        end: way.end,
        flow: flow.unwrap_or_default(),
        cut_to: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Either it decides as the whole pipeline does, or it leaves everything as it was.
    #[test]
    fn the_short_way_is_never_different(plan in plans()) {
        let tables = tables(plan.guarded, plan.isolation);
        let (mut short, mut whole) = (plan.frame(), plan.frame());
        let way = way(&tables, &plan, &mut short);
        let Some(way) = way else {
            prop_assert_eq!(short, whole);
            return Ok(());
        };
        let mut pipeline = pipeline(&tables);
        let expected = pipeline.process(&tables, NOW, plan.port(), &mut whole);
        let mut found = decision(&way);
        if matches!(found.verdict, Verdict::Deliver(_)) {
            // Of no use to a frame that stays on this host.
            found.flow = expected.flow;
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(short, whole);
        prop_assert!(pipeline.news.is_empty());
    }
}

#[test]
fn packets_between_known_stations_take_the_short_way() {
    let plan = Plan {
        from_tunnel: None,
        guarded: true,
        isolation: false,
        source: 0,
        destination: 2,
        kind: 9,
        ecn: [2, 2],
        partial: true,
        payload: 22,
        changes: Vec::new(),
        cut: 0,
    };
    let inside = Plan { destination: 1, ..plan.clone() };
    let out_v6 = Plan { destination: 3, ..plan.clone() };
    let from = |underlay, source| Plan { from_tunnel: Some(underlay), source, destination: 0, ..plan.clone() };
    let from_v6 = Plan { partial: false, ..from(Underlay::V6, 3) };
    let outside = [from(Underlay::V4, 2), from_v6, from(Underlay::V6Zero, 3)];
    for plan in [plan.clone(), Plan { kind: 1, ..plan.clone() }, inside, out_v6].into_iter().chain(outside) {
        let tables = tables(plan.guarded, plan.isolation);
        let way = way(&tables, &plan, &mut plan.frame());
        assert!(way.is_some(), "{plan:?}");
    }
}
