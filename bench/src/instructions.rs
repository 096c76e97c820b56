//! What vxlane itself costs a packet, without I/O: instructions counted by callgrind, and
//! nanoseconds beside a `memcpy` of the same frame in the same run.
//!
//! What the dry ports cost is counted by itself and taken off: they stand for rings and devices.

use std::{
    fmt::Write,
    hint::black_box,
    path::Path as FilePath,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::dry::{DRY_BURST, DryHarness, DryPlan, DryRun, Path};

/// What a packet may cost among a thousand known stations, in instructions.
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

/// Counts and times every plan, and says it as a table.
///
/// # Errors
/// If callgrind cannot be run, or a figure is worse than promised; the table is printed first.
pub fn run(dry_run: &FilePath) -> Result<()> {
    let lines = plans().into_iter().map(|plan| measure(dry_run, plan)).collect::<Result<Vec<_>>>()?;
    print!("{}", table(&lines, memcpy()));
    let broken = broken(&lines);
    ensure!(broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}

fn plans() -> Vec<DryPlan> {
    let plan = |path, stations, networks| DryPlan { path, frame: FRAME, stations, networks };
    let paths = [Path::Encap, Path::Decap, Path::Local, Path::Flood];
    let by_stations = paths.into_iter().flat_map(|path| STATIONS.map(|stations| plan(path, stations, 1)));
    let over_v6 = [Path::Encap6, Path::Decap6].map(|path| plan(path, STATIONS[0], 1));
    by_stations.chain(over_v6).chain([1024, 16_384].map(|networks| plan(Path::Decap, 65_536, networks))).collect()
}

const STATIONS: [usize; 3] = [1_000, 65_536, 1_000_000];

fn measure(dry_run: &FilePath, plan: DryPlan) -> Result<Line> {
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

fn table(lines: &[Line], memcpy: f64) -> String {
    let mut text = format!(
        "bursts of {DRY_BURST}, {FRAME} B, without I/O; memcpy of the frame takes {memcpy:.1} ns\n\
         {:<7}{:>10}{:>8}{:>14}{:>10}{:>8}{:>10}\n",
        "path", "stations", "VNIs", "instructions", "(ports)", "ns", "x memcpy"
    );
    for Line { plan, instructions, harness, nanoseconds } in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<7}{:>10}{:>8}{instructions:>14.0}{harness:>10.0}{nanoseconds:>8.1}{:>10.1}",
            plan.path.name(),
            plan.stations,
            plan.networks,
            nanoseconds / memcpy,
        );
    }
    text
}

/// What is worse than promised, of the two paths through a tunnel.
fn broken(lines: &[Line]) -> Vec<String> {
    let mut broken = Vec::new();
    for path in [Path::Encap, Path::Decap] {
        let name = path.name();
        let of_path = || lines.iter().filter(move |line| line.plan.path == path && line.plan.networks == 1);
        let Some(first) = of_path().next() else {
            broken.push(format!("{name} was not measured"));
            continue;
        };
        if first.instructions >= MOST_INSTRUCTIONS {
            broken.push(format!("{name} takes {:.0} instructions, not under {MOST_INSTRUCTIONS}", first.instructions));
        }
        for line in of_path() {
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
        let kept = [line(Path::Encap, 1000, 299.0, 60.0), line(Path::Encap, 1_000_000, 440.0, 90.0)];
        let kept_too = [line(Path::Decap, 1000, 250.0, 60.0), line(Path::Flood, 1000, 900.0, 400.0)];
        assert_eq!(broken(&kept), ["decap was not measured"]);
        let all: Vec<Line> = kept.into_iter().chain(kept_too).collect();
        assert_eq!(broken(&all), Vec::<String>::new());
        let costly = [line(Path::Encap, 1000, 300.0, 60.0), line(Path::Encap, 1_000_000, 310.0, 91.0)];
        let slow = [line(Path::Decap, 1000, 200.0, 1.0), line(Path::Decap, 65_536, 301.0, 1.0)];
        let named = broken(&costly.into_iter().chain(slow).collect::<Vec<_>>());
        assert_eq!(named.len(), 3, "{named:?}");
    }
}
