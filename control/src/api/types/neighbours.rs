//! What the API says of bindings between IP and Ethernet addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a binding is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourOrigin {
    /// An endpoint whose interface we made, and gave both addresses.
    Endpoint,
    /// The gateway of the network, which this host plays.
    Gateway,
    /// An endpoint of this host said so.
    Snooped,
    /// Whoever asked for the endpoint gave both addresses.
    Static,
}

/// Whether a binding is told to those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NeighbourState {
    /// It is, and it does not age.
    Permanent,
    /// It is, until its owner falls silent.
    Reachable,
    /// Another station claims the address; questions are flooded until that is settled.
    Contested,
    /// Two stations use the address; questions are flooded for a while.
    Duplicate,
}

/// An element of `GET /v1/neighbours`, in the words of `ip -j neigh`: whose address is whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Neighbour {
    /// The IP address.
    #[schema(value_type = String)]
    pub dst: IpAddr,
    /// The Ethernet address.
    pub lladdr: String,
    /// The network.
    pub network: String,
    /// The network's identifier on the wire.
    pub vni: u32,
    /// The interface of this host that it is behind; none of the gateway.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dev: Option<String>,
    /// Whether it is a router.
    pub router: bool,
    /// How it is known.
    pub origin: NeighbourOrigin,
    /// Whether it is told.
    pub state: NeighbourState,
    /// Seconds since its owner was last heard; none of one that does not age.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<u64>,
}
