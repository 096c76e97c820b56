//! Descriptors with names, sent from one process to another.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// The longest message: a verb and a name.
const LONGEST: usize = 512;

/// Sends `text`, and `fd` with it where there is one. Each message arrives whole or not at all.
///
/// # Errors
/// What `sendmsg` answered; `EPIPE` if nobody is there to receive it.
pub(super) fn send(socket: BorrowedFd<'_>, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    let bytes = [IoSlice::new(text.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives what [`send`] has sent; none at the end of the connection.
///
/// # Errors
/// What `recvmsg` answered, and [`io::ErrorKind::InvalidData`] for what is not a message of ours.
pub(super) fn receive(socket: BorrowedFd<'_>, flags: MsgFlags) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let mut bytes = [0; LONGEST];
    let mut control = cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(own));
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    let text = String::from_utf8(bytes[..length].to_vec());
    let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((text, fds.pop())))
}

/// A descriptor that came to this process by a message or from the service manager.
#[expect(unsafe_code, reason = "what comes from elsewhere comes as a number")]
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers, `receive` here and `manager::inherited`, pass numbers that the kernel
    // has just put into this process's table for it, each once; nobody else knows of them.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whether the other end is still there. What waits is not read.
pub(super) fn is_connected(socket: &impl AsFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let mut byte = [0];
    match nix::sys::socket::recv(socket.as_fd().as_raw_fd(), &mut byte, flags) {
        Ok(length) => length > 0,
        Err(error) => error == nix::errno::Errno::EAGAIN,
    }
}
