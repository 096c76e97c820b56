//! Rigs, generators and reports that measure vxlane beside its peers.
//!
//! [`run`](run::run) measures every [`Peer`](peer::Peer) on a [`Bed`](bed::Bed) of its own, in
//! turns, and collects single figures in [`Results`](results::Results); tables, the HTML report
//! and comparisons are made from those alone. How to run and how to read it: `bench/README.md`.

pub mod bed;
pub mod builds;
pub mod compare;
pub mod counting;
pub mod drops;
pub mod dry;
pub mod figures;
pub mod html;
pub mod instructions;
pub mod load;
pub mod machine;
pub mod measure;
pub mod null;
pub mod peer;
pub mod pktgen;
mod plot;
mod progress;
pub mod promises;
pub mod results;
pub mod run;
pub mod search;
pub mod stats;
pub mod table;
