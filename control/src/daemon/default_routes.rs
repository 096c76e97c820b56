//! By which of its networks a container leaves: the default routes inside each namespace.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use super::{ChangeError, Daemon};
use crate::{
    desired::{Plan, PlannedEndpoint, PlannedNetwork},
    host,
    netlink::{self, PairError},
};

/// A way out of a container: its device and the gateway behind it.
type Door<'a> = (&'a str, IpAddr);

impl Daemon {
    /// Has containers leave by the doors that `next` says, where those are others than the plan has.
    ///
    /// # Errors
    /// The first default route that could not be set. A container that has gone needs none.
    pub(super) fn lead_out(&self, next: &Plan) -> Result<(), ChangeError> {
        let before = containers(&self.plan);
        for (netns, endpoints) in containers(next) {
            let was = before.get(netns).map_or([None; 2], |before| doors(&self.plan, before, |_| true));
            if was != doors(next, &endpoints, |_| true) {
                lead_through(next, netns, &endpoints)?;
            }
        }
        Ok(())
    }

    /// Has the container at `netns` leave by the doors that `plan` says, as far as its devices are there.
    ///
    /// # Errors
    /// If a default route could not be set.
    pub(super) fn lead_out_of(&self, plan: &Plan, netns: &Path) -> Result<(), ChangeError> {
        let endpoints = containers(plan).remove(netns).unwrap_or_default();
        lead_through(plan, netns, &endpoints)
    }

    /// The same by the plan as it is, after something else has failed.
    pub(super) fn lead_out_as_before(&self) {
        for (netns, endpoints) in containers(&self.plan) {
            if let Err(error) = lead_through(&self.plan, netns, &endpoints) {
                tracing::warn!(netns = %netns.display(), error = crate::causes::chain(&error), "its default route");
            }
        }
    }
}

/// The endpoints of each container, by its network namespace.
fn containers(plan: &Plan) -> BTreeMap<&Path, Vec<&PlannedEndpoint>> {
    let mut containers = BTreeMap::<&Path, Vec<&PlannedEndpoint>>::new();
    for endpoint in &plan.endpoints {
        if let Some(veth) = &endpoint.veth {
            containers.entry(&veth.netns).or_default().push(endpoint);
        }
    }
    containers
}

/// Has the container at `netns`, whose `endpoints` these are, leave by the doors that `plan` says.
fn lead_through(plan: &Plan, netns: &Path, endpoints: &[&PlannedEndpoint]) -> Result<(), ChangeError> {
    let mut there = BTreeMap::new();
    for endpoint in endpoints {
        let found = host::find(&endpoint.interface).map_err(ChangeError::Host)?;
        there.insert(endpoint.interface.as_str(), found.is_some());
    }
    let is_there = |endpoint: &PlannedEndpoint| there.get(endpoint.interface.as_str()) == Some(&true);
    for (ifname, gateway) in doors(plan, endpoints, is_there).into_iter().flatten() {
        match netlink::set_default_route(netns, ifname, gateway) {
            Err(PairError::Netns { .. }) => return Ok(()),
            set => set?,
        }
    }
    Ok(())
}

/// The doors of a container that has these `endpoints`, of IPv4 and of IPv6.
fn doors<'a>(
    plan: &'a Plan,
    endpoints: &[&'a PlannedEndpoint],
    is_there: impl Fn(&PlannedEndpoint) -> bool,
) -> [Option<Door<'a>>; 2] {
    let v4: Gateway = |endpoint, network| endpoint.address.and(network.gateway).map(IpAddr::V4);
    let v6: Gateway = |endpoint, network| endpoint.address6.and(network.gateway6).map(IpAddr::V6);
    [v4, v6].map(|gateway| door(plan, endpoints, &is_there, gateway))
}

/// The gateway of an endpoint, if it has an address of that internet protocol.
type Gateway = fn(&PlannedEndpoint, &PlannedNetwork) -> Option<IpAddr>;

/// Of the doors of a container that has these `endpoints` that of the highest priority, and of those the one whose
/// network has the name that comes first, as Docker has it. Internal networks have none.
fn door<'a>(
    plan: &'a Plan,
    endpoints: &[&'a PlannedEndpoint],
    is_there: impl Fn(&PlannedEndpoint) -> bool,
    gateway: Gateway,
) -> Option<Door<'a>> {
    let doors = endpoints.iter().filter(|endpoint| is_there(endpoint)).filter_map(|endpoint| {
        let network = plan.networks.iter().find(|network| network.name == endpoint.network && !network.internal)?;
        let rank = (std::cmp::Reverse(endpoint.gateway_priority), &endpoint.network, &endpoint.name);
        Some((rank, (endpoint.veth.as_ref()?.ifname.as_str(), gateway(endpoint, network)?)))
    });
    doors.min_by_key(|&(rank, _)| rank).map(|(_, door)| door)
}
