//! A program that sits on an interface and leaves it at once when dropped.
//!
//! Closing a link's descriptor is not enough for that: while another thread is between `fork`
//! and `exec`, the child holds a copy of it, and the program stays. So it is told to go.

#![expect(unsafe_code, reason = "aya does not wrap BPF_LINK_DETACH")]

use aya::programs::{links::FdLink, xdp::XdpLink};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Our program on one interface.
pub(super) struct Installed(Option<XdpLink>);

impl Installed {
    pub(super) fn new(link: XdpLink) -> Self {
        Self(Some(link))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // On kernels before 5.9 this is not a descriptor; aya then detaches by netlink, when
        // the conversion drops what it was given.
        let Some(link) = self.0.take().and_then(|link| FdLink::try_from(link).ok()) else {
            return;
        };
        // Should this fail, closing `link` below detaches too, only perhaps later.
        if let Some(fd) = link.info().ok().and_then(|info| descriptor(info.id())) {
            bpf(BPF_LINK_DETACH, fd.as_raw_fd().cast_unsigned());
        }
    }
}

fn descriptor(link: u32) -> Option<OwnedFd> {
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, link)?;
    // SAFETY: the kernel made this descriptor for us just now, so nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A bpf(2) command whose argument is one number, and its answer if it succeeded.
fn bpf(command: i64, argument: u32) -> Option<i32> {
    let attributes = [argument, 0, 0, 0];
    // SAFETY: the kernel reads `size_of_val(&attributes)` bytes from the array, which outlives
    // the call. Both commands made through here take numbers only, so it follows no pointer.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    i32::try_from(answer).ok().filter(|answer| *answer >= 0)
}

/// `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_LINK_GET_FD_BY_ID: i64 = 30;
const BPF_LINK_DETACH: i64 = 34;
