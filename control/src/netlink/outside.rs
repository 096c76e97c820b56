//! The host's routes, and the neighbours on one of its links.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType},
};
use vxlane_dataplane::{
    tables::Route,
    wire::{Address, MacAddr},
};

use super::next_hop::{is_valid, link_layer_address};

/// The table of the host's own addresses (`RT_TABLE_LOCAL`).
const LOCAL: u32 = 255;

/// An address of a protocol that the kernel has routes of.
pub trait Routed: Address {
    /// A prefix of such addresses.
    type Prefix: Copy + Eq + fmt::Debug;

    /// The one that `address` is, if it is one.
    fn of(address: IpAddr) -> Option<Self>;

    /// Its first `length` bits; `None` if it has fewer.
    fn prefix(self, length: u8) -> Option<Self::Prefix>;
}

impl Routed for Ipv4Addr {
    type Prefix = Ipv4Network;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn prefix(self, length: u8) -> Option<Ipv4Network> {
        Ipv4Network::new(self, length).ok()
    }
}

impl Routed for Ipv6Addr {
    type Prefix = Ipv6Network;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn prefix(self, length: u8) -> Option<Ipv6Network> {
        Ipv6Network::new(self, length).ok()
    }
}

/// Where the host sends packets, as its tables `local` and `main` say: by the interface `uplink`,
/// whose longest packet is `mtu`, or elsewhere. Of equal prefixes the one the kernel would take
/// comes first. Rules (`ip rule`) and other tables are not looked at.
///
/// # Errors
/// What the kernel answered to `RTM_GETROUTE`.
pub fn routes<A: Routed>(uplink: u32, mtu: u16) -> io::Result<Vec<(A::Prefix, Route<A>)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = super::family(A::UNSPECIFIED.into());
    let answers = super::ask(Message::GetRoute(question), NLM_F_DUMP)?;
    let mut found: Vec<Ranked<A>> = answers
        .iter()
        .filter_map(|answer| match answer {
            Message::NewRoute(route) => read(route, uplink, mtu),
            _ => None,
        })
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    Ok(found.into_iter().map(|(_, route)| route).collect())
}

/// A destination of the host that shares addresses with `subnet`: one of a route that is no
/// default route, or an address of its own.
///
/// # Errors
/// What the kernel answered to `RTM_GETROUTE`.
pub fn overlapping(subnet: IpNetwork) -> io::Result<Option<IpNetwork>> {
    let known: Vec<IpNetwork> = match subnet {
        IpNetwork::V4(_) => routes::<Ipv4Addr>(0, 0)?.into_iter().map(|(prefix, _)| prefix.into()).collect(),
        IpNetwork::V6(_) => routes::<Ipv6Addr>(0, 0)?.into_iter().map(|(prefix, _)| prefix.into()).collect(),
    };
    let overlaps = |prefix: &IpNetwork| prefix.contains(subnet.network()) || subnet.contains(prefix.network());
    Ok(known.into_iter().find(|prefix| prefix.prefix() > 0 && !is_of_groups(prefix) && overlaps(prefix)))
}

/// Whether `prefix` has addresses that no host can have: those of groups, and beyond.
fn is_of_groups(prefix: &IpNetwork) -> bool {
    match prefix.network() {
        IpAddr::V4(address) => address.octets()[0] >= 224,
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// The neighbours on the link `uplink` whose MAC address the kernel would itself use.
///
/// # Errors
/// What the kernel answered to `RTM_GETNEIGH`.
pub fn neighbours<A: Routed>(uplink: u32) -> io::Result<Vec<(A, MacAddr)>> {
    let mut question = NeighbourMessage::default();
    question.header.family = super::family(A::UNSPECIFIED.into());
    let answers = super::ask(Message::GetNeighbour(question), NLM_F_DUMP)?;
    let known = answers.iter().filter_map(|answer| match answer {
        Message::NewNeighbour(entry) if entry.header.ifindex == uplink && is_valid(entry.header.state) => {
            Some((address(entry)?, link_layer_address(entry)?))
        }
        _ => None,
    });
    Ok(known.collect())
}

fn address<A: Routed>(entry: &NeighbourMessage) -> Option<A> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => A::of((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => A::of((*address).into()),
        _ => None,
    })
}

/// A rank, and the route of a prefix.
type Ranked<A> = (u32, (<A as Routed>::Prefix, Route<A>));

/// What `message` says, and its rank among routes of its prefix: lower ones come first.
fn read<A: Routed>(message: &RouteMessage, uplink: u32, mtu: u16) -> Option<Ranked<A>> {
    let header = &message.header;
    let table = table(message);
    let rank = match table {
        LOCAL => 0,
        main if main == u32::from(RouteHeader::RT_TABLE_MAIN) => priority(message).saturating_add(1),
        _ => return None,
    };
    let route = match header.kind {
        RouteType::Unicast => unicast(message, uplink, mtu),
        RouteType::Local | RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => Route::Elsewhere,
        _ => Route::Unreachable,
    };
    let prefix = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => named(address),
        _ => None,
    });
    let prefix = prefix.unwrap_or(A::UNSPECIFIED).prefix(header.destination_prefix_length)?;
    Some((rank, (prefix, route)))
}

fn table(message: &RouteMessage) -> u32 {
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or_else(|| u32::from(message.header.table))
}

fn priority(message: &RouteMessage) -> u32 {
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    named.unwrap_or(0)
}

/// A route with several next hops leads by the first of them that is on the uplink.
fn unicast<A: Routed>(message: &RouteMessage, uplink: u32, mtu: u16) -> Route<A> {
    let mut mtu = mtu;
    let mut several = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Metrics(metrics) => {
                let own = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok(),
                    _ => None,
                });
                mtu = mtu.min(own.unwrap_or(mtu));
            }
            RouteAttribute::MultiPath(hops) => {
                several = hops.iter().find(|hop| hop.interface_index == uplink).map(|hop| &hop.attributes);
            }
            _ => {}
        }
    }
    match several {
        Some(attributes) => Route::Uplink { gateway: router(attributes), mtu },
        None if interface(message) == Some(uplink) => Route::Uplink { gateway: router(&message.attributes), mtu },
        None => Route::Elsewhere,
    }
}

fn interface(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn router<A: Routed>(attributes: &[RouteAttribute]) -> Option<A> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(router) => named(router),
        _ => None,
    })
}

/// The address that an attribute names.
fn named<A: Routed>(address: &RouteAddress) -> Option<A> {
    match address {
        RouteAddress::Inet(address) => A::of((*address).into()),
        RouteAddress::Inet6(address) => A::of((*address).into()),
        _ => None,
    }
}
