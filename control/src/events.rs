//! What happened lately, kept for those who ask and those who wait for more.
//!
//! The log is bounded. Who reads too slowly is told how many events are gone, and goes on.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use crate::{
    api::types::events::{Event, What},
    desired::{Desired, Endpoint, Owned},
};

/// The log, shared by those who write and those who read.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<VecDeque<Event>>,
    /// The sequence number of the last one.
    last: watch::Sender<u64>,
}

/// How many events are kept.
const KEPT: usize = 1024;

impl Events {
    /// Adds `what`, which has just happened.
    pub fn tell(&self, what: What) {
        let mut log = self.log();
        let sequence = *self.0.last.borrow() + 1;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(sequence, ?what, "event");
        if log.len() == KEPT {
            log.pop_front();
        }
        log.push_back(Event { sequence, time, what });
        self.0.last.send_replace(sequence);
    }

    /// Adds everything in which `after` differs from `before`.
    pub fn tell_difference(&self, before: &Desired, after: &Desired) {
        difference(before, after).into_iter().for_each(|what| self.tell(what));
    }

    /// Everything after number `sequence`. Where some of it is forgotten, that is the first event.
    pub fn after(&self, sequence: u64) -> Vec<Event> {
        let log = self.log();
        let newer = log.iter().skip_while(|event| event.sequence <= sequence).cloned();
        let oldest = newer.clone().next();
        let lost = oldest.filter(|oldest| oldest.sequence > sequence + 1).map(|oldest| {
            let count = oldest.sequence - sequence - 1;
            Event { sequence: oldest.sequence - 1, time: oldest.time, what: What::Lost { count } }
        });
        lost.into_iter().chain(newer).collect()
    }

    /// Waits for an event after number `sequence`.
    pub async fn wait(&self, sequence: u64) {
        // The sender is here, so that this cannot fail.
        let _ = self.0.last.subscribe().wait_for(|&last| last > sequence).await;
    }

    fn log(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // Nothing in here can panic between two changes that belong together.
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened when `before` became `after`: what went first, then what came.
fn difference(before: &Desired, after: &Desired) -> Vec<What> {
    let gone = |station: &crate::desired::Station| What::StationRemoved {
        network: station.network.clone(),
        mac: station.mac.to_string(),
    };
    let (before_of, after_of) = (unranked(&before.endpoints), unranked(&after.endpoints));
    let mut all: Vec<What> = missing(&before.stations, &after.stations).map(gone).collect();
    all.extend(missing(&before_of, &after_of).map(|endpoint| What::EndpointDisconnected {
        network: endpoint.network.clone(),
        endpoint: endpoint.name.clone(),
    }));
    all.extend(
        missing(&before.peers, &after.peers)
            .map(|peer| What::PeerRemoved { network: peer.network.clone(), address: peer.address }),
    );
    all.extend(
        missing(&before.networks, &after.networks)
            .map(|network| What::NetworkRemoved { network: network.name.clone() }),
    );
    all.extend(
        missing(&after.networks, &before.networks)
            .map(|network| What::NetworkCreated { network: network.name.clone(), vni: network.vni }),
    );
    all.extend(
        missing(&after.peers, &before.peers)
            .map(|peer| What::PeerAdded { network: peer.network.clone(), address: peer.address }),
    );
    all.extend(missing(&after_of, &before_of).map(|endpoint| What::EndpointConnected {
        network: endpoint.network.clone(),
        endpoint: endpoint.name.clone(),
        interface: endpoint.interface.clone(),
        address: endpoint.address,
        mac: endpoint.mac.map(|mac| mac.to_string()),
    }));
    all.extend(
        missing(&after.stations, &before.stations)
            .map(|station| What::StationAdded { network: station.network.clone(), mac: station.mac.to_string() }),
    );
    all
}

/// `endpoints` without the priority of their gateways: they stay while that changes.
fn unranked(endpoints: &[Owned<Endpoint>]) -> Vec<Owned<Endpoint>> {
    let mut endpoints = endpoints.to_vec();
    endpoints.iter_mut().for_each(|endpoint| endpoint.item.gateway_priority = 0);
    endpoints
}

/// What of `here` is not `there`.
fn missing<'a, T: PartialEq>(here: &'a [Owned<T>], there: &'a [Owned<T>]) -> impl Iterator<Item = &'a T> {
    here.iter().map(|item| &item.item).filter(|item| !there.iter().any(|other| other.item == **item))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64) -> What {
        What::LinkUp { interface: format!("p{number}") }
    }

    #[test]
    fn who_comes_late_is_told_how_many_are_forgotten_and_misses_no_other() {
        let events = Events::default();
        (1..=KEPT as u64 + 3).for_each(|number| events.tell(link(number)));
        let all = events.after(0);
        assert_eq!((all[0].sequence, &all[0].what), (3, &What::Lost { count: 3 }));
        assert_eq!((all[1].sequence, &all[1].what, all.len()), (4, &link(4), KEPT + 1));
        assert_eq!(events.after(3).len(), KEPT, "nothing was lost after the third");
        assert_eq!(events.after(KEPT as u64 + 3), []);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_next_one_also_when_it_came_before() {
        let events = Events::default();
        events.tell(link(1));
        events.wait(0).await;
        let waiting = tokio::spawn({
            let events = events.clone();
            async move { events.wait(1).await }
        });
        events.tell(link(2));
        waiting.await.unwrap();
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let event =
            Event { sequence: 7, time: 1000, what: What::NetworkCreated { network: "blue".to_owned(), vni: 5 } };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"sequence":7,"time":1000,"event":"network_created","network":"blue","vni":5}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
