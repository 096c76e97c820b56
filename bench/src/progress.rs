//! Shows on stderr how far a run is; says nothing when nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a run of known length.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A run that takes about `length`. Hidden when stderr is not a terminal.
    pub(crate) fn of(length: Duration) -> Self {
        // indicatif draws on stderr, and only if that is a terminal.
        let bar = ProgressBar::new(milliseconds(length));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {eta} left  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar }
    }

    /// Says what is being done.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
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

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
