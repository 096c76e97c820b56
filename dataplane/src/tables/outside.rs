//! What lies beyond the overlay: the host's own IPv4 routes and neighbours, as of one moment.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use foldhash::fast::RandomState;
use ipnetwork::Ipv4Network;

use crate::{ids::PortId, wire::MacAddr};

/// The way to everybody who is in no network of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The port that packets leave by.
    pub uplink: PortId,
    /// Its own MAC address.
    pub mac: MacAddr,
    /// By prefix length, the longest first, then by prefix.
    routes: Vec<(u8, HashMap<u32, Route, RandomState>)>,
    neighbours: HashMap<Ipv4Addr, MacAddr, RandomState>,
}

/// Where the host sends packets for some prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By the uplink.
    Uplink {
        /// To this router, or to whom they are addressed to.
        gateway: Option<Ipv4Addr>,
        /// Longest packet.
        mtu: u16,
    },
    /// By another device, or to the host itself.
    Elsewhere,
    /// Nowhere, on purpose.
    Unreachable,
}

/// The first step of a way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who takes the packet.
    pub neighbour: Ipv4Addr,
    /// Longest packet on the way, as far as the host knows.
    pub mtu: u16,
}

/// Why there is no way out for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHop {
    /// The host has no route, or one that says so.
    Unreachable,
    /// Its route leads through another device.
    Elsewhere,
}

impl Outside {
    /// An outside behind `uplink`, whose own address is `mac`. Of two routes for one prefix the
    /// first counts.
    pub fn new(
        uplink: PortId,
        mac: MacAddr,
        routes: impl IntoIterator<Item = (Ipv4Network, Route)>,
        neighbours: impl IntoIterator<Item = (Ipv4Addr, MacAddr)>,
    ) -> Self {
        let mut lengths: BTreeMap<u8, HashMap<u32, Route, RandomState>> = BTreeMap::new();
        for (prefix, route) in routes {
            let prefixes = lengths.entry(prefix.prefix()).or_default();
            prefixes.entry(prefix.network().to_bits()).or_insert(route);
        }
        let routes = lengths.into_iter().rev().collect();
        Self { uplink, mac, routes, neighbours: neighbours.into_iter().collect() }
    }

    /// The first step towards `destination`: that of the longest prefix it is in.
    ///
    /// # Errors
    /// [`NoHop`] says why there is none.
    #[inline]
    pub fn hop(&self, destination: Ipv4Addr) -> Result<Hop, NoHop> {
        let found = self.routes.iter().find_map(|(length, prefixes)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
            prefixes.get(&(destination.to_bits() & mask))
        });
        match found {
            Some(&Route::Uplink { gateway, mtu }) => Ok(Hop { neighbour: gateway.unwrap_or(destination), mtu }),
            Some(Route::Elsewhere) => Err(NoHop::Elsewhere),
            Some(Route::Unreachable) | None => Err(NoHop::Unreachable),
        }
    }

    /// The MAC address of a neighbour, if the host knows it.
    #[inline]
    pub fn neighbour(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.neighbours.get(&address).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_decides_and_the_first_of_two_equal_ones() {
        let via = |gateway: &str| Route::Uplink { gateway: Some(address(gateway)), mtu: 1500 };
        let routes = [
            ("0.0.0.0/0", via("192.0.2.254")),
            ("0.0.0.0/0", via("192.0.2.253")),
            ("192.0.2.0/24", Route::Uplink { gateway: None, mtu: 1400 }),
            ("203.0.113.0/24", Route::Elsewhere),
            ("203.0.113.128/25", Route::Unreachable),
            ("203.0.113.129/32", via("192.0.2.9")),
        ];
        let routes = routes.map(|(prefix, route)| (prefix.parse().unwrap(), route));
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let outside = Outside::new(PortId(0), mac, routes, [(address("192.0.2.254"), mac)]);
        let hop = |neighbour: &str, mtu| Ok(Hop { neighbour: address(neighbour), mtu });
        for (destination, expected) in [
            ("8.8.8.8", hop("192.0.2.254", 1500)),
            ("192.0.2.7", hop("192.0.2.7", 1400)),
            ("203.0.113.1", Err(NoHop::Elsewhere)),
            ("203.0.113.128", Err(NoHop::Unreachable)),
            ("203.0.113.129", hop("192.0.2.9", 1500)),
        ] {
            assert_eq!(outside.hop(address(destination)), expected, "{destination}");
        }
        assert_eq!(outside.neighbour(address("192.0.2.254")), Some(mac));
        assert_eq!(outside.neighbour(address("192.0.2.1")), None);
        assert_eq!(Outside::new(PortId(0), mac, [], []).hop(address("8.8.8.8")), Err(NoHop::Unreachable));
    }
}
