//! `cargo xtask ci`: everything that must pass before a change is merged.

use crate::{ebpf::PROGRAMS, repo, tidy};
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub(crate) struct Ci {}

impl Ci {
    pub(crate) fn run(self) -> Result<()> {
        repo::run(repo::cargo().args(["fmt", "--all", "--check"]))?;
        for program in PROGRAMS {
            let manifest = format!("ebpf/{program}/Cargo.toml");
            repo::run(repo::cargo().args(["fmt", "--check", "--manifest-path", &manifest]))?;
        }
        repo::run(repo::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
        repo::run(
            repo::cargo()
                .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )?;
        tidy::Tidy {}.run()
    }
}
