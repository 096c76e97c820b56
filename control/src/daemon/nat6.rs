//! The way out of the overlay for IPv6: there while a network wants one, and kept true.

use std::{collections::HashSet, net::Ipv6Addr, sync::Arc};

use ipnetwork::Ipv6Network;
use vxlane_dataplane::{
    attach::SteerError,
    ids::WorkerId,
    nat::{Nat, NatConfig},
};

use super::{
    Daemon, StartError,
    express::lane_failed,
    nat::{avoided, look},
};
use crate::{
    commit::Ways,
    config::Nat6Choice,
    desired::Plan,
    netlink::{self, NextHop},
    sockets::{self, InUse},
};

/// A way out that is open.
pub(super) struct WayOut6 {
    /// What packets that are translated have for a source; `None` if none are, or the host has no
    /// such address.
    pub(super) address: Option<Ipv6Addr>,
    /// Prefixes that the outside knows.
    pub(super) routed: HashSet<Ipv6Network>,
    /// Ports that sockets of this host have; they are not lent.
    in_use: Vec<InUse>,
    pub(super) ways: Ways<Ipv6Addr>,
    /// The routers of those routes.
    pub(super) routers: Vec<NextHop>,
}

/// Whether some network of `plan` has a way out for IPv6.
fn is_wanted(plan: &Plan) -> bool {
    plan.networks.iter().any(|network| network.nat6 != Nat6Choice::None)
}

fn masquerades(plan: &Plan) -> bool {
    plan.networks.iter().any(|network| network.nat6 == Nat6Choice::Masquerade)
}

fn routed(plan: &Plan) -> HashSet<Ipv6Network> {
    let routed = plan.networks.iter().filter(|network| network.nat6 == Nat6Choice::Routed);
    routed.filter_map(|network| network.subnet6).collect()
}

impl Daemon {
    /// Has a way out for IPv6 be there if a network of the plan wants one, as the host has its
    /// address and routes now; and none if none does.
    pub(super) fn keep_way_out_v6(&mut self) -> Result<(), StartError> {
        if !is_wanted(&self.plan) {
            return self.close_way_out_v6();
        }
        let address = self.outside_v6()?;
        let routed = routed(&self.plan);
        // Where nothing is translated no port is lent, and whose they are is not asked.
        let in_use = address.map_or_else(|| Ok(Vec::new()), |_| sockets::in_use()).map_err(StartError::Sockets)?;
        let (ways, routers) = match &self.way_out6 {
            Some(_) => look(self.uplink)?,
            None => self.look_for_routers()?,
        };
        let before = self.way_out6.take();
        let was = before.as_ref().and_then(|way_out| way_out.address);
        if was != address {
            self.translate_v6(address, &in_use)?;
        } else if before.as_ref().is_some_and(|before| avoided(&before.in_use).ne(avoided(&in_use))) {
            let in_use = in_use.clone();
            self.with_nat::<Ipv6Addr, _>(move |nat| nat.avoid(avoided(&in_use)))?;
        }
        if before.is_none_or(|before| before.address != address || before.routed != routed) {
            self.steer_v6(address, &routed)?;
            tracing::info!(?address, ?routed, "there is a way out for IPv6");
        }
        self.way_out6 = Some(WayOut6 { address, routed, in_use, ways, routers });
        Ok(())
    }

    /// The address that packets are to leave with, if any are translated.
    fn outside_v6(&self) -> Result<Option<Ipv6Addr>, StartError> {
        if !masquerades(&self.plan) {
            return Ok(None);
        }
        match self.plan.nat_address6 {
            Some(given) => Ok(Some(given)),
            None => netlink::global_addresses(self.uplink.index).map(|(_, v6)| v6).map_err(StartError::Netlink),
        }
    }

    /// Has the workers translate to `address`, or not at all. Sessions of another one end.
    fn translate_v6(&mut self, address: Option<Ipv6Addr>, in_use: &[InUse]) -> Result<(), StartError> {
        let config = |address| {
            let ports = self.lendable_ports()?;
            Ok::<_, StartError>(NatConfig { ports, ..self.plan.nat.with_addresses(vec![address]) })
        };
        let config = address.map(config).transpose()?;
        let workers: Vec<WorkerId> = self.engine.workers().collect();
        let count = u16::try_from(workers.len()).unwrap_or(u16::MAX);
        let board = self.boards().v6;
        for worker in workers {
            // Dropped and made here, not in the worker, which has packets to see to; the old one
            // first, as it takes its leases off the board when it goes.
            drop(self.engine.ask(worker, |worker| worker.use_nat::<Ipv6Addr>(None))?);
            let Some(config) = config.clone() else { continue };
            let mut nat = Nat::new(config, worker, count, Arc::clone(&board));
            nat.avoid(avoided(in_use));
            drop(self.engine.ask(worker, move |worker| worker.use_nat(Some(Box::new(nat))))?);
        }
        Ok(())
    }

    fn close_way_out_v6(&mut self) -> Result<(), StartError> {
        if self.way_out6.take().is_some() {
            self.translate_v6(None, &[])?;
            self.steer_v6(None, &HashSet::new())?;
        }
        Ok(())
    }

    /// Has both programs that can be on the uplink know what of IPv6 is ours.
    fn steer_v6(&mut self, lent: Option<Ipv6Addr>, routed: &HashSet<Ipv6Network>) -> Result<(), StartError> {
        self.steer.ours().set_outside_v6(lent, routed).map_err(SteerError::Map)?;
        let Some(lane) = &mut self.lane else { return Ok(()) };
        lane.express.ours().set_outside_v6(lent, routed).map_err(|error| lane_failed(error.into()))
    }
}
