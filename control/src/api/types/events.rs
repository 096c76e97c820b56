//! What happened, for those who follow it.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts up by one, from 1 at the start of the daemon.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// There is a new network.
    NetworkCreated {
        /// Its name.
        network: String,
        /// Its number on the wire.
        vni: u32,
    },
    /// A network is gone.
    NetworkRemoved {
        /// Its name.
        network: String,
    },
    /// There is a new endpoint.
    EndpointConnected {
        /// Its network.
        network: String,
        /// Its name.
        endpoint: String,
        /// Its interface on this host.
        interface: String,
        /// Its address, where known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        #[schema(value_type = Option<String>, format = Ipv4)]
        address: Option<Ipv4Addr>,
        /// Its Ethernet address, where known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        mac: Option<String>,
    },
    /// An endpoint is gone.
    EndpointDisconnected {
        /// Its network.
        network: String,
        /// Its name.
        endpoint: String,
    },
    /// A VTEP takes part in a network.
    PeerAdded {
        /// The network.
        network: String,
        /// The VTEP.
        #[schema(value_type = String)]
        address: IpAddr,
    },
    /// A VTEP no longer takes part in a network.
    PeerRemoved {
        /// The network.
        network: String,
        /// The VTEP.
        #[schema(value_type = String)]
        address: IpAddr,
    },
    /// A station is static.
    StationAdded {
        /// Its network.
        network: String,
        /// Its Ethernet address.
        mac: String,
    },
    /// A station is no longer static.
    StationRemoved {
        /// Its network.
        network: String,
        /// Its Ethernet address.
        mac: String,
    },
    /// An interface of ours can carry frames.
    LinkUp {
        /// Its name.
        interface: String,
    },
    /// An interface of ours can no longer carry frames, or is gone.
    LinkDown {
        /// Its name.
        interface: String,
    },
    /// A station moved so often that two must be using its address: it is held where it was.
    StationHeld {
        /// Its network.
        network: String,
        /// The address that they use.
        mac: String,
    },
    /// Two stations use the same address.
    AddressConflict {
        /// Their network.
        network: String,
        /// The address that they use.
        address: String,
        /// Who had it.
        mac: String,
        /// Who wants it.
        other: String,
    },
    /// An endpoint sent what it must not send, and goes on: told once in ten seconds.
    FramesRefused {
        /// Its interface on this host.
        interface: String,
        /// Why the last of its frames was dropped, as `vxlane drops` calls it.
        reason: String,
    },
    /// The events before this one that nobody read in time are forgotten.
    Lost {
        /// How many.
        count: u64,
    },
}
