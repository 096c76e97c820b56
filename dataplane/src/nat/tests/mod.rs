//! Tests of the whole translation: bytes in, bytes and exact tables out. The same ones for IPv4
//! and for IPv6, where the obligation is the same.

pub(super) mod v4;
mod v6;

use super::*;
