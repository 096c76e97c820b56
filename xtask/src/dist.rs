//! `cargo xtask dist`: everything that a package of vxlane holds, in one folder.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use clap::Args;

use crate::{repo, setup};

#[derive(Args)]
pub(crate) struct Dist {}

/// What a package takes as it is: where it is in the repository, and where it goes.
const FILES: &[(&str, &str)] = &[
    ("control/packaging/vxlane.service", "vxlane.service"),
    ("control/packaging/vxlane.toml", "vxlane.toml"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
];

impl Dist {
    pub(crate) fn run(self) -> Result<()> {
        setup::Setup { ebpf: false }.run()?;
        repo::run(repo::cargo().args(["build", "--release", "--package", "vxlane"]))?;
        let folder = repo::target_dir().join("dist");
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let binary = folder.join("vxlane");
        copy(&repo::target_dir().join("release/vxlane"), &binary)?;
        for (from, to) in FILES {
            copy(&repo::root().join(from), &folder.join(to))?;
        }
        repo::run(Command::new(&binary).arg("generate").arg(&folder))?;
        println!("{}", folder.display());
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}
