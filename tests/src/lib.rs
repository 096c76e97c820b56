//! Namespaces, labs, peers and packet builders.
