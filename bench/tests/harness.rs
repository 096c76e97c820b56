//! The harness measures the kernel, says everything it should, and leaves nothing behind.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use vxlane_bench::peer::Peer;
use vxlane_bench::promises;
use vxlane_bench::results::{Metric, Results, Row, Section};
use vxlane_tests::netns::PREFIX;

/// Runs measure: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_tiny_run_gives_a_complete_report_and_leaves_nothing_behind() {
    let _alone = ALONE.lock();
    let files = tempfile::tempdir().unwrap();
    let [json, html, svg, markdown] = ["run.json", "run.html", "run.svg", "run.md"].map(|name| files.path().join(name));
    let mut bench = bench(&["--tiny", "--rounds", "1", "--peers", "kernel,null,vxlane,vxlane-express"]);
    bench.arg("--json").arg(&json).arg("--html").arg(&html).arg("--svg").arg(&svg).arg("--markdown").arg(&markdown);
    let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let text = words(&output);
    assert!(output.status.success(), "{text}");

    let results = Results::read_json(&json).unwrap();
    assert_eq!(results.peers(), [Peer::Wire, Peer::Kernel, Peer::Null, Peer::Vxlane, Peer::VxlaneExpress]);
    for section in Section::ALL {
        assert!(text.contains(section.title()), "{section:?}: {text}");
        for row in results.rows(section) {
            for peer in results.peers().into_iter().filter(|peer| section.concerns(*peer)) {
                check(&results, &row, peer);
            }
        }
    }
    for promise in promises::all(&results) {
        let of_ovs = promise.what.contains("OVS");
        assert_eq!(promise.measured.is_none(), of_ovs, "{promise:?}");
        assert_eq!(text.contains(&promise.what), !of_ovs, "{promise:?}: {text}");
    }
    assert!(text.contains(" left\n"), "nobody was told how long it takes: {text}");

    let page = fs::read_to_string(&html).unwrap();
    assert!(page.matches("<svg").count() >= 6 && page.contains("</html>"), "{page}");
    // It is to be readable without a network: nothing is fetched from anywhere.
    assert!(!["src=", "href=", "@import", "url("].iter().any(|word| page.contains(word)), "{page}");
    let tables = fs::read_to_string(&markdown).unwrap();
    assert!(tables.contains("| kernel |") && tables.contains("<!-- run end -->"), "{tables}");
    // A terminal of a hundred columns shows every table; what peers say of themselves is longer.
    let wide = text.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None, "{text}");
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.contains(&results.about.machine.cpu) && picture.trim_end().ends_with("</svg>"), "{picture}");

    let ours = format!("{PREFIX}{pid}-");
    let left = fs::read_dir("/run/netns").unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// One figure of each line, and a sensible one.
fn check(results: &Results, row: &Row, peer: Peer) {
    let values = results.values(row, peer);
    // What the wire carries is not searched for, nor subtracted from itself, and it has no limit.
    let not_of_wire = matches!(row.metric, Metric::Lossless | Metric::CpuNet) || row.case.contains("90 %");
    let expected = usize::from(!(peer == Peer::Wire && not_of_wire));
    // Near its limit nobody has a wire to be compared with.
    let expected = if row.metric == Metric::CpuNet && row.case.contains("90 %") { 0 } else { expected };
    assert_eq!(values.len(), expected, "{peer} {row:?}");
    // Little work is none to a clock, and a net cost is a difference.
    let may_be_none = [Metric::Loss, Metric::IdleCpu, Metric::CpuNet, Metric::CpuMachine].contains(&row.metric);
    assert!(may_be_none || values.iter().all(|value| *value > 0.0), "{peer} {row:?} is {values:?}");
}

#[test]
fn a_run_compared_with_itself_has_not_changed() {
    let _alone = ALONE.lock();
    let files = tempfile::tempdir().unwrap();
    let json = files.path().join("run.json");
    let mut run = bench(&["--tiny", "--rounds", "3", "--peers", "kernel", "--only", "half", "--json"]);
    let run = run.arg(&json).output().unwrap();
    assert!(run.status.success(), "{}", words(&run));
    let compared = bench(&["compare"]).args([&json, &json]).output().unwrap();
    let text = words(&compared);
    assert!(compared.status.success() && text.contains("encap") && text.contains("+0.0 %"), "{text}");
    assert!(!text.contains("better\n") && !text.contains("worse\n"), "{text}");
}

#[test]
fn a_peer_that_cannot_be_started_is_named_and_the_others_are_measured() {
    let _alone = ALONE.lock();
    let mut run = bench(&["--tiny", "--rounds", "1", "--peers", "kernel,vxlane", "--only", "half"]);
    let output = run.env("VXLANE_BIN", "/nonexistent/vxlane").output().unwrap();
    let text = words(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("FAILED: vxlane could not be started") && text.contains("/nonexistent/vxlane"), "{text}");
    assert!(text.contains("encap, 64 B"), "{text}");
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vxlane-bench"));
    command.args(arguments);
    command
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
