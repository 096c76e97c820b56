//! Several builds of vxlane against each other, in turns within one run.
//!
//! Two runs, one after the other, compare what the machine did as much as what a change did. Here
//! all builds are at work at once, each on a rig of its own, stopped while it is not its turn, and
//! who begins changes from round to round. So small changes can be told from noise.

use std::path::{self, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use vxlane_tests::LabError;
use vxlane_tests::traffic::rr::{self, RrOptions};

use crate::bed::Bed;
use crate::load::{self, Load, Tools};
use crate::machine::ProcessUse;
use crate::results::Metric;
use crate::run::WANTED_LOAD;
use crate::search::{Length, Search};
use crate::stats::Spread;

/// A program to be measured, and what it is called: `NAME=PATH`, or a path alone.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').map_or((None, text), |(name, path)| (Some(name), path));
        // It is started by `ip netns exec`, which looks names without a path up elsewhere.
        let path = path::absolute(path).map_err(|error| format!("{path}: {error}"))?;
        if !path.is_file() {
            return Err(format!("there is no program {}", path.display()));
        }
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(Self { name: name.map_or_else(|| file.into_owned(), str::to_owned), path })
    }
}

/// A build at work, and what was measured of it: for each column a value in each round.
struct Build {
    name: String,
    bed: Bed,
    values: [Vec<f64>; COLUMNS.len()],
}

/// Measures `programs` in so many `rounds`, with UDP frames of `frame` bytes, and returns a table:
/// a line for each, the first being what the others are compared with.
///
/// # Errors
/// Whatever could not be started or measured.
pub fn run(programs: &[Program], rounds: usize, frame: usize) -> Result<Vec<Vec<String>>, LabError> {
    let mut builds = programs.iter().map(Build::start).collect::<Result<Vec<_>, _>>()?;
    for round in 0..rounds {
        for turn in 0..builds.len() {
            let place = (turn + round) % builds.len();
            eprintln!("round {} of {rounds}: {}", round + 1, builds[place].name);
            builds[place].measure(frame)?;
        }
    }
    let head = std::iter::once("build").chain(COLUMNS.map(|(name, _)| name)).map(str::to_owned);
    let lines = builds.iter().map(|build| build.line(&builds[0]));
    Ok(std::iter::once(head.collect()).chain(lines).collect())
}

impl Build {
    fn start(program: &Program) -> Result<Self, LabError> {
        let bed = Bed::of_build(&program.path)?;
        bed.pause();
        Ok(Self { name: program.name.clone(), bed, values: Default::default() })
    }

    fn measure(&mut self, frame: usize) -> Result<(), LabError> {
        self.bed.resume();
        self.bed.warm_up()?;
        let load = |rate, time| Load { frame, flows: 1, rate, time };
        let flood = load::offer(&self.bed, &load(None, FLOOD), Tools::default())?;
        let [lossless, ..] = &self.values;
        let hint = Spread::of(lossless).map(|spread| spread.median);
        let lossless = SEARCH.highest_rate(flood.outcome(), hint, |rate, length| {
            let time = if length == Length::Probe { PROBE } else { CONFIRM };
            load::offer(&self.bed, &load(Some(rate), time), Tools::default()).map(|trial| trial.outcome())
        })?;
        let fixed = load::offer(&self.bed, &load(Some(WANTED_LOAD), FIXED), Tools::default())?;
        let options = RrOptions { count: REQUESTS, ..RrOptions::default() };
        let answers = rr::exchange(&self.bed.left, &self.bed.right, &options)?;
        let [p50, p99] = [answers.p50(), answers.p99()].map(|time| time.as_secs_f64() * 1e6);
        let idle = self.idle();
        self.bed.pause();
        let row = [lossless, flood.outcome().delivered, flood.cost(), fixed.cost(), p50, p99, idle];
        self.values.iter_mut().zip(row).for_each(|(values, value)| values.push(value));
        Ok(())
    }

    /// Processor time of its processes without traffic, in percent of one processor.
    fn idle(&self) -> f64 {
        thread::sleep(SETTLE);
        let processes = self.bed.processes();
        let (before, start) = (ProcessUse::of(&processes), Instant::now());
        thread::sleep(IDLE);
        (ProcessUse::of(&processes).cpu - before.cpu) / start.elapsed().as_secs_f64() * 100.0
    }

    fn line(&self, first: &Self) -> Vec<String> {
        let cells = self.values.iter().zip(&first.values).zip(COLUMNS).map(|((own, theirs), (_, metric))| {
            let (Some(own), Some(theirs)) = (Spread::of(own), Spread::of(theirs)) else { return String::new() };
            let mark = match metric.better() {
                better if own.beats(&theirs, better) => " ▲",
                better if theirs.beats(&own, better) => " ▼",
                _ => "",
            };
            metric.show_spread(&own) + mark
        });
        std::iter::once(self.name.clone()).chain(cells).collect()
    }
}

/// What is measured of each.
const COLUMNS: [(&str, Metric); 7] = [
    ("loss < 0.5 %, kpps", Metric::Lossless),
    ("under flood, kpps", Metric::Flood),
    ("µs/pkt under flood", Metric::CpuGross),
    ("µs/pkt at 100 kpps", Metric::CpuGross),
    ("p50, µs", Metric::P50),
    ("p99, µs", Metric::P99),
    ("idle, %", Metric::IdleCpu),
];
const SEARCH: Search = Search { tolerated_loss: 0.005, resolution: 1.05 };
const FLOOD: Duration = Duration::from_millis(600);
const PROBE: Duration = Duration::from_millis(200);
const CONFIRM: Duration = Duration::from_millis(500);
const FIXED: Duration = Duration::from_millis(700);
const REQUESTS: u32 = 500;
const SETTLE: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_millis(500);
