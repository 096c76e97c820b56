//! Changes to what is asked for, as the API makes them.
//!
//! Asking twice for the same is asking once. Nothing here looks at the host or does anything:
//! what comes out is to be validated, like everything else that is asked for.

use std::{
    collections::HashSet,
    fmt::{self, Display},
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use vxlane_dataplane::wire::{MacAddr, Vni};

use super::{
    Desired, Endpoint, Network, Owned, Owner, Peering, Place, Problem, Routing, Veth,
    records::{endpoint_place, network_place, peer_place},
};
use crate::{
    api::types::requests::{EndpointRequest, NetworkRequest},
    config,
    ipam::{self, Subnet},
    mac::Mac,
};

/// Why something cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is nothing of that name.
    #[error("no such {what}: {name}")]
    NotFound {
        /// A kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// What is there differs from what is asked for, or is in the way.
    #[error("{0}")]
    Conflict(Problem),
    /// The configuration file says otherwise, and it alone can.
    #[error("{what} {name} comes from the configuration file; change it there and reload")]
    OwnedByFile {
        /// A kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// What is asked for is not possible.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

struct Lines<'a>(&'a [Problem]);

impl Display for Lines<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(out, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl Desired {
    /// Asks for a network. What is there already must be the same.
    ///
    /// # Errors
    /// [`Refused::Conflict`], [`Refused::Invalid`]
    pub fn create_network(&mut self, request: &NetworkRequest) -> Result<(), Refused> {
        if let Some(known) = self.network(&request.name) {
            return self.same_network(&known.item, request);
        }
        let no_vni = || invalid("vni", "none", "every VNI is taken");
        let vni = request.vni.or_else(|| self.free_vni()).ok_or_else(no_vni)?;
        let network = Network {
            name: request.name.clone(),
            vni,
            subnet: request.subnet,
            gateway: request.gateway,
            subnet6: request.subnet6,
            gateway6: request.gateway6,
            internal: request.internal,
            nat: request.nat,
            nat6: request.nat6,
            mtu: request.mtu,
            ageing: request.ageing.unwrap_or_else(config::Network::default_ageing),
            mac_limit: request.mac_limit.unwrap_or_else(config::Network::default_mac_limit),
            flood_limit: request.flood_limit,
            isolation: request.isolation,
            suppression: request.suppression.unwrap_or_else(config::Network::default_suppression),
            express: request.express,
        };
        let place = network_place(&network.name);
        for (index, &address) in request.peers.iter().enumerate() {
            let peering = Peering { network: network.name.clone(), address };
            self.peers.push(Owned::by_api(format!("{place}.peers[{index}]"), peering));
        }
        self.networks.push(Owned::by_api(place, network));
        Ok(())
    }

    fn same_network(&self, known: &Network, request: &NetworkRequest) -> Result<(), Refused> {
        let peers: HashSet<IpAddr> = self.peers_of(&known.name).collect();
        let wanted = request.peers.iter().find(|peer| !peers.contains(peer));
        let ageing = request.ageing.unwrap_or_else(config::Network::default_ageing);
        let mac_limit = request.mac_limit.unwrap_or_else(config::Network::default_mac_limit);
        let suppression = request.suppression.unwrap_or_else(config::Network::default_suppression);
        let network = format!("network {}", known.name);
        same(request.vni, Some(known.vni).filter(|_| request.vni.is_some()), "vni", &network)?;
        same(request.subnet, known.subnet, "subnet", &network)?;
        same(request.gateway, known.gateway, "gateway", &network)?;
        same(request.subnet6, known.subnet6, "subnet6", &network)?;
        same(request.gateway6, known.gateway6, "gateway6", &network)?;
        same(Some(request.internal), Some(known.internal), "internal", &network)?;
        same(request.nat, Some(known.way_out()).filter(|_| request.nat.is_some()), "nat", &network)?;
        same(request.nat6, Some(known.way_out6()).filter(|_| request.nat6.is_some()), "nat6", &network)?;
        same(request.mtu, known.mtu, "mtu", &network)?;
        same(Some(ageing), Some(known.ageing), "ageing", &network)?;
        same(Some(mac_limit), Some(known.mac_limit), "mac_limit", &network)?;
        same(request.flood_limit, known.flood_limit, "flood_limit", &network)?;
        same(Some(request.isolation), Some(known.isolation), "isolation", &network)?;
        same(Some(suppression), Some(known.suppression), "suppression", &network)?;
        same(Some(request.express), Some(known.express), "express", &network)?;
        same(wanted, None, "peers", &network)
    }

    /// The lowest VNI that is free, beyond those that people take for VLAN numbers.
    fn free_vni(&self) -> Option<u32> {
        let taken: HashSet<u32> = self.networks.iter().map(|network| network.item.vni).collect();
        (FIRST_VNI..=Vni::MAX).find(|vni| !taken.contains(vni))
    }

    /// Takes a network away.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::OwnedByFile`], and [`Refused::Conflict`] while it has
    /// endpoints.
    pub fn remove_network(&mut self, name: &str) -> Result<(), Refused> {
        let network = self.known_network(name)?;
        if network.owner == Owner::File {
            return Err(Refused::OwnedByFile { what: "network", name: name.to_owned() });
        }
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.item.network == name);
        let endpoints: Vec<&str> = endpoints.map(|endpoint| endpoint.item.name.as_str()).collect();
        if !endpoints.is_empty() {
            let reason = format!("has endpoints: {}", endpoints.join(", "));
            return Err(Refused::Conflict(Problem::new("network", quoted(name), reason)));
        }
        self.networks.retain(|network| network.item.name != name);
        self.peers.retain(|peering| peering.item.network != name);
        let routed: Vec<String> = self.routes_of(name).map(ToOwned::to_owned).collect();
        self.routes.retain(|route| !routed.iter().any(|other| route.item == Routing::new(name, other)));
        self.stations.retain(|station| station.item.network != name);
        self.last_given.remove(name);
        self.last_given6.remove(name);
        Ok(())
    }

    /// Asks for an endpoint. What is there already must be the same, but for the priority of its
    /// gateway, which can be changed.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn connect(&mut self, network: &str, request: &EndpointRequest) -> Result<(), Refused> {
        let Network { subnet, subnet6, .. } = self.known_network(network)?.item;
        if let Some(known) = self.endpoints.iter_mut().find(|known| is_called(&known.item, network, &request.name)) {
            same_endpoint(&known.item, request)?;
            return prioritize(known, request.gateway_priority);
        }
        let mut endpoint = Endpoint {
            network: network.to_owned(),
            name: request.name.clone(),
            interface: String::new(),
            xdp: request.xdp,
            address: request.address,
            address6: request.address6,
            mac: request.mac,
            veth: None,
            publish: request.publish.clone(),
            gateway_priority: request.gateway_priority.unwrap_or_default(),
        };
        match (&request.netns, &request.interface) {
            (Some(netns), None) => {
                let ifname = request.ifname.clone().unwrap_or_else(|| "eth0".to_owned());
                endpoint.veth = Some(Veth { netns: netns.clone(), ifname });
                endpoint.interface = interface_name(network, &request.name);
                if let (Some(subnet), None) = (subnet, request.address) {
                    endpoint.address = Some(self.next_address(network, subnet)?);
                }
                if let (Some(subnet), None) = (subnet6, request.address6) {
                    endpoint.address6 = Some(self.next_address6(network, subnet)?);
                }
                endpoint.mac = endpoint.mac.or_else(|| Some(made_mac(endpoint.address)));
            }
            (None, Some(interface)) => interface.clone_into(&mut endpoint.interface),
            (None, None) => return Err(invalid("netns", "none", "either `netns` or `interface` is needed")),
            (Some(_), Some(interface)) => {
                return Err(invalid("interface", quoted(interface), "not with `netns`, for which a device is made"));
            }
        }
        if let (Some(ifname), None) = (&request.ifname, &endpoint.veth) {
            return Err(invalid("ifname", quoted(ifname), "not with `interface`, which has a name"));
        }
        if let (Some(priority), None) = (request.gateway_priority, &endpoint.veth) {
            return Err(no_default_route(priority));
        }
        self.endpoints.push(Owned::by_api(endpoint_place(&endpoint.name), endpoint));
        Ok(())
    }

    fn next_address(&mut self, network: &str, subnet: ipnetwork::Ipv4Network) -> Result<Ipv4Addr, Refused> {
        let gateway = self.network(network).and_then(|network| network.item.gateway);
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.item.network == network);
        let taken: HashSet<Ipv4Addr> = endpoints.filter_map(|endpoint| endpoint.item.address).chain(gateway).collect();
        let address = given(subnet, &taken, self.last_given.get(network), "address")?;
        self.last_given.insert(network.to_owned(), address);
        Ok(address)
    }

    fn next_address6(&mut self, network: &str, subnet: ipnetwork::Ipv6Network) -> Result<Ipv6Addr, Refused> {
        let gateway = self.network(network).and_then(|network| network.item.gateway6);
        let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.item.network == network);
        let taken: HashSet<Ipv6Addr> = endpoints.filter_map(|endpoint| endpoint.item.address6).chain(gateway).collect();
        let address = given(subnet, &taken, self.last_given6.get(network), "address6")?;
        self.last_given6.insert(network.to_owned(), address);
        Ok(address)
    }

    /// Takes an endpoint away and returns it.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::OwnedByFile`]
    pub fn disconnect(&mut self, network: &str, name: &str) -> Result<Endpoint, Refused> {
        self.known_network(network)?;
        let missing = || Refused::NotFound { what: "endpoint", name: format!("{network}/{name}") };
        let endpoint = self.endpoint(network, name).ok_or_else(missing)?;
        if endpoint.owner == Owner::File {
            return Err(Refused::OwnedByFile { what: "endpoint", name: format!("{network}/{name}") });
        }
        let endpoint = endpoint.item.clone();
        self.endpoints.retain(|other| other.item != endpoint);
        self.forget_place(network, &Place::Dev(endpoint.interface.clone()));
        Ok(endpoint)
    }

    /// Asks for a peer of `network`.
    ///
    /// # Errors
    /// [`Refused::NotFound`] if there is no such network.
    pub fn add_peer(&mut self, network: &str, address: IpAddr) -> Result<(), Refused> {
        self.known_network(network)?;
        if !self.peers_of(network).any(|peer| peer == address) {
            let peering = Peering { network: network.to_owned(), address };
            self.peers.push(Owned::by_api(peer_place(&peering), peering));
        }
        Ok(())
    }

    /// Takes a peer of `network` away.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::OwnedByFile`]
    pub fn remove_peer(&mut self, network: &str, address: IpAddr) -> Result<(), Refused> {
        self.known_network(network)?;
        let peering = Peering { network: network.to_owned(), address };
        let name = || format!("{network}/{address}");
        let known = self.peers.iter().find(|peer| peer.item == peering);
        match known.ok_or_else(|| Refused::NotFound { what: "peer", name: name() })?.owner {
            Owner::File => Err(Refused::OwnedByFile { what: "peer", name: name() }),
            Owner::Api => {
                self.peers.retain(|peer| peer.item != peering);
                self.forget_place(network, &Place::Dst(address));
                Ok(())
            }
        }
    }

    pub(super) fn known_network(&self, name: &str) -> Result<&Owned<Network>, Refused> {
        self.network(name).ok_or_else(|| Refused::NotFound { what: "network", name: name.to_owned() })
    }
}

/// The next free address of `subnet`.
fn given<S: Subnet<Address: Hash + Eq>>(
    subnet: S,
    taken: &HashSet<S::Address>,
    last: Option<&S::Address>,
    field: &str,
) -> Result<S::Address, Refused> {
    let full = || invalid(field, "none", format!("every address of {subnet} is taken"));
    ipam::next(subnet, last.copied(), |address| taken.contains(&address)).ok_or_else(full)
}

/// Makes sure that there is a network called `name`.
pub(super) fn known(desired: &Desired, name: &str) -> Result<(), Refused> {
    desired.known_network(name).map(drop)
}

fn is_called(endpoint: &Endpoint, network: &str, name: &str) -> bool {
    endpoint.network == network && endpoint.name == name
}

/// Gives a known endpoint another priority, if one is asked for.
fn prioritize(known: &mut Owned<Endpoint>, priority: Option<i32>) -> Result<(), Refused> {
    match priority {
        Some(priority) if known.item.veth.is_none() => Err(no_default_route(priority)),
        Some(priority) => {
            known.item.gateway_priority = priority;
            Ok(())
        }
        None => Ok(()),
    }
}

fn no_default_route(priority: i32) -> Refused {
    invalid("gateway_priority", priority, "not with `interface`, whose routes are not ours")
}

fn same_endpoint(known: &Endpoint, request: &EndpointRequest) -> Result<(), Refused> {
    let endpoint = format!("endpoint {}", known.name);
    let veth = known.veth.as_ref();
    let netns = veth.map(|veth| veth.netns.display().to_string());
    same(request.netns.as_ref().map(|netns| netns.display().to_string()), netns, "netns", &endpoint)?;
    let interface = Some(known.interface.clone()).filter(|_| request.interface.is_some() || veth.is_none());
    same(request.interface.clone(), interface, "interface", &endpoint)?;
    let ifname = veth.map(|veth| veth.ifname.clone()).filter(|_| request.ifname.is_some());
    same(request.ifname.clone(), ifname, "ifname", &endpoint)?;
    same(request.address, known.address.filter(|_| request.address.is_some()), "address", &endpoint)?;
    same(request.address6, known.address6.filter(|_| request.address6.is_some()), "address6", &endpoint)?;
    same(request.mac, known.mac.filter(|_| request.mac.is_some()), "mac", &endpoint)?;
    same(Some(request.publish.join(" ")), Some(known.publish.join(" ")), "publish", &endpoint)
}

/// Refuses if `what` exists with another value of `field` than is asked for.
fn same<T: PartialEq + Display>(asked: Option<T>, has: Option<T>, field: &str, what: &str) -> Result<(), Refused> {
    let shown = |value: Option<T>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    if asked == has {
        return Ok(());
    }
    let reason = format!("{what} exists, with {}", shown(has));
    Err(Refused::Conflict(Problem::new(field, shown(asked), reason)))
}

pub(super) fn invalid(field: &str, value: impl Display, reason: impl Into<String>) -> Refused {
    Refused::Invalid(vec![Problem::new(field, value, reason)])
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

/// A name for the host's end of a pair. It is stored with the endpoint, so that any hash does.
fn interface_name(network: &str, endpoint: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (network, endpoint).hash(&mut hasher);
    format!("vx{:011x}", hasher.finish() & 0xfff_ffff_ffff)
}

/// An address of the locally administered range: made from the endpoint's own address where it
/// has one, in the manner of Docker, and by chance where not.
fn made_mac(address: Option<Ipv4Addr>) -> Mac {
    let chance = || u64::to_be_bytes(RandomState::new().hash_one(0));
    let (second, [a, b, c, d]) = match address {
        Some(address) => (0x42, address.octets()),
        None => {
            let [a, b, c, d, second, ..] = chance();
            (second, [a, b, c, d])
        }
    };
    Mac(MacAddr([0x02, second, a, b, c, d]))
}

/// Where VNIs that nobody chose begin.
const FIRST_VNI: u32 = 4096;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::ConfigFile, desired::Records};

    fn desired() -> Desired {
        ConfigFile::parse(Path::new("v.toml"), "underlay.interface = \"u\"\n".to_owned()).unwrap().desired()
    }

    fn with_network(subnet: Option<&str>, subnet6: Option<&str>) -> Desired {
        let mut desired = desired();
        let request = NetworkRequest {
            name: "blue".to_owned(),
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            gateway: subnet.map(|_| "10.0.0.1".parse().unwrap()),
            subnet6: subnet6.map(|subnet| subnet.parse().unwrap()),
            gateway6: subnet6.map(|_| "fd00::1".parse().unwrap()),
            ..NetworkRequest::default()
        };
        desired.create_network(&request).unwrap();
        desired
    }

    fn container(name: &str) -> EndpointRequest {
        EndpointRequest { name: name.to_owned(), netns: Some("/run/netns/x".into()), ..EndpointRequest::default() }
    }

    /// The addresses of a new endpoint called `name`.
    fn given(desired: &mut Desired, name: &str) -> Vec<String> {
        desired.connect("blue", &container(name)).unwrap();
        desired.endpoint("blue", name).unwrap().item.addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn an_endpoint_gets_the_next_address_of_each_family_that_its_network_has() {
        let mut both = with_network(Some("10.0.0.0/29"), Some("fd00::/64"));
        assert_eq!(given(&mut both, "a"), ["10.0.0.2", "fd00::2"]);
        assert_eq!(given(&mut both, "b"), ["10.0.0.3", "fd00::3"]);
        both.disconnect("blue", "b").unwrap();
        assert_eq!(given(&mut both, "c"), ["10.0.0.4", "fd00::4"], "what was released just now comes last");
        assert_eq!(given(&mut with_network(None, Some("fd00::/64")), "a"), ["fd00::2"]);
        let mut full = with_network(None, Some("fd00::/126"));
        assert_eq!(
            (given(&mut full, "a"), given(&mut full, "b")),
            (vec!["fd00::2".to_owned()], vec!["fd00::3".to_owned()])
        );
        let refused = full.connect("blue", &container("c")).unwrap_err().to_string();
        assert_eq!(refused, "address6 = none: every address of fd00::/126 is taken");
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_and_counts_as_taken() {
        let mut desired = with_network(None, Some("fd00::/64"));
        let wanted = EndpointRequest { address6: Some("fd00::2".parse().unwrap()), ..container("a") };
        desired.connect("blue", &wanted).unwrap();
        assert_eq!(given(&mut desired, "b"), ["fd00::3"]);
        desired.connect("blue", &wanted).unwrap();
        let other = EndpointRequest { address6: Some("fd00::9".parse().unwrap()), ..container("a") };
        let refused = desired.connect("blue", &other).unwrap_err().to_string();
        assert_eq!(refused, "address6 = fd00::9: endpoint a exists, with fd00::2");
    }

    #[test]
    fn records_come_back_as_they_were_and_those_of_before_ipv6_are_understood() {
        let mut before = with_network(Some("10.0.0.0/29"), Some("fd00::/64"));
        given(&mut before, "a");
        let mut after = desired();
        after.add_records(&before.records()).unwrap();
        assert_eq!(after.records(), before.records());
        assert_eq!(given(&mut after, "b"), ["10.0.0.3", "fd00::3"]);

        let old: Records = [
            (
                "network/blue",
                r#"{"name":"blue","vni":4096,"subnet":"10.0.0.0/29","gateway":"10.0.0.1","internal":false,"mtu":null,"ageing":300,"mac_limit":8192}"#,
            ),
            (
                "endpoint/blue/a",
                r#"{"network":"blue","name":"a","interface":"vx0","xdp":"auto","address":"10.0.0.2","mac":null,"veth":null}"#,
            ),
            ("last-given/blue", r#""10.0.0.2""#),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let mut restored = desired();
        restored.add_records(&old).unwrap();
        assert_eq!(given(&mut restored, "b"), ["10.0.0.3"]);
    }
}
