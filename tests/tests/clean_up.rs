//! Nothing stays behind.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::panic;
use std::path::Path;
use std::time::Duration;

use vxlane_tests::lab::{Lab, Network};
use vxlane_tests::netns::PREFIX;
use vxlane_tests::peer::{Segment, VtepKind};
use vxlane_tests::process::await_value;

#[test]
fn a_dropped_lab_leaves_nothing_behind() {
    let processes = panic::catch_unwind(|| {
        let lab = Lab::new(&["a", "b", "c"]).unwrap();
        let blue = Network::new("blue", 5000);
        let c0 = lab.host("a").container("c0", &blue).unwrap();
        let near = VtepKind::ovs().start(lab.host("a"), &[Segment::of(&lab, "a", &blue, &[&c0])]).unwrap();
        let far = VtepKind::kernel().start(lab.host("b"), &[Segment::of(&lab, "b", &blue, &[])]).unwrap();
        let mut sleeper = c0.ns().command("sleep");
        let sleeper = c0.ns().spawn(sleeper.arg("600")).unwrap();
        let mut processes = near.processes();
        processes.extend(far.processes());
        processes.push(sleeper.pid());
        assert_eq!(processes.len(), 3);
        assert!(!ours().is_empty());
        panic::resume_unwind(Box::new(processes));
    });
    let processes = *processes.unwrap_err().downcast::<Vec<u32>>().unwrap();
    for pid in processes {
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "{pid} still runs");
    }
    let gone = || ours().is_empty().then_some(());
    await_value("end of all namespaces", Duration::from_secs(1), gone, || ours().join(" ")).unwrap();
}

/// The namespaces and directories of this process.
fn ours() -> Vec<String> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    ["/run/netns", "/run/vxlane-tests"]
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}
