//! Hosts in memory: real workers and pipelines, virtual time, an underlay that is a loop.
//!
//! No kernel, no thread and no clock takes part, so a scenario gives the same result every
//! time and needs no privileges. Frames cross the underlay by outer destination MAC address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnetwork::{Ipv4Network, Ipv6Network};
use vxlane_dataplane::{
    bridge::Origin,
    clock::Instant,
    events::Event,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, VtepId, WorkerId},
    nat::{BlindBoard, Nat, NatConfig},
    port::memory::{Cable, MemoryReceive, MemoryTransmit},
    stats::Counters,
    tables::{Gateway, LocalVtep, Network, Outside, Port, Role, Route, Tables, Vtep, WayOut},
    wire::{MacAddr, Vni},
    worker::{Breath, Worker},
};

type MemoryWorker = Worker<MemoryReceive, MemoryTransmit>;

/// The UDP port of every simulated VTEP.
pub const VXLAN_PORT: u16 = 4789;
/// The gateway of every network with a [way out](Sim::give_way_out).
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The same for IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const UPLINK: PortId = PortId(0);
/// Bytes of a simulated transmit frame.
const FRAME_LEN: usize = 2048;
/// Stations that a worker has room for: the table is made anew for each of very many simulations.
const STATIONS: usize = 1024;
/// Frames that a simulated port can have waiting.
const DEPTH: usize = 4096;

/// Some hosts on one underlay.
#[derive(Debug)]
pub struct Sim {
    hosts: Vec<Host>,
    now: Instant,
}

/// What every host is told of one network.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// Its VNI.
    pub vni: u32,
    /// Access ports that each host has in it.
    pub ports: usize,
    /// Longest packet.
    pub mtu: u16,
    /// Seconds until a silent station is forgotten.
    pub ageing: u32,
    /// Stations that may be learned.
    pub mac_limit: u32,
}

impl NetworkPlan {
    /// A network with the defaults of the product and `ports` ports on each host.
    pub fn new(vni: u32, ports: usize) -> Self {
        Self { vni, ports, mtu: 1450, ageing: 300, mac_limit: 8192 }
    }
}

/// What two simulated hosts have between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// Each knows the other by its IPv4 address.
    V4,
    /// Each knows the other by its IPv6 address.
    V6,
}

/// Where a simulated container is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Index of the host.
    pub host: usize,
    /// Index of the network in the plan.
    pub network: usize,
    /// Index of the port within the network on that host.
    pub port: usize,
}

/// A [`Place`] in one word.
pub fn at(host: usize, network: usize, port: usize) -> Place {
    Place { host, network, port }
}

#[derive(Debug)]
struct Host {
    worker: MemoryWorker,
    uplink: Cable,
    /// By network, then port.
    access: Vec<Vec<Cable>>,
    /// Underlay frames that no simulated host is the destination of.
    lost: Vec<Vec<u8>>,
}

impl Sim {
    /// `hosts` hosts, all of them peers in every network of `plan`, over IPv4.
    ///
    /// # Panics
    /// If the plan has a VNI out of range or more than fits the small ids.
    pub fn mesh(hosts: usize, plan: &[NetworkPlan]) -> Self {
        Self::mesh_over(hosts, plan, |_, _| Underlay::V4)
    }

    /// The same, over the family that `underlay` says for each pair of hosts.
    ///
    /// # Panics
    /// As [`mesh`](Self::mesh).
    pub fn mesh_over(hosts: usize, plan: &[NetworkPlan], underlay: impl Fn(usize, usize) -> Underlay) -> Self {
        let peer = |me: usize, host: usize| match underlay(me.min(host), me.max(host)) {
            Underlay::V4 => IpAddr::V4(Self::address(host)),
            Underlay::V6 => IpAddr::V6(Self::address_v6(host)),
        };
        let peers = |me| (0..hosts).filter(move |&host| host != me).map(move |host| (host, peer(me, host)));
        let hosts = (0..hosts).map(|me| Host::new(me, &peers(me).collect::<Vec<_>>(), plan)).collect();
        Self { hosts, now: Instant::default() }
    }

    /// The underlay address of a host: 192.0.2.1 for the first.
    pub fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, byte(host + 1))
    }

    /// Its other one: 2001:db8::1 for the first.
    pub fn address_v6(host: usize) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, word(host + 1))
    }

    /// How a host is known to others, of both families.
    pub fn vtep(host: usize) -> LocalVtep {
        LocalVtep::new(Some(Self::address(host)), Some(Self::address_v6(host)), VXLAN_PORT)
    }

    /// The MAC address of a host's uplink.
    pub fn uplink_mac(host: usize) -> MacAddr {
        MacAddr([2, 0xaa, 0, 0, 0, byte(host + 1)])
    }

    /// Sends `frame` from the container at `place` and lets it travel to its end.
    pub fn send(&mut self, place: Place, frame: &[u8]) {
        self.cable(place).send(frame.to_vec());
        self.settle();
    }

    /// Puts `frame` on the uplink of `host`, as if it came over the underlay.
    pub fn inject(&mut self, host: usize, frame: &[u8]) {
        self.hosts[host].uplink.send(frame.to_vec());
        self.settle();
    }

    /// Takes what `host` sent to VTEPs that are not simulated.
    pub fn sent(&mut self, host: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.hosts[host].lost)
    }

    /// Takes everything that reached the container at `place`.
    pub fn received(&self, place: Place) -> Vec<Vec<u8>> {
        self.cable(place).drain()
    }

    /// Takes all that reached any container: how many frames at which place, without the zeros.
    pub fn deliveries(&self) -> Vec<(Place, usize)> {
        self.places().map(|place| (place, self.received(place).len())).filter(|&(_, count)| count > 0).collect()
    }

    /// Every place there is.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.hosts.iter().enumerate().flat_map(|(host, state)| {
            state
                .access
                .iter()
                .enumerate()
                .flat_map(move |(network, ports)| (0..ports.len()).map(move |port| at(host, network, port)))
        })
    }

    /// Lets time pass, with the ticks that belong to it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            for host in &mut self.hosts {
                host.worker.tick(self.now);
            }
        }
        // What the ticks had to say leaves with the next breath.
        self.settle();
    }

    /// The counters of `host`, whose law holds.
    ///
    /// # Panics
    /// If the law of the counters is broken.
    pub fn counters(&mut self, host: usize) -> Counters {
        let counters = self.hosts[host].worker.report().counters;
        assert_eq!(counters.imbalance(), 0, "received + copies + replies = transmitted + drops: {counters:?}");
        counters
    }

    /// The stations that `host` knows, by MAC address.
    pub fn stations(&self, host: usize) -> Vec<(NetworkId, MacAddr, Origin)> {
        let bridge = &self.hosts[host].worker.pipeline.bridge;
        let (stations, _) = bridge.stations(0, usize::MAX);
        let mut stations: Vec<_> =
            stations.into_iter().map(|(network, mac, entry)| (network, mac, entry.origin)).collect();
        stations.sort_by_key(|&(network, mac, _)| (network, mac));
        stations
    }

    /// Takes what `host` would tell an operator.
    pub fn events(&mut self, host: usize) -> Vec<Event> {
        self.hosts[host].worker.pipeline.events.take().map(|(_, event)| event).collect()
    }

    /// Changes the tables of `host` the way control does.
    pub fn adopt(&mut self, host: usize, edit: impl FnOnce(&mut Tables)) {
        let worker = &mut self.hosts[host].worker;
        let mut tables = worker.tables().clone();
        edit(&mut tables);
        worker.adopt(Arc::new(tables));
    }

    /// Gives every network of `host` a gateway at 10.0.0.1/24, and a way out through the host's own
    /// address, by `routes` and `neighbours` of the uplink.
    pub fn give_way_out(
        &mut self,
        host: usize,
        nat: NatConfig,
        routes: &[(Ipv4Network, Route)],
        neighbours: &[(Ipv4Addr, MacAddr)],
    ) {
        let nat = Nat::new(nat, WorkerId(0), 1, Arc::new(BlindBoard));
        self.hosts[host].worker.pipeline.router.nat = Some(Box::new(nat));
        let outside = Outside::new(UPLINK, Self::uplink_mac(host), routes.iter().copied(), neighbours.iter().copied());
        self.adopt(host, |tables| {
            tables.set_outside(Arc::new(outside));
            let networks: Vec<_> = tables.networks().map(|(id, network)| (id, network.clone())).collect();
            for (id, mut network) in networks {
                network.gateway = Some(Gateway::new(network.vni, Ipv4Network::new(GATEWAY, 24).ok(), None));
                network.masquerade = true;
                tables.set_network(id, network);
            }
        });
    }

    /// Gives every network of `host` a gateway at fd00::1/64, and a way out for IPv6 through the
    /// addresses of `nat`, by `routes` and `neighbours` of the uplink.
    pub fn give_way_out_v6(
        &mut self,
        host: usize,
        nat: NatConfig<Ipv6Addr>,
        routes: &[(Ipv6Network, Route<Ipv6Addr>)],
        neighbours: &[(Ipv6Addr, MacAddr)],
    ) {
        let nat = Nat::new(nat, WorkerId(0), 1, Arc::new(BlindBoard));
        self.hosts[host].worker.pipeline.router.nat6 = Some(Box::new(nat));
        let outside = Outside::new(UPLINK, Self::uplink_mac(host), [], []);
        let outside = outside.with_v6(routes.iter().copied(), neighbours.iter().copied());
        self.adopt(host, |tables| {
            tables.set_outside(Arc::new(outside));
            let networks: Vec<_> = tables.networks().map(|(id, network)| (id, network.clone())).collect();
            for (id, mut network) in networks {
                network.gateway = Some(Gateway::new(network.vni, None, Ipv6Network::new(GATEWAY_V6, 64).ok()));
                network.way_out6 = WayOut::Masquerade;
                tables.set_network(id, network);
            }
        });
    }

    /// The address translation of IPv6 of `host`.
    ///
    /// # Panics
    /// If it was not given a way out for IPv6.
    pub fn nat_v6(&mut self, host: usize) -> &mut Nat<Ipv6Addr> {
        let nat = self.hosts[host].worker.pipeline.router.nat6.as_mut();
        nat.unwrap_or_else(|| panic!("host {host} has no way out for IPv6"))
    }

    /// The address translation of `host`.
    ///
    /// # Panics
    /// If it was not given a way out.
    pub fn nat(&mut self, host: usize) -> &mut Nat {
        let nat = self.hosts[host].worker.pipeline.router.nat.as_mut();
        nat.unwrap_or_else(|| panic!("host {host} has no way out"))
    }

    /// Takes the neighbours that `host` would like to know.
    pub fn wanted(&mut self, host: usize) -> Vec<IpAddr> {
        std::mem::take(&mut self.hosts[host].worker.pipeline.router.wanted)
    }

    fn cable(&self, place: Place) -> &Cable {
        &self.hosts[place.host].access[place.network][place.port]
    }

    /// Breathes and carries frames over the underlay until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for host in &mut self.hosts {
                moved |= host.worker.breathe(self.now) != Breath::Idle;
            }
            for from in 0..self.hosts.len() {
                for frame in self.hosts[from].uplink.drain() {
                    moved = true;
                    let to = (0..self.hosts.len()).find(|&to| frame.starts_with(&Self::uplink_mac(to).0));
                    match to {
                        Some(to) => self.hosts[to].uplink.send(frame),
                        None => self.hosts[from].lost.push(frame),
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }
}

impl Host {
    fn new(me: usize, peers: &[(usize, IpAddr)], plan: &[NetworkPlan]) -> Self {
        let mut next = 1;
        let ports: Vec<Vec<PortId>> = plan
            .iter()
            .map(|network| {
                let first = next;
                next += network.ports;
                (first..next).map(|port| PortId(word(port))).collect()
            })
            .collect();
        let mut worker =
            Worker::new(WorkerId(0), STATIONS, Arc::new(tables(me, peers, plan, &ports)), Arc::<[Mailbox]>::from([]));
        let mut open = |port| {
            let (receive, transmit, cable) = Cable::plug(DEPTH, FRAME_LEN);
            // Without a registry there is no descriptor to watch, hence nothing that can fail.
            worker.open(port, QueueId(0), receive, transmit).map(|()| cable).unwrap_or_default()
        };
        let uplink = open(UPLINK);
        let access = ports.iter().map(|ports| ports.iter().map(|&port| open(port)).collect()).collect();
        Self { worker, uplink, access, lost: Vec::new() }
    }
}

fn tables(me: usize, peers: &[(usize, IpAddr)], plan: &[NetworkPlan], ports: &[Vec<PortId>]) -> Tables {
    let local = Sim::vtep(me);
    let mut tables = Tables::new(local);
    let owner = WorkerId(0);
    tables.set_port(UPLINK, Port::new(Role::Uplink, owner));
    for &(peer, address) in peers {
        let vtep = Vtep::new(local, address, UPLINK, Sim::uplink_mac(me), Some(Sim::uplink_mac(peer)));
        tables.set_vtep(VtepId(word(peer)), vtep);
    }
    for (index, (network, ports)) in plan.iter().zip(ports).enumerate() {
        let id = NetworkId(word(index));
        for &port in ports {
            tables.set_port(port, Port::new(Role::Access(id), owner));
        }
        let peers = peers.iter().map(|&(peer, _)| VtepId(word(peer))).collect();
        let vni = Vni::new(network.vni).unwrap_or_default();
        let NetworkPlan { mtu, ageing, mac_limit, .. } = *network;
        tables.set_network(id, Network { mtu, ageing, mac_limit, ports: ports.clone(), peers, ..Network::new(vni) });
    }
    tables
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

fn word(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
