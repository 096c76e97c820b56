//! The neighbour through which a VTEP is reached, and its MAC address.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use nix::errno::Errno;
use vxlane_dataplane::wire::MacAddr;

/// How frames for an underlay address leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// No route leads there through our uplink.
    Unreachable,
    /// By this neighbour on the link.
    Via {
        /// Its address: that of a router, or the destination itself.
        neighbour: IpAddr,
        /// Its MAC address, if the kernel has one it would itself use.
        mac: Option<MacAddr>,
        /// Whether the kernel should look whether it is still there.
        stale: bool,
    },
}

impl NextHop {
    /// The MAC address to send to.
    pub fn mac(&self) -> Option<MacAddr> {
        match self {
            Self::Unreachable => None,
            Self::Via { mac, .. } => *mac,
        }
    }

    /// Whether there is a way, and only the neighbour's MAC address is missing.
    pub fn is_awaited(&self) -> bool {
        matches!(self, Self::Via { mac: None, .. })
    }
}

/// How frames for `destination` leave by interface `uplink`.
///
/// # Errors
/// What the kernel answered to `RTM_GETROUTE` or `RTM_GETNEIGH`.
pub fn next_hop(uplink: u32, destination: IpAddr) -> io::Result<NextHop> {
    let Some(neighbour) = route(uplink, destination)? else { return Ok(NextHop::Unreachable) };
    on_link(uplink, neighbour)
}

/// How frames for `neighbour`, which is on the link of interface `uplink`, leave.
///
/// # Errors
/// What the kernel answered to `RTM_GETNEIGH`.
pub fn on_link(uplink: u32, neighbour: IpAddr) -> io::Result<NextHop> {
    let entry = neighbour_entry(uplink, neighbour)?;
    let state = entry.as_ref().map_or(NeighbourState::None, |entry| entry.header.state);
    let mac = entry.as_ref().filter(|_| is_valid(state)).and_then(link_layer_address);
    Ok(NextHop::Via { neighbour, mac, stale: wants_asking(state) })
}

/// Has the kernel ask for the MAC address of `neighbour`, as if it had a packet for it.
///
/// # Errors
/// What the kernel answered to `RTM_NEWNEIGH`.
pub fn solicit(uplink: u32, neighbour: IpAddr) -> io::Result<()> {
    let mut entry = entry_for(uplink, neighbour);
    entry.header.flags = NeighbourFlags::Use;
    super::tell(Message::NewNeighbour(entry))
}

/// The neighbour that leads to `destination`, if it is reached by `uplink`.
fn route(uplink: u32, destination: IpAddr) -> io::Result<Option<IpAddr>> {
    let mut question = RouteMessage::default();
    let (family, bits, address) = match destination {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    (question.header.address_family, question.header.destination_prefix_length) = (family, bits);
    question.attributes.push(RouteAttribute::Destination(address));
    let answers = match super::ask(Message::GetRoute(question), 0) {
        Err(error) if is_no_route(&error) => return Ok(None),
        answers => answers?,
    };
    Ok(answers.iter().find_map(|answer| match answer {
        Message::NewRoute(route) if route.header.kind == RouteType::Unicast => gateway(route, uplink, destination),
        _ => None,
    }))
}

fn gateway(route: &RouteMessage, uplink: u32, destination: IpAddr) -> Option<IpAddr> {
    let mut neighbour = Some(destination);
    let mut interface = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => neighbour = Some(IpAddr::V4(*gateway)),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => neighbour = Some(IpAddr::V6(*gateway)),
            // An IPv6 router for IPv4 packets.
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => neighbour = None,
            _ => {}
        }
    }
    neighbour.filter(|_| interface == Some(uplink))
}

fn is_no_route(error: &io::Error) -> bool {
    let none = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL, Errno::EACCES];
    none.iter().any(|&errno| error.raw_os_error() == Some(errno as i32))
}

fn neighbour_entry(uplink: u32, neighbour: IpAddr) -> io::Result<Option<NeighbourMessage>> {
    let answers = match super::ask(Message::GetNeighbour(entry_for(uplink, neighbour)), 0) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(None),
        answers => answers?,
    };
    Ok(answers.into_iter().find_map(|answer| match answer {
        Message::NewNeighbour(entry) => Some(entry),
        _ => None,
    }))
}

fn entry_for(uplink: u32, neighbour: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = super::family(neighbour);
    entry.header.ifindex = uplink;
    entry.attributes.push(NeighbourAttribute::Destination(neighbour.into()));
    entry
}

pub(super) fn link_layer_address(entry: &NeighbourMessage) -> Option<MacAddr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(MacAddr),
        _ => None,
    })
}

/// `NUD_VALID` of `include/net/neighbour.h`: states in which the kernel sends to the address.
pub(super) fn is_valid(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    matches!(state, Permanent | Noarp | Reachable | Probe | Stale | Delay)
}

/// States that nothing but a packet, or asking for it, leads out of.
fn wants_asking(state: NeighbourState) -> bool {
    matches!(state, NeighbourState::None | NeighbourState::Failed | NeighbourState::Stale)
}
