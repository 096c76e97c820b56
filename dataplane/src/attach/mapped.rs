//! A BPF array in our own memory: what is written there programs see at their next packet.

#![expect(unsafe_code, reason = "no safe crate maps a BPF array")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::AtomicU64,
};

/// A map, mapped. It lives on for as long as this does.
#[derive(Debug)]
pub(super) struct Mapped<A> {
    first: NonNull<A>,
    count: usize,
}

/// What a map can be made of: any bits are a value, any thread may use it, and it is a multiple of
/// eight bytes long, which the kernel gives each value of an array at least.
pub(super) trait Atomic: Send + Sync {}

impl Atomic for AtomicU64 {}

impl<A: Atomic> Mapped<A> {
    /// Maps `map`, an array that can be mapped and has `count` values, each as long as an `A`.
    ///
    /// # Errors
    /// What the kernel answered to `mmap`.
    pub(super) fn map(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let bytes = count * size_of::<A>();
        // SAFETY: no address is asked for, so that nothing of ours is replaced; the descriptor is
        // open, as it is borrowed; the kernel refuses a length beyond the map.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first: first.cast(), count })
    }
}

impl<A> AsRef<[A]> for Mapped<A> {
    fn as_ref(&self) -> &[A] {
        // SAFETY: `map` mapped so many readable and writable values here, at the start of a page
        // and thus aligned, and `drop` alone unmaps them, which needs this reference to be gone.
        // Only an `Atomic` gets here: any bits are a value of it, and others may write them.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl<A> Drop for Mapped<A> {
    fn drop(&mut self) {
        // SAFETY: this range was mapped in `map` and nowhere else unmapped; references into it
        // borrow `self`, so that there are none now.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.count * size_of::<A>()) };
    }
}

// SAFETY: the pointer is to a mapping that belongs to this value and no thread in particular, and
// all access to it is through atomics.
unsafe impl<A: Atomic> Send for Mapped<A> {}

// SAFETY: as above: a shared reference gives nothing but shared atomics.
unsafe impl<A: Atomic> Sync for Mapped<A> {}
