//! `cargo xtask fuzz`: the coverage-guided fuzzer, on one target or on each in turn.
//!
//! Needs a nightly toolchain (`rustup toolchain install nightly`) and a C++ compiler, which the
//! rest of the repository does not. What it finds it leaves in `tests/fuzz/artifacts`; a copy in
//! `tests/fuzz/regressions/TARGET`, under a name that says what it is, is replayed by the suite.

use std::{fs, process::Command};

use anyhow::Result;
use clap::Args;

use crate::{repo, setup};

#[derive(Args)]
pub(crate) struct Fuzz {
    /// One of decap, layers, nat, pipeline; all of them when not given
    target: Option<String>,
    /// How long each is fed
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

const CARGO_FUZZ: &str = "0.13.2";

impl Fuzz {
    pub(crate) fn run(self) -> Result<()> {
        setup::install_tool("cargo-fuzz", CARGO_FUZZ)?;
        let directory = repo::root().join("tests/fuzz");
        let corpus = directory.join("corpus");
        repo::run(repo::cargo().args(["run", "--quiet", "--package", "vxlane-tests", "--bin", "seeds"]).arg(&corpus))?;
        for target in fs::read_dir(&corpus)?.map(|entry| entry.map(|entry| entry.file_name())) {
            let target = target?;
            if self.target.as_ref().is_some_and(|only| target != only.as_str()) {
                continue;
            }
            let mut fuzz = Command::new(repo::tools_dir().join("bin/cargo-fuzz"));
            fuzz.current_dir(repo::root());
            // Cargo set these for the toolchain that runs us, which is not the one for the fuzzer.
            fuzz.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC").env("RUSTUP_TOOLCHAIN", "nightly");
            fuzz.args(["run", "--fuzz-dir"]).arg(&directory).arg(&target);
            fuzz.arg("--").arg(format!("-max_total_time={}", self.seconds)).arg("-max_len=2048");
            repo::run(&mut fuzz)?;
        }
        Ok(())
    }
}
