//! The epochs of networks, in memory that the programs of the express lane read as well.

#![expect(unsafe_code, reason = "nothing we use maps a BPF array, and shared memory is read through pointers")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::ids::NetworkId;
use vxlane_abi::express::MAX_NETWORKS;

/// Says up to when flows of each network are good: those of its epoch are.
#[derive(Debug)]
pub struct Epochs {
    numbers: NonNull<AtomicU32>,
    /// Epochs that have ended, over all networks.
    ended: AtomicU64,
    /// Whether `numbers` is a mapping, and not ours from the heap.
    mapped: bool,
}

// SAFETY: what `numbers` points at is atomics, which any thread may use, for as long as `self`
// lives; nothing else of `self` is bound to a thread.
unsafe impl Send for Epochs {}

// SAFETY: as above.
unsafe impl Sync for Epochs {}

const COUNT: usize = MAX_NETWORKS as usize;
const BYTES: usize = COUNT * size_of::<AtomicU32>();

impl Epochs {
    /// Epochs that no program looks at.
    pub fn unshared() -> Self {
        let numbers: Box<[AtomicU32]> = (0..COUNT).map(|_| AtomicU32::new(0)).collect();
        Self { numbers: NonNull::from(Box::leak(numbers)).cast(), ended: AtomicU64::new(0), mapped: false }
    }

    /// The epochs in the array map `map`, which can be mapped and has [`MAX_NETWORKS`] numbers.
    ///
    /// # Errors
    /// What the kernel answered to `mmap`.
    pub(super) fn of_map(map: BorrowedFd<'_>) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), BYTES, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let numbers = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { numbers: numbers.cast(), ended: AtomicU64::new(0), mapped: true })
    }

    fn number(&self, network: NetworkId) -> &AtomicU32 {
        // SAFETY: there are as many numbers as a `NetworkId` has values, at `numbers`, until
        // `drop`; the result borrows `self`. `u32`s in a page are aligned as atomics want it.
        unsafe { self.numbers.add(network.index()).as_ref() }
    }

    /// The epoch of `network`.
    pub fn of(&self, network: NetworkId) -> u32 {
        // Acquire, with the release in `end`: whoever sees the new epoch sees that one has ended.
        self.number(network).load(Ordering::Acquire)
    }

    /// How many epochs have ended. A decision is of the epoch that [`of`](Self::of) tells
    /// afterwards if this has not changed since before it was made.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends the epoch of `network`: flows that were decided up to now are no longer good. Workers
    /// must have been told before of what changed.
    pub fn end(&self, network: NetworkId) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.number(network).fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Epochs {
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: `of_map` mapped this, and nobody has a reference into it any more.
            unsafe { libc::munmap(self.numbers.as_ptr().cast(), BYTES) };
        } else {
            let numbers = ptr::slice_from_raw_parts_mut(self.numbers.as_ptr(), COUNT);
            // SAFETY: `unshared` leaked this box, of this length, and nobody else frees it.
            drop(unsafe { Box::from_raw(numbers) });
        }
    }
}

/// Waits until every program that is running now has ended, so that none goes on with what it
/// looked up before.
pub(super) fn await_programs() {
    // The kernel waits for a grace period of RCU, under which programs run
    // (`kernel/sched/membarrier.c`). It cannot refuse: the command has no requirements.
    // SAFETY: three numbers, and no pointer.
    unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_for_one_network_alone_and_everybody_can_tell() {
        let epochs = Epochs::unshared();
        let before = epochs.ended();
        epochs.end(NetworkId(u16::MAX));
        epochs.end(NetworkId(u16::MAX));
        assert_eq!((epochs.of(NetworkId(u16::MAX)), epochs.of(NetworkId(0))), (2, 0));
        assert_eq!(epochs.ended(), before + 2);
    }
}
