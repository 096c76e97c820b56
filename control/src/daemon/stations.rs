//! Stations: those that workers learned, and those that we were told of.

use std::collections::HashMap;

use vxlane_dataplane::{
    bridge::{Entry, Origin},
    engine::WorkerGone,
    ids::{NetworkId, VtepId, WorkerId},
    wire::MacAddr,
};

use super::{ChangeError, Daemon, NoSuchNetwork};
use crate::{
    api::types::{Station, StationFlag, StationState, requests::StationRequest},
    desired::{Place, PlannedNetwork},
    mac::Mac,
};

/// Stations that one errand reads: some microseconds, so that packets do not notice.
const PAGE: usize = 1024;

type Learned = HashMap<(NetworkId, MacAddr), Entry>;

/// Why stations cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FdbError {
    /// Stations of which network?
    #[error(transparent)]
    NoSuchNetwork(#[from] NoSuchNetwork),
    /// A worker has ended.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

impl Daemon {
    /// Has a station be known at a place of `network`, and never move; returns it.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn add_station(&mut self, network: &str, request: &StationRequest) -> Result<Station, ChangeError> {
        let mut next = self.desired.clone();
        next.add_station(network, request)?;
        self.change(next, &format!("fdb[{}]", request.mac))?;
        let missing = || NoSuchNetwork(network.to_owned());
        let planned = self.plan.networks.iter().find(|planned| planned.name == network).ok_or_else(missing)?;
        let place = planned.stations.iter().find(|(mac, _)| *mac == request.mac).ok_or_else(missing)?;
        Ok(told(planned, place))
    }

    /// Has a static station be learned like all others again.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn remove_station(&mut self, network: &str, mac: Mac) -> Result<(), ChangeError> {
        let mut next = self.desired.clone();
        next.remove_station(network, mac)?;
        self.change(next, "")
    }

    /// Forgets what was learned, of one network or of all.
    ///
    /// # Errors
    /// [`FdbError`]
    pub fn flush(&mut self, only: Option<&str>) -> Result<(), FdbError> {
        let only = self.only(only)?;
        for worker in self.engine.workers() {
            self.engine.ask(worker, move |worker| worker.pipeline.bridge.flush(only))?;
        }
        // What was decided by what is forgotten now.
        self.end_flows(only);
        Ok(())
    }

    /// Every station that is static or that some worker knows, of one network or of all. Where
    /// workers differ the one that heard of the station last is right.
    ///
    /// # Errors
    /// [`FdbError`]
    pub fn stations(&self, only: Option<&str>) -> Result<Vec<Station>, FdbError> {
        let only = self.only(only)?;
        let mut learned = Learned::new();
        for worker in self.engine.workers() {
            self.read_stations(worker, &mut learned)?;
        }
        let networks =
            self.plan.networks.iter().filter_map(|network| Some((self.ids.network(&network.name)?, network)));
        let networks: HashMap<NetworkId, &PlannedNetwork> =
            networks.filter(|(id, _)| only.is_none_or(|only| only == *id)).collect();
        let mut all: Vec<Station> = networks
            .values()
            .flat_map(|network| network.stations.iter().map(|station| told(network, station)))
            .collect();
        all.extend(learned.iter().filter_map(|(&(id, mac), entry)| self.learned(networks.get(&id)?, mac, entry)));
        all.sort_by(|a, b| (&a.network, &a.mac).cmp(&(&b.network, &b.mac)));
        Ok(all)
    }

    pub(super) fn only(&self, network: Option<&str>) -> Result<Option<NetworkId>, NoSuchNetwork> {
        let known = |name: &str| self.ids.network(name).ok_or_else(|| NoSuchNetwork(name.to_owned()));
        network.map(known).transpose()
    }

    fn read_stations(&self, worker: WorkerId, stations: &mut Learned) -> Result<(), WorkerGone> {
        let mut from = Some(0);
        while let Some(start) = from {
            let (page, next) = self.engine.ask(worker, move |worker| worker.pipeline.bridge.stations(start, PAGE))?;
            for (network, mac, entry) in page {
                let known = stations.entry((network, mac)).or_insert(entry);
                if entry.seen > known.seen {
                    *known = entry;
                }
            }
            from = next;
        }
        Ok(())
    }

    /// `None` if the station has expired, its place is being taken away, or it is static.
    fn learned(&self, network: &PlannedNetwork, mac: MacAddr, entry: &Entry) -> Option<Station> {
        let now = self.engine.now().ticks();
        if entry.is_expired(network.ageing, now) || network.stations.iter().any(|(known, _)| known.0 == mac) {
            return None;
        }
        let place = match entry.origin {
            Origin::Vtep(vtep) => Place::Dst(self.vtep_address(vtep)?),
            Origin::Port(port) => Place::Dev(self.interface(port)?),
            Origin::Gateway => return None,
        };
        let used = Some(now.since(entry.seen).to_duration().as_secs());
        Some(Station { state: StationState::Learned, used, ..told(network, &(Mac(mac), place)) })
    }

    fn vtep_address(&self, vtep: VtepId) -> Option<std::net::IpAddr> {
        let mut peers = self.plan.networks.iter().flat_map(|network| &network.peers).copied();
        peers.find(|&peer| self.ids.vtep(peer) == Some(vtep))
    }
}

/// A static station in the words of the API.
fn told(network: &PlannedNetwork, (mac, place): &(Mac, Place)) -> Station {
    let (dst, ifname, flag) = match place {
        Place::Dst(address) => (Some(*address), None, StationFlag::Tunnel),
        Place::Dev(interface) => (None, Some(interface.clone()), StationFlag::Master),
    };
    Station {
        mac: mac.to_string(),
        network: network.name.clone(),
        vni: network.vni.get(),
        dst,
        ifname,
        flags: vec![flag],
        state: StationState::Static,
        used: None,
    }
}
