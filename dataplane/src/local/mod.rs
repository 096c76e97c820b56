//! What is done for the endpoints of this host, before their frames go anywhere.

pub mod guard;
