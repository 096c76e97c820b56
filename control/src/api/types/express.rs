//! What the API says of the express lane.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::ExpressChoice;

/// `GET /v1/express`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpressStatus {
    /// What was asked for.
    pub choice: ExpressChoice,
    /// Whether there is an express lane.
    pub open: bool,
    /// Why there is none, if there is none.
    pub why: Option<String>,
    /// How its programs are attached where not many are at once: `tcx` or `clsact`.
    pub attached: Option<String>,
    /// The interfaces, the uplink first.
    pub devices: Vec<Device>,
    /// Flows that each worker has put into the maps, and may.
    pub workers: Vec<Share>,
    /// What became of the frames that the programs saw.
    pub frames: Frames,
    /// The flows that are good now, the first 10,000 of them.
    pub flows: Vec<Flow>,
    /// The sessions of address translation that are good now, each way by itself, the first 10,000
    /// of them.
    pub sessions: Vec<ExpressSession>,
}

/// An interface, and whether its flows may take the express lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// The device.
    pub interface: String,
    /// The network of an endpoint.
    pub network: Option<String>,
    /// The way that its established flows may take.
    pub lane: super::Lane,
    /// Why that is not the express lane, if it is not.
    pub why: Option<String>,
    /// How the lane's program is attached to it, if it is: `tcx` or `clsact`.
    pub attached: Option<String>,
}

/// One worker's share of the maps of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// From 0.
    pub worker: u16,
    /// Flows in the maps now, also those that have ended and are not swept yet.
    pub flows: u64,
    /// As many as there may be; one network may have half of them.
    pub limit: u64,
    /// Put into the maps since the start, also again.
    pub placed: u64,
    /// Left to the worker for want of room.
    pub refused: u64,
    /// Taken out, because they had ended.
    pub removed: u64,
}

/// What became of the frames that the programs saw, before any segmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Frames {
    /// Took this lane.
    pub hits: u64,
    /// To a worker: no flow, or nothing for this lane.
    pub misses: u64,
    /// To a worker, to confirm a flow.
    pub confirms: u64,
    /// To a worker: the flow was no longer good.
    pub stale: u64,
    /// Left to the host.
    pub passed: u64,
    /// From workers.
    pub sent: u64,
    /// From workers, for a port that is gone: dropped.
    pub no_exit: u64,
    /// The kernel had no memory for a tag: dropped.
    pub no_tag: u64,
    /// The kernel had no memory for headers: dropped.
    pub no_headers: u64,
}

/// A flow that is repeated without asking a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// Its network.
    pub network: String,
    /// The device where its frames come in.
    pub from: String,
    /// The VTEP that they come from, if they come by a tunnel.
    #[schema(value_type = Option<String>)]
    pub src_vtep: Option<IpAddr>,
    /// The station that sends them.
    pub source: String,
    /// The address it sends from, if they come from an endpoint.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The station that they are for.
    pub destination: String,
    /// The device where they leave.
    pub to: String,
    /// The VTEP that they go to, if they leave by a tunnel.
    #[schema(value_type = Option<String>)]
    pub dst_vtep: Option<IpAddr>,
    /// The worker that has decided.
    pub worker: u16,
    /// Seconds until a worker is asked again.
    pub expires: u64,
    /// Seconds until one of the two stations is forgotten unless it is heard of again; so long
    /// does the flow go on without a daemon.
    pub ages: u64,
}

/// A session of address translation whose packets one way are translated without asking a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpressSession {
    /// The network of its endpoint.
    pub network: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The device where its packets come in.
    pub from: String,
    /// Their source.
    #[schema(value_type = String)]
    pub source: SocketAddr,
    /// Their destination.
    #[schema(value_type = String)]
    pub destination: SocketAddr,
    /// The device where they leave.
    pub to: String,
    /// What their source becomes, if they leave the overlay.
    #[schema(value_type = Option<String>)]
    pub new_source: Option<SocketAddr>,
    /// What their destination becomes, if they come into the overlay.
    #[schema(value_type = Option<String>)]
    pub new_destination: Option<SocketAddr>,
    /// The worker that has it.
    pub worker: u16,
    /// Seconds until the worker is asked again.
    pub expires: u64,
    /// Seconds until it ends, or its endpoint is forgotten, unless it is heard of again; so long
    /// does it go on without a daemon.
    pub ages: u64,
}

/// `DELETE /v1/express/flows`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpressFlushed {
    /// Flows that were good until then.
    pub flows: usize,
    /// Sessions of address translation that were, each way by itself. They go on, by way of workers.
    pub sessions: usize,
}
