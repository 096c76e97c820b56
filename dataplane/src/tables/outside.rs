//! What lies beyond the overlay: the host's own routes and neighbours, as of one moment.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
};

use foldhash::fast::RandomState;
use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::{
    ids::PortId,
    wire::{Address, MacAddr},
};

/// The way to everybody who is in no network of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The port that packets leave by.
    pub uplink: PortId,
    /// Its own MAC address.
    pub mac: MacAddr,
    /// Over IPv4.
    pub v4: Ways<Ipv4Addr>,
    /// Over IPv6.
    pub v6: Ways<Ipv6Addr>,
}

/// The way to every address of one internet protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways<A: Address> {
    routes: Prefixes<A, Route<A>>,
    neighbours: HashMap<A, MacAddr, RandomState>,
}

/// Where the host sends packets for some prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<A = Ipv4Addr> {
    /// By the uplink.
    Uplink {
        /// To this router, or to whom they are addressed to.
        gateway: Option<A>,
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
pub struct Hop<A = Ipv4Addr> {
    /// Who takes the packet.
    pub neighbour: A,
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
    /// An outside behind `uplink`, whose own address is `mac`, which nobody of IPv6 is in. Of two
    /// routes for one prefix the first counts.
    pub fn new(
        uplink: PortId,
        mac: MacAddr,
        routes: impl IntoIterator<Item = (Ipv4Network, Route)>,
        neighbours: impl IntoIterator<Item = (Ipv4Addr, MacAddr)>,
    ) -> Self {
        let routes = routes.into_iter().map(|(prefix, route)| (prefix.network(), prefix.prefix(), route));
        Self { uplink, mac, v4: Ways::new(routes, neighbours), v6: Ways::new([], []) }
    }

    /// The same with these routes and neighbours of IPv6.
    #[must_use]
    pub fn with_v6(
        self,
        routes: impl IntoIterator<Item = (Ipv6Network, Route<Ipv6Addr>)>,
        neighbours: impl IntoIterator<Item = (Ipv6Addr, MacAddr)>,
    ) -> Self {
        let routes = routes.into_iter().map(|(prefix, route)| (prefix.network(), prefix.prefix(), route));
        Self { v6: Ways::new(routes, neighbours), ..self }
    }
}

impl<A: Address> Ways<A> {
    fn new(
        routes: impl IntoIterator<Item = (A, u8, Route<A>)>,
        neighbours: impl IntoIterator<Item = (A, MacAddr)>,
    ) -> Self {
        Self { routes: Prefixes::new(routes), neighbours: neighbours.into_iter().collect() }
    }

    /// The first step towards `destination`: that of the longest prefix it is in.
    ///
    /// # Errors
    /// [`NoHop`] says why there is none.
    #[inline]
    pub fn hop(&self, destination: A) -> Result<Hop<A>, NoHop> {
        match self.routes.longest(destination) {
            Some(&Route::Uplink { gateway, mtu }) => Ok(Hop { neighbour: gateway.unwrap_or(destination), mtu }),
            Some(Route::Elsewhere) => Err(NoHop::Elsewhere),
            Some(Route::Unreachable) | None => Err(NoHop::Unreachable),
        }
    }

    /// The MAC address of a neighbour, if the host knows it.
    #[inline]
    pub fn neighbour(&self, address: A) -> Option<MacAddr> {
        self.neighbours.get(&address).copied()
    }
}

/// Something for each of some prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes<A: Address, T> {
    /// By length, the longest first, then by the bits of the prefix.
    lengths: Vec<(u8, ByBits<A, T>)>,
}

/// By the bits of a prefix.
type ByBits<A, T> = HashMap<<A as Address>::Bits, T, RandomState>;

impl<A: Address, T> Default for Prefixes<A, T> {
    fn default() -> Self {
        Self { lengths: Vec::new() }
    }
}

impl<A: Address, T> Prefixes<A, T> {
    /// Of two for one prefix the first counts.
    pub fn new(all: impl IntoIterator<Item = (A, u8, T)>) -> Self {
        let mut lengths: BTreeMap<u8, ByBits<A, T>> = BTreeMap::new();
        for (prefix, length, value) in all {
            lengths.entry(length).or_default().entry(prefix.masked(length)).or_insert(value);
        }
        Self { lengths: lengths.into_iter().rev().collect() }
    }

    /// What belongs to the longest prefix that `address` is in.
    #[inline]
    pub fn longest(&self, address: A) -> Option<&T> {
        self.lengths.iter().find_map(|(length, prefixes)| prefixes.get(&address.masked(*length)))
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
        let outside = Outside::new(PortId(0), mac, routes, [(address("192.0.2.254"), mac)]).v4;
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
        assert_eq!(Outside::new(PortId(0), mac, [], []).v4.hop(address("8.8.8.8")), Err(NoHop::Unreachable));
    }

    #[test]
    fn routes_of_ipv6_are_found_alike() {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let router = address("fe80::1");
        let routes = [
            ("::/0", Route::Uplink { gateway: Some(router), mtu: 1500 }),
            ("2001:db8::/64", Route::Uplink { gateway: None, mtu: 1400 }),
            ("2001:db8::1/128", Route::Elsewhere),
        ];
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let outside = Outside::new(PortId(0), mac, [], []);
        let outside = outside.with_v6(routes.map(|(prefix, route)| (prefix.parse().unwrap(), route)), [(router, mac)]);
        assert_eq!(outside.v6.hop(address("2001:db8:1::7")), Ok(Hop { neighbour: router, mtu: 1500 }));
        let near = address("2001:db8::7");
        assert_eq!(outside.v6.hop(near), Ok(Hop { neighbour: near, mtu: 1400 }));
        assert_eq!(outside.v6.hop(address("2001:db8::1")), Err(NoHop::Elsewhere));
        assert_eq!(outside.v6.neighbour(router), Some(mac));
    }
}
