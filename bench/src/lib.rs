//! Rigs, generators and reports that measure vxlane beside its peers.

pub mod dry;
