//! The harness measures the kernel, says everything it should, and leaves nothing behind.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::{Command, Output};

use vxlane_bench::peer::Peer;
use vxlane_bench::results::{Metric, Results, Section};
use vxlane_tests::netns::PREFIX;

#[test]
fn one_tiny_round_of_the_kernel_gives_a_complete_report() {
    let files = tempfile::tempdir().unwrap();
    let [json, html] = ["run.json", "run.html"].map(|name| files.path().join(name));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_vxlane-bench"));
    bench.args(["--tiny", "--rounds", "1", "--peers", "kernel", "--json"]).arg(&json).arg("--html").arg(&html);
    let child = bench.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let text = words(&output);
    assert!(output.status.success(), "{text}");

    let results = Results::read_json(&json).unwrap();
    assert_eq!(results.peers(), [Peer::Wire, Peer::Kernel]);
    for section in Section::ALL {
        let rows = results.rows(section);
        assert!(!rows.is_empty() && text.contains(section.title()), "{section:?}: {text}");
        for row in rows {
            let values = results.values(&row, Peer::Kernel);
            assert_eq!(values.len(), 1, "{row:?}");
            // The kernel has no process, cost is nothing without one, and a net cost is a difference.
            let may_be_none = [Metric::Loss, Metric::IdleCpu, Metric::Rss, Metric::CpuNet].contains(&row.metric);
            assert!(may_be_none || values[0] > 0.0, "{row:?} is {values:?}");
        }
    }
    assert_eq!(results.about.background.len(), Section::ALL.len());
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.matches("<svg").count() >= 5 && !page.contains("http-equiv") && !page.contains("src="), "{page}");

    let ours = format!("{PREFIX}{pid}-");
    let left = fs::read_dir("/run/netns").unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_run_compared_with_itself_has_not_changed() {
    let files = tempfile::tempdir().unwrap();
    let json = files.path().join("run.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_vxlane-bench"));
    let run = bench.args(["--tiny", "--rounds", "3", "--peers", "kernel", "--only", "idle,half", "--json"]).arg(&json);
    let run = run.output().unwrap();
    assert!(run.status.success(), "{}", words(&run));
    let compared =
        Command::new(env!("CARGO_BIN_EXE_vxlane-bench")).arg("compare").args([&json, &json]).output().unwrap();
    let text = words(&compared);
    assert!(compared.status.success() && text.contains("encap") && !text.contains("better\n"), "{text}");
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
