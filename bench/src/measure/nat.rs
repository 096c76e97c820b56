//! Address translation: packets of established flows, a TCP stream, and connections opened and closed.

use std::time::Duration;

use vxlane_tests::LabError;
use vxlane_tests::traffic::crr::{self, CrrOptions};

use super::{FLOWS, Turn};
use crate::load::{Load, SMALLEST};
use crate::machine::Meter;
use crate::results::{Metric, Section};

/// What is done through the translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NatCase {
    /// UDP packets of so many flows.
    Udp(u32),
    /// One TCP stream.
    Stream,
    /// Connections, one after the other.
    Connections,
}

impl NatCase {
    /// All of a run.
    pub(super) const ALL: [Self; 4] = [Self::Udp(FLOWS[0]), Self::Udp(FLOWS[2]), Self::Stream, Self::Connections];

    /// How long it takes, about; `udp` is what a search of rates takes.
    pub(super) fn time(self, plan: &super::Plan, udp: Duration) -> Duration {
        match self {
            Self::Udp(_) => udp + plan.cost,
            Self::Stream => plan.tcp,
            Self::Connections => plan.exchange,
        }
    }
}

impl Turn<'_> {
    pub(super) fn nat(&mut self, case: NatCase) -> Result<(), LabError> {
        self.bed.forget_sessions()?;
        match case {
            NatCase::Udp(flows) => {
                self.pps(Section::Nat, SMALLEST, flows)?;
                let trial = self.offer(&Load { flows, ..Load::flood(self.plan.cost) })?;
                self.record(Section::Nat, &super::cell(SMALLEST, flows), Metric::CpuGross, trial.cost(), 0.0);
                Ok(())
            }
            NatCase::Stream => self.tcp(Section::Nat, 1),
            NatCase::Connections => self.connections(),
        }
    }

    fn connections(&mut self) -> Result<(), LabError> {
        let options = CrrOptions { count: MOST, limit: self.plan.exchange };
        let meter = Meter::start(self.bed.processes())?;
        let (left, right) = (self.bed.left.ns(), &self.bed.right);
        let report = crr::exchange(left, right.ns(), right.ipv4(), &options)?;
        let cpu = meter.stop()?;
        self.record(Section::Nat, CONNECTIONS, Metric::Connections, report.rate(), cpu.stolen);
        Ok(())
    }
}

/// The case of connections.
const CONNECTIONS: &str = "connect, request, close";
/// Connections of one turn. A client has 28,000 ports, each of which rests for a minute.
const MOST: u32 = 2_000;
