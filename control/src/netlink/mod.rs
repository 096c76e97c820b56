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

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use next_hop::{NextHop, next_hop, solicit};
pub use outside::{neighbours, routes};
pub use veth::{Pair, PairError, make_punt, remove_pair, set_pair_mtu};
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

/// Sends `message` and returns everything that the kernel has to say to it.
fn ask(message: Message, flags: u16) -> io::Result<Vec<Message>> {
    ask_through(&connect()?, message, flags)
}

/// A socket to the kernel, for the calling thread's namespace wherever it is used afterwards.
fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn ask_through(socket: &Socket, message: Message, flags: u16) -> io::Result<Vec<Message>> {
    let mut question = NetlinkMessage::from(message);
    question.header.flags = NLM_F_REQUEST | flags;
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for answer in messages(&bytes)? {
            let is_part = answer.header.flags & netlink_packet_core::NLM_F_MULTIPART != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => return Ok(answers),
            }
            if !is_part {
                return Ok(answers);
            }
        }
    }
}

/// The messages that one datagram of the kernel holds.
fn messages(mut bytes: &[u8]) -> io::Result<Vec<NetlinkMessage<Message>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = NetlinkBuffer::new_checked(bytes).map_err(odd)?.length();
        let message = NetlinkMessage::deserialize(bytes).map_err(odd)?;
        found.push(message);
        // Messages begin at multiples of four (`NLMSG_ALIGNTO`).
        let next = usize::try_from(length).map_err(odd)?.next_multiple_of(4).clamp(1, bytes.len());
        bytes = &bytes[next..];
    }
    Ok(found)
}

fn odd(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {error}"))
}
