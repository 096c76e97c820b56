//! Routes between networks: which two may reach each other through their gateways.

use serde::{Deserialize, Serialize};

use super::{Desired, Network, Owned, Owner, Problem, Refused, change::known};

/// Two networks whose gateways forward to each other. Whichever is named first, it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    networks: [String; 2],
}

impl Routing {
    /// Between `one` and `other`.
    pub fn new(one: &str, other: &str) -> Self {
        let mut networks = [one.to_owned(), other.to_owned()];
        networks.sort();
        Self { networks }
    }

    /// Where it leads from `network`, if it is one of the two.
    fn from(&self, network: &str) -> Option<&str> {
        match &self.networks {
            [one, other] if one == network => Some(other),
            [one, other] if other == network => Some(one),
            _ => None,
        }
    }

    /// How it is stored.
    pub(super) fn key(&self) -> String {
        let [one, other] = &self.networks;
        format!("route/{one}/{other}")
    }

    /// What it is called in problems.
    pub(super) fn place(&self) -> String {
        let [one, other] = &self.networks;
        format!("network[{one}].routes[{other}]")
    }
}

impl Desired {
    /// Asks for a route between two networks. Asking twice is asking once.
    ///
    /// # Errors
    /// [`Refused::NotFound`] if one of them is not there.
    pub fn add_route(&mut self, network: &str, other: &str) -> Result<(), Refused> {
        known(self, network)?;
        known(self, other)?;
        let routing = Routing::new(network, other);
        if !self.routes.iter().any(|route| route.item == routing) {
            self.routes.push(Owned::by_api(routing.place(), routing));
        }
        Ok(())
    }

    /// Takes the route between two networks away.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::OwnedByFile`]
    pub fn remove_route(&mut self, network: &str, other: &str) -> Result<(), Refused> {
        let routing = Routing::new(network, other);
        let name = || format!("{network} to {other}");
        let found = self.routes.iter().find(|route| route.item == routing);
        match found.ok_or_else(|| Refused::NotFound { what: "route", name: name() })?.owner {
            Owner::File => Err(Refused::OwnedByFile { what: "route", name: name() }),
            Owner::Api => {
                self.routes.retain(|route| route.item != routing);
                Ok(())
            }
        }
    }

    /// The networks that `network` has routes to.
    pub fn routes_of<'a>(&'a self, network: &'a str) -> impl Iterator<Item = &'a str> {
        self.routes.iter().filter_map(move |route| route.item.from(network))
    }
}

/// Everything that is wrong with the routes of `desired`.
pub(super) fn check(desired: &Desired, found: &mut Vec<Problem>) {
    for route in &desired.routes {
        let [one, other] = &route.item.networks;
        let value = format!("\"{one}\" to \"{other}\"");
        let reason = match (desired.network(one), desired.network(other)) {
            _ if one == other => Some("leads where it comes from".to_owned()),
            (Some(one), Some(other)) => refused(&one.item, &other.item),
            _ => Some("no such network".to_owned()),
        };
        found.extend(reason.map(|reason| Problem::new(&route.place, value, reason)));
    }
}

fn refused(one: &Network, other: &Network) -> Option<String> {
    for network in [one, other] {
        if network.internal {
            return Some(format!("network \"{}\" is internal", network.name));
        }
        if network.gateway.is_none() && network.gateway6.is_none() {
            return Some(format!("network \"{}\" has no gateway", network.name));
        }
    }
    if one.gateway.zip(other.gateway).is_none() && one.gateway6.zip(other.gateway6).is_none() {
        return Some("one has IPv4 alone and the other IPv6".to_owned());
    }
    let overlap = |ours: &dyn std::fmt::Display, theirs: &dyn std::fmt::Display| {
        Some(format!("their subnets overlap: {ours} and {theirs}"))
    };
    match (one.subnet.zip(other.subnet), one.subnet6.zip(other.subnet6)) {
        (Some((ours, theirs)), _) if ours.overlaps(theirs) => overlap(&ours, &theirs),
        (_, Some((ours, theirs))) if ours.overlaps(theirs) => overlap(&ours, &theirs),
        _ => None,
    }
}
