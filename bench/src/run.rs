//! A whole run: all beds alive at once, peers in turns, round by round.

use std::time::{Duration, Instant};

use vxlane_tests::LabError;

use crate::bed::Bed;
use crate::load::{self, Generator, Load};
use crate::machine::{self, Machine};
use crate::measure::{Plan, Turn};
use crate::peer::Peer;
use crate::progress::Progress;
use crate::results::{About, Results, Section};

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
            fixed_loads: vec![WANTED_LOAD],
            pins: options.plan.tools.pins,
            seconds: 0.0,
        },
        samples: Vec::new(),
        latencies: Vec::new(),
        drops: Vec::new(),
        notes: notes(options),
        failures: Vec::new(),
    };
    let progress = Progress::of(estimate(options));
    let wanted = |section: &Section| options.sections.contains(section);
    let full: Vec<Section> = FULL_PATH.into_iter().filter(wanted).collect();
    let others = || options.peers.iter().copied().filter(|peer| *peer != Peer::Wire);
    if !full.is_empty() {
        let peers: Vec<Peer> = std::iter::once(Peer::Wire).chain(others()).collect();
        let mut stage = Stage::set(&peers, Bed::full, &progress, &mut results);
        results.about.fixed_loads = stage.fixed_loads(options, &mut results)?;
        full.into_iter().for_each(|section| stage.play(section, options, &progress, &mut results));
    }
    for (section, make) in
        [(Section::Half, Bed::half as fn(Peer) -> _), (Section::Crowd, Bed::crowd), (Section::Nat, Bed::ways_out)]
    {
        if wanted(&section) {
            let peers: Vec<Peer> = others().filter(|peer| section.concerns(*peer)).collect();
            let mut stage = Stage::set(&peers, make, &progress, &mut results);
            stage.play(section, options, &progress, &mut results);
        }
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

    /// [`WANTED_LOAD`], and before it a load that even the slowest peer carries with ease, where
    /// that is less.
    fn fixed_loads(&mut self, options: &Options, results: &mut Results) -> Result<Vec<f64>, LabError> {
        let mut slowest = 2.0 * WANTED_LOAD;
        for bed in self.beds.iter().filter(|bed| bed.peer != Peer::Wire) {
            bed.resume();
            bed.warm_up()?;
            let trial = load::offer(bed, &Load::flood(CALIBRATION), options.plan.tools);
            bed.pause();
            match trial {
                Ok(trial) => slowest = slowest.min(trial.outcome().delivered),
                Err(error) => results.failures.push(error.to_string()),
            }
        }
        // Round figures, so that other runs have the same.
        let easy = EASY_LOADS.into_iter().rev().find(|load| *load <= slowest / 2.0).unwrap_or(EASY_LOADS[0]);
        Ok(if slowest < 2.0 * WANTED_LOAD { vec![easy, WANTED_LOAD] } else { vec![WANTED_LOAD] })
    }

    /// Takes all rounds of one part of the report.
    fn play(&mut self, section: Section, options: &Options, progress: &Progress, results: &mut Results) {
        for round in 0..options.rounds {
            if let Ok(share) = machine::background(QUIET) {
                results.about.background.push(share);
            }
            for part in 0..options.plan.parts(section, &results.about.fixed_loads) {
                for index in self.order(round) {
                    let Some(bed) = self.beds.get(index) else { continue };
                    let peer = bed.peer;
                    progress.say(&format!("{}, round {} of {}: {peer}", section.name(), round + 1, options.rounds));
                    if let Err(error) = self.turn(index, (section, part), round, options, results) {
                        let round = round + 1;
                        results.failures.push(format!("{peer} failed in {}, round {round}: {error}", section.name()));
                    }
                    progress.advance(options.plan.time_of(section, peer));
                }
                // Whoever failed is out, and its half-taken round with it is not made up for.
                let failed = |bed: &Bed| results.failures.iter().any(|line| line.starts_with(bed.peer.name()));
                self.beds.retain(|bed| !failed(bed));
            }
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
        (section, part): (Section, usize),
        round: u32,
        options: &Options,
        results: &mut Results,
    ) -> Result<(), LabError> {
        let bed = &self.beds[index];
        if !section.concerns(bed.peer) {
            return Ok(());
        }
        bed.resume();
        if FULL_PATH.contains(&section) {
            bed.warm_up()?;
        }
        let fixed_loads = results.about.fixed_loads.clone();
        let mut turn = Turn { plan: &options.plan, bed, round, fixed_loads: &fixed_loads, results };
        let outcome = turn.measure(section, part);
        bed.pause();
        outcome
    }
}

/// What a reader should know.
fn notes(options: &Options) -> Vec<String> {
    let generator = match options.plan.tools.generator {
        Generator::Packets => {
            "UDP packets are put on devices by AF_XDP and taken off them by packet sockets: no IP stack sees them."
        }
        Generator::Sockets => "UDP packets go from socket to socket, through the containers' IP stacks.",
        Generator::Pktgen => {
            "UDP packets are put on devices by AF_XDP, or pktgen on half paths, and taken off them by packet sockets."
        }
    };
    let mut notes = vec![
        generator.to_owned(),
        "The underlay keeps its segmentation and checksum offloads, so that the kernel is not handicapped.".to_owned(),
        "Frame sizes are without FCS. Peers that are not being measured are stopped (SIGSTOP).".to_owned(),
        "Gross cost: processor time of generator, sink, the peer's processes and the kernel's packet threads, \
         per delivered packet; the wire's is what generator and sink cost alone."
            .to_owned(),
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
        let peers = options.peers.iter().copied().filter(|peer| *peer != Peer::Wire).chain([Peer::Wire]);
        let once: Duration = peers.map(|peer| options.plan.time_of(*section, peer)).sum();
        let parts = options.plan.parts(*section, &[WANTED_LOAD / 2.0, WANTED_LOAD]);
        once * options.rounds * u32::try_from(parts).unwrap_or(1)
    };
    options.sections.iter().map(per_section).sum()
}

/// The parts of the report that are measured from container to container.
const FULL_PATH: [Section; 5] = [Section::Pps, Section::Cpu, Section::Tcp, Section::Rr, Section::Idle];

/// Offered load of the fixed-load case, packets per second.
pub const WANTED_LOAD: f64 = 100e3;

/// Loads for machines and peers that cannot carry twice [`WANTED_LOAD`].
const EASY_LOADS: [f64; 5] = [5e3, 10e3, 20e3, 30e3, 50e3];

/// How long the flood lasts from which the slowest peer is known.
const CALIBRATION: Duration = Duration::from_millis(300);

/// How long the machine is watched before a round.
const QUIET: Duration = Duration::from_millis(200);
