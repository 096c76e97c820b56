//! The forwarding engine of vxlane: frames in, decisions, frames out.
//!
//! A packet's journey, in the order in which to read it:
//!
//! 1. [`attach`] puts the XDP program `steer` on each interface; it sends VXLAN for us, and
//!    everything from an endpoint, into the receive ring of an AF_XDP socket.
//! 2. [`port::xdp`] takes frames off that ring, a burst at a time.
//! 3. [`worker`], a pinned thread started by [`engine`], breathes: inhale, decide, carry out.
//! 4. [`pipeline`] decides: [`vtep::decap()`] takes a tunnel off, [`bridge`] learns and looks up.
//!    Between stations that are known, `shortcut` comes to the same in fewer steps.
//! 5. What came of it is a [`verdict::Verdict`], and `exits` carries it out: [`vtep::encap`] puts the
//!    tunnel on, and the frame is written into a transmit frame of the port where it leaves.
//!
//! What an endpoint sends to its gateway takes another turn at 4: [`router`] sends it out of the
//! overlay through [`nat`], and brings the answers back.
//!
//! Control decides what the networks are and says so in [`tables`], snapshots that workers swap
//! between bursts. [`stats`] has the counters and the law that they obey.

pub mod attach;
pub mod bridge;
pub mod clock;
pub mod engine;
pub mod events;
mod exits;
pub mod express;
pub mod handover;
pub mod ids;
pub mod link;
pub mod local;
pub mod memlock;
mod memory;
pub mod nat;
pub mod neigh;
pub mod pipeline;
pub mod port;
pub mod router;
mod shortcut;
pub mod stats;
pub mod tables;
pub mod verdict;
pub mod vtep;
pub mod wire;
pub mod worker;
