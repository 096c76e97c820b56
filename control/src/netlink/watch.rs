//! Word of changes in links and what is on them, in neighbours, routes and addresses.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use tokio::io::unix::AsyncFd;

/// What is subscribed to.
const GROUPS: [libc::c_uint; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_TC,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
];

/// A subscription to changes.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<Socket>,
}

impl Watch {
    /// Subscribes. Only what happens from now on is told.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub fn start() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        #[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
        // SAFETY: a `Socket` owns its descriptor, always shows the same one, and closes it only
        // when dropped. `AsyncFd` owns the `Socket` from here on and is asked for shared
        // references alone (in `changed`), so nothing can take it out or put another in.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket })
    }

    /// Waits until something has changed, and says whether it may have been a link, an address of one,
    /// or a filter on one. What it was does not matter more: whoever cares looks anew, so that news
    /// that were lost or came twice do no harm. Several changes at once are one.
    ///
    /// # Errors
    /// If the socket has failed.
    pub async fn changed(&mut self) -> io::Result<bool> {
        loop {
            let mut ready = self.socket.readable_mut().await?;
            if let Ok(drained) = ready.try_io(|socket| drain(socket.get_ref())) {
                return drained;
            }
        }
    }
}

/// Reads all that waits, and says whether a link was among it.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if nothing waits.
fn drain(socket: &Socket) -> io::Result<bool> {
    let mut bytes = Vec::with_capacity(8192);
    let (mut any, mut links) = (false, false);
    loop {
        bytes.clear();
        match socket.recv(&mut bytes, libc::MSG_TRUNC) {
            Ok(_) => (any, links) = (true, links || tells_of_a_link(&bytes)),
            // More happened than the socket had room for.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => (any, links) = (true, true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && any => return Ok(links),
            Err(error) => return Err(error),
        }
    }
}

/// The kernel sends news one by one; the type comes after the length (`struct nlmsghdr`).
fn tells_of_a_link(news: &[u8]) -> bool {
    let kind = news.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    kind.is_none_or(|kind| LINKS.contains(&kind))
}

/// Links, addresses, and filters with the disciplines that they are in.
const LINKS: [u16; 8] = [
    libc::RTM_NEWLINK,
    libc::RTM_DELLINK,
    libc::RTM_NEWADDR,
    libc::RTM_DELADDR,
    libc::RTM_NEWQDISC,
    libc::RTM_DELQDISC,
    libc::RTM_NEWTFILTER,
    libc::RTM_DELTFILTER,
];
