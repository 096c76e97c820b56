//! The system calls no safe crate wraps: batches of messages, and packet sockets.

#![expect(clippy::cast_possible_truncation, reason = "sizes of C structures and of batches are small")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Room for a batch of messages of one greatest size, for `sendmmsg` and `recvmmsg`.
pub(super) struct Batch {
    size: usize,
    data: Vec<u8>,
    lengths: [usize; SLOTS],
    senders: [libc::sockaddr_ll; SLOTS],
    controls: Box<[[u64; CONTROL_WORDS]; SLOTS]>,
    control_lengths: [usize; SLOTS],
}

/// Whether to wait for messages.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    /// Until there is one.
    ForOne = libc::MSG_WAITFORONE as isize,
    /// Not at all.
    Never = libc::MSG_DONTWAIT as isize,
}

impl Batch {
    /// Room for [`SLOTS`] messages of at most `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            data: vec![0; size * SLOTS],
            lengths: [0; SLOTS],
            senders: [NO_SENDER; SLOTS],
            controls: Box::new([[0; CONTROL_WORDS]; SLOTS]),
            control_lengths: [0; SLOTS],
        }
    }

    /// Slot number `index`, to be filled with `length` bytes.
    pub(super) fn fill(&mut self, index: usize, length: usize) -> &mut [u8] {
        let slot = &mut self.data[index * self.size..][..length];
        self.lengths[index] = length;
        slot
    }

    /// The message received into slot number `index`.
    pub(super) fn message(&self, index: usize) -> &[u8] {
        &self.data[index * self.size..][..self.lengths[index]]
    }

    /// Whether the frame received into slot `index` was on its way out.
    pub(super) fn outgoing(&self, index: usize) -> bool {
        self.senders[index].sll_pkttype == libc::PACKET_OUTGOING
    }

    /// The VLAN tag (protocol, control information) that the kernel took off the frame received
    /// into slot `index`.
    pub(super) fn vlan(&self, index: usize) -> Option<(u16, u16)> {
        let word = |at: usize| -> u32 {
            let pair = self.controls[index][at / 2].to_ne_bytes();
            let half = &pair[at % 2 * 4..][..4];
            u32::from_ne_bytes([half[0], half[1], half[2], half[3]])
        };
        // One control message: a cmsghdr of 16 bytes (length, level, type), then tpacket_auxdata,
        // whose first word is the status and whose fifth holds vlan_tci and vlan_tpid.
        let is_auxdata = self.control_lengths[index] >= 16 + 20
            && word(2) == libc::SOL_PACKET.cast_unsigned()
            && word(3) == libc::PACKET_AUXDATA.cast_unsigned();
        if !is_auxdata || word(4) & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let tag = word(8).to_ne_bytes();
        let tci = u16::from_ne_bytes([tag[0], tag[1]]);
        Some((u16::from_ne_bytes([tag[2], tag[3]]), tci))
    }

    /// Sends the slots `from..to` and returns how many of them were sent.
    #[expect(unsafe_code, reason = "sendmmsg has no safe wrapper without work per message")]
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, from: usize, to: usize) -> io::Result<usize> {
        let (mut vectors, mut headers) = (EMPTY_VECTORS, EMPTY_HEADERS);
        let data = self.data.as_mut_ptr();
        for index in from..to {
            vectors[index] = vector_of(data, index * self.size, self.lengths[index]);
            headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
        }
        let chosen = &mut headers[from..to];
        // SAFETY: `chosen` holds as many headers as its length says. In each, `msg_iov` was set
        // above to one vector of an array that lives to the end of this method; it covers the
        // bytes that `fill` sliced out of `data` when it stored the length, so they are within
        // the allocation, which `&mut self` keeps alive and untouched. Every other pointer is
        // null with length 0.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), chosen.as_mut_ptr(), chosen.len() as u32, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Takes all messages that are there, after a `wait`; returns how many.
    #[expect(unsafe_code, reason = "recvmmsg has no safe wrapper without work per message")]
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, wait: Wait) -> io::Result<usize> {
        let (mut vectors, mut headers) = (EMPTY_VECTORS, EMPTY_HEADERS);
        let data = self.data.as_mut_ptr();
        for index in 0..SLOTS {
            vectors[index] = vector_of(data, index * self.size, self.size);
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.senders[index]).cast();
            header.msg_namelen = LENGTH_OF_NAME;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = CONTROL_WORDS * 8;
        }
        // SAFETY: `headers` holds SLOTS headers. In each, the lines above set `msg_iov` to one
        // vector that covers slot `index` of `data`, which `new` made SLOTS * size bytes long;
        // `msg_name` to one sockaddr_ll with its size; `msg_control` to CONTROL_WORDS words
        // with their size in bytes. All belong to `self`, borrowed exclusively, or to local
        // arrays, and outlive the call. The time-out is null, which means none.
        let count = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), SLOTS as u32, wait as i32, ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (index, header) in headers.iter().enumerate().take(count) {
            self.lengths[index] = (header.msg_len as usize).min(self.size);
            self.control_lengths[index] = header.msg_hdr.msg_controllen;
        }
        Ok(count)
    }
}

/// Opens a packet socket on `device`, which must be visible to the calling thread.
///
/// `listening` sockets get every frame of the device, the others can only send.
pub(super) fn packet_socket(device: &str, listening: bool) -> io::Result<OwnedFd> {
    let index = if_nametoindex(device)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let mut address = NO_SENDER;
    address.sll_ifindex = index.cast_signed();
    if listening {
        address.sll_protocol = ETH_P_ALL.to_be();
    }
    bind_packet(socket.as_fd(), &address)?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "nix cannot make a link-layer address from an index")]
fn bind_packet(socket: BorrowedFd<'_>, address: &libc::sockaddr_ll) -> io::Result<()> {
    // SAFETY: the pointer is to a live sockaddr_ll and the length is its size.
    let answer = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(address).cast(), LENGTH_OF_NAME) };
    check(answer)
}

/// Sets a socket option whose value is an integer.
#[expect(unsafe_code, reason = "nix lacks these options")]
pub(super) fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to a live i32 and the length is its size, 4.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), mem::size_of::<i32>() as u32)
    };
    check(answer)
}

/// Has a packet socket leave out what its device sends.
pub(super) fn ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
}

/// How many messages the kernel has dropped because `socket`'s buffer was full.
///
/// It is the number that `SO_RXQ_OVFL` would attach to the next message; this way it is also
/// known when there is no next message.
#[expect(unsafe_code, reason = "nix lacks SO_MEMINFO")]
pub(super) fn drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut values = [0u32; MEMINFO_WORDS];
    let mut length = mem::size_of_val(&values) as u32;
    // SAFETY: the value pointer is to MEMINFO_WORDS live words and `length` is their size in
    // bytes; the kernel writes at most that much and stores the size written to `length`.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, values.as_mut_ptr().cast(), &raw mut length)
    };
    check(answer)?;
    Ok(values[MEMINFO_DROPS])
}

/// Makes `socket`'s receive buffer large and its waits short.
pub(super) fn prepare_receiver(socket: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    use nix::sys::time::TimeVal;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, WAIT_MICROSECONDS))?;
    Ok(())
}

/// Whether a receive call ended only because nothing came.
pub(super) fn nothing_came(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::Interrupted
}

fn check(answer: i32) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The vector of `length` bytes from `offset` on; whoever hands it to the kernel proves it.
fn vector_of(data: *mut u8, offset: usize, length: usize) -> libc::iovec {
    libc::iovec { iov_base: data.wrapping_add(offset).cast(), iov_len: length }
}

/// Messages in one batch.
pub(super) const SLOTS: usize = 64;

/// 64 bytes: a cmsghdr and a tpacket_auxdata, 36 bytes, fit.
const CONTROL_WORDS: usize = 8;

const LENGTH_OF_NAME: u32 = mem::size_of::<libc::sockaddr_ll>() as u32;

const NO_SENDER: libc::sockaddr_ll = libc::sockaddr_ll {
    sll_family: libc::AF_PACKET as u16,
    sll_protocol: 0,
    sll_ifindex: 0,
    sll_hatype: 0,
    sll_pkttype: 0,
    sll_halen: 0,
    sll_addr: [0; 8],
};

const EMPTY_VECTORS: [libc::iovec; SLOTS] = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SLOTS];

const EMPTY_HEADERS: [libc::mmsghdr; SLOTS] = [libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
}; SLOTS];

const ETH_P_ALL: u16 = 0x0003;

/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h.
const PACKET_IGNORE_OUTGOING: i32 = 23;

/// `SO_MEMINFO` of asm-generic/socket.h.
const SO_MEMINFO: i32 = 55;

/// `SK_MEMINFO_VARS` and `SK_MEMINFO_DROPS` of linux/sock_diag.h.
const MEMINFO_WORDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// Enough for half a second of small packets at 200,000 per second.
const RECEIVE_BUFFER: usize = 64 << 20;

/// How long a receiver waits before it looks whether it should stop.
const WAIT_MICROSECONDS: i64 = 10_000;
