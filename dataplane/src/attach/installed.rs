//! A program that sits on an interface and leaves it at once when dropped.
//!
//! Closing a link's descriptor is not enough for that: while another thread is between `fork`
//! and `exec`, the child holds a copy of it, and the program stays. So it is told to go.

#![expect(unsafe_code, reason = "aya wraps neither BPF_LINK_DETACH nor links that others have made")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use crate::link::XdpMode;

/// Our program on one interface: a BPF link.
pub(super) struct Installed(OwnedFd);

/// What the kernel tells of a link (`struct bpf_link_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The number of its program.
    pub(super) program: u32,
    /// The interface it is on; 0 when that has gone, or the program has been detached.
    pub(super) ifindex: u32,
}

impl Installed {
    /// Puts `program` on the interface.
    ///
    /// # Errors
    /// What the kernel answered to `BPF_LINK_CREATE`.
    pub(super) fn create(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<Self> {
        let flags = match mode {
            XdpMode::Native => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
            XdpMode::Offloaded => XDP_FLAGS_HW_MODE,
        };
        Self::link(program, ifindex, BPF_XDP, flags)
    }

    /// Puts the TC program `program` on what comes in at the interface, behind those that are
    /// there.
    ///
    /// # Errors
    /// What the kernel answered to `BPF_LINK_CREATE`.
    pub(super) fn create_tc(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<Self> {
        Self::link(program, ifindex, BPF_TCX_INGRESS, 0)
    }

    fn link(program: BorrowedFd<'_>, ifindex: u32, place: u32, flags: u32) -> io::Result<Self> {
        let fd = bpf(BPF_LINK_CREATE, &[number(program), ifindex, place, flags])?;
        // SAFETY: the kernel made this descriptor for us just now, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A link that an earlier process has made.
    pub(super) fn kept(link: OwnedFd) -> Self {
        Self(link)
    }

    /// Has `program` run in the place of the one that is there, from one frame to the next.
    ///
    /// # Errors
    /// What the kernel answered to `BPF_LINK_UPDATE`.
    pub(super) fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        bpf(BPF_LINK_UPDATE, &[number(self.0.as_fd()), number(program), 0, 0]).map(drop)
    }

    /// What the kernel knows of the link.
    ///
    /// # Errors
    /// What the kernel answered to `BPF_OBJ_GET_INFO_BY_FD`.
    pub(super) fn info(&self) -> io::Result<LinkInfo> {
        info(&self.0)
    }

    /// The link.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // Should this fail, closing the link detaches too, only perhaps later.
        let _ = bpf(BPF_LINK_DETACH, &[number(self.0.as_fd()), 0, 0, 0]);
    }
}

/// What the kernel knows of a link.
///
/// # Errors
/// What the kernel answered to `BPF_OBJ_GET_INFO_BY_FD`.
pub(super) fn info(link: &OwnedFd) -> io::Result<LinkInfo> {
    let info = words(link)?;
    Ok(LinkInfo { program: info[2], ifindex: info[4] })
}

/// The number of a program.
///
/// # Errors
/// As [`info`].
pub(super) fn program_number(program: &OwnedFd) -> io::Result<u32> {
    Ok(words(program)?[1])
}

/// The first words of what the kernel knows of a BPF object.
fn words(object: &OwnedFd) -> io::Result<[u32; INFO_WORDS as usize]> {
    let mut info = [0_u32; INFO_WORDS as usize];
    let mut attributes = InfoAttributes {
        fd: number(object.as_fd()),
        length: INFO_WORDS * 4,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    let pointer = &raw mut attributes;
    // SAFETY: the kernel reads and writes `attributes`, and writes at most `length` bytes to
    // where `info` is; both outlive the call, and any bits are values of either.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, pointer, size_of::<InfoAttributes>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A bpf(2) command whose arguments are numbers, and its answer.
fn bpf(command: i64, arguments: &[u32; 4]) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of_val(arguments)` bytes from the array, which outlives
    // the call. The commands made through here take numbers only, so it follows no pointer.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, arguments.as_ptr(), size_of_val(arguments)) };
    match i32::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The arguments of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info` of `include/uapi/linux/bpf.h` in words: type, number, number of the
/// program, a gap, and for XDP and TCX the interface; other kinds of links have more. Of `struct
/// bpf_prog_info` the first two are type and number.
const INFO_WORDS: u32 = 16;
/// `enum bpf_cmd` and `enum bpf_attach_type`, same place.
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_LINK_CREATE: i64 = 28;
const BPF_LINK_UPDATE: i64 = 29;
const BPF_LINK_DETACH: i64 = 34;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
/// `include/uapi/linux/if_link.h`.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_HW_MODE: u32 = 1 << 3;
