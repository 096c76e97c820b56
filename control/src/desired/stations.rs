//! Stations that the API is told of.

use super::{Desired, Owned, Owner, Place, Problem, Refused, Station, change::invalid, records::station_place};
use crate::{api::types::requests::StationRequest, mac::Mac};

impl Desired {
    /// Has a station be known at a place of `network`. One that is there already must be the same.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn add_station(&mut self, network: &str, request: &StationRequest) -> Result<(), Refused> {
        self.known_network(network)?;
        let mac = request.mac;
        let place = match (request.dst, &request.dev) {
            (Some(address), None) => Place::Dst(address),
            (None, Some(interface)) => Place::Dev(interface.clone()),
            (None, None) => return Err(invalid("dst", "none", "either `dst` or `dev` is needed")),
            (Some(_), Some(interface)) => {
                return Err(invalid("dev", interface, "not with `dst`: a station has one place"));
            }
        };
        match self.station(network, mac) {
            Some(known) if known.item.place == place => Ok(()),
            Some(known) => {
                let reason = format!("this station is known already, {}", known.item.place);
                Err(Refused::Conflict(Problem::new("mac", mac, reason)))
            }
            None => {
                let station = Station { network: network.to_owned(), mac, place };
                self.stations.push(Owned::by_api(station_place(&station), station));
                Ok(())
            }
        }
    }

    /// Takes back what [`add_station`](Self::add_station) was told.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::OwnedByFile`]
    pub fn remove_station(&mut self, network: &str, mac: Mac) -> Result<(), Refused> {
        self.known_network(network)?;
        let (what, name) = ("static station", format!("{network}/{mac}"));
        match self.station(network, mac).map(|known| known.owner) {
            None => Err(Refused::NotFound { what, name }),
            Some(Owner::File) => Err(Refused::OwnedByFile { what, name }),
            Some(Owner::Api) => {
                self.stations.retain(|known| known.item.network != network || known.item.mac != mac);
                Ok(())
            }
        }
    }

    fn station(&self, network: &str, mac: Mac) -> Option<&Owned<Station>> {
        self.stations.iter().find(|known| known.item.network == network && known.item.mac == mac)
    }

    /// Stations do not outlive the place that they are at.
    pub(super) fn forget_place(&mut self, network: &str, place: &Place) {
        self.stations.retain(|known| known.item.network != network || known.item.place != *place);
    }

    /// Whether `place` is one of `network`: a peer of it, or the interface of an endpoint on it.
    pub(super) fn has_place(&self, network: &str, place: &Place) -> bool {
        match place {
            Place::Dst(address) => self.peers_of(network).any(|peer| peer == *address),
            Place::Dev(interface) => {
                let mut endpoints = self.endpoints.iter().map(|endpoint| &endpoint.item);
                endpoints.any(|endpoint| endpoint.network == network && endpoint.interface == *interface)
            }
        }
    }

    /// The stations of `network` whose place is there. Others come back when it does.
    pub(super) fn stations_of(&self, network: &str) -> Vec<(Mac, Place)> {
        let known = self.stations.iter().map(|station| &station.item);
        let known = known.filter(|station| station.network == network && self.has_place(network, &station.place));
        known.map(|station| (station.mac, station.place.clone())).collect()
    }
}
