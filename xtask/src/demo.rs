//! `cargo xtask demo`: three hosts, two networks, and who reaches whom.

use anyhow::Result;
use clap::Args;

use crate::{repo, setup};

#[derive(Args)]
pub(crate) struct Demo {
    /// Run the hosts in one process over in-memory ports: needs no root and no kernel support
    #[arg(long)]
    simulate: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        setup::Setup { ebpf: false }.run()?;
        repo::run(repo::cargo().args(["build", "--release", "--package", "vxlane"]))?;
        let mut demo = repo::cargo();
        demo.args(["run", "--quiet", "--release", "--package", "vxlane-tests", "--bin", "demo", "--"]);
        demo.env("VXLANE_BIN", repo::target_dir().join("release/vxlane"));
        if self.simulate {
            demo.arg("--simulate");
        }
        repo::run(&mut demo)
    }
}
