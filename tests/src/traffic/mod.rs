//! Generators and sinks that know exactly what was sent and check exactly what arrives.

pub mod ping;
