//! Namespaces, labs, peers and packet builders.
pub mod sim;
