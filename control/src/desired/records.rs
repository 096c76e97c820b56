//! What the API asked for, as the store keeps it: one record for each thing.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Desired, Endpoint, Network, Owned, Owner, Peering, Routing, Station};

/// Records by key. Keys begin with the kind of the thing and name it: `network/blue`.
pub type Records = BTreeMap<String, String>;

/// A record cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("record {key}: {reason}")]
pub struct BadRecord {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Desired {
    /// Everything that must outlive the process.
    pub fn records(&self) -> Records {
        let mut records = Records::new();
        for Owned { item, .. } in ours(&self.networks) {
            put(&mut records, format!("network/{}", item.name), item);
        }
        for Owned { item, .. } in ours(&self.peers) {
            put(&mut records, format!("peer/{}/{}", item.network, item.address), item);
        }
        for Owned { item, .. } in ours(&self.routes) {
            put(&mut records, item.key(), item);
        }
        for Owned { item, .. } in ours(&self.endpoints) {
            put(&mut records, format!("endpoint/{}/{}", item.network, item.name), item);
        }
        for Owned { item, .. } in ours(&self.stations) {
            put(&mut records, format!("station/{}/{}", item.network, item.mac), item);
        }
        for (network, address) in &self.last_given {
            put(&mut records, format!("last-given/{network}"), address);
        }
        for (network, address) in &self.last_given6 {
            put(&mut records, format!("last-given6/{network}"), address);
        }
        records
    }

    /// Adds everything that `records` tells of.
    ///
    /// # Errors
    /// [`BadRecord`] for the first one that is not understood; nothing is left out in silence.
    pub fn add_records(&mut self, records: &Records) -> Result<(), BadRecord> {
        for (key, value) in records {
            let (kind, name) = key.split_once('/').unwrap_or((key, ""));
            match kind {
                "network" => {
                    let network: Network = get(key, value)?;
                    self.networks.push(Owned::by_api(network_place(&network.name), network));
                }
                "peer" => {
                    let peering: Peering = get(key, value)?;
                    self.peers.push(Owned::by_api(peer_place(&peering), peering));
                }
                "route" => {
                    let routing: Routing = get(key, value)?;
                    self.routes.push(Owned::by_api(routing.place(), routing));
                }
                "endpoint" => {
                    let endpoint: Endpoint = get(key, value)?;
                    self.endpoints.push(Owned::by_api(endpoint_place(&endpoint.name), endpoint));
                }
                "station" => {
                    let station: Station = get(key, value)?;
                    self.stations.push(Owned::by_api(station_place(&station), station));
                }
                "last-given" => {
                    let address: Ipv4Addr = get(key, value)?;
                    self.last_given.insert(name.to_owned(), address);
                }
                "last-given6" => {
                    let address: Ipv6Addr = get(key, value)?;
                    self.last_given6.insert(name.to_owned(), address);
                }
                _ => return Err(BadRecord { key: key.clone(), reason: "of a kind that is not known".to_owned() }),
            }
        }
        Ok(())
    }
}

pub(super) fn network_place(name: &str) -> String {
    format!("network[{name}]")
}

pub(super) fn peer_place(peering: &Peering) -> String {
    format!("network[{}].peers[{}]", peering.network, peering.address)
}

pub(super) fn endpoint_place(name: &str) -> String {
    format!("endpoint[{name}]")
}

pub(super) fn station_place(station: &Station) -> String {
    format!("fdb[{}]", station.mac)
}

fn ours<T>(items: &[Owned<T>]) -> impl Iterator<Item = &Owned<T>> {
    items.iter().filter(|item| item.owner == Owner::Api)
}

fn put(records: &mut Records, key: String, item: &impl Serialize) {
    // Plain data with text for keys: writing it as JSON cannot fail.
    let text = serde_json::to_string(item).unwrap_or_default();
    records.insert(key, text);
}

fn get<T: DeserializeOwned>(key: &str, value: &str) -> Result<T, BadRecord> {
    serde_json::from_str(value).map_err(|error| BadRecord { key: key.to_owned(), reason: error.to_string() })
}
