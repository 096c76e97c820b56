//! Translation of IPv4.

#![allow(clippy::duplicate_mod, reason = "the same obligations hold for both protocols")]

#[path = "limits.rs"]
mod limits;
#[path = "packets.rs"]
pub(in crate::nat) mod packets;
#[path = "properties.rs"]
mod properties;
#[path = "recall.rs"]
mod recall;
#[path = "rfc4787.rs"]
mod rfc4787;
#[path = "rfc5382.rs"]
mod rfc5382;
#[path = "rfc5508.rs"]
mod rfc5508;
#[path = "rfc6864.rs"]
mod rfc6864;
#[path = "rig.rs"]
mod rig;

use std::net::Ipv4Addr;

use super::*;
use packets::*;
use rig::*;

/// An address.
type A = Ipv4Addr;

/// Bytes of a header.
const UP: usize = 20;
/// The cast: an endpoint of the network, what stands for it, whom it talks to, and somebody on the way.
pub(in crate::nat) const INSIDE: A = inside(2);
pub(in crate::nat) const OUTSIDE: A = outside(1);
pub(in crate::nat) const SERVER: A = server(7);
pub(in crate::nat) const ROUTER: A = A::new(203, 0, 113, 9);
/// Unreachable, too long, time exceeded, and parameter problem: type and code of each.
const UNREACHABLE: (u8, u8) = (3, 1);
const CLOSED: (u8, u8) = (3, 3);
const TOO_LONG: (u8, u8) = (3, 4);
const EXPIRED: (u8, u8) = (11, 0);
const PROBLEM: (u8, u8) = (12, 0);

/// Inside host number `host`.
const fn inside(host: u8) -> A {
    A::new(10, 0, 0, host)
}

/// Address number `host` of the pool.
const fn outside(host: u8) -> A {
    A::new(192, 0, 2, host)
}

/// Server number `host`.
const fn server(host: u8) -> A {
    A::new(198, 51, 100, host)
}
