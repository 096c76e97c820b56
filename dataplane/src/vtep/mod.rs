//! Tunnels: putting the outer headers on and taking them off (RFC 7348), over IPv4 and IPv6.

pub mod decap;
pub mod encap;
pub mod entropy;

pub use decap::{Decapped, decap};
pub use encap::{Flow, OVERHEAD, OVERHEAD_V6, Template};
