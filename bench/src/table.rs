//! The report as text for a terminal: within a case a line for each peer, a column for each metric.

pub(crate) mod losses;
pub mod markdown;

use std::fmt::Write;

use losses::losses;

use crate::promises;
use crate::results::{Metric, Results, Row, Section};

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

fn head(results: &Results) -> String {
    let about = &results.about;
    let mut text = format!("{}\n{}\n{}\n", about.machine_line(), about.run_line(), wrapped(&about.command));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "load average {:.1} before, {:.1} after; others used up to {:.0} % of the CPUs between rounds",
        about.load_average.0,
        about.load_average.1,
        results.background(),
    );
    if let Some((generator, sink)) = about.pins {
        let _ = writeln!(text, "generator on CPU {generator}, sink on CPU {sink}");
    }
    if !results.is_quiet() {
        let _ = writeln!(text, "NOT A QUIET MACHINE: compare what was measured in turns, and mind the ranges");
    }
    let _ = writeln!(text, "median [min..max]; ▲ is better than every other project's VTEP, with no overlap of ranges");
    text
}

/// The promised figures, and what became of them.
fn kept(results: &Results) -> String {
    let promises = promises::measured(results);
    if promises.is_empty() {
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
    let mut rows = results.rows(section);
    // What was lost of a load says it, too, and five columns are too many for a terminal.
    rows.retain(|row| row.metric != Metric::Arrived);
    let mut metrics: Vec<Metric> = rows.iter().map(|row| row.metric).collect();
    metrics.sort_unstable();
    metrics.dedup();
    let mut cases: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    cases.dedup();
    if cases.is_empty() {
        return String::new();
    }
    let mut lines = vec![std::iter::once(String::new()).chain(metrics.iter().map(|metric| metric.heading())).collect()];
    for case in cases {
        lines.push(vec![case.to_owned()]);
        let row = |metric| Row { section, case: case.to_owned(), metric };
        let of_case: Vec<Row> = metrics.iter().copied().map(row).collect();
        for peer in results.peers_on(&of_case) {
            let cells = of_case.iter().map(|row| {
                let spread = results.spread(row, peer)?;
                let mark = if results.wins(row, peer) { " ▲" } else { "" };
                Some(row.metric.show_spread(&spread) + mark)
            });
            let cells = cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
            lines.push(std::iter::once(format!("  {peer}")).chain(cells).collect());
        }
    }
    format!("\n{}\n{}", section.title(), aligned(&lines))
}

/// Lines of cells with every column as wide as its widest cell. A line of one cell is a heading,
/// and as long as it likes.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let tabular = || lines.iter().filter(|line| line.len() > 1);
    let width = |column: usize| tabular().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Losses under flood, all rounds together: each cause on a line of its own.
fn drops(results: &Results) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for loss in losses(results) {
        let mut first = vec![loss.peer.to_string(), loss.case, format!("{:.1} %", loss.share)];
        for cause in loss.causes {
            first.push(cause);
            lines.push(std::mem::replace(&mut first, vec![String::new(); 3]));
        }
        if first.iter().any(|cell| !cell.is_empty()) {
            lines.push(first);
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\nLosses under flood, in percent of what was sent, by where they were counted\n{}", aligned(&lines))
}

fn tail(results: &Results) -> String {
    let mut text = String::from("\n");
    let disturbed = results.disturbed();
    if disturbed > 0 {
        let all = results.samples.len();
        text += &format!("{disturbed} of {all} figures were taken while the hypervisor stole over 2 % of the time.\n");
    }
    results.notes.iter().for_each(|note| text += &(wrapped(note) + "\n"));
    results.failures.iter().for_each(|failure| text += &format!("FAILED: {failure}\n"));
    text
}

/// `text` in lines of at most [`WIDTH`] characters, where words allow it.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 {
            let fits = used + 1 + length <= WIDTH;
            wrapped.push(if fits { ' ' } else { '\n' });
            used = if fits { used + 1 } else { 0 };
        }
        wrapped += word;
        used += length;
    }
    wrapped
}

/// Columns of the terminal that a report is for.
const WIDTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_one_cell_widens_no_column() {
        let line = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let lines = [line(&["", "rate"]), line(&["a case with a long name"]), line(&["  us", "1"])];
        assert_eq!(aligned(&lines), "      rate\na case with a long name\n  us  1\n");
    }

    #[test]
    fn words_go_to_the_next_line_where_they_would_not_fit() {
        let text = wrapped(&"word ".repeat(30));
        assert!(text.lines().all(|line| line.len() <= WIDTH) && text.lines().count() == 2, "{text}");
        assert_eq!(wrapped("short"), "short");
    }
}
