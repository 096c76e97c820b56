//! Where the router has what belongs to each of the two internet protocols.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Router;
use crate::{
    ids::NetworkId,
    nat::Nat,
    tables::{Gateway, Network, Outside, Tables, WayOut, Ways},
    wire::Address,
};

/// A protocol that is routed.
pub trait Family: Address {
    /// The place of its translation.
    fn place(router: &mut Router) -> &mut Option<Box<Nat<Self>>>;

    /// Its translation, if there is one.
    fn nat(router: &mut Router) -> Option<&mut Nat<Self>> {
        Self::place(router).as_deref_mut()
    }

    /// The ways of its packets.
    fn ways(outside: &Outside) -> &Ways<Self>;

    /// The address of a gateway.
    fn own(gateway: &Gateway) -> Option<Self>;

    /// Whether an address is in the subnet of a gateway.
    fn is_near(gateway: &Gateway, address: Self) -> bool;

    /// How its packets leave a network that is not internal.
    fn way_out(network: &Network) -> WayOut;

    /// The network without translation that an address belongs to.
    fn routed_to(tables: &Tables, address: Self) -> Option<NetworkId>;

    /// Whether a router may forward to it.
    fn is_routable(self) -> bool;
}

impl Family for Ipv4Addr {
    fn place(router: &mut Router) -> &mut Option<Box<Nat>> {
        &mut router.nat
    }

    fn ways(outside: &Outside) -> &Ways<Self> {
        &outside.v4
    }

    fn own(gateway: &Gateway) -> Option<Self> {
        gateway.ipv4.map(|network| network.ip())
    }

    fn is_near(gateway: &Gateway, address: Self) -> bool {
        gateway.ipv4.is_some_and(|network| network.contains(address))
    }

    fn way_out(network: &Network) -> WayOut {
        if network.masquerade { WayOut::Masquerade } else { WayOut::None }
    }

    fn routed_to(_: &Tables, _: Self) -> Option<NetworkId> {
        None
    }

    /// RFC 1812 section 5.3.7, RFC 3927 section 2.7.
    fn is_routable(self) -> bool {
        let [first, ..] = self.octets();
        !(first == 0 || first >= 224 || self.is_loopback() || self.is_link_local())
    }
}

impl Family for Ipv6Addr {
    fn place(router: &mut Router) -> &mut Option<Box<Nat<Self>>> {
        &mut router.nat6
    }

    fn ways(outside: &Outside) -> &Ways<Self> {
        &outside.v6
    }

    fn own(gateway: &Gateway) -> Option<Self> {
        gateway.ipv6.map(|network| network.ip())
    }

    fn is_near(gateway: &Gateway, address: Self) -> bool {
        gateway.ipv6.is_some_and(|network| network.contains(address))
    }

    fn way_out(network: &Network) -> WayOut {
        network.way_out6
    }

    fn routed_to(tables: &Tables, address: Self) -> Option<NetworkId> {
        tables.routed_to(address)
    }

    /// RFC 4291 section 2.5: not nobody, this host, a link or a group, nor an address of IPv4 in
    /// disguise.
    fn is_routable(self) -> bool {
        let reserved = self.segments()[..5] == [0; 5];
        !(reserved || self.is_multicast() || self.is_unicast_link_local())
    }
}
