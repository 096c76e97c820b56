//! HTTP/1.1 and JSON on a Unix socket, under `/v1/`.

pub mod client;
pub mod listener;
mod refusal;
mod routes;
pub mod server;
pub mod types;
