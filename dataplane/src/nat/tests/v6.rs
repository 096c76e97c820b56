//! Translation of IPv6.

#![allow(clippy::duplicate_mod, reason = "the same obligations hold for both protocols")]

#[path = "limits.rs"]
mod limits;
#[path = "packets.rs"]
mod packets;
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
#[path = "rfc8200.rs"]
mod rfc8200;
#[path = "rig.rs"]
mod rig;

use std::net::Ipv6Addr;

use super::*;
use packets::*;
use rig::*;

/// An address.
type A = Ipv6Addr;

/// Bytes of a header.
const UP: usize = 40;
/// The cast: an endpoint of the network, what stands for it, whom it talks to, and somebody on the way.
const INSIDE: A = inside(2);
const OUTSIDE: A = outside(1);
const SERVER: A = server(7);
const ROUTER: A = A::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 9);
/// Unreachable, too long, time exceeded, and parameter problem: type and code of each.
const UNREACHABLE: (u8, u8) = (1, 3);
const CLOSED: (u8, u8) = (1, 4);
const TOO_LONG: (u8, u8) = (2, 0);
const EXPIRED: (u8, u8) = (3, 0);
const PROBLEM: (u8, u8) = (4, 1);

/// Inside host number `host`.
const fn inside(host: u8) -> A {
    A::new(0xfd00, 0, 0, 0, 0, 0, 0, host as u16)
}

/// Address number `host` of the pool.
const fn outside(host: u8) -> A {
    A::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host as u16)
}

/// Server number `host`.
const fn server(host: u8) -> A {
    A::new(0x2001, 0xdb8, 0x51, 0x100, 0, 0, 0, host as u16)
}
