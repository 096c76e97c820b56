//! The ports that are lent, where the steering program looks: its map, in our own memory.

#![expect(unsafe_code, reason = "no safe crate maps a BPF array")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use aya::maps::MapData;
use vxlane_abi as abi;

/// The map, mapped. What is written here the program sees at its next packet.
#[derive(Debug)]
pub(super) struct Leases {
    words: NonNull<AtomicU64>,
}

const WORDS: usize = abi::LEASE_WORDS as usize;
const BYTES: usize = WORDS * size_of::<u64>();

impl Leases {
    /// Maps `map`, which lives on for as long as this does.
    pub(super) fn map(map: &MapData) -> io::Result<Self> {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: no address is asked for, so that nothing of ours is replaced; the descriptor is
        // open, as `map` owns it; the kernel refuses a length beyond the map.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, read_write, shared, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).map(|words| Self { words }).ok_or_else(io::Error::last_os_error)
    }
}

impl AsRef<[AtomicU64]> for Leases {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped BYTES readable and writable bytes here, at the start of a page and
        // thus aligned, and `drop` alone unmaps them, which needs this reference to be gone. Any
        // bits are an `AtomicU64`, and others, the kernel among them, only read.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), WORDS) }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // SAFETY: this range was mapped in `map` and nowhere else unmapped; references into it
        // borrow `self`, so that there are none now.
        let _ = unsafe { libc::munmap(self.words.as_ptr().cast(), BYTES) };
    }
}

// SAFETY: the pointer is to a mapping that belongs to this value and no thread in particular, and
// all access to it is through atomics.
unsafe impl Send for Leases {}
// SAFETY: as above: a shared reference gives nothing but shared atomics.
unsafe impl Sync for Leases {}
