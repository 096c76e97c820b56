//! Runs a number of dry bursts: what `valgrind --tool=callgrind` counts instructions of.
//!
//! `dry-run encap|decap|local|flood FRAME STATIONS NETWORKS BURSTS`

use std::env;

use vxlane_bench::dry::{DRY_BURST, DryPlan, DryRun, Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, numbers @ ..] = arguments.as_slice() else {
        return Err("usage: dry-run encap|decap|local|flood FRAME STATIONS NETWORKS BURSTS".into());
    };
    let path = match path.as_str() {
        "encap" => Path::Encap,
        "decap" => Path::Decap,
        "local" => Path::Local,
        "flood" => Path::Flood,
        other => return Err(format!("`{other}` is none of encap, decap, local, flood").into()),
    };
    let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [frame, stations, networks, bursts] = numbers[..] else {
        return Err("four numbers are needed: FRAME STATIONS NETWORKS BURSTS".into());
    };
    let mut run = DryRun::new(&DryPlan { path, frame, stations, networks })?;
    for _ in 0..bursts {
        run.burst();
    }
    let packets = bursts * DRY_BURST;
    println!("{packets} packets in, {} out", run.transmitted());
    Ok(())
}
