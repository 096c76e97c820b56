//! Shows on stderr how far a run is: a bar on a terminal, a line now and then elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a run whose length was estimated.
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    /// When the last line was written, where there is no terminal for a bar.
    last_line: Cell<Option<Instant>>,
}

impl Progress {
    /// A run that takes about `length`.
    pub(crate) fn of(length: Duration) -> Self {
        let bar = ProgressBar::new(milliseconds(length));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {elapsed} gone  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar, start: Instant::now(), last_line: Cell::new(None) }
    }

    /// Says what is being done, and how long all that is left will take if it goes on as so far.
    pub(crate) fn say(&self, what: &str) {
        let left = time_left(self.start.elapsed(), self.bar.position(), self.bar.length().unwrap_or(0));
        let text = format!("{what}, {}", spoken(left));
        let silent = self.last_line.get().is_some_and(|last| last.elapsed() < PAUSE);
        if !std::io::stderr().is_terminal() && !silent {
            self.last_line.set(Some(Instant::now()));
            eprintln!("{text}");
        }
        self.bar.set_message(text);
    }

    /// A part that was estimated at `share` is done.
    pub(crate) fn advance(&self, share: Duration) {
        self.bar.inc(milliseconds(share));
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The rest of the estimate, stretched as what is done was; early on, the estimate as it is.
fn time_left(gone: Duration, done: u64, all: u64) -> Duration {
    let rest = Duration::from_millis(all.saturating_sub(done));
    if done < TRUSTED {
        return rest;
    }
    rest.mul_f64(gone.as_secs_f64() * 1e3 / done as f64)
}

fn spoken(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..90 => format!("about {seconds} s left"),
        seconds => format!("about {} min left", (seconds + 30) / 60),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Estimated milliseconds that must be done before their real length says something.
const TRUSTED: u64 = 15_000;

/// Time between lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_stretched_as_what_is_done_was() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(seconds(60), 30_000, 90_000), seconds(120));
        assert_eq!(time_left(seconds(9), 1_000, 90_000), seconds(89));
        assert_eq!(time_left(seconds(99), 90_000, 90_000), seconds(0));
    }

    #[test]
    fn minutes_are_rounded_and_seconds_are_not() {
        assert_eq!(spoken(Duration::from_secs(89)), "about 89 s left");
        assert_eq!(spoken(Duration::from_secs(100)), "about 2 min left");
    }
}
