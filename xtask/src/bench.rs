//! `cargo xtask bench`: builds what is measured and what measures, and runs the latter.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{repo, setup};

#[derive(Args)]
pub(crate) struct Bench {
    /// What `vxlane-bench` takes: `--quick`, `--peers …`, `--html FILE`, `compare A B`; see `--help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        setup::Setup { ebpf: false }.run()?;
        repo::run(repo::cargo().args(["build", "--release", "--package", "vxlane", "--package", "vxlane-bench"]))?;
        let release = repo::target_dir().join("release");
        let program = release.join("vxlane-bench");
        // Measuring makes namespaces. Reading two files does not, but does not mind either.
        let mut bench = if setup::is_root()? {
            Command::new(program)
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("--preserve-env=VXLANE_BIN,VXLANE_BENCH_COMMIT").arg(program);
            sudo
        };
        bench.env("VXLANE_BIN", release.join("vxlane"));
        if let Some(commit) = commit() {
            bench.env("VXLANE_BENCH_COMMIT", commit);
        }
        repo::run(bench.args(&self.arguments))
    }
}

/// The commit that is built, with a `+` when there is more than it has.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    let git = git.current_dir(repo::root()).args(["describe", "--always", "--dirty=+"]);
    repo::first_line(git).ok().filter(|line| !line.is_empty())
}
