//! The options of an AF_XDP socket that `xsk-rs` does not know.

use std::{ffi::c_void, io, os::fd::RawFd};

/// Whether the bind ended in zero-copy mode.
///
/// # Errors
/// What `getsockopt(XDP_OPTIONS)` answered.
pub(super) fn zero_copy(socket: RawFd) -> io::Result<bool> {
    let mut flags: u32 = 0;
    let mut length: libc::socklen_t = 4;
    let value: *mut c_void = (&raw mut flags).cast();
    // SAFETY: `value` points to `length` writable bytes, `flags` above, which is all of
    // `struct xdp_options`; both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            value,
            &raw mut length,
        )
    };
    checked(answer)?;
    Ok(flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Lets one system call send as much as the ring holds; the kernel's own limit is 32 frames.
/// Older kernels do not know the option, and keep that limit.
///
/// # Errors
/// What `setsockopt` answered, except that the option is unknown.
pub(super) fn set_tx_budget(socket: RawFd, frames: u32) -> io::Result<()> {
    match set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

/// Lifts the limit on bytes in flight in copy mode, where each frame is a socket buffer.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`.
pub(super) fn raise_send_buffer(socket: RawFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER)
}

fn set(socket: RawFd, level: i32, option: i32, value: u32) -> io::Result<()> {
    let value: *const c_void = (&raw const value).cast();
    // SAFETY: `value` points to the four bytes of the argument, which outlives the call; every
    // option set through here takes an `int` or `u32`.
    checked(unsafe { libc::setsockopt(socket, level, option, value, 4) })
}

fn checked(answer: i32) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `include/uapi/linux/if_xdp.h` of Linux 6.18; not in the libc crate.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// More than the frames of any ring of ours come to with what the kernel adds to each.
const SEND_BUFFER: u32 = 512 << 20;
