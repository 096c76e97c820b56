//! A whole run: all beds alive at once, peers in turns, round by round.

use std::time::{Duration, Instant};

use vxlane_tests::LabError;

use crate::bed::Bed;
use crate::load::{self, Load};
use crate::machine::{self, Machine};
use crate::measure::{Plan, Turn};
use crate::peer::Peer;
use crate::progress::Progress;
use crate::results::{About, Results, Section};
use crate::search::LOWEST;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom; the wire is added where it is needed.
    pub peers: Vec<Peer>,
    /// Which parts of the report.
    pub sections: Vec<Section>,
    /// How often.
    pub rounds: u32,
    /// How long and how exact.
    pub plan: Plan,
    /// Whether `plan` is a short one, for the report.
    pub quick: bool,
    /// The command line, for the report.
    pub command: String,
    /// The commit, for the report.
    pub commit: Option<String>,
}

/// Measures. A peer that cannot be started, or fails on the way, is left out from then on, with
/// a line in [`Results::failures`].
///
/// # Errors
/// [`LabError`] when no lab can be made at all.
pub fn run(options: &Options) -> Result<Results, LabError> {
    let start = Instant::now();
    let mut results = Results {
        about: About {
            machine: Machine::here(),
            date: machine::date(),
            command: options.command.clone(),
            commit: options.commit.clone(),
            rounds: options.rounds,
            quick: options.quick,
            load_average: (machine::load_average(), 0.0),
            background: Vec::new(),
            fixed_load: 0.0,
            pins: options.plan.pins,
            seconds: 0.0,
        },
        samples: Vec::new(),
        drops: Vec::new(),
        notes: notes(options),
        failures: Vec::new(),
    };
    let progress = Progress::of(estimate(options));
    let (half, full): (Vec<Section>, Vec<Section>) =
        options.sections.iter().partition(|section| **section == Section::Half);
    if !full.is_empty() {
        let mut peers = vec![Peer::Wire];
        peers.extend(options.peers.iter().filter(|peer| **peer != Peer::Wire));
        let mut stage = Stage::set(&peers, Bed::full, &progress, &mut results);
        results.about.fixed_load = stage.fixed_load(options, &mut results)?;
        full.into_iter().for_each(|section| stage.play(section, options, &progress, &mut results));
    }
    if !half.is_empty() {
        let peers: Vec<Peer> = options.peers.iter().copied().filter(|peer| *peer != Peer::Wire).collect();
        let mut stage = Stage::set(&peers, Bed::half, &progress, &mut results);
        stage.play(Section::Half, options, &progress, &mut results);
    }
    progress.finish();
    results.about.load_average.1 = machine::load_average();
    results.about.seconds = start.elapsed().as_secs_f64();
    Ok(results)
}

/// The beds of all peers, each with its processes stopped while it is not its turn.
struct Stage {
    beds: Vec<Bed>,
}

impl Stage {
    fn set(
        peers: &[Peer],
        make: impl Fn(Peer) -> Result<Bed, LabError>,
        progress: &Progress,
        results: &mut Results,
    ) -> Self {
        let mut beds = Vec::new();
        for peer in peers {
            progress.say(&format!("starting {peer}"));
            match make(*peer) {
                Ok(bed) => {
                    bed.pause();
                    beds.push(bed);
                }
                Err(error) => results.failures.push(format!("{peer} could not be started: {error}")),
            }
        }
        Self { beds }
    }

    /// [`WANTED_LOAD`], or half of what the slowest peer delivers if that is less.
    fn fixed_load(&mut self, options: &Options, results: &mut Results) -> Result<f64, LabError> {
        let mut slowest = 2.0 * WANTED_LOAD;
        for bed in self.beds.iter().filter(|bed| bed.peer != Peer::Wire) {
            bed.resume();
            bed.warm_up()?;
            let trial = load::offer(bed, &Load::flood(CALIBRATION), options.plan.pins);
            bed.pause();
            match trial {
                Ok(trial) => slowest = slowest.min(trial.outcome().delivered),
                Err(error) => results.failures.push(error.to_string()),
            }
        }
        // Whole thousands read better, and what the slowest carries is only a guess here.
        Ok((slowest / 2.0 / 1e3).floor().max(LOWEST / 1e3) * 1e3)
    }

    /// Takes all rounds of one part of the report.
    fn play(&mut self, section: Section, options: &Options, progress: &Progress, results: &mut Results) {
        for round in 0..options.rounds {
            if let Ok(share) = machine::background(QUIET) {
                results.about.background.push(share);
            }
            for index in self.order(round) {
                let Some(bed) = self.beds.get(index) else { continue };
                let peer = bed.peer;
                progress.say(&format!("{section:?} {}/{} {peer}", round + 1, options.rounds));
                if let Err(error) = self.turn(index, section, round, options, results) {
                    results.failures.push(format!("{peer} failed in {section:?}, round {}: {error}", round + 1));
                }
                progress.advance(share_of(section, peer, &options.plan));
            }
            // Whoever failed is out, and its half-taken round with it is not made up for.
            let failed = |bed: &Bed| results.failures.iter().any(|line| line.starts_with(bed.peer.name()));
            self.beds.retain(|bed| !failed(bed));
        }
    }

    /// The wire first, because what it costs is subtracted; who follows is moved on every round.
    fn order(&self, round: u32) -> Vec<usize> {
        let (wire, mut others): (Vec<_>, Vec<_>) =
            (0..self.beds.len()).partition(|&index| self.beds.get(index).is_some_and(|bed| bed.peer == Peer::Wire));
        if !others.is_empty() {
            let first = round as usize % others.len();
            others.rotate_left(first);
        }
        wire.into_iter().chain(others).collect()
    }

    fn turn(
        &self,
        index: usize,
        section: Section,
        round: u32,
        options: &Options,
        results: &mut Results,
    ) -> Result<(), LabError> {
        let bed = &self.beds[index];
        if !section.concerns(bed.peer) {
            return Ok(());
        }
        bed.resume();
        if section != Section::Half {
            bed.warm_up()?;
        }
        let fixed_load = results.about.fixed_load;
        let outcome = Turn { plan: &options.plan, bed, round, fixed_load, results }.measure(section);
        bed.pause();
        outcome
    }
}

/// What a reader should know.
fn notes(options: &Options) -> Vec<String> {
    let mut notes = vec![
        "The underlay keeps its segmentation and checksum offloads, so that the kernel is not handicapped.".to_owned(),
        "Frame sizes are without FCS. Peers that are not being measured are stopped (SIGSTOP).".to_owned(),
    ];
    if options.peers.iter().any(|peer| matches!(peer, Peer::Null | Peer::OvsSystem | Peer::OvsAfxdp | Peer::OvsPmd)) {
        notes.push(
            "Containers of OVS and null finish checksums and segments themselves: those peers cannot.".to_owned(),
        );
    }
    notes
}

/// How long the whole run may take.
fn estimate(options: &Options) -> Duration {
    let per_section = |section: &Section| -> Duration {
        let wire = (*section != Section::Half).then_some(Peer::Wire);
        let peers = options.peers.iter().copied().filter(|peer| *peer != Peer::Wire).chain(wire);
        peers.map(|peer| share_of(*section, peer, &options.plan)).sum::<Duration>() * options.rounds
    };
    options.sections.iter().map(per_section).sum()
}

/// How long one turn may take; only its proportion to the others matters much.
fn share_of(section: Section, peer: Peer, plan: &Plan) -> Duration {
    if !section.concerns(peer) {
        return Duration::ZERO;
    }
    let cells = u32::try_from(plan.cells.len()).unwrap_or(1);
    let around = |time: Duration| time + OVERHEAD;
    match section {
        Section::Pps if peer == Peer::Wire => around(plan.flood) * cells,
        Section::Pps => (around(plan.flood) + around(plan.probe) * PROBES + around(plan.confirm) * 2) * cells,
        Section::Cpu => around(plan.cost) * 3,
        Section::Tcp => around(plan.tcp) * 2,
        Section::Rr => Duration::from_micros(300) * plan.requests * 2 + OVERHEAD,
        Section::Idle => around(plan.idle) + OVERHEAD,
        Section::Half => around(plan.flood) * 4,
    }
}

/// Offered load of the fixed-load cases, packets per second, where every peer carries twice that.
const WANTED_LOAD: f64 = 100e3;

/// How long the flood lasts from which the slowest peer is known.
const CALIBRATION: Duration = Duration::from_millis(300);

/// How long the machine is watched before a round.
const QUIET: Duration = Duration::from_millis(200);

/// What a measurement takes beside its own time.
const OVERHEAD: Duration = Duration::from_millis(250);

/// Short trials that a search takes.
const PROBES: u32 = 7;
