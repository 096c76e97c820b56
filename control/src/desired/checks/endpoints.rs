//! The rules for endpoints.

use std::{collections::HashMap, net::IpAddr};

use super::{News, bad_interface_name, bad_name, check_interface, quoted};
use crate::{
    desired::{Desired, Endpoint, Host, Network, Owned, Problem},
    ipam::{self, Subnet},
};

/// Everything that is wrong with the endpoints of `desired`.
pub(super) fn check(desired: &Desired, host: &Host, news: &News<'_>, found: &mut Vec<Problem>) {
    let networks: HashMap<&str, &Network> =
        desired.networks.iter().map(|network| (network.item.name.as_str(), &network.item)).collect();
    for endpoint in &desired.endpoints {
        match networks.get(endpoint.item.network.as_str()) {
            Some(network) => check_addresses(endpoint, network, found),
            None => {
                found.push(Problem::new(endpoint.field("network"), quoted(&endpoint.item.network), "no such network"));
            }
        }
        check_itself(endpoint, found);
    }
    check_interfaces(desired, host, news, found);
    check_unique(desired, found);
}

/// What needs nothing else to be wrong.
fn check_itself(endpoint: &Owned<Endpoint>, found: &mut Vec<Problem>) {
    let Endpoint { name, mac, veth, interface, .. } = &endpoint.item;
    // A name that comes from the interface is checked there.
    if let Some(reason) = bad_name(name).filter(|_| name != interface) {
        found.push(Problem::new(endpoint.field("name"), quoted(name), reason));
    }
    if let Some(mac) = mac.filter(|mac| !mac.0.is_station()) {
        found.push(Problem::new(endpoint.field("mac"), mac, "not an address that a station can have"));
    }
    if let Some(veth) = veth
        && let Some(reason) = bad_interface_name(&veth.ifname)
    {
        found.push(Problem::new(endpoint.field("ifname"), quoted(&veth.ifname), reason));
    }
}

fn check_addresses(endpoint: &Owned<Endpoint>, network: &Network, found: &mut Vec<Problem>) {
    let Endpoint { address, address6, .. } = endpoint.item;
    let Network { subnet, gateway, subnet6, gateway6, .. } = *network;
    found.extend(address.and_then(|address| {
        let reason = refused(subnet, gateway, address, network, "subnet")?;
        Some(Problem::new(endpoint.field("address"), address, reason))
    }));
    found.extend(address6.and_then(|address| {
        let reason = refused(subnet6, gateway6, address, network, "IPv6 subnet")?;
        Some(Problem::new(endpoint.field("address6"), address, reason))
    }));
}

/// Why no endpoint of `network` can have `address`.
fn refused<S: Subnet<Address: PartialEq>>(
    subnet: Option<S>,
    gateway: Option<S::Address>,
    address: S::Address,
    network: &Network,
    what: &str,
) -> Option<String> {
    match subnet {
        None => Some(format!("network \"{}\" has no {what}", network.name)),
        Some(_) if gateway == Some(address) => Some(format!("the gateway of network \"{}\"", network.name)),
        Some(subnet) => ipam::refuse(subnet, address),
    }
}

fn check_interfaces(desired: &Desired, host: &Host, news: &News<'_>, found: &mut Vec<Problem>) {
    let mut first: HashMap<&str, &str> = HashMap::new();
    let ends = desired.host_ports().flat_map(|(network, port)| [(port.name, network), (port.interface, network)]);
    let ends: HashMap<String, &str> = ends.collect();
    for endpoint in &desired.endpoints {
        let Endpoint { interface, veth, .. } = &endpoint.item;
        let field = endpoint.field("interface");
        let earlier = first.get(interface.as_str()).copied();
        first.entry(interface).or_insert(&endpoint.place);
        if *interface == desired.underlay.interface {
            found.push(Problem::new(field, quoted(interface), "this is the uplink"));
        } else if let Some(network) = ends.get(interface) {
            found.push(Problem::new(field, quoted(interface), format!("the host's own port on network \"{network}\"")));
        } else if let Some(first) = earlier {
            found.push(Problem::new(field, quoted(interface), format!("also the interface of {first}")));
        } else if veth.is_none() && news.has(endpoint, |desired| &desired.endpoints) {
            found.extend(check_interface(&field, interface, host).err());
        }
    }
}

/// Names, addresses and Ethernet addresses belong to one endpoint of a network each.
fn check_unique(desired: &Desired, found: &mut Vec<Problem>) {
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    let mut macs = HashMap::new();
    for endpoint in &desired.endpoints {
        let Endpoint { network, name, interface, address, address6, mac, .. } = &endpoint.item;
        let other = |other: &mut &str, what: &str| format!("also the {what} of {other}");
        let place = endpoint.place.as_str();
        // Two without a name have the same interface, which is told.
        if name != interface {
            let key = (network, name);
            let reason = names.get_mut(&key).map(|first| other(first, "name"));
            found.extend(reason.map(|reason| Problem::new(endpoint.field("name"), quoted(name), reason)));
        }
        names.entry((network, name)).or_insert(place);
        let of_both = [("address", address.map(IpAddr::V4)), ("address6", address6.map(IpAddr::V6))];
        for (field, address) in of_both.into_iter().filter_map(|(field, address)| Some((field, address?))) {
            let reason = addresses.get_mut(&(network, address)).map(|first| other(first, "address"));
            found.extend(reason.map(|reason| Problem::new(endpoint.field(field), address, reason)));
            addresses.entry((network, address)).or_insert(place);
        }
        if let Some(mac) = mac {
            let reason = macs.get_mut(&(network, mac)).map(|first| other(first, "Ethernet address"));
            found.extend(reason.map(|reason| Problem::new(endpoint.field("mac"), mac, reason)));
            macs.entry((network, mac)).or_insert(place);
        }
    }
}
