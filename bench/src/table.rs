//! The report as text: a table for each section, a column for each peer.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::peer::Peer;
use crate::promises;
use crate::results::{Results, Row, Section};

/// The whole report.
pub fn report(results: &Results) -> String {
    let mut text = head(results);
    text += &kept(results);
    for section in Section::ALL {
        text += &table(results, section);
    }
    text += &drops(results);
    text += &tail(results);
    text
}

/// Whether `peer` beats every other competitor on the line `row` beyond doubt.
pub fn wins(results: &Results, row: &Row, peer: Peer) -> bool {
    let Some(own) = results.spread(row, peer).filter(|_| peer.competes()) else {
        return false;
    };
    let others = results.peers().into_iter().filter(|other| *other != peer && other.competes());
    let mut spreads = others.filter_map(|other| results.spread(row, other)).peekable();
    spreads.peek().is_some() && spreads.all(|other| own.beats(&other, row.metric.better()))
}

/// The most that others used of the processors between rounds, in percent.
pub(crate) fn background(results: &Results) -> f64 {
    results.about.background.iter().copied().fold(0.0, f64::max) * 100.0
}

fn head(results: &Results) -> String {
    let about = &results.about;
    let machine = &about.machine;
    let mut text = String::new();
    let kind = if machine.hypervisor { "virtual machine" } else { "machine" };
    let background = background(results);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}, {} CPUs ({kind}), {} MiB, Linux {}\n{}, {} rounds{}, commit {}, {:.0} s\n{}\n\
         load average {:.1} before, {:.1} after; others used up to {background:.0} % of the CPUs between rounds",
        machine.cpu,
        machine.cpus,
        machine.memory_mib,
        machine.kernel,
        about.date,
        about.rounds,
        if about.quick { " (quick)" } else { "" },
        about.commit.as_deref().unwrap_or("unknown"),
        about.seconds,
        about.command,
        about.load_average.0,
        about.load_average.1,
    );
    if let Some((generator, sink)) = about.pins {
        let _ = writeln!(text, "generator on CPU {generator}, sink on CPU {sink}");
    }
    if background > NOT_QUIET {
        let _ = writeln!(text, "NOT A QUIET MACHINE: compare what was measured in turns, and mind the ranges");
    }
    let _ = writeln!(text, "median [min..max]; ▲ is better than every other VTEP with no overlap of ranges");
    text
}

/// The promised figures, and what became of them.
fn kept(results: &Results) -> String {
    let promises = promises::all(results);
    if promises.iter().all(|promise| promise.measured.is_none()) {
        return String::new();
    }
    let head = ["", "promise", "measured", ""].map(str::to_owned).to_vec();
    let lines = promises.iter().map(|promise| {
        vec![promise.what.clone(), promise.bound.to_string(), promise.shown(), promise.verdict().to_string()]
    });
    let lines: Vec<_> = std::iter::once(head).chain(lines).collect();
    format!("\nWhat vxlane promises (ratios within each round: median [min..max])\n{}", aligned(&lines))
}

fn table(results: &Results, section: Section) -> String {
    let rows = results.rows(section);
    if rows.is_empty() {
        return String::new();
    }
    let peers = results.peers();
    let peers: Vec<Peer> =
        peers.into_iter().filter(|peer| rows.iter().any(|row| results.spread(row, *peer).is_some())).collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    lines.push([String::new(), String::new()].into_iter().chain(peers.iter().map(Peer::to_string)).collect());
    let mut last = None;
    for row in &rows {
        let case = if last == Some(&row.case) { String::new() } else { row.case.clone() };
        last = Some(&row.case);
        let metric = [row.metric.label(), row.metric.unit()].join(" ").trim().to_owned();
        let cells = peers.iter().map(|peer| cell(results, row, *peer));
        lines.push([case, metric].into_iter().chain(cells).collect());
    }
    format!("\n{}\n{}", section.title(), aligned(&lines))
}

fn cell(results: &Results, row: &Row, peer: Peer) -> String {
    let Some(spread) = results.spread(row, peer) else {
        return "-".to_owned();
    };
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| row.metric.show(value));
    let mark = if wins(results, row, peer) { " ▲" } else { "" };
    format!("{median} [{min}..{max}]{mark}")
}

/// Lines of cells with every column as wide as its widest cell.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Losses under flood, all rounds together.
fn drops(results: &Results) -> String {
    let lines: Vec<Vec<String>> = losses(results)
        .into_iter()
        .map(|loss| vec![loss.peer.to_string(), loss.case, format!("{:.1} %", loss.share), loss.causes.join(", ")])
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("\nLosses under flood, in percent of what was sent, by where they were counted\n{}", aligned(&lines))
}

/// What one peer lost in one case, all rounds together.
pub(crate) struct Loss {
    pub(crate) peer: Peer,
    pub(crate) case: String,
    /// Percent of what was sent.
    pub(crate) share: f64,
    /// The counters that grew, the largest first, and what no counter explains.
    pub(crate) causes: Vec<String>,
}

/// The losses worth to be shown.
pub(crate) fn losses(results: &Results) -> Vec<Loss> {
    let mut found = Vec::new();
    for section in Section::ALL {
        for peer in results.peers() {
            let mut sums: BTreeMap<&str, (u64, u64, BTreeMap<&str, u64>)> = BTreeMap::new();
            for drops in results.drops.iter().filter(|drops| drops.section == section && drops.peer == peer) {
                let (sent, lost, causes) = sums.entry(&drops.case).or_default();
                *sent += drops.sent;
                *lost += drops.lost;
                drops.causes.iter().for_each(|(cause, count)| *causes.entry(cause).or_default() += count);
            }
            found.extend(sums.into_iter().map(|(case, (sent, lost, causes))| loss(peer, case, (sent, lost), causes)));
        }
    }
    found.retain(|loss| loss.share >= LEAST_SHOWN);
    found
}

fn loss(peer: Peer, case: &str, (sent, lost): (u64, u64), causes: BTreeMap<&str, u64>) -> Loss {
    let share = |count: u64| 100.0 * count as f64 / sent.max(1) as f64;
    let explained: u64 = causes.values().sum();
    let mut causes: Vec<_> = causes.into_iter().filter(|(_, count)| share(*count) >= LEAST_SHOWN).collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut shown: Vec<_> =
        causes.iter().take(MOST_SHOWN).map(|(cause, count)| format!("{cause} {:.1} %", share(*count))).collect();
    let unexplained = lost.saturating_sub(explained);
    if share(unexplained) >= LEAST_SHOWN {
        shown.push(format!("no counter {:.1} %", share(unexplained)));
    }
    Loss { peer, case: case.to_owned(), share: share(lost), causes: shown }
}

fn tail(results: &Results) -> String {
    let mut text = String::from("\n");
    let disturbed = results.disturbed();
    if disturbed > 0 {
        let all = results.samples.len();
        text += &format!("{disturbed} of {all} figures were taken while the hypervisor stole over 2 % of the time.\n");
    }
    results.notes.iter().for_each(|note| text += &format!("{note}\n"));
    results.failures.iter().for_each(|failure| text += &format!("FAILED: {failure}\n"));
    text
}

/// Share of the sent packets, in percent, below which a cause is not shown.
const LEAST_SHOWN: f64 = 0.1;

/// Use of the processors by others, in percent, above which no figure should be quoted.
pub(crate) const NOT_QUIET: f64 = 10.0;

/// Causes shown for one case.
const MOST_SHOWN: usize = 4;
