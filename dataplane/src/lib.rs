//! The forwarding engine of vxlane.
pub mod attach;
pub mod ids;
pub mod link;
pub mod memlock;
pub mod port;
