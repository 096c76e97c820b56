//! Generators and sinks that know exactly what was sent and check exactly what arrives.

mod batch;
pub mod crr;
pub mod offload;
pub mod pace;
pub mod packets;
pub mod pin;
pub mod ping;
pub mod raw;
pub mod rr;
mod sink;
pub mod tcp;
pub mod udp;
