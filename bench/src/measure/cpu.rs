//! Processor time per delivered packet: at fixed loads, near the peer's own limit, under flood.

use vxlane_tests::LabError;

use super::{Turn, cell};
use crate::load::{self, Load, Trial};
use crate::peer::Peer;
use crate::results::{Metric, Row, Section};

/// A load at which processor time is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum CostCase {
    /// This many packets per second, the same for all peers.
    Fixed(f64),
    /// A little below what the peer carries without loss.
    NearLimit,
    /// As much as the generator can send.
    Flood,
}

impl CostCase {
    /// All of a run with these fixed loads.
    pub(super) fn all(fixed: &[f64]) -> Vec<Self> {
        fixed.iter().copied().map(Self::Fixed).chain([Self::NearLimit, Self::Flood]).collect()
    }
}

impl Turn<'_> {
    pub(super) fn cpu(&mut self, case: CostCase) -> Result<(), LabError> {
        let time = self.plan.cost;
        match case {
            CostCase::Fixed(rate) => {
                let trial = self.offer(&Load::at(rate, time))?;
                self.record_cost(&at(rate), &trial);
            }
            CostCase::NearLimit => {
                if let Some(limit) = self.own_limit() {
                    let trial = self.offer(&Load::at(limit * BELOW_LIMIT, time))?;
                    self.record_cost(NEAR_LIMIT, &trial);
                }
            }
            CostCase::Flood => {
                let trial = self.flood(Section::Cpu, FLOOD, &Load::flood(time))?;
                self.record_cost(FLOOD, &trial);
            }
        }
        Ok(())
    }

    fn record_cost(&mut self, case: &str, trial: &Trial) {
        let stolen = trial.cpu.stolen;
        self.record(Section::Cpu, case, Metric::CpuGross, trial.cost(), stolen);
        if let Some(tools) = self.tools_cost(case).filter(|_| self.peer() != Peer::Wire) {
            self.record(Section::Cpu, case, Metric::CpuNet, trial.cost() - tools, stolen);
        }
        let outcome = trial.outcome();
        self.record(Section::Cpu, case, Metric::CpuMachine, trial.machine_cost(), stolen);
        self.record(Section::Cpu, case, Metric::Arrived, outcome.delivered, stolen);
        self.record(Section::Cpu, case, Metric::Loss, outcome.loss * 100.0, stolen);
    }

    /// What generator and sink cost per packet in this round: the wire in the same case. Near a
    /// peer's own limit there is no such case of the wire, and nothing is subtracted.
    fn tools_cost(&self, case: &str) -> Option<f64> {
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

/// The name of the case of one fixed load.
pub fn at(rate: f64) -> String {
    format!("at {:.0} kpps", rate / 1e3)
}

/// The name of the case without a limit.
pub const FLOOD: &str = "under flood";

/// The name of the case a little below the peer's own limit.
pub const NEAR_LIMIT: &str = "at 90 % of its lossless rate";

/// Far enough below the limit for a loss to be rare.
const BELOW_LIMIT: f64 = 0.9;
