//! The rules for published ports.

use std::collections::HashMap;

use super::quoted;
use crate::{
    config::NatChoice,
    desired::{Desired, Endpoint, Host, Network, Owned, Problem},
    publish::{Published, PublishedPort},
};

/// Everything that is wrong with what the endpoints of `desired` publish.
pub(super) fn check(desired: &Desired, host: &Host, found: &mut Vec<Problem>) {
    let mut taken: HashMap<String, &str> = HashMap::new();
    for endpoint in &desired.endpoints {
        for text in &endpoint.item.publish {
            let problem = |reason: String| Problem::new(endpoint.field("publish"), quoted(text), reason);
            match Published::parse(text) {
                Err(reason) => found.push(problem(reason)),
                Ok(published) => {
                    found.extend(refused(desired, host, endpoint, &published).map(problem));
                    let other = published.ports.iter().find_map(|port| Some((port, *taken.get(&port.to_string())?)));
                    found.extend(other.map(|(port, other)| problem(format!("{port} is published by {other}, too"))));
                    taken.extend(published.ports.iter().map(|port| (port.to_string(), endpoint.place.as_str())));
                }
            }
        }
    }
}

fn refused(desired: &Desired, host: &Host, endpoint: &Owned<Endpoint>, published: &Published) -> Option<String> {
    let Endpoint { network, address, mac, .. } = &endpoint.item;
    let network = desired.network(network).map(|network| &network.item)?;
    let ours = desired.outside(host);
    if let Network { name, internal: true, .. } = network {
        return Some(format!("network \"{name}\" is internal: nothing leads into it"));
    }
    if network.way_out() == NatChoice::None {
        return Some(format!("network \"{}\" has no gateway that translates addresses", network.name));
    }
    if address.is_none() || mac.is_none() {
        return Some("the endpoint's `address` and `mac` must be known".to_owned());
    }
    if let Some(named) = published.address.filter(|&named| Some(named) != ours) {
        let ours = ours.map(|ours| format!("; ours is {ours}")).unwrap_or_default();
        return Some(format!("{named} is not the address of this host{ours}"));
    }
    let tunnels = |port: &&PublishedPort| port.to_string() == format!("{}/udp", desired.underlay.port);
    published.ports.iter().find(tunnels).map(|port| format!("{port} is the port of the tunnels"))
}
