//! Several builds of vxlane against each other, in turns within one run.
//!
//! Two runs, one after the other, compare what the machine did as much as what a change did. Here
//! all builds are at work at once, each on a rig of its own, stopped while it is not its turn, and
//! who begins changes from round to round. So small changes can be told from noise.

use std::{
    path::{self, Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vxlane_tests::{
    LabError,
    lab::LabOptions,
    peer::{VtepKind, VxlaneOptions},
    rig::Rig,
    traffic::rr::{self, RrOptions},
};

use crate::{machine::Meter, stats::Spread, table::aligned};

/// A build, and what was measured of it.
struct Build {
    name: String,
    rig: Rig,
    /// Thousand packets delivered per second under a flood of 64-byte frames.
    rate: Vec<f64>,
    /// Microseconds of processor per packet delivered.
    cost: Vec<f64>,
    /// Microseconds of the median request and response on an idle rig.
    delay: Vec<f64>,
}

/// Measures `binaries` in so many `rounds` and returns a table.
///
/// # Errors
/// Whatever could not be started or measured.
pub fn run(binaries: &[PathBuf], rounds: usize) -> Result<String, LabError> {
    let mut builds = binaries.iter().map(|binary| Build::start(binary)).collect::<Result<Vec<_>, _>>()?;
    for round in 0..rounds {
        for turn in 0..builds.len() {
            let place = (turn + round) % builds.len();
            builds[place].signal(Signal::SIGCONT);
            builds[place].measure()?;
            builds[place].signal(Signal::SIGSTOP);
        }
    }
    // They are to end by themselves.
    builds.iter().for_each(|build| build.signal(Signal::SIGCONT));
    let head = ["build", "delivered under flood, kpps", "µs per packet", "request and response, µs"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(builds.iter().map(Build::row));
    Ok(aligned(&rows))
}

impl Build {
    fn start(binary: &Path) -> Result<Self, LabError> {
        // It is started by `ip netns exec`, which looks names without a path up elsewhere.
        let path = path::absolute(binary).map_err(LabError::syscall("getcwd", binary.display().to_string()))?;
        let options = VxlaneOptions { binary: Some(path), ..VxlaneOptions::default() };
        let kind = VtepKind::Vxlane(options);
        let rig = Rig::start(&LabOptions { wire_offload: true, ..LabOptions::default() }, [&kind, &kind])?;
        let name = binary.file_name().unwrap_or(binary.as_os_str()).to_string_lossy().into_owned();
        let this = Self { name, rig, rate: Vec::new(), cost: Vec::new(), delay: Vec::new() };
        this.rig.flood(FRAME, WARM_UP)?;
        this.signal(Signal::SIGSTOP);
        Ok(this)
    }

    fn measure(&mut self) -> Result<(), LabError> {
        self.rig.flood(FRAME, WARM_UP)?;
        let meter = Meter::start(self.processes())?;
        let (_, received) = self.rig.flood(FRAME, TURN)?;
        self.cost.push(meter.stop()?.run * 1e6 / received.distinct.max(1) as f64);
        self.rate.push(received.pps() / 1e3);
        let options = RrOptions { count: 500, ..RrOptions::default() };
        self.delay.push(rr::exchange(&self.rig.left, &self.rig.right, &options)?.p50().as_secs_f64() * 1e6);
        Ok(())
    }

    fn processes(&self) -> Vec<u32> {
        self.rig.vteps.iter().flat_map(|vtep| vtep.processes()).collect()
    }

    fn signal(&self, signal: Signal) {
        for process in self.processes() {
            // It has not been waited for, so the number is not another process's.
            let _ = kill(Pid::from_raw(process.cast_signed()), signal);
        }
    }

    fn row(&self) -> Vec<String> {
        let shown = |values: &[f64]| {
            Spread::of(values).map_or_else(String::new, |spread| {
                format!("{:.1} [{:.1}..{:.1}]", spread.median, spread.min, spread.max)
            })
        };
        vec![self.name.clone(), shown(&self.rate), shown(&self.cost), shown(&self.delay)]
    }
}

/// Bytes of a frame, without FCS.
const FRAME: usize = 64;
const WARM_UP: Duration = Duration::from_millis(200);
const TURN: Duration = Duration::from_secs(1);
