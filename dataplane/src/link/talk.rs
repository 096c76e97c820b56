//! Questions to the kernel by netlink: asked one at a time, and answered at once.

#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums have no end")]

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Sends `message` and returns everything that the kernel has to say to it.
///
/// # Errors
/// What it answered.
pub fn ask(message: Message, flags: u16) -> io::Result<Vec<Message>> {
    ask_through(&connect()?, message, flags)
}

/// A socket to the kernel, for the calling thread's namespace wherever it is used afterwards.
///
/// # Errors
/// If there is none to be had.
pub fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Like [`ask`], in the namespace of `socket`.
///
/// # Errors
/// As [`ask`].
pub fn ask_through(socket: &Socket, message: Message, flags: u16) -> io::Result<Vec<Message>> {
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
