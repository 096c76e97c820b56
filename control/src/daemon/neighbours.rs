//! Bindings of IP to Ethernet addresses: those that control knows, and those that workers snooped.

use std::{collections::HashMap, net::IpAddr};

use vxlane_dataplane::{
    engine::WorkerGone,
    ids::{NetworkId, WorkerId},
    neigh::{Binding, State},
};

use super::{Daemon, FdbError};
use crate::{
    api::types::neighbours::{Neighbour, NeighbourOrigin, NeighbourState},
    commit,
    desired::{PlannedEndpoint, PlannedNetwork},
};

/// Bindings that one errand reads: some microseconds, so that packets do not notice.
const PAGE: usize = 1024;

type Snooped = HashMap<(NetworkId, IpAddr), Binding>;

impl Daemon {
    /// Every binding by which workers answer ARP and neighbour discovery, of one network or of
    /// all. Where workers differ the one that heard of the address last is right.
    ///
    /// # Errors
    /// [`FdbError`]
    pub fn neighbours(&self, only: Option<&str>) -> Result<Vec<Neighbour>, FdbError> {
        let only = self.only(only)?;
        let mut snooped = Snooped::new();
        for worker in self.engine.workers() {
            self.read_bindings(worker, &mut snooped)?;
        }
        let mut all = Vec::new();
        for network in &self.plan.networks {
            let Some(id) = self.ids.network(&network.name).filter(|id| only.is_none_or(|only| only == *id)) else {
                continue;
            };
            all.extend(gateway(network));
            let endpoints = self.plan.endpoints.iter().filter(|endpoint| endpoint.network == network.name);
            all.extend(endpoints.flat_map(|endpoint| known(network, endpoint)));
            let snooped = snooped.iter().filter(|((of, _), _)| *of == id);
            all.extend(snooped.filter_map(|(&(_, address), binding)| self.snooped(network, address, binding)));
        }
        all.sort_by(|a, b| (&a.network, a.dst).cmp(&(&b.network, b.dst)));
        Ok(all)
    }

    fn read_bindings(&self, worker: WorkerId, snooped: &mut Snooped) -> Result<(), WorkerGone> {
        let mut from = Some(0);
        while let Some(start) = from {
            let (page, next) =
                self.engine.ask(worker, move |worker| worker.pipeline.neighbours.bindings(start, PAGE))?;
            for (network, address, binding) in page {
                let known = snooped.entry((network, address)).or_insert(binding);
                if binding.seen > known.seen {
                    *known = binding;
                }
            }
            from = next;
        }
        Ok(())
    }

    /// `None` if the binding is over, or its port is being taken away.
    fn snooped(&self, network: &PlannedNetwork, dst: IpAddr, binding: &Binding) -> Option<Neighbour> {
        let now = self.engine.now().ticks();
        if binding.is_over(self.tables.network(self.ids.network(&network.name)?)?, now) {
            return None;
        }
        Some(Neighbour {
            dev: Some(self.interface(binding.port)?),
            router: binding.router,
            origin: NeighbourOrigin::Snooped,
            state: match binding.state {
                State::Known => NeighbourState::Reachable,
                State::Contested { .. } => NeighbourState::Contested,
                State::Duplicate { .. } => NeighbourState::Duplicate,
            },
            used: Some(now.since(binding.seen).to_duration().as_secs()),
            ..told(network, dst, &binding.mac)
        })
    }
}

/// The bindings of the gateway, which every host answers for.
fn gateway(network: &PlannedNetwork) -> impl Iterator<Item = Neighbour> {
    let gateway = commit::gateway_of(network);
    let addresses = gateway.into_iter().flat_map(|gateway| {
        let (v4, v6) = (gateway.ipv4.map(|of| IpAddr::V4(of.ip())), gateway.ipv6.map(|of| IpAddr::V6(of.ip())));
        v4.into_iter().chain(v6).map(move |address| (address, gateway.mac))
    });
    let origin = NeighbourOrigin::Gateway;
    addresses.map(move |(address, mac)| Neighbour { router: true, origin, ..told(network, address, &mac) })
}

/// The bindings of an endpoint whose addresses are known.
fn known(network: &PlannedNetwork, endpoint: &PlannedEndpoint) -> impl Iterator<Item = Neighbour> {
    let origin = if endpoint.veth.is_some() { NeighbourOrigin::Endpoint } else { NeighbourOrigin::Static };
    let bound = endpoint.mac.into_iter().flat_map(move |mac| endpoint.addresses().map(move |address| (address, mac)));
    bound.map(move |(address, mac)| {
        let dev = Some(endpoint.interface.clone());
        Neighbour { dev, origin, ..told(network, address, &mac.0) }
    })
}

/// A binding that does not age, in the words of the API.
fn told(network: &PlannedNetwork, dst: IpAddr, mac: &impl ToString) -> Neighbour {
    Neighbour {
        dst,
        lladdr: mac.to_string(),
        network: network.name.clone(),
        vni: network.vni.get(),
        dev: None,
        router: false,
        origin: NeighbourOrigin::Static,
        state: NeighbourState::Permanent,
        used: None,
    }
}
