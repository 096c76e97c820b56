//! What is measured of one peer in one round, a file for each part of the report.

mod cpu;
mod half;
mod idle;
mod pps;
mod rr;
mod tcp;

use std::time::Duration;

use vxlane_tests::LabError;

use crate::bed::Bed;
use crate::drops;
use crate::load::{self, Load, Trial};
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
    /// Requests.
    pub requests: u32,
    /// How exact a search is.
    pub search: Search,
    /// Frame length in bytes without FCS, and number of flows, of the searches.
    pub cells: Vec<(usize, u32)>,
    /// Processors for generator and sink.
    pub pins: Option<(usize, usize)>,
    /// Whether the kernel's pktgen offers the load into tunnels on half paths.
    pub pktgen: bool,
}

impl Plan {
    /// The measurements that figures are quoted from.
    pub fn full() -> Self {
        let sizes = [load::SMALLEST, 512, LARGEST];
        Self {
            probe: Duration::from_millis(600),
            confirm: Duration::from_secs(2),
            flood: Duration::from_secs(1),
            cost: Duration::from_secs(2),
            tcp: Duration::from_secs(3),
            idle: Duration::from_secs(2),
            requests: 10_000,
            search: Search { tolerated_loss: TOLERATED_LOSS, resolution: 1.03 },
            cells: sizes.iter().flat_map(|&size| FLOWS.map(|flows| (size, flows))).collect(),
            pins: None,
            pktgen: false,
        }
    }

    /// Measurements short enough to wait for: the same ones, of a cross instead of every cell.
    pub fn quick() -> Self {
        let [one, some, many] = FLOWS;
        let cells =
            vec![(load::SMALLEST, one), (512, one), (LARGEST, one), (load::SMALLEST, some), (load::SMALLEST, many)];
        Self {
            probe: Duration::from_millis(200),
            confirm: Duration::from_millis(400),
            flood: Duration::from_millis(250),
            cost: Duration::from_millis(600),
            tcp: Duration::from_secs(1),
            idle: Duration::from_secs(2),
            requests: 2_000,
            search: Search { tolerated_loss: TOLERATED_LOSS, resolution: 1.08 },
            cells,
            pins: None,
            pktgen: false,
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
            tcp: Duration::from_secs(1),
            idle: short,
            requests: 50,
            search: Search { tolerated_loss: 0.5, resolution: 2.0 },
            cells: vec![(load::SMALLEST, 1), (LARGEST, 16)],
            ..Self::quick()
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
    /// Offered load of the fixed-load cases, packets per second.
    pub fixed_load: f64,
    /// Where the figures go.
    pub results: &'a mut Results,
}

impl Turn<'_> {
    /// Takes the figures of `section`.
    ///
    /// # Errors
    /// [`LabError`] when something failed or a packet arrived changed; loss is a figure.
    pub fn measure(&mut self, section: Section) -> Result<(), LabError> {
        match section {
            Section::Pps => self.pps(),
            Section::Cpu => self.cpu(),
            Section::Tcp => self.tcp(),
            Section::Rr => self.rr(),
            Section::Idle => self.idle(),
            Section::Half => self.half(),
        }
    }

    fn peer(&self) -> Peer {
        self.bed.peer
    }

    fn offer(&self, load: &Load) -> Result<Trial, LabError> {
        load::offer(self.bed, load, self.plan.pins)
    }

    /// Floods, and notes what was lost where.
    fn flood(&mut self, section: Section, case: &str, load: &Load) -> Result<Trial, LabError> {
        let before = drops::read(self.bed);
        let trial = self.offer(load)?;
        let causes = drops::grown(&before, &drops::read(self.bed));
        self.note_drops(section, case, trial.sent.packets, causes);
        Ok(trial)
    }

    fn note_drops(&mut self, section: Section, case: &str, sent: u64, causes: Vec<(String, u64)>) {
        let (peer, round) = (self.peer(), self.round);
        self.results.drops.push(Drops { section, case: case.to_owned(), peer, round, sent, causes });
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
