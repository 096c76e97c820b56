//! Ways out with two workers: packets that land on the wrong one are handed over.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{net::Ipv4Addr, sync::Arc};

use etherparse::PacketBuilder;
use mio::{Poll, Token, Waker};
use vxlane_dataplane::{
    clock::Instant,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, WorkerId},
    nat::{BlindBoard, Nat, NatConfig, Protocol, Publish, owner},
    port::memory::{Cable, MemoryReceive, MemoryTransmit},
    stats::Counters,
    tables::{Gateway, LocalVtep, Network, Outside, Port, Role, Route, Tables},
    wire::{MacAddr, Vni},
    worker::{Breath, Worker},
};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const ROUTER_MAC: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const UPLINK_MAC: MacAddr = MacAddr([2, 0xaa, 0, 0, 0, 1]);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const WEB_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const UPLINK: PortId = PortId(0);
const ACCESS: PortId = PortId(1);

type MemoryWorker = Worker<MemoryReceive, MemoryTransmit>;

/// Worker 0 has the uplink, worker 1 the endpoint.
struct Two {
    workers: [MemoryWorker; 2],
    uplink: Cable,
    access: Cable,
    _polls: [Poll; 2],
}

impl Two {
    fn new(publishes: &[Publish]) -> Self {
        let polls = [Poll::new().unwrap(), Poll::new().unwrap()];
        let waker = |poll: &Poll| Mailbox::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        let mail: Arc<[Mailbox]> = polls.iter().map(waker).collect();
        let tables = Arc::new(tables(publishes));
        let mut workers = [0, 1].map(|me| MemoryWorker::new(WorkerId(me), 64, Arc::clone(&tables), Arc::clone(&mail)));
        for (worker, me) in workers.iter_mut().zip(0..) {
            let config = NatConfig::new(vec![HOST], "20000-29999".parse().unwrap());
            let nat = Nat::new(config, WorkerId(me), 2, Arc::new(BlindBoard));
            worker.pipeline.router.nat = Some(Box::new(nat));
            worker.adopt(Arc::clone(&tables));
        }
        let mut open = |worker: usize, port| {
            let (receive, transmit, cable) = Cable::plug(64, 2048);
            workers[worker].open(port, QueueId(0), receive, transmit).unwrap();
            cable
        };
        let (uplink, access) = (open(0, UPLINK), open(1, ACCESS));
        Self { workers, uplink, access, _polls: polls }
    }

    fn settle(&mut self) {
        while self.workers.iter_mut().any(|worker| worker.breathe(Instant::default()) != Breath::Idle) {}
    }

    fn counters(&mut self) -> Counters {
        let mut total = Counters::default();
        for worker in &mut self.workers {
            total += &worker.report().counters;
        }
        assert_eq!(total.imbalance(), 0, "{total:?}");
        total
    }
}

fn tables(publishes: &[Publish]) -> Tables {
    let mut tables = Tables::new(LocalVtep::new(Some(HOST), None, 4789));
    let vni = Vni::new(5000).unwrap();
    tables.set_port(UPLINK, Port::new(Role::Uplink, WorkerId(0)));
    tables.set_port(ACCESS, Port::new(Role::Access(NetworkId(0)), WorkerId(1)));
    let gateway = Some(Gateway::new(vni, Some("10.0.0.1/24".parse().unwrap()), None));
    let network = Network { gateway, masquerade: true, ports: vec![ACCESS], ..Network::new(vni) };
    tables.set_network(NetworkId(0), network);
    let everywhere = ("0.0.0.0/0".parse().unwrap(), Route::Uplink { gateway: Some(ROUTER), mtu: 1500 });
    tables.set_outside(Arc::new(Outside::new(UPLINK, UPLINK_MAC, [everywhere], [(ROUTER, ROUTER_MAC)])));
    tables.set_publishes(Arc::from(publishes));
    tables
}

fn udp(macs: (MacAddr, MacAddr), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0).ipv4(from.0.octets(), to.0.octets(), 64);
    builder.udp(from.1, to.1).write(&mut frame, b"hello").unwrap();
    frame
}

/// Source and destination ports.
fn ports(frame: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([frame[34], frame[35]]), u16::from_be_bytes([frame[36], frame[37]]))
}

#[test]
fn an_answer_that_lands_on_another_worker_is_handed_to_the_one_that_lent_the_port() {
    let mut two = Two::new(&[]);
    let gateway = Gateway::mac_of(Vni::new(5000).unwrap());
    two.access.send(udp((WEB_MAC, gateway), (INSIDE, 1000), (SERVER, 53)));
    two.settle();
    let sent = two.uplink.drain();
    let lent = ports(&sent[0]).0;
    assert_eq!((sent.len(), owner(lent, 2)), (1, WorkerId(1)), "lent by the endpoint's worker");
    two.uplink.send(udp((ROUTER_MAC, UPLINK_MAC), (SERVER, 53), (HOST, lent)));
    two.settle();
    let got = two.access.drain();
    assert_eq!((got.len(), ports(&got[0])), (1, (53, 1000)));
    let counters = two.counters();
    // Out by the other worker's port, then back by way of its translation.
    assert_eq!((counters.handed_over, counters.taken_over, counters.drops.total()), (2, 2, 0));
    assert_eq!((counters.received, counters.transmitted), (2, 2));
}

#[test]
fn what_a_published_endpoint_answers_is_handed_to_the_worker_that_has_the_port() {
    let port = (8000..).find(|&port| owner(port, 2) == WorkerId(0)).unwrap();
    let (protocol, network) = (Protocol::Udp, NetworkId(0));
    let mut two = Two::new(&[Publish { protocol, port, network, address: INSIDE, inside: 80, mac: WEB_MAC }]);
    let gateway = Gateway::mac_of(Vni::new(5000).unwrap());
    two.access.send(udp((WEB_MAC, gateway), (INSIDE, 1), (SERVER, 53)));
    two.settle();
    two.uplink.drain();
    two.uplink.send(udp((ROUTER_MAC, UPLINK_MAC), (SERVER, 5555), (HOST, port)));
    two.settle();
    assert_eq!(ports(&two.access.drain()[0]), (5555, 80));
    two.access.send(udp((WEB_MAC, gateway), (INSIDE, 80), (SERVER, 5555)));
    two.settle();
    let answered: Vec<_> = two.uplink.drain().iter().map(|frame| ports(frame)).collect();
    assert_eq!((answered, two.counters().drops.total()), (vec![(port, 5555)], 0));
}
