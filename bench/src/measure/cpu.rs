//! Processor time per delivered packet: at a fixed load, near the peer's own limit, under flood.

use vxlane_tests::LabError;

use super::{Turn, cell};
use crate::load::{self, Load, Trial};
use crate::peer::Peer;
use crate::results::{Metric, Row, Section};

impl Turn<'_> {
    pub(super) fn cpu(&mut self) -> Result<(), LabError> {
        let time = self.plan.cost;
        let fixed = self.offer(&Load::at(self.fixed_load, time))?;
        self.record_cost(&fixed_case(self.fixed_load), &fixed);
        if let Some(limit) = self.own_limit() {
            let near = self.offer(&Load::at(limit * BELOW_LIMIT, time))?;
            self.record_cost(NEAR_LIMIT, &near);
        }
        let flood = self.flood(Section::Cpu, FLOOD, &Load::flood(time))?;
        self.record_cost(FLOOD, &flood);
        Ok(())
    }

    fn record_cost(&mut self, case: &str, trial: &Trial) {
        let stolen = trial.cpu.stolen();
        self.record(Section::Cpu, case, Metric::CpuGross, trial.cost(), stolen);
        if let Some(tools) = self.tools_cost(case).filter(|_| self.peer() != Peer::Wire) {
            self.record(Section::Cpu, case, Metric::CpuNet, trial.cost() - tools, stolen);
        }
        let outcome = trial.outcome();
        self.record(Section::Cpu, case, Metric::Arrived, outcome.delivered, stolen);
        self.record(Section::Cpu, case, Metric::Loss, outcome.loss * 100.0, stolen);
    }

    /// What generator and sink cost per packet in this round: the wire in the same case, or, near
    /// a peer's own limit, at the fixed load, where the generator paces itself as well.
    fn tools_cost(&self, case: &str) -> Option<f64> {
        let case = if case == NEAR_LIMIT { &fixed_case(self.fixed_load) } else { case };
        let tools = self.results.samples.iter().rev().find(|sample| {
            sample.peer == Peer::Wire
                && sample.round == self.round
                && sample.metric == Metric::CpuGross
                && sample.case == case
        });
        tools.map(|sample| sample.value)
    }

    /// The peer's lossless rate for the smallest frames, where this run has measured it.
    fn own_limit(&self) -> Option<f64> {
        let case = cell(load::SMALLEST, 1);
        let row = Row { section: Section::Pps, case, metric: Metric::Lossless };
        self.results.spread(&row, self.peer()).map(|spread| spread.median).filter(|rate| *rate > 0.0)
    }
}

fn fixed_case(rate: f64) -> String {
    format!("at {:.0} kpps", rate / 1e3)
}

const FLOOD: &str = "under flood";

const NEAR_LIMIT: &str = "at 90 % of its lossless rate";

/// Far enough below the limit for a loss to be rare.
const BELOW_LIMIT: f64 = 0.9;
