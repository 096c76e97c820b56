//! `cargo xtask setup`: installs what the build and the tests need.
//!
//! Quick and silent when all is there. Without root it uses `sudo` where that asks no
//! questions, and otherwise prints the one command to paste.

use crate::{ebpf, repo};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// What to install, and why. Names are those of Debian 12 and Ubuntu.
const PACKAGES: &[(&str, &str)] = &[
    ("iproute2", "tests: namespaces, links, bridges"),
    ("ethtool", "tests: offloads, as a user sees them"),
    ("iputils-ping", "tests: a plain host"),
    ("tcpdump", "tests: what was on the wire when one fails"),
    ("socat", "tests: UDP and TCP end points"),
    ("systemd", "tests: systemd-analyze looks at our unit"),
    ("mandoc", "tests: looks at our man pages"),
    ("python3-prometheus-client", "tests: the reference parser of OpenMetrics reads our metrics"),
    ("iperf3", "bench: TCP streams"),
    ("valgrind", "bench: counts instructions"),
    ("nftables", "bench: masquerade of the kernel peer"),
    ("openvswitch-switch", "tests and bench: a foreign VTEP"),
];

/// What rebuilding the BPF programs needs besides; only Debian has these.
const EBPF_PACKAGES: &[(&str, &str)] =
    &[("rustc-web", "a compiler that comes with the source below"), ("rust-web-src", "core, compiled for BPF")];

#[derive(Args)]
pub(crate) struct Setup {
    /// Also what rebuilding the BPF programs needs
    #[arg(long)]
    pub(crate) ebpf: bool,
}

impl Setup {
    pub(crate) fn run(self) -> Result<()> {
        let mut wanted: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
        if self.ebpf && ebpf::library_source(Path::new("rustc")).is_none() {
            wanted.extend(ebpf_packages()?);
        }
        install(&missing(&wanted)?)?;
        if self.ebpf {
            install_tool("bpf-linker", ebpf::BPF_LINKER)?;
        }
        Ok(())
    }
}

fn ebpf_packages() -> Result<impl Iterator<Item = &'static str>> {
    let os = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    ensure!(
        os.lines().any(|line| line == "ID=debian"),
        "the BPF programs need the source of the standard library, and this distribution has no \
         package for it: run `rustup component add rust-src`, then this again"
    );
    Ok(EBPF_PACKAGES.iter().map(|(name, _)| *name))
}

/// Those of `wanted` that dpkg does not have.
fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"])
        .output()
        .context("cannot run dpkg-query: `setup` knows Debian and Ubuntu only")?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let installed: HashSet<&str> = listing.lines().filter_map(|line| line.strip_prefix("ii ")).map(str::trim).collect();
    Ok(wanted.iter().copied().filter(|name| !installed.contains(name)).collect())
}

fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    for package in packages {
        let mut reasons = PACKAGES.iter().chain(EBPF_PACKAGES);
        if let Some((_, why)) = reasons.find(|(name, _)| name == package) {
            println!("{package}: {why}");
        }
    }
    let list = packages.join(" ");
    let script = format!(
        "apt-get update -q && DEBIAN_FRONTEND=noninteractive \
         apt-get install -y -q --no-install-recommends {list}"
    );
    let mut command = if is_root()? {
        Command::new("sh")
    } else if sudo_asks_nothing() {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    } else {
        bail!("run this, then try again: sudo sh -c '{script}'");
    };
    repo::run(command.args(["-c", &script]))?;
    let still = missing(packages)?;
    ensure!(still.is_empty(), "apt-get ended well, but these are still missing: {still:?}");
    Ok(())
}

pub(crate) fn is_root() -> Result<bool> {
    Ok(repo::first_line(Command::new("id").arg("-u"))? == "0")
}

pub(crate) fn sudo_asks_nothing() -> bool {
    Command::new("sudo")
        .args(["-n", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Brings `tool` of this version, from the Rust registry, into our own directory, once.
pub(crate) fn install_tool(tool: &str, version: &str) -> Result<()> {
    let root = repo::tools_dir();
    // Cargo keeps what it installed, with versions, in this file.
    let installed = fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    if installed.contains(&format!("{tool} {version} ")) {
        return Ok(());
    }
    let mut install = repo::cargo();
    install.args(["install", "--locked", "--version", version, tool]).arg("--root").arg(&root);
    // It will be at work for seconds; to have it optimized takes a minute.
    repo::run(install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"))
}
