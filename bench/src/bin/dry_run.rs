//! Runs a number of dry bursts: what `valgrind --tool=callgrind` counts instructions of.
//!
//! `dry-run encap|guarded|decap|encap6|decap6|local|flood FRAME STATIONS NETWORKS BURSTS [packets|harness]`

use std::{env, error::Error};

use vxlane_bench::dry::{DRY_BURST, DryHarness, DryPlan, DryRun, Path};

const USAGE: &str =
    "usage: dry-run encap|guarded|decap|encap6|decap6|local|flood FRAME STATIONS NETWORKS BURSTS [packets|harness]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let of_harness = match arguments.get(5).map(String::as_str) {
        None | Some("packets") => false,
        Some("harness") => true,
        Some(other) => return Err(format!("`{other}` is neither packets nor harness").into()),
    };
    arguments.truncate(5);
    let [path, numbers @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let path = Path::ALL.into_iter().find(|known| known.name() == path.as_str());
    let path = path.ok_or("the path is none of encap, guarded, decap, encap6, decap6, local, flood")?;
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [frame, stations, networks, bursts] = numbers[..] else { return Err(USAGE.into()) };
    let plan = DryPlan { path, frame, stations, networks };
    if of_harness {
        let mut harness = DryHarness::new(&plan);
        (0..bursts).for_each(|_| harness.burst_of_packets());
        return Ok(());
    }
    let mut run = DryRun::new(&plan)?;
    (0..bursts).for_each(|_| run.burst_of_packets());
    println!("{} packets in, {} out", bursts * DRY_BURST, run.transmitted());
    Ok(())
}
