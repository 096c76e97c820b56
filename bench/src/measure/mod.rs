//! What is measured of one peer in one round, a file for each part of the report.

mod cpu;
mod half;
mod idle;
mod nat;
mod pps;
mod rr;
mod tcp;

pub use cpu::{FLOOD, NEAR_LIMIT, at};
pub use idle::CROWD;
pub use rr::ALONE;

use cpu::CostCase;
use half::HalfCase;
use nat::NatCase;

use std::time::Duration;

use vxlane_tests::LabError;

use crate::bed::Bed;
use crate::drops;
use crate::load::{self, Load, Tools, Trial};
use crate::peer::Peer;
use crate::results::{Drops, Metric, Results, Sample, Section};
use crate::search::Search;

/// How long and how exact single measurements are.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Short trial of a search.
    pub probe: Duration,
    /// Long trial that confirms what a search found.
    pub confirm: Duration,
    /// Flood.
    pub flood: Duration,
    /// Measurement of processor time.
    pub cost: Duration,
    /// TCP stream.
    pub tcp: Duration,
    /// Watch over an idle VTEP.
    pub idle: Duration,
    /// Most requests of one exchange.
    pub requests: u32,
    /// Exchange of requests, if it does not get to the last before.
    pub exchange: Duration,
    /// How exact a search is.
    pub search: Search,
    /// Frame length in bytes without FCS, and number of flows, of the searches.
    pub cells: Vec<(usize, u32)>,
    /// What offers the load, and takes it.
    pub tools: Tools,
}

impl Plan {
    /// The measurements that figures are quoted from.
    pub fn full() -> Self {
        let sizes = [load::SMALLEST, 512, LARGEST];
        Self {
            probe: Duration::from_millis(200),
            confirm: Duration::from_millis(700),
            flood: Duration::from_millis(400),
            cost: Duration::from_secs(1),
            tcp: Duration::from_secs(2),
            idle: Duration::from_secs(2),
            requests: 5_000,
            exchange: Duration::from_secs(2),
            search: Search { tolerated_loss: TOLERATED_LOSS, resolution: 1.065 },
            cells: sizes.iter().flat_map(|&size| FLOWS.map(|flows| (size, flows))).collect(),
            tools: Tools::default(),
        }
    }

    /// Measurements short enough to wait for, and of the cells that most is promised of.
    pub fn quick() -> Self {
        let [one, _, many] = FLOWS;
        Self {
            probe: Duration::from_millis(150),
            confirm: Duration::from_millis(300),
            flood: Duration::from_millis(250),
            cost: Duration::from_millis(500),
            tcp: Duration::from_secs(1),
            idle: Duration::from_secs(1),
            requests: 1_000,
            exchange: Duration::from_millis(700),
            search: Search { tolerated_loss: TOLERATED_LOSS, resolution: 1.1 },
            cells: vec![(load::SMALLEST, one), (load::SMALLEST, many), (LARGEST, one)],
            tools: Tools::default(),
        }
    }

    /// The shortest measurements that still are some: for tests of the harness.
    pub fn tiny() -> Self {
        let short = Duration::from_millis(60);
        Self {
            probe: short,
            confirm: short,
            flood: short,
            cost: short,
            tcp: short,
            idle: short,
            requests: 50,
            search: Search { tolerated_loss: 0.5, resolution: 2.0 },
            cells: vec![(load::SMALLEST, FLOWS[0]), (load::SMALLEST, FLOWS[2])],
            ..Self::quick()
        }
    }

    /// How many parts `section` has: peers take turns at each.
    pub fn parts(&self, section: Section, fixed_loads: &[f64]) -> usize {
        match section {
            Section::Pps => self.cells.len(),
            Section::Cpu => CostCase::all(fixed_loads).len(),
            Section::Tcp => tcp::STREAMS.len(),
            Section::Rr => 2,
            Section::Idle | Section::Crowd => 1,
            Section::Half => HalfCase::ALL.len(),
            Section::Nat => NatCase::ALL.len(),
        }
    }

    /// How long one peer is at one part, about.
    pub fn time_of(&self, section: Section, peer: Peer) -> Duration {
        if !section.concerns(peer) {
            return Duration::ZERO;
        }
        let around = |time: Duration| time + OVERHEAD;
        let rates = || around(self.flood) + around(self.probe) * PROBES + around(self.confirm);
        match section {
            Section::Pps if peer == Peer::Wire => around(self.flood),
            Section::Pps => rates(),
            Section::Cpu => around(self.cost),
            Section::Tcp => around(self.tcp),
            Section::Rr => around(TYPICAL_ANSWER * self.requests),
            Section::Idle | Section::Crowd => around(self.idle) + OVERHEAD,
            Section::Half => around(self.flood) + OVERHEAD,
            // Parts are of different lengths, and this is asked for each.
            Section::Nat => {
                let count = u32::try_from(NatCase::ALL.len()).unwrap_or(1);
                NatCase::ALL.iter().map(|case| around(case.time(self, rates()))).sum::<Duration>() / count
            }
        }
    }
}

/// One turn of one peer.
pub struct Turn<'a> {
    /// How long and how exact.
    pub plan: &'a Plan,
    /// Where.
    pub bed: &'a Bed,
    /// In which round, from 0.
    pub round: u32,
    /// Offered loads of the fixed-load cases, packets per second, the lowest first.
    pub fixed_loads: &'a [f64],
    /// Where the figures go.
    pub results: &'a mut Results,
}

impl Turn<'_> {
    /// Takes the figures of one part of `section`.
    ///
    /// # Errors
    /// [`LabError`] when something failed or a packet arrived changed; loss is a figure.
    pub fn measure(&mut self, section: Section, part: usize) -> Result<(), LabError> {
        match section {
            Section::Pps => self.plan.cells.get(part).map_or(Ok(()), |&(frame, flows)| self.pps(section, frame, flows)),
            Section::Cpu => CostCase::all(self.fixed_loads).get(part).map_or(Ok(()), |case| self.cpu(*case)),
            Section::Tcp => tcp::STREAMS.get(part).map_or(Ok(()), |streams| self.tcp(section, *streams)),
            Section::Rr => self.rr(part > 0),
            Section::Idle | Section::Crowd => self.idle(section),
            Section::Half => HalfCase::ALL.get(part).map_or(Ok(()), |case| self.half(*case)),
            Section::Nat => NatCase::ALL.get(part).map_or(Ok(()), |case| self.nat(*case)),
        }
    }

    fn lowest_load(&self) -> f64 {
        self.fixed_loads.first().copied().unwrap_or(f64::INFINITY)
    }

    fn peer(&self) -> Peer {
        self.bed.peer
    }

    fn offer(&self, load: &Load) -> Result<Trial, LabError> {
        load::offer(self.bed, load, self.plan.tools)
    }

    /// Floods, and notes what was lost where.
    fn flood(&mut self, section: Section, case: &str, load: &Load) -> Result<Trial, LabError> {
        let before = drops::read(self.bed);
        let trial = self.offer(load)?;
        let causes = drops::grown(&before, &drops::read(self.bed));
        self.note_drops(section, case, (trial.sent.packets, trial.lost()), causes);
        Ok(trial)
    }

    /// Notes that of so many packets `sent` so many were `lost`, and where.
    fn note_drops(&mut self, section: Section, case: &str, (sent, lost): (u64, u64), causes: Vec<(String, u64)>) {
        let (peer, round) = (self.peer(), self.round);
        self.results.drops.push(Drops { section, case: case.to_owned(), peer, round, sent, lost, causes });
    }

    fn record(&mut self, section: Section, case: &str, metric: Metric, value: f64, stolen: f64) {
        let (peer, round) = (self.peer(), self.round);
        self.results.samples.push(Sample { section, case: case.to_owned(), metric, peer, round, value, stolen });
    }
}

/// The name of a case of one size of frame and one number of flows.
pub fn cell(frame: usize, flows: u32) -> String {
    let size = if frame == LARGEST { "1450 B IP".to_owned() } else { format!("{frame} B") };
    let flows = if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") };
    format!("{size}, {flows}")
}

/// An IP packet of 1450 bytes, the most that fits the overlay, in its Ethernet frame.
pub const LARGEST: usize = 1450 + 14;

/// Numbers of flows.
pub const FLOWS: [u32; 3] = [1, 16, 1_000];

/// Loss below which a rate counts as carried.
const TOLERATED_LOSS: f64 = 0.005;

/// What a measurement takes beside its own time.
const OVERHEAD: Duration = Duration::from_millis(180);

/// Short trials that a search takes, in the middle between a first round and those that follow it.
const PROBES: u32 = 4;

/// Between the peers' times for one request and its response.
const TYPICAL_ANSWER: Duration = Duration::from_micros(150);
