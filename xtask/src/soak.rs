//! `cargo xtask soak`: the tests that are worth repeating for minutes, at full length.
//!
//! Each is part of the suite too, where it is brief. Here every test program that asks how long it
//! may take (`soak::choose`, or the variable itself) runs with the larger figures, one test at a
//! time, and prints what it found. Before that every test program of `tests` that starts
//! daemons runs without the express lane.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{repo, setup, test};

#[derive(Args)]
pub(crate) struct Soak {
    /// Only the program of this name, such as restart, or else tests whose name contains this
    filter: Option<String>,
}

/// What a test program asks for, in `tests/src/soak.rs`.
const VARIABLE: &str = "VXLANE_SOAK";
/// What test programs have in them that start daemons.
const DAEMONS: &[&str] = &["VtepKind::vxlane", "VxlaneOptions", "WaysOut"];

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        ensure!(setup::is_root()?, "the soak tests make network namespaces: run this as root");
        setup::Setup { ebpf: false }.run()?;
        repo::run(repo::cargo().args(["build", "--release", "--package", "vxlane"]))?;
        let lane = if self.filter.is_none() { Self::in_worker_lane() } else { Ok(()) };
        let mut tests = repo::cargo();
        tests.env("VXLANE_BIN", repo::target_dir().join("release/vxlane")).env(VARIABLE, "1");
        tests.args(["test", "--release", "--workspace", "--no-fail-fast"]);
        let programs = test::programs_with(|text| text.contains("soak::") || text.contains(VARIABLE))?;
        let (named, filter) = self.filter.map_or((None, None), |name| {
            if programs.contains(&name) { (Some(name), None) } else { (None, Some(name)) }
        });
        for name in named.as_slice().iter().chain(programs.iter().filter(|_| named.is_none())) {
            tests.args(["--test", name]);
        }
        tests.args(filter);
        tests.args(["--", "--nocapture", "--test-threads", "1"]);
        lane.and(repo::run(&mut tests))
    }

    /// Runs every program of `tests` that starts daemons without the express lane.
    fn in_worker_lane() -> Result<()> {
        let mut tests = repo::cargo();
        tests.env("VXLANE_BIN", repo::target_dir().join("release/vxlane")).env(test::LANE_VARIABLE, "off");
        tests.args(["test", "--workspace", "--no-fail-fast"]);
        let starts_daemons = |text: &str| DAEMONS.iter().any(|start| text.contains(start));
        for name in test::programs_with(starts_daemons)? {
            tests.args(["--test", &name]);
        }
        repo::run(&mut tests)
    }
}
