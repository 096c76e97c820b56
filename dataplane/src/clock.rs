//! Time, as the dataplane sees it: monotonic, read once per burst, passed as an argument.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point on the worker's monotonic clock, in nanoseconds; [`Clock`] says since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// This instant in the coarse unit of table entries.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "2^32 ticks are eight and a half years since the machine started"
    )]
    pub fn ticks(self) -> Ticks {
        Ticks((self.0 / Ticks::NANOS) as u32)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// How long after `earlier` this is; zero if it is not.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Sixteenths of a second: what a table entry can afford to remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u32);

impl Ticks {
    /// How many make a second.
    pub const PER_SECOND: u32 = 16;
    const NANOS: u64 = 1_000_000_000 / Self::PER_SECOND as u64;

    /// Whole seconds as ticks.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds.saturating_mul(Self::PER_SECOND))
    }

    /// Ticks since `earlier`; zero if it is later.
    #[inline]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// As a duration.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(u64::from(self.0) * Self::NANOS)
    }
}

/// The monotonic clock of the machine. Wall-clock jumps do not move it, and what one process
/// has read on it means the same to the next.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    /// What the machine's clock showed then.
    base: Duration,
}

impl Clock {
    /// A clock whose zero is that of the machine's `CLOCK_MONOTONIC`.
    pub fn start() -> Self {
        // It is there on every Linux; without it the zero is now, and all else works as well.
        let base = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Into::into);
        Self { start: std::time::Instant::now(), base }
    }

    /// What it shows.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "2^64 nanoseconds are 584 years")]
    pub fn now(&self) -> Instant {
        Instant((self.base + self.start.elapsed()).as_nanos() as u64)
    }
}
