//! The system calls of an AF_XDP socket.

use std::{
    ffi::c_void,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use super::memory::Frames;
use crate::port::KernelDrops;

/// How many entries each ring of a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of the fill and receive rings.
    pub(super) receive: u32,
    /// Of the completion and transmit rings.
    pub(super) transmit: u32,
}

/// Makes a socket for `frames`, with its four rings. It is not bound yet.
///
/// # Errors
/// What the kernel answered; `ENOBUFS` or `ENOMEM` when the frames cannot be locked.
pub(super) fn make(frames: &Frames, sizes: Sizes) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let answer = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    checked(answer)?;
    // SAFETY: the kernel made this descriptor for us just now, so nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(answer) };
    let memory = libc::xdp_umem_reg_v1 {
        addr: memory_address(frames),
        len: frames.memory().length() as u64,
        chunk_size: frames.size(),
        headroom: 0,
    };
    let xdp = |option, value| set(socket.as_fd(), libc::SOL_XDP, option, value);
    set_bytes(socket.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, &memory)?;
    xdp(libc::XDP_UMEM_FILL_RING, sizes.receive)?;
    xdp(libc::XDP_UMEM_COMPLETION_RING, sizes.transmit)?;
    xdp(libc::XDP_RX_RING, sizes.receive)?;
    xdp(libc::XDP_TX_RING, sizes.transmit)?;
    Ok(socket)
}

fn memory_address(frames: &Frames) -> u64 {
    frames.memory().start().as_ptr().expose_provenance() as u64
}

/// Binds `socket` to a queue; `flags` are `XDP_COPY` and the like.
///
/// # Errors
/// What the kernel answered; `EBUSY` when another socket has the queue.
pub(super) fn bind(socket: BorrowedFd<'_>, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: FAMILY,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let pointer: *const libc::sockaddr_xdp = &raw const address;
    // SAFETY: `pointer` points to an address of the length given, which outlives the call.
    checked(unsafe { libc::bind(socket.as_raw_fd(), pointer.cast(), length_of::<libc::sockaddr_xdp>()) })
}

/// Has the kernel look at the transmit ring.
pub(super) fn wake_transmit(socket: BorrowedFd<'_>) {
    // SAFETY: an empty message from nowhere to nowhere: nothing is read.
    unsafe { libc::sendto(socket.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    // Fails only for a device that is down, gone or busy; what was not sent stays in the ring,
    // and is seen there.
}

/// Has the kernel look at the fill ring.
pub(super) fn wake_receive(socket: BorrowedFd<'_>) {
    let nowhere = ptr::null_mut();
    // SAFETY: room for no bytes and no address: nothing is written.
    unsafe { libc::recvfrom(socket.as_raw_fd(), nowhere, 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut()) };
    // Fails only for a device that is down or gone, and then nothing arrives anyway.
}

/// Where in the memory of each ring its parts are.
///
/// # Errors
/// What `getsockopt(XDP_MMAP_OFFSETS)` answered.
pub(super) fn offsets(socket: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: sixteen numbers, for which all bits are values.
    unsafe { get(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS) }
}

/// Whether the bind ended in zero-copy mode.
///
/// # Errors
/// What `getsockopt(XDP_OPTIONS)` answered.
pub(super) fn zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: one number, for which all bits are values.
    let options: libc::xdp_options = unsafe { get(socket, libc::SOL_XDP, libc::XDP_OPTIONS) }?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// What the kernel lost, since the socket was made.
///
/// # Errors
/// What `getsockopt(XDP_STATISTICS)` answered.
pub(super) fn statistics(socket: BorrowedFd<'_>) -> io::Result<KernelDrops> {
    // SAFETY: six numbers, for which all bits are values.
    let totals: libc::xdp_statistics = unsafe { get(socket, libc::SOL_XDP, libc::XDP_STATISTICS) }?;
    Ok(KernelDrops {
        rx_dropped: totals.rx_dropped,
        rx_ring_full: totals.rx_ring_full,
        rx_fill_ring_empty: totals.rx_fill_ring_empty_descs,
        tx_invalid: totals.tx_invalid_descs,
    })
}

/// Whether packets of this socket are on their way, and will yet be in the completion ring.
/// In copy mode only: each is a socket buffer then, charged to the socket until it is freed,
/// right after its frame went to the completion ring (`xsk_destruct_skb`, `net/xdp/xsk.c`).
///
/// # Errors
/// What `getsockopt(SO_MEMINFO)` answered.
pub(super) fn is_sending(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: nine numbers, for which all bits are values.
    let memory: [u32; SK_MEMINFO_VARS] = unsafe { get(socket, libc::SOL_SOCKET, libc::SO_MEMINFO) }?;
    Ok(memory[SK_MEMINFO_WMEM_ALLOC] != 0)
}

/// Lets one system call send as much as the ring holds; the kernel's own limit is 32 frames.
/// Older kernels do not know the option, and keep that limit.
///
/// # Errors
/// What `setsockopt` answered, except that the option is unknown.
pub(super) fn set_tx_budget(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    match set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Lifts the limit on bytes in flight in copy mode, where each frame is a socket buffer.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`.
pub(super) fn raise_send_buffer(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER)
}

fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: u32) -> io::Result<()> {
    set_bytes(socket, level, option, &value)
}

fn set_bytes<T>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let pointer: *const c_void = ptr::from_ref(value).cast();
    // SAFETY: `pointer` points to as many bytes as are announced, which outlive the call. The
    // kernel reads them only; where it follows an address in them, that of the frames in
    // `make`, it is one that `Frames` keeps mapped.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length_of::<T>()) })
}

/// Reads a socket option.
///
/// # Safety
/// Every pattern of bits must be a value of `T`.
unsafe fn get<T>(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = length_of::<T>();
    let pointer: *mut c_void = value.as_mut_ptr().cast();
    // SAFETY: `pointer` points to `length` writable bytes; both outlive the call.
    checked(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, pointer, &raw mut length) })?;
    // SAFETY: zeroed above and perhaps written since, so every bit is defined; that any bits
    // will do is what the caller promises.
    Ok(unsafe { value.assume_init() })
}

#[expect(clippy::cast_possible_truncation, reason = "options and addresses are some bytes long")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn checked(answer: i32) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(clippy::cast_possible_truncation, reason = "44")]
const FAMILY: u16 = libc::AF_XDP as u16;
/// `include/uapi/linux/if_xdp.h` of Linux 6.18; not in the libc crate.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// More than the frames of any ring of ours come to with what the kernel adds to each.
const SEND_BUFFER: u32 = 512 << 20;
/// `include/uapi/linux/sock_diag.h`.
const SK_MEMINFO_VARS: usize = 9;
const SK_MEMINFO_WMEM_ALLOC: usize = 2;
