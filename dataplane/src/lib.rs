//! The forwarding engine of vxlane.
pub mod attach;
pub mod bridge;
pub mod clock;
pub mod engine;
mod exits;
pub mod handover;
pub mod ids;
pub mod link;
pub mod memlock;
pub mod pipeline;
pub mod port;
pub mod stats;
pub mod tables;
pub mod verdict;
pub mod vtep;
pub mod wire;
pub mod worker;
