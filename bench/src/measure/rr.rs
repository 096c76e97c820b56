//! How long a request and its response take, alone and beside a load.

use vxlane_tests::LabError;
use vxlane_tests::traffic::rr::{self, RrOptions, RrReport};

use super::Turn;
use crate::load;
use crate::results::{Latency, Metric, Section};

impl Turn<'_> {
    pub(super) fn rr(&mut self, loaded: bool) -> Result<(), LabError> {
        let limit = self.plan.exchange;
        let options = RrOptions { count: self.plan.requests, limit, ..RrOptions::default() };
        let ask = || rr::exchange(&self.bed.left, &self.bed.right, &options);
        if loaded {
            let rate = BACKGROUND.min(self.lowest_load());
            let beside = load::under(self.bed, rate, self.plan.tools, ask)?;
            self.record_times(&format!("beside {:.0} kpps", rate / 1e3), &beside);
        } else {
            let alone = ask()?;
            self.record_times(ALONE, &alone);
        }
        Ok(())
    }

    fn record_times(&mut self, case: &str, report: &RrReport) {
        let times = [(Metric::P50, report.p50()), (Metric::P99, report.p99()), (Metric::P999, report.p999())];
        for (metric, time) in times {
            self.record(Section::Rr, case, metric, time.as_secs_f64() * 1e6, 0.0);
        }
        let curve = CURVE.map(|percent| (percent, report.percentile(percent).as_secs_f64() * 1e6)).to_vec();
        let (peer, round) = (self.peer(), self.round);
        self.results.latencies.push(Latency { case: case.to_owned(), peer, round, curve });
        let lost = 100.0 * f64::from(report.lost) / f64::from(report.sent.max(1));
        self.record(Section::Rr, case, Metric::Loss, lost, 0.0);
    }
}

/// Load beside which requests are made, in packets per second.
const BACKGROUND: f64 = 30e3;

/// The case without any load.
pub const ALONE: &str = "alone";

/// Percentiles that a distribution is drawn from.
const CURVE: [f64; 14] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95];
