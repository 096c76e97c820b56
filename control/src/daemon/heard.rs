//! What workers tell, in the words of the API.

use vxlane_dataplane::{events::Event, ids::NetworkId};

use super::Daemon;
use crate::api::types::events::What;

impl Daemon {
    /// Tells what the workers have told since this was last called.
    pub(super) fn tell_heard(&self) {
        while let Some((_, event)) = self.engine.next_event() {
            // Of a network or port that is gone by now there is nothing to tell.
            if let Some(what) = self.in_words(event) {
                self.events.tell(what);
            }
        }
    }

    fn in_words(&self, event: Event) -> Option<What> {
        Some(match event {
            Event::StationFlaps { network, mac, held: _ } => {
                What::StationHeld { network: self.network_name(network)?, mac: mac.to_string() }
            }
            Event::AddressClaimedTwice { network, address, stations: [mac, other] } => What::AddressConflict {
                network: self.network_name(network)?,
                address: address.to_string(),
                mac: mac.to_string(),
                other: other.to_string(),
            },
            Event::Refused { port, reason } => {
                What::FramesRefused { interface: self.interface(port)?, reason: reason.name().to_owned() }
            }
        })
    }

    fn network_name(&self, id: NetworkId) -> Option<String> {
        let network = self.plan.networks.iter().find(|network| self.ids.network(&network.name) == Some(id));
        network.map(|network| network.name.clone())
    }
}
