//! Memory shared with the kernel: the frames of one queue, and what rings are mapped from.
//!
//! Frames are in a memory file, so that whoever is handed its descriptor can map them anew.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};

/// A range of memory that is unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the range belongs to this value alone and to no thread; whoever reads or writes it
// through `start` has to see to it that accesses do not clash.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&self` gives out nothing but the address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `file` from `offset` on, to be read and written.
    ///
    /// # Errors
    /// What `mmap` answered.
    pub(super) fn new(file: BorrowedFd<'_>, offset: i64, length: usize) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without `MAP_FIXED` the kernel chooses a range that nothing else uses.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, file.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, length })
    }

    /// Where it begins; `length` bytes from here on are readable and writable while `self` lives.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this very range, and nothing that borrows it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The frames of one queue, all of the same size.
#[derive(Debug)]
pub(super) struct Frames {
    memory: Mapping,
    file: OwnedFd,
    /// A power of two.
    size: u32,
}

impl Frames {
    /// Makes `count` frames of `size` bytes, a power of two.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn new(count: u32, size: u32) -> io::Result<Self> {
        let file = memfd_create("vxlane-frames", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, i64::from(count) * i64::from(size))?;
        Self::map(file, count, size)
    }

    /// Maps the frames that are in `file`.
    ///
    /// # Errors
    /// If it does not have as many, or cannot be mapped.
    pub(super) fn map(file: OwnedFd, count: u32, size: u32) -> io::Result<Self> {
        let length = u64::from(count) * u64::from(size);
        let found = nix::sys::stat::fstat(&file)?.st_size;
        if u64::try_from(found).ok() != Some(length) || !size.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{found} bytes instead of {length}")));
        }
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory: Mapping::new(file.as_fd(), 0, length)?, file, size })
    }

    /// The file that they are in.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// How long each frame is.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// The address of the frame that `address` lies in.
    pub(super) fn base(&self, address: u64) -> u64 {
        address & !(u64::from(self.size) - 1)
    }

    /// The `length` bytes at `address`; none if that is not within the frames.
    ///
    /// # Safety
    /// Nothing else, the kernel included, may touch these bytes while the result lives.
    #[expect(clippy::mut_from_ref, reason = "who owns which frame is known to the halves, not to the compiler")]
    pub(super) unsafe fn bytes(&self, address: u64, length: usize) -> &mut [u8] {
        let start = usize::try_from(address).unwrap_or(usize::MAX);
        match start.checked_add(length) {
            // SAFETY: by the guard below, and because `Mapping` keeps its range mapped while it
            // lives, the bytes are readable and writable for as long as `self` is borrowed;
            // that nothing else touches them is what the caller promises.
            Some(end) if end <= self.memory.length() => unsafe {
                slice::from_raw_parts_mut(self.memory.start().as_ptr().add(start), length)
            },
            _ => &mut [],
        }
    }
}
