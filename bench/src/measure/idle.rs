//! What VTEPs cost while nothing is sent.

use std::thread;
use std::time::{Duration, Instant};

use vxlane_tests::LabError;

use super::Turn;
use crate::machine::ProcessUse;
use crate::results::{Metric, Section};

impl Turn<'_> {
    pub(super) fn idle(&mut self) -> Result<(), LabError> {
        // The warm-up's packets are dealt with by then.
        thread::sleep(SETTLE);
        let processes = self.bed.processes();
        let (before, start) = (ProcessUse::of(&processes), Instant::now());
        thread::sleep(self.plan.idle);
        let after = ProcessUse::of(&processes);
        let share = (after.cpu - before.cpu) / start.elapsed().as_secs_f64();
        self.record(Section::Idle, CASE, Metric::IdleCpu, share * 100.0, 0.0);
        self.record(Section::Idle, CASE, Metric::Rss, after.rss, 0.0);
        Ok(())
    }
}

const CASE: &str = "no traffic";
const SETTLE: Duration = Duration::from_millis(300);
