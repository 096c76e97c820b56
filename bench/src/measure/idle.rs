//! What VTEPs cost while nothing is sent.

use std::thread;
use std::time::{Duration, Instant};

use vxlane_tests::LabError;

use super::Turn;
use crate::machine::ProcessUse;
use crate::results::{Metric, Section};

impl Turn<'_> {
    pub(super) fn idle(&mut self, section: Section) -> Result<(), LabError> {
        // The warm-up's packets are dealt with by then.
        thread::sleep(SETTLE);
        let processes = self.bed.processes();
        let (before, start) = (ProcessUse::of(&processes), Instant::now());
        thread::sleep(self.plan.idle);
        let after = ProcessUse::of(&processes);
        let share = (after.cpu - before.cpu) / start.elapsed().as_secs_f64();
        let case = if section == Section::Crowd { CROWD } else { PAIR };
        self.record(section, case, Metric::IdleCpu, share * 100.0, 0.0);
        self.record(section, case, Metric::Rss, after.rss, 0.0);
        Ok(())
    }
}

const PAIR: &str = "no traffic, both hosts";

/// The case of many ports.
pub const CROWD: &str = "no traffic, 64 ports";

const SETTLE: Duration = Duration::from_millis(300);
