//! What a package is made of: the unit, the example file, completions and man pages.
//!
//! Needs no root.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a test that failed")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use vxlane::{cli::generate::generate, config::ConfigFile};

const UNIT: &str = include_str!("../packaging/vxlane.service");
const EXAMPLE: &str = include_str!("../packaging/vxlane.toml");

/// Runs `program`, which must be satisfied.
fn check(program: &str, arguments: &[&str], file: &Path) {
    let mut command = Command::new(program);
    let output: Output = command.args(arguments).arg(file).output().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_unit_is_valid_and_exposes_little() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vxlane.service");
    // Where it is installed there is a binary to start; here there is the one under test.
    assert!(UNIT.contains("ExecStart=/usr/sbin/vxlane run "));
    fs::write(&file, UNIT.replace("/usr/sbin/vxlane", env!("CARGO_BIN_EXE_vxlane"))).unwrap();
    check("systemd-analyze", &["verify", "--man=no"], &file);
    check("systemd-analyze", &["security", "--offline=true", "--threshold=40", "--no-pager"], &file);
}

#[test]
fn the_example_is_valid_with_and_without_what_is_commented_out() {
    let parsed = |text: String| ConfigFile::parse(Path::new("vxlane.toml"), text);
    assert!(parsed(EXAMPLE.to_owned()).unwrap().config.networks.is_empty());
    let active = |line: &str| match line.strip_prefix("# ") {
        Some(commented) if commented.starts_with('[') || commented.contains(" = ") => commented.to_owned(),
        _ => line.to_owned(),
    };
    let whole: Vec<String> = EXAMPLE.lines().map(active).collect();
    let config = parsed(whole.join("\n")).unwrap().config;
    assert_eq!((config.networks.len(), config.endpoints.len()), (1, 1));
}

#[test]
fn completions_and_man_pages_are_made_and_well_formed() {
    let directory = tempfile::tempdir().unwrap();
    generate(directory.path()).unwrap();
    let pages = files(&directory.path().join("man"));
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    for name in ["vxlane.1", "vxlane-run.1", "vxlane-fdb-show.1"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"vxlane-generate.1"), "that is for packagers");
    for page in &pages {
        check("mandoc", &["-T", "lint", "-W", "error"], page);
    }
    let bash = directory.path().join("completions/bash/vxlane");
    check("bash", &["-n"], &bash);
    for file in ["bash/vxlane", "zsh/_vxlane", "fish/vxlane.fish"] {
        let text = fs::read_to_string(directory.path().join("completions").join(file)).unwrap();
        assert!(["network", "endpoint", "fdb", "status"].iter().all(|word| text.contains(word)), "{file}");
    }
}
