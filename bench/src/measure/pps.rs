//! Packets per second: what arrives under flood, and the highest rate with next to no loss.

use vxlane_tests::LabError;

use super::{Turn, cell};
use crate::load::Load;
use crate::peer::Peer;
use crate::results::{Metric, Row, Section};
use crate::search::Length;

impl Turn<'_> {
    pub(super) fn pps(&mut self, section: Section, frame: usize, flows: u32) -> Result<(), LabError> {
        let case = cell(frame, flows);
        let load = Load { frame, flows, rate: None, time: self.plan.flood };
        let flood = self.flood(section, &case, &load)?;
        // The wire loses nothing of interest: what it carries is what the generator can do.
        if self.peer() != Peer::Wire {
            let row = Row { section, case: case.clone(), metric: Metric::Lossless };
            let hint = self.results.spread(&row, self.peer()).map(|spread| spread.median);
            let rate = self.plan.search.highest_rate(flood.outcome(), hint, |rate, length| {
                let time = match length {
                    Length::Probe => self.plan.probe,
                    Length::Confirm => self.plan.confirm,
                };
                self.offer(&Load { rate: Some(rate), time, ..load }).map(|trial| trial.outcome())
            })?;
            self.record(section, &case, Metric::Lossless, rate, flood.cpu.stolen);
        }
        self.record(section, &case, Metric::Flood, flood.outcome().delivered, flood.cpu.stolen);
        Ok(())
    }
}
