//! The figures of a run as Markdown, and their place in a file that has more to say.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::losses::losses;
use crate::promises;
use crate::results::{Metric, Results, Section};

/// All tables of a run, under the line that says how they were made.
pub fn figures(results: &Results) -> String {
    let about = &results.about;
    let mut text = format!(
        "{}; {}; others used up to {:.0} % of it between rounds:\n`{}`.\n\
         Medians and whole ranges; ▲ is better than every other project's VTEP, with no overlap.\n",
        about.machine_line(),
        about.run_line(),
        results.background(),
        about.command,
    );
    let promises = promises::measured(results);
    if !promises.is_empty() {
        let line = |promise: &promises::Promise| {
            vec![promise.what.clone(), promise.bound.to_string(), promise.shown(), promise.verdict().to_string()]
        };
        let head = ["promise, a ratio within each round", "bound", "measured", ""].map(str::to_owned).to_vec();
        text += &("\n".to_owned() + &table(std::iter::once(head).chain(promises.iter().map(line))));
    }
    for section in Section::ALL {
        text += &of_section(results, section);
    }
    let lost: Vec<Vec<String>> = losses(results)
        .into_iter()
        .map(|loss| vec![loss.peer.to_string(), loss.case, format!("{:.1} %", loss.share), loss.causes.join(", ")])
        .collect();
    if !lost.is_empty() {
        let head = ["losses under flood", "case", "of what was sent", "where they were counted"].map(str::to_owned);
        text += &("\n".to_owned() + &table(std::iter::once(head.to_vec()).chain(lost)));
    }
    text
}

fn of_section(results: &Results, section: Section) -> String {
    let mut rows = results.rows(section);
    // What was lost of a load says it, too.
    rows.retain(|row| row.metric != Metric::Arrived);
    if rows.is_empty() {
        return String::new();
    }
    let peers = results.peers_on(&rows);
    let head = [section.title().to_owned(), String::new()].into_iter().chain(peers.iter().map(ToString::to_string));
    let mut last = None;
    let lines = rows.iter().map(|row| {
        let case = if last == Some(&row.case) { String::new() } else { row.case.clone() };
        last = Some(&row.case);
        let cells = peers.iter().map(|peer| {
            let mark = if results.wins(row, *peer) { " ▲" } else { "" };
            results.spread(row, *peer).map_or_else(String::new, |spread| row.metric.show_spread(&spread) + mark)
        });
        [case, row.metric.heading()].into_iter().chain(cells).collect()
    });
    let lines: Vec<Vec<String>> = lines.collect();
    format!("\n{}", table(std::iter::once(head.collect()).chain(lines)))
}

/// A table; the first of `lines` is its head.
pub fn table(lines: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = String::new();
    for (number, cells) in lines.into_iter().enumerate() {
        text += &format!("| {} |\n", cells.join(" | "));
        if number == 0 {
            text += &format!("|{}\n", "---|".repeat(cells.len()));
        }
    }
    text
}

/// Writes `text` to `path`: where the file has the lines `<!-- NAME begin -->` and `<!-- NAME end -->`,
/// in place of what is between them, and to a new file together with these lines.
///
/// # Errors
/// If there is such a file and it has no such lines, or it cannot be read or written.
pub fn place(path: &Path, name: &str, text: &str) -> Result<()> {
    let (begin, end) = (format!("<!-- {name} begin -->\n"), format!("<!-- {name} end -->\n"));
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => begin.clone() + &end,
        text => text.with_context(|| path.display().to_string())?,
    };
    let parts = old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    ensure!(parts.is_some(), "{}: no lines {} and {}", path.display(), begin.trim_end(), end.trim_end());
    let (before, after) = parts.unwrap_or_default();
    fs::write(path, [before, &begin, text, &end, after].concat()).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn figures_take_the_place_of_those_before_and_nothing_else_changes() {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("README.md");
        fs::write(&path, "above\n<!-- run begin -->\nold\n<!-- run end -->\nbelow\n").unwrap();
        place(&path, "run", "new\n").unwrap();
        let text = "above\n<!-- run begin -->\nnew\n<!-- run end -->\nbelow\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(place(&path, "other", "new\n").unwrap_err().to_string().contains("<!-- other begin -->"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "a file without a place for it stays as it is");
        let new = files.path().join("new.md");
        place(&new, "run", "1\n").unwrap();
        place(&new, "run", "2\n").unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), "<!-- run begin -->\n2\n<!-- run end -->\n");
    }

    #[test]
    fn a_table_has_a_line_below_its_head() {
        let line = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table([line(["a", "b"]), line(["1", "2"])]), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
