//! How long a request and its response take, alone and beside a load.

use vxlane_tests::LabError;
use vxlane_tests::traffic::rr::{self, RrOptions, RrReport};

use super::Turn;
use crate::load;
use crate::results::{Metric, Section};

impl Turn<'_> {
    pub(super) fn rr(&mut self) -> Result<(), LabError> {
        let options = RrOptions { count: self.plan.requests, ..RrOptions::default() };
        let ask = || rr::exchange(&self.bed.left, &self.bed.right, &options);
        let alone = ask()?;
        let rate = BACKGROUND.min(self.fixed_load);
        let beside = load::under(self.bed, rate, ask)?;
        self.record_times("alone", &alone);
        self.record_times(&format!("beside {:.0} kpps", rate / 1e3), &beside);
        Ok(())
    }

    fn record_times(&mut self, case: &str, report: &RrReport) {
        let times = [(Metric::P50, report.p50()), (Metric::P99, report.p99()), (Metric::P999, report.p999())];
        for (metric, time) in times {
            self.record(Section::Rr, case, metric, time.as_secs_f64() * 1e6, 0.0);
        }
        let lost = 100.0 * f64::from(report.lost) / f64::from(report.sent.max(1));
        self.record(Section::Rr, case, Metric::Loss, lost, 0.0);
    }
}

/// Load beside which requests are made, in packets per second.
const BACKGROUND: f64 = 30e3;
