//! The store, while whoever writes it is killed.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use vxlane::store::{Change, Embedded, Kept, Store};

/// Tells this program that it is the writer, and where it is to write.
const WRITER: &str = "VXLANE_TEST_WRITER";
/// The records that one commit changes, all to the same value.
const WIDTH: u64 = 20;

/// Run by the test below as a program of its own; by itself it has nothing to do.
#[test]
fn writes_until_it_is_killed() {
    let Some(path) = env::var_os(WRITER) else { return };
    let mut store = Embedded::open(Path::new(&path)).unwrap();
    let mut revision = store.load().unwrap().revision;
    loop {
        let value = (revision + 1).to_string();
        let put = |number| Change::Put(format!("record/{number}"), value.clone().repeat(30));
        let mut changes: Vec<Change> = (0..WIDTH).map(put).collect();
        changes.push(Change::Put(format!("since/{}", value), value.clone()));
        changes.push(Change::Delete(format!("since/{}", revision.saturating_sub(50))));
        revision = store.commit(&changes).unwrap();
        eprintln!("committed {revision}");
    }
}

fn writer(path: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "writes_until_it_is_killed", "--nocapture"]).env(WRITER, path);
    command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Lets a writer go on for `time` after its first commit, kills it, and returns the last
/// revision that it said was kept.
fn killed_after(path: &Path, time: Duration) -> u64 {
    let mut writer = writer(path);
    let mut lines = BufReader::new(writer.stderr.take().unwrap()).lines().map(Result::unwrap);
    let number = |line: &str| line.strip_prefix("committed ").and_then(|number| number.parse().ok());
    let first = lines.find_map(|line| number(&line)).unwrap();
    thread::sleep(time);
    writer.kill().unwrap();
    writer.wait().unwrap();
    // The last line may have been cut off in the middle of its number.
    lines.filter_map(|line| number(&line)).fold(first, |last, told| if told == last + 1 { told } else { last })
}

fn check(kept: &Kept, told: u64) {
    assert!(kept.revision == told || kept.revision == told + 1, "{} is kept, {told} was told", kept.revision);
    let value = kept.revision.to_string().repeat(30);
    for number in 0..WIDTH {
        assert_eq!(kept.records.get(&format!("record/{number}")), Some(&value), "half of a commit");
    }
    assert!(kept.records.contains_key(&format!("since/{}", kept.revision)));
}

#[test]
fn what_was_told_to_be_kept_is_kept_whole_when_the_writer_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let turns = if env::var_os("VXLANE_SOAK").is_some() { 1000 } else { 30 };
    for turn in 0..turns {
        let told = killed_after(&path, Duration::from_micros(turn * 7919 % 20_000));
        check(&Embedded::open(&path).unwrap().load().unwrap(), told);
    }
    println!("{turns} kills, revision {}", Embedded::open(&path).unwrap().load().unwrap().revision);
}
