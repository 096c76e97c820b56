//! `seeds DIRECTORY`: writes what the fuzzer starts from, one directory for each target.

use std::{env, error::Error, fs, path::Path};

use vxlane_tests::fuzz::TARGETS;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).ok_or("usage: seeds DIRECTORY")?;
    for target in TARGETS {
        let own = Path::new(&directory).join(target.name);
        fs::create_dir_all(&own)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(own.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
