//! The forwarding engine of vxlane.
pub mod ids;
pub mod port;
