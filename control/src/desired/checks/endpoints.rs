//! The rules for endpoints.

use std::collections::HashMap;

use super::{News, bad_interface_name, bad_name, check_interface, quoted};
use crate::{
    desired::{Desired, Endpoint, Host, Network, Owned, Problem},
    ipam,
};

/// Everything that is wrong with the endpoints of `desired`.
pub(super) fn check(desired: &Desired, host: &Host, news: &News<'_>, found: &mut Vec<Problem>) {
    let networks: HashMap<&str, &Network> =
        desired.networks.iter().map(|network| (network.item.name.as_str(), &network.item)).collect();
    for endpoint in &desired.endpoints {
        match networks.get(endpoint.item.network.as_str()) {
            Some(network) => check_address(endpoint, network, found),
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

fn check_address(endpoint: &Owned<Endpoint>, network: &Network, found: &mut Vec<Problem>) {
    let Some(address) = endpoint.item.address else { return };
    let reason = match network.subnet {
        None => Some(format!("network \"{}\" has no subnet", network.name)),
        Some(_) if network.gateway == Some(address) => Some(format!("the gateway of network \"{}\"", network.name)),
        Some(subnet) => ipam::refuse(subnet, address),
    };
    found.extend(reason.map(|reason| Problem::new(endpoint.field("address"), address, reason)));
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
        let Endpoint { network, name, interface, address, mac, .. } = &endpoint.item;
        let other = |other: &mut &str, what: &str| format!("also the {what} of {other}");
        let place = endpoint.place.as_str();
        // Two without a name have the same interface, which is told.
        if name != interface {
            let key = (network, name);
            let reason = names.get_mut(&key).map(|first| other(first, "name"));
            found.extend(reason.map(|reason| Problem::new(endpoint.field("name"), quoted(name), reason)));
        }
        names.entry((network, name)).or_insert(place);
        if let Some(address) = address {
            let reason = addresses.get_mut(&(network, address)).map(|first| other(first, "address"));
            found.extend(reason.map(|reason| Problem::new(endpoint.field("address"), address, reason)));
            addresses.entry((network, address)).or_insert(place);
        }
        if let Some(mac) = mac {
            let reason = macs.get_mut(&(network, mac)).map(|first| other(first, "Ethernet address"));
            found.extend(reason.map(|reason| Problem::new(endpoint.field("mac"), mac, reason)));
            macs.entry((network, mac)).or_insert(place);
        }
    }
}
