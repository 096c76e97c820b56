//! What a killed run left behind is removed by the next run.
//!
//! One test in a file of its own: the removal happens once per process, at its first namespace.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vxlane_tests::netns::{Netns, PREFIX};
use vxlane_tests::process::{await_value, run, spawn};

#[test]
fn what_a_killed_run_left_is_removed() {
    // Process ids end at 2^22, so this one has never lived.
    let name = format!("{PREFIX}4194305-{}-old", std::process::id());
    let (namespace, files) = (Path::new("/run/netns").join(&name), Path::new("/run/vxlane-tests").join(&name));
    run(Command::new("ip").args(["netns", "add", &name])).unwrap();
    fs::create_dir_all(files.join("bpf")).unwrap();
    let mut sleeper = Command::new("ip");
    let mut sleeper = spawn(sleeper.args(["netns", "exec", &name, "sleep", "600"])).unwrap();
    let inside = || {
        let link = fs::read_link(format!("/proc/{}/ns/net", sleeper.pid())).ok()?;
        (link != fs::read_link("/proc/self/ns/net").unwrap()).then_some(())
    };
    await_value("process inside", Duration::from_secs(2), inside, String::new).unwrap();
    let _new = Netns::new("new").unwrap();
    let status = sleeper.wait(Duration::from_secs(2)).unwrap();
    assert!(!status.success(), "{status}");
    assert!(!namespace.exists() && !files.exists());
}
