//! The epochs of networks, in memory that the programs of the express lane read as well.

#![expect(unsafe_code, reason = "nothing we use has a call for membarrier")]

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use super::mapped::Mapped;
use crate::ids::NetworkId;
use vxlane_abi::express::OUTSIDE;

/// Says up to when flows of each network are good: those of its epoch are.
pub struct Epochs {
    /// By network, and one for what lies outside of all networks.
    numbers: Box<dyn AsRef<[AtomicU64]> + Send + Sync>,
    /// When a worker was last there: the only value.
    beat: Box<dyn AsRef<[AtomicU64]> + Send + Sync>,
    /// Epochs that have ended, over all networks.
    ended: AtomicU64,
}

const LAST: usize = OUTSIDE as usize;

impl Epochs {
    /// Epochs that no program looks at.
    pub fn unshared() -> Self {
        let numbers: Vec<AtomicU64> = (0..=LAST).map(|_| AtomicU64::new(0)).collect();
        let beat: Box<[AtomicU64]> = [AtomicU64::new(0)].into();
        Self { numbers: Box::new(numbers), beat: Box::new(beat), ended: AtomicU64::new(0) }
    }

    /// The epochs in the array map `numbers`, which has [`OUTSIDE`] + 1, and the time in `beat`,
    /// which has one; both can be mapped.
    ///
    /// # Errors
    /// What the kernel answered to `mmap`.
    pub(super) fn of_maps(numbers: BorrowedFd<'_>, beat: BorrowedFd<'_>) -> io::Result<Self> {
        let (numbers, beat) = (Mapped::<AtomicU64>::map(numbers, LAST + 1)?, Mapped::<AtomicU64>::map(beat, 1)?);
        Ok(Self { numbers: Box::new(numbers), beat: Box::new(beat), ended: AtomicU64::new(0) })
    }

    /// Has the programs know that a worker was there at `time`, by the clock of flows.
    pub fn beat(&self, time: u64) {
        // Relaxed: nothing else is told by it.
        (*self.beat).as_ref()[0].store(time, Ordering::Relaxed);
    }

    fn number(&self, place: usize) -> &AtomicU64 {
        &(*self.numbers).as_ref()[place]
    }

    /// The epoch of `network`.
    pub fn of(&self, network: NetworkId) -> u32 {
        self.at(network.index())
    }

    /// The epoch of what lies outside of all networks: routes, their next hops, and those hops'
    /// addresses.
    fn of_outside(&self) -> u32 {
        self.at(LAST)
    }

    /// The epoch of sessions of address translation of `network`: it ends with either. Both only ever
    /// grow, so that their sum is the same for as long as both are.
    pub fn of_sessions(&self, network: NetworkId) -> u32 {
        self.of(network).wrapping_add(self.of_outside())
    }

    #[expect(clippy::cast_possible_truncation, reason = "flows are long gone when 2^32 epochs have ended")]
    fn at(&self, place: usize) -> u32 {
        // Acquire, with the release in `end`: whoever sees the new epoch sees that one has ended.
        self.number(place).load(Ordering::Acquire) as u32
    }

    /// How many epochs have ended. A decision is of the epoch that [`of`](Self::of) tells
    /// afterwards if this has not changed since before it was made.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends the epoch of `network`: flows that were decided up to now are no longer good. Workers
    /// must have been told before of what changed.
    pub fn end(&self, network: NetworkId) {
        self.end_at(network.index());
    }

    /// Ends the epoch of what lies outside, likewise.
    pub fn end_outside(&self) {
        self.end_at(LAST);
    }

    fn end_at(&self, place: usize) {
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.number(place).fetch_add(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Epochs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Epochs").field("ended", &self.ended).finish_non_exhaustive()
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
        epochs.end_outside();
        assert_eq!((epochs.of(NetworkId(u16::MAX)), epochs.of(NetworkId(0)), epochs.of_outside()), (2, 0, 1));
        assert_eq!(epochs.ended(), before + 3);
    }
}
