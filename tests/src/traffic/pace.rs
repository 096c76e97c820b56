//! Says when a generator may send, and when it has sent enough.

use std::thread;
use std::time::{Duration, Instant};

/// How fast a generator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// This many packets per second, evenly.
    Rate(u64),
    /// As fast as possible.
    Flood,
}

/// How much a generator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Exactly this many packets; given up after [`PATIENCE`].
    Packets(u64),
    /// As many as fit into this time.
    Time(Duration),
}

/// Tokens for one run of a generator.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    total: u64,
    limit: Duration,
    /// Packets that may be sent at once because they are late.
    most_late: u64,
    start: Instant,
    granted: u64,
    /// Packets that were late and are not sent at all.
    forgone: u64,
}

impl Pacer {
    /// Starts the clock.
    pub fn start(pace: Pace, amount: Amount) -> Self {
        let (total, limit) = match amount {
            Amount::Packets(total) => (total, PATIENCE),
            Amount::Time(limit) => (u64::MAX, limit),
        };
        Self { pace, total, limit, most_late: u64::MAX, start: Instant::now(), granted: 0, forgone: 0 }
    }

    /// Has a generator that falls behind catch up by so many packets at most: it then sends less than
    /// it was asked for, and no bursts that its own waiting for a processor has made.
    pub fn catching_up(self, most_late: u64) -> Self {
        Self { most_late, ..self }
    }

    /// Waits until at least one packet may be sent and returns how many may, at most `most`.
    ///
    /// Zero means that the run is over. A generator that falls behind may [catch up](Self::catching_up).
    pub fn grant(&mut self, most: u64) -> u64 {
        let most = most.min(self.total - self.granted);
        loop {
            let elapsed = self.start.elapsed();
            if most == 0 || elapsed >= self.limit {
                return 0;
            }
            let ready = match self.pace {
                Pace::Flood => most,
                Pace::Rate(rate) => {
                    let due = elapsed.as_secs_f64() * rate as f64;
                    // A rate times a bounded run time is far below 2^53.
                    #[expect(clippy::cast_possible_truncation, reason = "whole tokens only")]
                    #[expect(clippy::cast_sign_loss, reason = "both factors are positive")]
                    let due = due as u64;
                    let late = due.saturating_sub(self.granted + self.forgone);
                    self.forgone += late.saturating_sub(self.most_late);
                    late.min(self.most_late).min(most)
                }
            };
            if ready > 0 {
                self.granted += ready;
                return ready;
            }
            thread::sleep(BREATH);
        }
    }

    /// Gives back `count` tokens that were not used.
    pub fn give_back(&mut self, count: u64) {
        self.granted -= count;
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// How long an exact count may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a generator sleeps when it is ahead of its rate.
const BREATH: Duration = Duration::from_micros(50);
