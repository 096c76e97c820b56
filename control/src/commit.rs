//! From what will be done to tables for the workers.
//!
//! An object gets its number once and keeps it while it lives, so that what workers learned
//! stays true from one set of tables to the next.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnetwork::{Ipv4Network, Ipv6Network};
use vxlane_dataplane::{
    bridge::Origin,
    express::Leg,
    ids::{NetworkId, PortId, VtepId, WorkerId},
    nat::Publish,
    tables::{Gateway, Guard, Network, Outside, Port, Role, Route, Tables, Vtep, WayOut},
    wire::MacAddr,
};

use crate::{
    config::{ExpressChoice, Nat6Choice, NatChoice},
    desired::{Place, Plan, PlannedEndpoint, PlannedNetwork},
    netlink::Routed,
    publish::{self, PublishedPort},
};

/// The numbers of everything that has one.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    networks: Numbers<String>,
    ports: Numbers<String>,
    vteps: Numbers<IpAddr>,
}

/// Every number there is has been given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than 65536 networks, ports or peers")]
pub struct Exhausted;

impl Ids {
    /// Gives a number to everything in `plan` that has none yet.
    ///
    /// # Errors
    /// [`Exhausted`]; numbers given up to then stay given.
    pub fn give(&mut self, plan: &Plan) -> Result<(), Exhausted> {
        self.ports.give(plan.uplink.clone())?;
        self.ports.give(RING.to_owned())?;
        for interface in plan.access() {
            self.ports.give(interface.clone())?;
        }
        for network in &plan.networks {
            self.networks.give(network.name.clone())?;
            network.peers.iter().try_for_each(|&peer| self.vteps.give(peer))?;
        }
        Ok(())
    }

    /// Has the port on `interface` have the number that it had in an earlier life: frames with that
    /// number may be on their way.
    pub fn keep_port(&mut self, interface: &str, number: u16) {
        self.ports.keep(interface.to_owned(), number);
    }

    /// Takes back the numbers of everything that is not in `plan`. Call it when every worker
    /// has the tables of `plan`, not before: an old one may still use them.
    pub fn take_back(&mut self, plan: &Plan) {
        self.networks.retain(plan.networks.iter().map(|network| &network.name));
        let ring = RING.to_owned();
        self.ports.retain(plan.access().chain([&plan.uplink, &ring]));
        self.vteps.retain(plan.networks.iter().flat_map(|network| &network.peers));
    }

    /// The number of the network called `name`.
    pub fn network(&self, name: &str) -> Option<NetworkId> {
        self.networks.number(name).map(NetworkId)
    }

    /// The number of the port on `interface`.
    pub fn port(&self, interface: &str) -> Option<PortId> {
        self.ports.number(interface).map(PortId)
    }

    /// The number of the VTEP at `address`.
    pub fn vtep(&self, address: IpAddr) -> Option<VtepId> {
        self.vteps.number(&address).map(VtepId)
    }
}

#[derive(Clone, Debug)]
struct Numbers<K> {
    given: HashMap<K, u16>,
    /// Numbers that were given once and are not now.
    free: BTreeSet<u16>,
    /// The lowest number that was never given.
    next: u32,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { given: HashMap::new(), free: BTreeSet::new(), next: 0 }
    }
}

impl<K: Hash + Eq> Numbers<K> {
    /// Gives `key` the lowest number that is free, unless it has one.
    fn give(&mut self, key: K) -> Result<(), Exhausted> {
        if self.given.contains_key(&key) {
            return Ok(());
        }
        let number = match self.free.pop_first() {
            Some(number) => number,
            None => {
                let number = u16::try_from(self.next).map_err(|_| Exhausted)?;
                self.next += 1;
                number
            }
        };
        self.given.insert(key, number);
        Ok(())
    }

    /// Gives `key` just this number, which nobody else has.
    fn keep(&mut self, key: K, number: u16) {
        // What is below it can still be given.
        self.free.extend((self.next..u32::from(number)).filter_map(|below| u16::try_from(below).ok()));
        self.next = self.next.max(u32::from(number) + 1);
        self.free.remove(&number);
        self.given.insert(key, number);
    }

    fn number<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<u16>
    where
        K: Borrow<Q>,
    {
        self.given.get(key).copied()
    }

    fn retain<'a>(&mut self, keys: impl Iterator<Item = &'a K>)
    where
        K: 'a,
    {
        let keys: HashSet<&K> = keys.collect();
        let free = &mut self.free;
        self.given.retain(|key, &mut number| {
            let stays = keys.contains(key);
            if !stays {
                free.insert(number);
            }
            stays
        });
    }
}

/// What stands for the interface with the rings of the express lane: no interface is called so.
pub const RING: &str = "express lane";

/// What tables need beside the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The uplink's own MAC address.
    pub uplink_mac: MacAddr,
    /// The MAC address behind which each peer is; peers that are not listed are unresolved.
    pub next_hops: BTreeMap<IpAddr, MacAddr>,
    /// Every port that is open, with the worker that sends on it when another one has a frame
    /// for it.
    pub owners: BTreeMap<PortId, WorkerId>,
    /// Every port that is in the express lane.
    pub legs: BTreeMap<PortId, Leg>,
    /// How packets leave the overlay, if they do.
    pub ways: Option<Ways<Ipv4Addr>>,
    /// The same for IPv6.
    pub ways6: Option<Ways<Ipv6Addr>>,
    /// Ports of the host that we have, and so can publish.
    pub published: HashSet<PublishedPort>,
}

/// The host's own way to everybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways<A: Routed> {
    /// Its routes; of two for one prefix the first counts.
    pub routes: Vec<(A::Prefix, Route<A>)>,
    /// Its neighbours on the uplink.
    pub neighbours: BTreeMap<A, MacAddr>,
}

/// The tables of `plan`. What has no number in `ids` is left out, and so are ports that are not
/// open.
pub fn commit(plan: &Plan, ids: &Ids, around: &Surroundings) -> Tables {
    let local = plan.local;
    let mut tables = Tables::new(local);
    let port = |id: PortId, role, owner| Port { express: around.legs.get(&id).copied(), ..Port::new(role, owner) };
    if let Some((uplink, owner)) = open_port(&plan.uplink, ids, around) {
        tables.set_port(uplink, port(uplink, Role::Uplink, owner));
        for &address in plan.networks.iter().flat_map(|network| &network.peers) {
            if let Some(id) = ids.vtep(address) {
                let next_hop = around.next_hops.get(&address).copied();
                tables.set_vtep(id, Vtep::new(local, address, uplink, around.uplink_mac, next_hop));
            }
        }
        if let Some(outside) = outside(uplink, around) {
            tables.set_outside(Arc::new(outside));
        }
    }
    tables.set_publishes(publishes(plan, ids, &around.published).collect());
    for network in &plan.networks {
        if let Some(id) = ids.network(&network.name) {
            let mut table = table_of(network, plan, ids);
            for endpoint in plan.endpoints.iter().filter(|endpoint| endpoint.network == network.name) {
                if let Some((access, owner)) = open_port(&endpoint.interface, ids, around) {
                    tables
                        .set_port(access, Port { guard: guard_of(endpoint), ..port(access, Role::Access(id), owner) });
                    table.ports.push(access);
                }
            }
            let host = network.host.as_ref().and_then(|host| open_port(&host.interface, ids, around));
            if let Some((host, owner)) = host {
                tables.set_port(host, Port::new(Role::Host(id), owner));
                table.host = Some(host);
            }
            table.stations = Arc::new(stations(plan, network, ids, &table.ports));
            tables.set_network(id, table);
        }
    }
    tables
}

/// The way to everybody else, if there is one of any protocol.
fn outside(uplink: PortId, around: &Surroundings) -> Option<Outside> {
    if around.ways.is_none() && around.ways6.is_none() {
        return None;
    }
    let v4 = around.ways.iter().flat_map(|ways| ways.routes.iter().copied());
    let near = around.ways.iter().flat_map(|ways| &ways.neighbours);
    let outside = Outside::new(uplink, around.uplink_mac, v4, near.map(|(&address, &mac)| (address, mac)));
    let v6 = around.ways6.iter().flat_map(|ways| ways.routes.iter().copied());
    let near = around.ways6.iter().flat_map(|ways| &ways.neighbours);
    Some(outside.with_v6(v6, near.map(|(&address, &mac)| (address, mac))))
}

/// The port on `interface`, with the worker that owns it.
fn open_port(interface: &str, ids: &Ids, around: &Surroundings) -> Option<(PortId, WorkerId)> {
    let port = ids.port(interface)?;
    Some((port, *around.owners.get(&port)?))
}

/// The stations that are known before they speak: static ones, and the endpoints of this host,
/// where they are attached.
fn stations(plan: &Plan, network: &PlannedNetwork, ids: &Ids, ports: &[PortId]) -> HashMap<MacAddr, Origin> {
    let port = |interface: &str| ids.port(interface).filter(|port| ports.contains(port)).map(Origin::Port);
    let origin = |place: &Place| match place {
        Place::Dst(address) => ids.vtep(*address).map(Origin::Vtep),
        Place::Dev(interface) => port(interface),
    };
    let asked = network.stations.iter().filter_map(|(mac, place)| Some((mac.0, origin(place)?)));
    let endpoints = plan.endpoints.iter().filter(|endpoint| endpoint.network == network.name);
    let own = endpoints.filter_map(|endpoint| Some((endpoint.mac?.0, port(&endpoint.interface)?)));
    asked.chain(own).collect()
}

/// An endpoint whose Ethernet address is known sends from that, and from its IP addresses where
/// those are known. Another may be a bridge with anybody behind it.
fn guard_of(endpoint: &PlannedEndpoint) -> Option<Arc<Guard>> {
    let addresses = endpoint.addresses().collect();
    endpoint.mac.map(|mac| Arc::new(Guard { mac: mac.0, addresses }))
}

fn table_of(network: &PlannedNetwork, plan: &Plan, ids: &Ids) -> Network {
    Network {
        mtu: network.mtu,
        ageing: network.ageing,
        mac_limit: network.mac_limit,
        flood_limit: network.flood_limit,
        internal: network.internal,
        masquerade: network.nat == NatChoice::Masquerade,
        way_out6: match network.nat6 {
            Nat6Choice::None => WayOut::None,
            Nat6Choice::Masquerade => WayOut::Masquerade,
            Nat6Choice::Routed => WayOut::Routed,
        },
        gateway: gateway_of(network),
        routes: network.routes.iter().filter_map(|name| ids.network(name)).collect(),
        neighbours: Arc::new(neighbours_of(network, plan)),
        isolation: network.isolation,
        suppression: network.suppression,
        express: network.express == ExpressChoice::Auto,
        peers: network.peers.iter().filter_map(|&peer| ids.vtep(peer)).collect(),
        ..Network::new(network.vni)
    }
}

/// Whose address is whose, as far as endpoints were given addresses.
fn neighbours_of(network: &PlannedNetwork, plan: &Plan) -> HashMap<IpAddr, MacAddr> {
    let endpoints = plan.endpoints.iter().filter(|endpoint| endpoint.network == network.name);
    let known = endpoints.filter_map(|endpoint| Some((endpoint, endpoint.mac?.0)));
    known.flat_map(|(endpoint, mac)| endpoint.addresses().map(move |address| (address, mac))).collect()
}

/// What is published: of the ports in `ours`, those that lead to an endpoint.
fn publishes<'a>(plan: &'a Plan, ids: &'a Ids, ours: &'a HashSet<PublishedPort>) -> impl Iterator<Item = Publish> + 'a {
    plan.endpoints.iter().flat_map(move |endpoint| {
        let known = ids.network(&endpoint.network).zip(endpoint.address).zip(endpoint.mac);
        let ports = known.map(|known| publish::ports(&endpoint.publish).map(move |port| (known, port)));
        let ours = ports.into_iter().flatten().filter(|(_, port)| ours.contains(port));
        ours.map(|(((network, address), mac), port)| Publish {
            protocol: port.protocol(),
            port: port.port,
            network,
            address,
            inside: port.inside,
            mac: mac.0,
        })
    })
}

/// The router of `network`, if it has one.
pub fn gateway_of(network: &PlannedNetwork) -> Option<Gateway> {
    let ipv4 = network.subnet.zip(network.gateway);
    let ipv4 = ipv4.and_then(|(subnet, gateway)| Ipv4Network::new(gateway, subnet.prefix()).ok());
    let ipv6 = network.subnet6.zip(network.gateway6);
    let ipv6 = ipv6.and_then(|(subnet, gateway)| Ipv6Network::new(gateway, subnet.prefix()).ok());
    (ipv4.is_some() || ipv6.is_some()).then(|| Gateway::new(network.vni, ipv4, ipv6))
}

/// Workers for `queues` queues: each goes to the one that has the fewest, whose number in
/// `loads` it then adds to.
pub fn place(queues: u32, loads: &mut [usize]) -> Vec<WorkerId> {
    let least = |_| {
        let (worker, load) = (0u16..).zip(loads.iter_mut()).min_by_key(|(_, load)| **load)?;
        *load += 1;
        Some(WorkerId(worker))
    };
    (0..queues).map_while(least).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use vxlane_dataplane::{tables::LocalVtep, wire::Vni};

    use super::*;
    use crate::{config::XdpChoice, mac::Mac};

    const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const FAR: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3));

    fn plan(networks: &[(&str, u32, &[IpAddr])], endpoints: &[(&str, &str)]) -> Plan {
        let network = |&(name, vni, peers): &(&str, u32, &[IpAddr])| PlannedNetwork {
            name: name.to_owned(),
            vni: Vni::new(vni).unwrap(),
            subnet: None,
            gateway: None,
            subnet6: None,
            gateway6: None,
            internal: false,
            host: None,
            nat: NatChoice::None,
            nat6: Nat6Choice::None,
            mtu: 1450,
            overhead: 50,
            ageing: 300,
            mac_limit: 100,
            flood_limit: None,
            isolation: false,
            suppression: true,
            express: ExpressChoice::Auto,
            peers: peers.to_vec(),
            routes: vec![],
            stations: vec![],
        };
        let endpoint = |&(network, interface): &(&str, &str)| PlannedEndpoint {
            network: network.to_owned(),
            name: interface.to_owned(),
            interface: interface.to_owned(),
            xdp: XdpChoice::Auto,
            address: None,
            address6: None,
            mac: None,
            veth: None,
            publish: vec![],
            gateway_priority: 0,
        };
        Plan {
            uplink: "uA".to_owned(),
            uplink_xdp: XdpChoice::Auto,
            local: LocalVtep::new(Some(LOCAL), Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 4789),
            outside: Some(LOCAL),
            workers: 1,
            cpus: vec![],
            stations: 100,
            ring: 1024,
            express: ExpressChoice::Off,
            nat: vxlane_dataplane::nat::NatConfig::new(vec![LOCAL], Default::default()),
            nat_address6: None,
            networks: networks.iter().map(network).collect(),
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn around() -> Surroundings {
        Surroundings {
            legs: BTreeMap::new(),
            uplink_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            next_hops: [(NEAR, MacAddr([2, 0, 0, 0, 0, 2]))].into(),
            owners: (0..16).map(|port| (PortId(port), WorkerId(0))).collect(),
            ways: None,
            ways6: None,
            published: HashSet::new(),
        }
    }

    fn committed(plan: &Plan, ids: &mut Ids) -> Tables {
        ids.give(plan).unwrap();
        commit(plan, ids, &around())
    }

    #[test]
    fn each_network_has_its_ports_and_its_peers() {
        let plan = plan(&[("blue", 5000, &[NEAR, FAR]), ("red", 6000, &[NEAR])], &[("red", "p0"), ("blue", "p1")]);
        let mut ids = Ids::default();
        let tables = committed(&plan, &mut ids);
        let (blue, red) = (ids.network("blue").unwrap(), ids.network("red").unwrap());
        assert_eq!(tables.network(blue).unwrap().ports, [ids.port("p1").unwrap()]);
        assert_eq!(tables.network(red).unwrap().ports, [ids.port("p0").unwrap()]);
        assert_eq!(tables.port(ids.port("p0").unwrap()).unwrap().role, Role::Access(red));
        assert_eq!(tables.port(ids.port("uA").unwrap()).unwrap().role, Role::Uplink);
        let near = ids.vtep(NEAR).unwrap();
        assert_eq!(tables.tunnel(Vni::new(5000).unwrap(), NEAR), Some((blue, near)));
        assert_eq!(tables.tunnel(Vni::new(6000).unwrap(), NEAR), Some((red, near)));
        assert_eq!(tables.tunnel(Vni::new(6000).unwrap(), FAR), None);
    }

    #[test]
    fn endpoints_with_addresses_are_known_and_guarded_before_they_speak() {
        let mut plan = plan(&[("blue", 5000, &[NEAR])], &[("blue", "p0"), ("blue", "p1"), ("blue", "p2")]);
        let (web, db) = (MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb]));
        let address = Ipv4Addr::new(10, 50, 0, 2);
        (plan.endpoints[0].mac, plan.endpoints[0].address) = (Some(Mac(web)), Some(address));
        plan.endpoints[1].mac = Some(Mac(db));
        let mut ids = Ids::default();
        let tables = committed(&plan, &mut ids);
        let blue = tables.network(ids.network("blue").unwrap()).unwrap();
        let [p0, p1, p2] = ["p0", "p1", "p2"].map(|interface| ids.port(interface).unwrap());
        assert_eq!(*blue.stations, [(web, Origin::Port(p0)), (db, Origin::Port(p1))].into());
        assert_eq!(*blue.neighbours, [(address.into(), web)].into());
        let guard = |port| tables.port(port).unwrap().guard.as_deref().cloned();
        assert_eq!(guard(p0), Some(Guard { mac: web, addresses: vec![address.into()] }));
        assert_eq!(guard(p1), Some(Guard { mac: db, addresses: vec![] }));
        assert_eq!(guard(p2), None, "whoever is behind it");
    }

    #[test]
    fn a_port_that_is_not_open_is_in_no_network() {
        let plan = plan(&[("blue", 1, &[])], &[("blue", "p0"), ("blue", "p1")]);
        let mut ids = Ids::default();
        ids.give(&plan).unwrap();
        let (p0, p1) = (ids.port("p0").unwrap(), ids.port("p1").unwrap());
        let mut around = around();
        around.owners.remove(&p0);
        let tables = commit(&plan, &ids, &around);
        assert_eq!(tables.network(ids.network("blue").unwrap()).unwrap().ports, [p1]);
        assert_eq!(tables.port(p0), None);
    }

    #[test]
    fn a_peer_without_a_known_next_hop_has_no_headers() {
        let mut ids = Ids::default();
        let tables = committed(&plan(&[("blue", 5000, &[NEAR, FAR])], &[]), &mut ids);
        assert!(tables.vtep(ids.vtep(NEAR).unwrap()).unwrap().template.is_some());
        assert!(tables.vtep(ids.vtep(FAR).unwrap()).unwrap().template.is_none());
    }

    #[test]
    fn numbers_stay_while_their_objects_do_and_are_given_again_after() {
        let mut ids = Ids::default();
        let before = plan(&[("blue", 1, &[NEAR]), ("red", 2, &[FAR])], &[("blue", "p0"), ("red", "p1")]);
        let after = plan(&[("red", 2, &[FAR]), ("green", 3, &[])], &[("red", "p1"), ("green", "p2")]);
        committed(&before, &mut ids);
        let (blue, red, p1, far) = (ids.network("blue"), ids.network("red"), ids.port("p1"), ids.vtep(FAR));
        committed(&after, &mut ids);
        assert_eq!((ids.network("red"), ids.port("p1"), ids.vtep(FAR)), (red, p1, far));
        assert_ne!(ids.network("green"), blue, "workers may still know blue by it");
        ids.take_back(&after);
        assert_eq!((ids.network("blue"), ids.port("p0"), ids.vtep(NEAR)), (None, None, None));
        committed(&before, &mut ids);
        assert_eq!(ids.network("blue"), blue);
    }

    #[test]
    fn a_number_of_an_earlier_life_is_given_to_nobody_else() {
        let mut ids = Ids::default();
        ids.keep_port("p7", 3);
        ids.keep_port("p8", 1);
        ids.give(&plan(&[], &[("blue", "p0"), ("blue", "p7"), ("blue", "p1"), ("blue", "p8")])).unwrap();
        assert_eq!((ids.port("p7"), ids.port("p8")), (Some(PortId(3)), Some(PortId(1))));
        let mut all: Vec<_> = ["uA", RING, "p0", "p1", "p7", "p8"].map(|name| ids.port(name).unwrap().0).into();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn queues_go_to_the_worker_with_the_fewest() {
        let mut loads = [0; 3];
        let workers = |numbers: &[u16]| numbers.iter().copied().map(WorkerId).collect::<Vec<_>>();
        assert_eq!(place(3, &mut loads), workers(&[0, 1, 2]));
        assert_eq!(place(1, &mut loads), workers(&[0]));
        assert_eq!(place(2, &mut loads), workers(&[1, 2]));
        assert_eq!(place(2, &mut [5, 0]), workers(&[1, 1]));
    }
}
