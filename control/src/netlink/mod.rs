//! What the kernel knows that the dataplane needs: addresses, routes, neighbours.
//!
//! Questions are asked one at a time and answered at once; changes are [watched](Watch). All of
//! it is about the network namespace that the process runs in.

#![expect(clippy::wildcard_enum_match_arm, reason = "of the kernel's many messages and attributes we want a few")]

mod next_hop;
mod outside;
mod veth;
mod watch;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};
use vxlane_dataplane::link::talk::{ask, ask_through, connect};

pub use next_hop::{NextHop, next_hop, on_link, solicit};
pub use outside::{Routed, neighbours, overlapping, routes};
pub use veth::{
    Pair, PairError, is_punt, make_punt, punt_names, remove_pair, set_addresses, set_default_route, set_mac, set_mtu,
    set_pair_mtu, set_up,
};
pub use watch::Watch;

/// The first address of each family of interface `ifindex` with global scope. Over IPv6 one that
/// others can rely on comes first: not temporary (RFC 8981), not deprecated, no longer tentative.
///
/// # Errors
/// What the kernel answered to `RTM_GETADDR`.
pub fn global_addresses(ifindex: u32) -> io::Result<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let answers = ask(Message::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
    let addresses = answers.iter().filter_map(|answer| match answer {
        Message::NewAddress(address) => Some(address),
        _ => None,
    });
    let is_global =
        |address: &&AddressMessage| address.header.index == ifindex && address.header.scope == AddressScope::Universe;
    let (mut v4, mut v6) = (None, None::<(bool, Ipv6Addr)>);
    for message in addresses.filter(is_global) {
        let flags = flags(message);
        match local(message) {
            Some(IpAddr::V4(address)) => v4 = v4.or(Some(address)),
            Some(IpAddr::V6(address)) if !flags.contains(AddressFlags::Dadfailed) => {
                let lasting = !flags.intersects(FLEETING);
                v6 = v6.filter(|&(known, _)| known || !lasting).or(Some((lasting, address)));
            }
            _ => {}
        }
    }
    Ok((v4, v6.map(|(_, address)| address)))
}

/// The family of an address.
fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// What keeps others from relying on an address.
const FLEETING: AddressFlags = AddressFlags::Secondary.union(AddressFlags::Deprecated).union(AddressFlags::Tentative);

/// All of its flags: the header has room for the first eight alone.
fn flags(message: &AddressMessage) -> AddressFlags {
    let all = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    all.unwrap_or_else(AddressFlags::empty)
}

/// The address itself: `IFA_LOCAL`, which differs from `IFA_ADDRESS` on point-to-point links, and
/// which IPv6 has not.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    own.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// Has the kernel change something.
fn tell(message: Message) -> io::Result<()> {
    ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop)
}
