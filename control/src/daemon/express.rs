//! The express lane: programs that repeat what workers decided, and the pair of interfaces to them.

use std::net::{IpAddr, Ipv4Addr};

use vxlane_dataplane::{
    attach::{
        Role,
        express::{Express, ExpressError},
    },
    engine::WorkerGone,
    express::{self, Leg},
    ids::{NetworkId, PortId},
    link::Link,
    tables::Tables,
};

use super::{
    Daemon, StartError, nat,
    ports::{Mode, OpenPort},
};
use crate::{
    commit::{Exhausted, RING},
    config::{ExpressChoice, XdpChoice},
    desired::Plan,
    netlink::{self, PairError},
};

/// A running express lane.
pub(super) struct Lane {
    express: Express,
    /// The end of the pair that the workers have the rings of.
    ring: OpenPort,
    /// The other end.
    punt: String,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Err(error) = netlink::remove_pair(&self.punt) {
            tracing::warn!(interface = self.punt, %error, "removing");
        }
    }
}

/// Why there is no express lane.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The programs or their maps.
    #[error(transparent)]
    Express(#[from] ExpressError),
    /// The pair that leads to the workers.
    #[error("the pair of interfaces between express lane and workers")]
    Pair(#[from] PairError),
}

/// Flows that all workers together may have in the maps.
const FLOWS: usize = 32_768;

impl Daemon {
    /// Has an express lane be there if it is wanted and the uplink can have it.
    pub(super) fn open_lane(&mut self) -> Result<(), StartError> {
        let uplink = Link::get(&self.plan.uplink)?;
        self.no_lane = reason_against(&self.plan, &uplink);
        if let Some(reason) = self.no_lane {
            tracing::info!(reason, "no express lane");
            return Ok(());
        }
        let lane = |error| StartError::Lane(Box::new(error));
        let (punt, ring) = (format!("vxp{}", uplink.index), format!("vxr{}", uplink.index));
        let queues = u32::try_from(self.plan.workers.max(1)).unwrap_or(1);
        // One of an earlier life may have been left behind.
        netlink::remove_pair(&punt).map_err(StartError::Netlink)?;
        netlink::make_punt(&punt, &ring, uplink.mtu, queues).map_err(|error| lane(error.into()))?;
        let made = self.fill_lane(&punt, &ring);
        if made.is_err() {
            // The first error is the one to report.
            let _ = netlink::remove_pair(&punt);
        }
        made
    }

    fn fill_lane(&mut self, punt: &str, ring: &str) -> Result<(), StartError> {
        let lane = |error| StartError::Lane(Box::new(LaneError::Express(error)));
        let mut express = Express::load().map_err(lane)?;
        let address = self.plan.local.v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
        express.set_up(address, self.plan.local.port, punt).map_err(lane)?;
        let id = self.ids.port(RING).ok_or(Exhausted)?;
        let ring = self.open_ring(ring, id)?;
        let workers: Vec<_> = self.engine.workers().collect();
        let most = FLOWS / workers.len().max(1);
        for worker in workers {
            // Made here, not in the worker, which has packets to see to.
            let share = express::Express::new(express.flows().map_err(lane)?, express.epochs(), most);
            self.engine.ask(worker, move |worker| worker.use_express(share))?;
        }
        self.lane = Some(Lane { express, ring, punt: punt.to_owned() });
        Ok(())
    }

    /// Why there is no express lane, if there is none.
    pub(super) fn why_no_lane(&self) -> Option<&'static str> {
        self.no_lane
    }

    /// Makes sure that the lane, if there is one, knows everything that the plan has.
    ///
    /// # Errors
    /// [`StartError::NoV6Underlay`]
    pub(super) fn check_lane(&self) -> Result<(), StartError> {
        if self.lane.is_some() && is_over_v6(&self.plan) { Err(StartError::NoV6Underlay) } else { Ok(()) }
    }

    /// Where `port` of this role is to the programs, if its frames shall take the express lane.
    pub(super) fn leg(&self, link: &Link, role: Role, xdp: XdpChoice) -> Option<Leg> {
        let fits = self.lane.is_some() && Express::suits(link) && xdp == XdpChoice::Auto;
        fits.then(|| Express::leg(link, role))
    }

    /// A port whose frames come and go through the rings of the lane.
    pub(super) fn open_leg(&self, interface: &str, role: Role, id: PortId, link: &Link, leg: Leg) -> Option<OpenPort> {
        let ring = &self.lane.as_ref()?.ring;
        Some(OpenPort {
            id,
            interface: interface.to_owned(),
            role,
            ifindex: link.index,
            mode: Mode::Express(leg),
            is_up: link.is_up,
            ..ring.clone()
        })
    }

    /// Has the programs see the frames of `port`.
    pub(super) fn attach_leg(&mut self, port: &OpenPort) -> Result<(), StartError> {
        let Some(lane) = &mut self.lane else { return Ok(()) };
        let attached = lane.express.attach(&port.interface, port.role, port.id);
        attached.map(drop).map_err(|error| StartError::Lane(Box::new(error.into())))
    }

    /// Has the programs see the frames of `port` no more.
    pub(super) fn detach_leg(&mut self, port: &OpenPort) {
        if let Some(lane) = self.lane.as_mut().filter(|lane| lane.express.has(port.id))
            && let Err(error) = lane.express.detach(port.id)
        {
            tracing::warn!(interface = port.interface, %error, "detaching");
        }
    }

    /// Has nothing be repeated any more that `before` allowed and `now` may not. Every worker has
    /// the tables of `now`.
    pub(super) fn end_epochs(&self, before: &Tables, now: &Tables) {
        let Some(lane) = &self.lane else { return };
        let ended: Vec<NetworkId> = before.changed(now).collect();
        let epochs = lane.express.epochs();
        ended.iter().for_each(|&network| epochs.end(network));
        if !ended.is_empty() {
            lane.express.settle();
        }
    }

    /// Gives every worker room for the counters of a port that has no queue.
    pub(super) fn admit(&self, port: PortId) -> Result<(), WorkerGone> {
        self.engine.workers().try_for_each(|worker| self.engine.ask(worker, move |worker| worker.admit(port)))
    }
}

/// Whether some tunnel is over IPv6, or can be over nothing else.
fn is_over_v6(plan: &Plan) -> bool {
    plan.local.v4.is_none() || plan.networks.iter().flat_map(|network| &network.peers).any(IpAddr::is_ipv6)
}

/// Why there shall be no express lane, if there shall be none.
fn reason_against(plan: &Plan, uplink: &Link) -> Option<&'static str> {
    if plan.express == ExpressChoice::Off {
        Some("it is off")
    } else if !Express::suits(uplink) {
        Some("the uplink is no veth: its rings are faster")
    } else if plan.uplink_xdp != XdpChoice::Auto {
        Some("the uplink's XDP mode was chosen")
    } else if is_over_v6(plan) {
        Some("the underlay is IPv6, at least to some peers, which this lane does not know yet")
    } else if nat::is_wanted(plan) {
        Some("a network has a way out, which this lane does not know yet")
    } else {
        None
    }
}
