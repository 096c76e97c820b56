//! The forwarding engine of vxlane.
pub mod bridge;
pub mod clock;
pub mod ids;
pub mod port;
pub mod tables;
pub mod verdict;
pub mod vtep;
pub mod wire;
