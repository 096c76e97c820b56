//! What vxlane itself costs a packet, without I/O: instructions counted by callgrind, and
//! nanoseconds beside a `memcpy` of the same frame in the same run.
//!
//! What the dry ports cost is counted by itself and taken off: they stand for rings and devices.

use std::{
    hint::black_box,
    path::Path as FilePath,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::dry::{DRY_BURST, DryHarness, DryPlan, DryRun, Path};

/// What a packet may cost, in instructions.
pub const MOST_INSTRUCTIONS: f64 = 300.0;
/// How much more it may cost and how much longer it may take among a million of them.
pub const MOST_GROWTH: f64 = 1.5;

/// Bytes of the overlay frame, as everybody counts packets.
const FRAME: usize = 64;
const BURSTS: usize = 1000;

/// One line of the table.
struct Line {
    plan: DryPlan,
    /// Instructions a packet, of vxlane.
    instructions: f64,
    /// Instructions a packet, of the dry ports.
    harness: f64,
    nanoseconds: f64,
}

/// What every plan came to.
pub struct Measured {
    lines: Vec<Line>,
    /// Nanoseconds of a `memcpy` of the same frame.
    memcpy: f64,
}

/// Counts and times every plan.
///
/// # Errors
/// If callgrind cannot be run.
pub fn measure(dry_run: &FilePath) -> Result<Measured> {
    let lines = plans().into_iter().map(|plan| measure_one(dry_run, plan)).collect::<Result<Vec<_>>>()?;
    Ok(Measured { lines, memcpy: memcpy() })
}

impl Measured {
    /// Fails when a figure is worse than promised.
    ///
    /// # Errors
    /// Names all of these.
    pub fn check(&self) -> Result<()> {
        let broken = broken(&self.lines);
        ensure!(broken.is_empty(), "{}", broken.join("; "));
        Ok(())
    }

    /// The table, its head first.
    pub fn lines(&self) -> Vec<Vec<String>> {
        let head = ["path, 64 B", "stations", "VNIs", "instructions", "of the dry ports", "ns", "x memcpy"];
        let line = |Line { plan, instructions, harness, nanoseconds }: &Line| {
            vec![
                plan.path.name().to_owned(),
                plan.stations.to_string(),
                plan.networks.to_string(),
                format!("{instructions:.0}"),
                format!("{harness:.0}"),
                format!("{nanoseconds:.1}"),
                format!("{:.1}", nanoseconds / self.memcpy),
            ]
        };
        std::iter::once(head.map(str::to_owned).to_vec()).chain(self.lines.iter().map(line)).collect()
    }
}

fn plans() -> Vec<DryPlan> {
    let plan = |path, stations, networks| DryPlan { path, frame: FRAME, stations, networks };
    let paths = [Path::Encap, Path::Guarded, Path::Decap, Path::Local, Path::Flood];
    let by_stations = paths.into_iter().flat_map(|path| STATIONS.map(|stations| plan(path, stations, 1)));
    let over_v6 = [Path::Encap6, Path::Decap6].map(|path| plan(path, STATIONS[0], 1));
    by_stations.chain(over_v6).chain([1024, 16_384].map(|networks| plan(Path::Decap, 65_536, networks))).collect()
}

const STATIONS: [usize; 3] = [1_000, 65_536, 1_000_000];

fn measure_one(dry_run: &FilePath, plan: DryPlan) -> Result<Line> {
    let all = count(dry_run, &plan, "packets")?;
    let harness = count(dry_run, &plan, "harness")?;
    let nanoseconds = time(&plan)?;
    Ok(Line { plan, instructions: all - harness, harness, nanoseconds })
}

/// Instructions a packet of `dry-run`, inside of the function that does a burst.
fn count(dry_run: &FilePath, plan: &DryPlan, what: &str) -> Result<f64> {
    let numbers = [plan.frame, plan.stations, plan.networks, BURSTS].map(|number| number.to_string());
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*burst_of_packets*")
        .arg(dry_run)
        .arg(plan.path.name())
        .args(numbers)
        .arg(what)
        .output()
        .context("cannot run valgrind: `cargo xtask setup` installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind of {} failed:\n{said}", plan.path.name());
    let collected = collected(&said).with_context(|| format!("callgrind counted nothing:\n{said}"))?;
    Ok(collected / (BURSTS * DRY_BURST) as f64)
}

/// The number behind "Collected :" in what callgrind says at its end.
fn collected(said: &str) -> Option<f64> {
    let (_, number) = said.lines().find_map(|line| line.split_once("Collected :"))?;
    number.trim().parse().ok()
}

/// Nanoseconds a packet, without the dry ports: the median of many short looks.
fn time(plan: &DryPlan) -> Result<f64> {
    let mut run = DryRun::new(plan).map_err(|error| anyhow::anyhow!("{plan:?}: {error}"))?;
    let mut harness = DryHarness::new(plan);
    let all = median(|| run.burst_of_packets());
    Ok(all - median(|| harness.burst_of_packets()))
}

fn memcpy() -> f64 {
    let source = vec![[0x5a_u8; FRAME]; DRY_BURST];
    let mut target = vec![[0_u8; FRAME]; DRY_BURST];
    median(|| {
        for (to, from) in target.iter_mut().zip(black_box(&source)) {
            to.copy_from_slice(black_box(&from[..]));
        }
        black_box(&mut target);
    })
}

/// Nanoseconds a packet that `burst` takes: the median of 101 looks at 200 bursts each, after
/// as many that are not counted.
fn median(mut burst: impl FnMut()) -> f64 {
    let mut look = || {
        let start = Instant::now();
        (0..200).for_each(|_| burst());
        start.elapsed()
    };
    (0..101).for_each(|_| _ = look());
    let mut looks: Vec<Duration> = (0..101).map(|_| look()).collect();
    looks.sort_unstable();
    looks[50].as_nanos() as f64 / (200 * DRY_BURST) as f64
}

/// What is worse than promised, of the paths through a tunnel.
fn broken(lines: &[Line]) -> Vec<String> {
    let mut broken = Vec::new();
    for path in [Path::Encap, Path::Guarded, Path::Decap] {
        let name = path.name();
        let of_path = || lines.iter().filter(move |line| line.plan.path == path && line.plan.networks == 1);
        let Some(first) = of_path().next() else {
            broken.push(format!("{name} was not measured"));
            continue;
        };
        for line in of_path() {
            // A guard is looked at beside the work that this is promised of.
            if path != Path::Guarded && line.instructions >= MOST_INSTRUCTIONS {
                broken.push(format!(
                    "{name} among {} stations takes {:.0} instructions, not under {MOST_INSTRUCTIONS}",
                    line.plan.stations, line.instructions
                ));
            }
            let (more, longer) = (line.instructions / first.instructions, line.nanoseconds / first.nanoseconds);
            if more > MOST_GROWTH || longer > MOST_GROWTH {
                let stations = line.plan.stations;
                broken.push(format!(
                    "among {stations} stations {name} takes {more:.2} times the instructions and {longer:.2} times \
                     the time, not {MOST_GROWTH} at most"
                ));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 8640000\n==7==\n==7== I   refs:      8,640,000\n";
        assert_eq!(collected(said), Some(8_640_000.0));
        assert_eq!(collected("==7== Command: dry-run\n"), None);
    }

    #[test]
    fn what_costs_more_than_promised_is_named() {
        let line = |path, stations, instructions, nanoseconds| Line {
            plan: DryPlan { path, frame: FRAME, stations, networks: 1 },
            instructions,
            harness: 60.0,
            nanoseconds,
        };
        let kept = [line(Path::Encap, 1000, 199.0, 60.0), line(Path::Encap, 1_000_000, 298.0, 90.0)];
        let kept_too = [Path::Guarded, Path::Decap].map(|path| line(path, 1000, 250.0, 60.0));
        let flood = line(Path::Flood, 1000, 900.0, 400.0);
        assert_eq!(broken(&kept), ["guarded was not measured", "decap was not measured"]);
        let all: Vec<Line> = kept.into_iter().chain(kept_too).chain([flood]).collect();
        assert_eq!(broken(&all), Vec::<String>::new());
        let costly = [line(Path::Encap, 1000, 290.0, 60.0), line(Path::Encap, 1_000_000, 300.0, 91.0)];
        let slow = [line(Path::Decap, 1000, 190.0, 1.0), line(Path::Decap, 65_536, 290.0, 1.0)];
        let fine = line(Path::Guarded, 1000, 299.0, 60.0);
        let named = broken(&costly.into_iter().chain(slow).chain([fine]).collect::<Vec<_>>());
        assert_eq!(named.len(), 3, "{named:?}");
    }
}
