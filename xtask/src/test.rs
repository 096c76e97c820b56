//! `cargo xtask test`: everything a contributor can run, from wire tests to real namespaces.
//!
//! As root everything runs. Otherwise the tests that need namespaces are run through `sudo`
//! where that asks no questions; where it does, they are left out and named at the end, and
//! under `CI=true` that is a failure.

use std::{env, fs, path::Path, process::Command, thread};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{ci::Ci, ebpf, repo, setup};

#[derive(Args)]
pub(crate) struct Test {
    /// Only the tests: no formatting, lints, documentation or BPF rebuild
    #[arg(long)]
    only: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// What runs a test program when cargo is told to test, so that namespaces can be made.
const SUDO_RUNNER: &str = "sudo -n -E";
const RUNNER_VARIABLE: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

/// Which lane the daemons of the tests have, where it is not the express lane.
pub(crate) const LANE_VARIABLE: &str = "VXLANE_EXPRESS";
/// What it is set to, and the test programs that are run then. All others are in `cargo xtask soak`.
const LANES: &[(&str, &[&str])] = &[("off", FUNCTIONAL), ("switched", FUNCTIONAL)];
const FUNCTIONAL: &[&str] = &["interop", "forwarding", "host"];

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        setup::Setup { ebpf: !self.only }.run()?;
        // Side by side, because the last steps of the one leave a processor idle.
        thread::scope(|scope| {
            let build = || repo::run(repo::cargo().args(["build", "--quiet", "--release", "--package", "vxlane"]));
            let daemon = scope.spawn(build);
            let checked = if self.only { Ok(()) } else { check() };
            let built = daemon.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
            checked.and(built)
        })?;
        let binary = repo::target_dir().join("release/vxlane");
        let mut tests = repo::cargo();
        tests.env("VXLANE_BIN", &binary);
        if setup::is_root()? {
            tests.args(["test", "--workspace", "--no-fail-fast"]);
        } else if setup::sudo_asks_nothing() {
            tests.env(RUNNER_VARIABLE, SUDO_RUNNER).args(["test", "--workspace", "--no-fail-fast"]);
        } else {
            return self.without_root(tests);
        }
        let express_lane = repo::run(tests.args(&self.filter));
        let others = self.in_other_lanes(&binary);
        express_lane.and(others)
    }

    /// Runs the functional suite twice more: without the express lane, and with networks that leave it
    /// and come back every second.
    fn in_other_lanes(&self, binary: &Path) -> Result<()> {
        for (lane, programs) in LANES {
            eprintln!("\nexpress lane {lane}:");
            let mut tests = repo::cargo();
            tests.env("VXLANE_BIN", binary).env(LANE_VARIABLE, lane);
            if !setup::is_root()? {
                tests.env(RUNNER_VARIABLE, SUDO_RUNNER);
            }
            // The workspace, as above: a package alone asks for other features, and so for another build.
            tests.args(["test", "--workspace", "--no-fail-fast"]);
            for program in *programs {
                tests.args(["--test", program]);
            }
            repo::run(tests.args(&self.filter))?;
        }
        Ok(())
    }

    /// Runs what needs no privileges, and says loudly what that leaves out.
    fn without_root(&self, mut tests: Command) -> Result<()> {
        let left_out = programs_that_need_root()?;
        tests.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
        for name in programs()?.iter().filter(|name| !left_out.contains(name)) {
            tests.args(["--test", name]);
        }
        repo::run(tests.args(&self.filter))?;
        let list = left_out.join("\n  ");
        let message = format!("NOT RUN, because they need root and sudo would ask for a password:\n  {list}");
        if env::var("CI").is_ok_and(|value| value == "true") {
            bail!("{message}");
        }
        eprintln!("\n{message}");
        Ok(())
    }
}

/// Everything but the tests.
fn check() -> Result<()> {
    Ci {}.run()?;
    ebpf::Ebpf { check: true }.run()
}

/// The folders with integration tests.
const TEST_FOLDERS: &[&str] = &["tests/tests", "dataplane/tests", "control/tests", "bench/tests"];
/// The line in the head of a test program that says it needs root.
const NEEDS_ROOT: &str = "//! Needs root.";

fn programs() -> Result<Vec<String>> {
    programs_with(|_| true)
}

fn programs_that_need_root() -> Result<Vec<String>> {
    programs_with(|text| text.lines().any(|line| line == NEEDS_ROOT))
}

/// The names of all test programs of whose source `wanted` says so.
pub(crate) fn programs_with(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    Ok(sources()?.into_iter().filter(|(_, text)| wanted(text)).map(|(name, _)| name).collect())
}

fn sources() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for folder in TEST_FOLDERS.iter().map(|folder| repo::root().join(folder)).filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((stem(&path), fs::read_to_string(&path)?));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
