//! What the programs of the express lane note of the use of sessions.

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::mapped::Mapped;
use vxlane_abi::express::{MAX_FLOWS, Use};

/// A part of the places where use is noted.
#[derive(Clone)]
pub struct Uses {
    words: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>,
    first: u32,
    count: u32,
}

impl fmt::Debug for Uses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Uses").field("first", &self.first).field("count", &self.count).finish_non_exhaustive()
    }
}

/// Words of a [`Use`].
const WORDS: usize = size_of::<Use>() / size_of::<u64>();

impl Uses {
    /// `count` places that no program notes anything in.
    pub fn unshared(count: u32) -> Self {
        let words: Vec<AtomicU64> = (0..count as usize * WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words: Arc::new(words), first: 0, count }
    }

    /// The places in the array map `map`, which can be mapped and has [`MAX_FLOWS`] of them.
    ///
    /// # Errors
    /// What the kernel answered to `mmap`.
    pub(super) fn of_map(map: BorrowedFd<'_>) -> io::Result<Self> {
        let words = Mapped::<AtomicU64>::map(map, MAX_FLOWS as usize * WORDS)?;
        Ok(Self { words: Arc::new(words), first: 0, count: MAX_FLOWS })
    }

    /// Share `number` of these places in `shares` equal ones.
    #[must_use]
    pub fn share(&self, number: u32, shares: u32) -> Self {
        let shares = shares.max(1);
        let count = self.count / shares;
        Self { words: Arc::clone(&self.words), first: self.first + number.min(shares - 1) * count, count }
    }

    /// How many places there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// What programs call `place`.
    pub fn number(&self, place: u32) -> u32 {
        self.first + place
    }

    fn at(&self, place: u32) -> &[AtomicU64] {
        let start = self.number(place) as usize * WORDS;
        &(*self.words).as_ref()[start..start + WORDS]
    }

    /// What is noted at `place`.
    pub fn get(&self, place: u32) -> Use {
        let [last, packets, bytes] = [0, 1, 2].map(|word| self.at(place)[word].load(Ordering::Relaxed));
        Use { last, packets, bytes }
    }

    /// Has nothing be noted at `place`.
    pub fn clear(&self, place: u32) {
        self.at(place).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}
