//! Our own end of every tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Our own end of every tunnel: of each family the address from which VTEPs of that family are
/// sent to, and to which they send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalVtep {
    /// Underlay address among VTEPs of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Underlay address among VTEPs of IPv6.
    pub v6: Option<Ipv6Addr>,
    /// UDP port: 4789 unless configured otherwise (RFC 7348 section 5).
    pub port: u16,
    /// Where over IPv6 a UDP checksum may be missing.
    pub zero_checksums: ZeroChecksums,
}

/// Where over IPv6 a UDP checksum may be zero, which says that there is none: nowhere, unless that
/// was asked for (RFC 6935 section 5), for this port alone and each way by itself (RFC 6936
/// section 4, items 3 and 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroChecksums {
    /// We send none.
    pub transmit: bool,
    /// We accept datagrams without one. Those that have one are checked all the same.
    pub receive: bool,
}

impl LocalVtep {
    /// A VTEP with these addresses, which wants and sends UDP checksums over IPv6.
    pub const fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, port: u16) -> Self {
        Self { v4, v6, port, zero_checksums: ZeroChecksums { transmit: false, receive: false } }
    }

    /// The address that VTEPs of the family of `peer` know us by.
    pub fn towards(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}
