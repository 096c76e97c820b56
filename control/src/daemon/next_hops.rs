//! How peers are reached, looked up in the kernel and kept true.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vxlane_dataplane::{link::Link, wire::MacAddr};

use super::{Daemon, StartError, ports::Mode};
use crate::{
    commit::{self, Surroundings},
    desired::Plan,
    host,
    netlink::{self, NextHop},
};

/// What we know of the uplink device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) index: u32,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
}

impl Uplink {
    /// Looks at the device called `name`.
    ///
    /// # Errors
    /// [`StartError::Link`], [`StartError::NoMac`]
    pub(super) fn look(name: &str) -> Result<Self, StartError> {
        let link = Link::get(name)?;
        let mac = link.mac.map(MacAddr).ok_or_else(|| StartError::NoMac(name.to_owned()))?;
        Ok(Self { index: link.index, mac, mtu: link.mtu })
    }
}

/// How long the start waits for next hops that do not answer: many times what a neighbour takes,
/// and still short when one is down.
pub(super) const RESOLVE: Duration = Duration::from_millis(500);

/// By peer.
pub(super) type NextHops = BTreeMap<IpAddr, NextHop>;

/// How the peers of `plan` are reached by `uplink`.
///
/// # Errors
/// [`StartError::Netlink`]
pub(super) fn look(plan: &Plan, uplink: Uplink) -> Result<NextHops, StartError> {
    let peers: BTreeSet<IpAddr> = plan.networks.iter().flat_map(|network| &network.peers).copied().collect();
    let found = peers.into_iter().map(|peer| Ok((peer, netlink::next_hop(uplink.index, peer)?)));
    found.collect::<Result<_, _>>().map_err(StartError::Netlink)
}

impl Daemon {
    /// Has the kernel ask for every next hop and waits a moment for the answers, so that the
    /// first frames of the endpoints find the way open.
    pub(super) fn resolve(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + RESOLVE;
        self.refresh()?;
        self.solicit();
        let unknown = |daemon: &Self| daemon.all_next_hops().any(NextHop::is_awaited);
        while unknown(self) && Instant::now() < deadline {
            thread::sleep(RESOLVE / 100);
            self.refresh()?;
        }
        Ok(())
    }

    /// Looks anew at how peers are reached, and gives the workers new tables if that has
    /// changed. Returns whether it has. While the uplink is gone, everything stays as it was.
    ///
    /// # Errors
    /// If the kernel does not say, or a worker has ended.
    pub fn refresh(&mut self) -> Result<bool, StartError> {
        if host::find(&self.plan.uplink).map_err(StartError::Netlink)?.is_none() {
            return Ok(false);
        }
        let uplink = Uplink { mtu: self.uplink.mtu, ..Uplink::look(&self.plan.uplink)? };
        self.next_hops = look(&self.plan, uplink)?;
        self.uplink = uplink;
        self.refresh_way_out()?;
        self.keep_way_out_v6()?;
        self.solicit_wanted()?;
        self.keep_reserved();
        let now = self.surroundings();
        if now == self.published {
            return Ok(false);
        }
        self.publish()?;
        Ok(true)
    }

    /// Gives the workers tables of what is planned and known; they have them when this returns.
    ///
    /// # Errors
    /// [`StartError::Gone`]
    pub(super) fn publish(&mut self) -> Result<(), StartError> {
        self.move_leases()?;
        self.open_or_close_way_out()?;
        self.keep_way_out_v6()?;
        self.keep_reserved();
        let now = self.surroundings();
        let tables = Arc::new(commit::commit(&self.plan, &self.ids, &now));
        self.engine.publish(&tables)?;
        self.end_epochs(&self.tables, &tables);
        self.tables = tables;
        tracing::info!(next_hops = ?now.next_hops, "published");
        self.published = now;
        Ok(())
    }

    fn surroundings(&self) -> Surroundings {
        let known = self.next_hops.iter().filter_map(|(&peer, next_hop)| Some((peer, next_hop.mac()?)));
        let owners = self.ports.iter().filter_map(|port| Some((port.id, *port.workers.first()?)));
        let ways = self.way_out.as_ref().map(|way_out| way_out.ways.clone());
        let legs = self.ports.iter().filter_map(|port| match port.mode {
            Mode::Express(leg) => Some((port.id, leg)),
            Mode::Rings(_) => None,
        });
        Surroundings {
            uplink_mac: self.uplink.mac,
            next_hops: known.collect(),
            owners: owners.collect(),
            legs: legs.collect(),
            ways,
            ways6: self.way_out6.as_ref().map(|way_out| way_out.ways.clone()),
            published: self.published(),
        }
    }

    /// Those to peers, and those out of the overlay.
    fn all_next_hops(&self) -> impl Iterator<Item = &NextHop> {
        let routers = self.way_out.iter().flat_map(|way_out| &way_out.routers);
        let routers6 = self.way_out6.iter().flat_map(|way_out| &way_out.routers);
        self.next_hops.values().chain(routers).chain(routers6)
    }

    /// Has the kernel ask for every next hop that is not known, or not known to be still there.
    pub fn solicit(&self) {
        self.solicit_all(self.all_next_hops());
    }

    pub(super) fn solicit_all<'a>(&self, next_hops: impl IntoIterator<Item = &'a NextHop>) {
        for next_hop in next_hops {
            if let NextHop::Via { neighbour, stale: true, .. } = *next_hop {
                self.solicit_neighbour(neighbour);
            }
        }
    }

    /// Has the kernel ask for neighbours that packets are waiting for.
    fn solicit_wanted(&self) -> Result<(), StartError> {
        for worker in self.engine.workers() {
            let wanted = self.engine.ask(worker, |worker| std::mem::take(&mut worker.pipeline.router.wanted))?;
            wanted.into_iter().for_each(|neighbour| self.solicit_neighbour(neighbour));
        }
        Ok(())
    }

    fn solicit_neighbour(&self, neighbour: IpAddr) {
        if let Err(error) = netlink::solicit(self.uplink.index, neighbour) {
            tracing::warn!(%neighbour, %error, "the kernel does not ask for the neighbour");
        }
    }
}
