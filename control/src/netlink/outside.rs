//! The host's IPv4 routes, and the neighbours on one of its links.

use std::{io, net::Ipv4Addr};

use ipnetwork::Ipv4Network;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType},
};
use vxlane_dataplane::{tables::Route, wire::MacAddr};

use super::next_hop::{is_valid, link_layer_address};

/// The table of the host's own addresses (`RT_TABLE_LOCAL`).
const LOCAL: u32 = 255;

/// Where the host sends packets, as its tables `local` and `main` say: by the interface `uplink`,
/// whose longest packet is `mtu`, or elsewhere. Of equal prefixes the one the kernel would take
/// comes first. Rules (`ip rule`) and other tables are not looked at.
///
/// # Errors
/// What the kernel answered to `RTM_GETROUTE`.
pub fn routes(uplink: u32, mtu: u16) -> io::Result<Vec<(Ipv4Network, Route)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let answers = super::ask(Message::GetRoute(question), NLM_F_DUMP)?;
    let mut found: Vec<(u32, (Ipv4Network, Route))> = answers
        .iter()
        .filter_map(|answer| match answer {
            Message::NewRoute(route) => read(route, uplink, mtu),
            _ => None,
        })
        .collect();
    found.sort_by_key(|&(rank, _)| rank);
    Ok(found.into_iter().map(|(_, route)| route).collect())
}

/// A destination of the host that shares addresses with `subnet`: one of a route that is no
/// default route, or an address of its own.
///
/// # Errors
/// What the kernel answered to `RTM_GETROUTE`.
pub fn overlapping(subnet: Ipv4Network) -> io::Result<Option<Ipv4Network>> {
    let known = routes(0, 0)?.into_iter().map(|(prefix, _)| prefix);
    let groups = Ipv4Network::new(Ipv4Addr::new(224, 0, 0, 0), 3).map_err(io::Error::other)?;
    Ok(known.filter(|prefix| prefix.prefix() > 0 && !prefix.overlaps(groups)).find(|prefix| prefix.overlaps(subnet)))
}

/// The neighbours on the link `uplink` whose MAC address the kernel would itself use.
///
/// # Errors
/// What the kernel answered to `RTM_GETNEIGH`.
pub fn neighbours(uplink: u32) -> io::Result<Vec<(Ipv4Addr, MacAddr)>> {
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Inet;
    let answers = super::ask(Message::GetNeighbour(question), NLM_F_DUMP)?;
    let known = answers.iter().filter_map(|answer| match answer {
        Message::NewNeighbour(entry) if entry.header.ifindex == uplink && is_valid(entry.header.state) => {
            Some((address(entry)?, link_layer_address(entry)?))
        }
        _ => None,
    });
    Ok(known.collect())
}

fn address(entry: &NeighbourMessage) -> Option<Ipv4Addr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

/// What `message` says, and its rank among routes of its prefix: lower ones come first.
fn read(message: &RouteMessage, uplink: u32, mtu: u16) -> Option<(u32, (Ipv4Network, Route))> {
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
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    let prefix = Ipv4Network::new(prefix.unwrap_or(Ipv4Addr::UNSPECIFIED), header.destination_prefix_length).ok()?;
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
fn unicast(message: &RouteMessage, uplink: u32, mtu: u16) -> Route {
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

fn router(attributes: &[RouteAttribute]) -> Option<Ipv4Addr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(router)) => Some(*router),
        _ => None,
    })
}
