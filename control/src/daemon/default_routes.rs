//! By which of its networks a container leaves: the default route inside each namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
};

use super::{ChangeError, Daemon};
use crate::{
    desired::{Plan, PlannedEndpoint},
    host,
    netlink::{self, PairError},
};

/// A way out of a container: its device and the gateway behind it.
type Door<'a> = (&'a str, Ipv4Addr);

impl Daemon {
    /// Has containers leave by the door that `next` says, where that is another one than the plan has.
    ///
    /// # Errors
    /// The first default route that could not be set. A container that has gone needs none.
    pub(super) fn lead_out(&self, next: &Plan) -> Result<(), ChangeError> {
        let before = namespaces(&self.plan);
        for netns in namespaces(next) {
            let was = if before.contains(netns) { door(&self.plan, netns, |_| true) } else { None };
            if was != door(next, netns, |_| true) {
                self.lead_out_of(next, netns)?;
            }
        }
        Ok(())
    }

    /// Has the container at `netns` leave by the door that `plan` says, as far as its device is there.
    ///
    /// # Errors
    /// If the default route could not be set.
    pub(super) fn lead_out_of(&self, plan: &Plan, netns: &Path) -> Result<(), ChangeError> {
        let mut there = BTreeMap::new();
        for endpoint in inside(plan, netns) {
            let found = host::find(&endpoint.interface).map_err(ChangeError::Host)?;
            there.insert(endpoint.interface.as_str(), found.is_some());
        }
        let is_there = |endpoint: &PlannedEndpoint| there.get(endpoint.interface.as_str()) == Some(&true);
        match door(plan, netns, is_there).map(|(ifname, gateway)| netlink::set_default_route(netns, ifname, gateway)) {
            Some(Err(PairError::Netns { .. })) | None => Ok(()),
            Some(set) => Ok(set?),
        }
    }

    /// The same by the plan as it is, after something else has failed.
    pub(super) fn lead_out_as_before(&self) {
        for netns in namespaces(&self.plan) {
            if let Err(error) = self.lead_out_of(&self.plan, netns) {
                tracing::warn!(netns = %netns.display(), error = crate::causes::chain(&error), "its default route");
            }
        }
    }
}

fn namespaces(plan: &Plan) -> BTreeSet<&Path> {
    plan.endpoints.iter().filter_map(|endpoint| Some(endpoint.veth.as_ref()?.netns.as_path())).collect()
}

fn inside<'a>(plan: &'a Plan, netns: &Path) -> impl Iterator<Item = &'a PlannedEndpoint> {
    plan.endpoints.iter().filter(move |endpoint| endpoint.veth.as_ref().is_some_and(|veth| veth.netns == *netns))
}

/// The door of the container at `netns`: that of the highest priority, and of those the one whose
/// network has the name that comes first, as Docker has it. Internal networks have none.
fn door<'a>(plan: &'a Plan, netns: &Path, is_there: impl Fn(&PlannedEndpoint) -> bool) -> Option<Door<'a>> {
    let doors = inside(plan, netns).filter(|endpoint| is_there(endpoint)).filter_map(|endpoint| {
        let network = plan.networks.iter().find(|network| network.name == endpoint.network && !network.internal)?;
        let rank = (std::cmp::Reverse(endpoint.gateway_priority), &endpoint.network, &endpoint.name);
        endpoint.address?;
        Some((rank, (endpoint.veth.as_ref()?.ifname.as_str(), network.gateway?)))
    });
    doors.min_by_key(|&(rank, _)| rank).map(|(_, door)| door)
}
