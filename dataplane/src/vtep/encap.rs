//! Puts the tunnel on: the outer headers of an overlay frame, from a template.

mod v4;
mod v6;

use std::net::IpAddr;

pub use v4::HeadersV4;
pub(super) use v4::Outer as OuterV4;
pub use v6::HeadersV6;
pub(super) use v6::Outer as OuterV6;

use crate::{
    tables::LocalVtep,
    wire::{Ecn, MacAddr, Vni},
};

/// Bytes that the tunnel adds to an overlay frame over IPv4: Ethernet, IPv4, UDP, VXLAN.
pub const OVERHEAD: usize = HeadersV4::LEN;
/// Bytes that the tunnel adds to an overlay frame over IPv6.
pub const OVERHEAD_V6: usize = HeadersV6::LEN;

/// What the outer headers repeat of the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Outer UDP source port, from [`entropy`](super::entropy).
    pub source_port: u16,
    /// Outer congestion mark: the inner one (RFC 6040 section 4.1, normal mode).
    pub ecn: Ecn,
}

impl Default for Flow {
    fn default() -> Self {
        Self { source_port: super::entropy::FIRST_PORT, ecn: Ecn::NotEct }
    }
}

/// Outer headers of one family, complete but for what each packet decides.
pub trait Headers {
    /// Bytes that they have.
    const LEN: usize;

    /// Writes the headers of `overlay` to `headers`, which has [`LEN`](Self::LEN) bytes.
    ///
    /// `overlay` must leave room for the headers in 16 bits, which every frame that came
    /// through a port does; a longer one would get a wrong length, not a panic.
    fn write(&self, headers: &mut [u8], vni: Vni, flow: Flow, overlay: &[u8]);
}

/// The outer headers towards one VTEP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// Over IPv4.
    V4(HeadersV4),
    /// Over IPv6.
    V6(HeadersV6),
}

impl Template {
    /// Headers from `local` to the VTEP at `remote`, whose next hop on the link is `next_hop`.
    /// `None` if `local` has no address of that family.
    pub fn new(local: LocalVtep, source: MacAddr, remote: IpAddr, next_hop: MacAddr) -> Option<Self> {
        match remote {
            IpAddr::V4(remote) => {
                local.v4.map(|address| Self::V4(HeadersV4::new([address, remote], local.port, source, next_hop)))
            }
            IpAddr::V6(remote) => {
                local.v6.map(|address| Self::V6(HeadersV6::new([address, remote], &local, source, next_hop)))
            }
        }
    }

    /// `overlay` with its headers in front: an underlay frame of its own.
    pub fn wrap(&self, vni: Vni, flow: Flow, overlay: &[u8]) -> Vec<u8> {
        match self {
            Self::V4(headers) => wrap(headers, vni, flow, overlay),
            Self::V6(headers) => wrap(headers, vni, flow, overlay),
        }
    }
}

fn wrap<H: Headers>(headers: &H, vni: Vni, flow: Flow, overlay: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; H::LEN];
    headers.write(&mut frame, vni, flow, overlay);
    frame.extend_from_slice(overlay);
    frame
}
