//! The report as one HTML file that needs nothing else: plots as inline SVG, and every table.

use std::fs;
use std::path::Path;

use vxlane_tests::LabError;

use crate::figures;
use crate::peer::Peer;
use crate::promises::{self, Verdict};
use crate::results::{Results, Row, Section};
use crate::table::losses::{self, Loss};

/// Writes the report of `results` to `path`.
///
/// # Errors
/// [`LabError`] when a plot cannot be drawn or the file not be written.
pub fn write(results: &Results, path: &Path) -> Result<(), LabError> {
    fs::write(path, page(results)?).map_err(LabError::syscall("write", path.display().to_string()))
}

fn page(results: &Results) -> Result<String, LabError> {
    let mut plots = String::new();
    for plot in figures::plots(results) {
        plots += &format!("<figure>{}</figure>\n", figures::single(&plot)?);
    }
    let sections: String = Section::ALL.into_iter().map(|section| section_table(results, section)).collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>vxlane beside its peers</title>\n\
         <style>{STYLE}</style></head>\n<body>\n{}{}<div class=\"plots\">\n{plots}</div>\n{sections}{}{}</body></html>\n",
        head(results),
        promised(results),
        losses(results),
        tail(results),
    ))
}

fn head(results: &Results) -> String {
    let about = &results.about;
    let quiet = if results.is_quiet() {
        String::new()
    } else {
        format!(
            "<p class=\"warning\">Not a quiet machine: others used up to {:.0} % of its processors between rounds. \
             Compare what was measured in turns, and mind the ranges.</p>",
            results.background()
        )
    };
    format!(
        "<h1>vxlane beside its peers</h1>\n<p class=\"about\">{}<br>{}, load average {:.1} before and {:.1} after<br>\
         <code>{}</code></p>\n{quiet}\
         <p>Bars and lines are medians; whiskers and bands are the whole range of all rounds.</p>\n",
        escaped(&about.machine_line()),
        escaped(&about.run_line()),
        about.load_average.0,
        about.load_average.1,
        escaped(&about.command),
    )
}

fn promised(results: &Results) -> String {
    let promises = promises::measured(results);
    if promises.is_empty() {
        return String::new();
    }
    let line = |promise: &promises::Promise| {
        let class = match promise.verdict() {
            Verdict::Kept => "kept",
            Verdict::MostlyKept => "mostly",
            Verdict::MostlyBroken | Verdict::Broken => "broken",
            Verdict::Unmeasured => "none",
        };
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td><span class=\"{class}\">{}</span></td></tr>\n",
            escaped(&promise.what),
            escaped(&promise.bound.to_string()),
            escaped(&promise.shown()),
            promise.verdict()
        )
    };
    let lines: String = promises.iter().map(line).collect();
    format!(
        "<h2>What vxlane promises</h2>\n<div class=\"wide\"><table><tr><th></th><th>promise</th><th>measured, median [range] of the \
         rounds</th><th></th></tr>\n{lines}</table></div>\n"
    )
}

fn section_table(results: &Results, section: Section) -> String {
    let rows = results.rows(section);
    let peers = results.peers_on(&rows);
    if rows.is_empty() {
        return String::new();
    }
    let heads: String = peers.iter().map(|peer| format!("<th class=\"number\">{peer}</th>")).collect();
    let mut lines = String::new();
    let mut last = None;
    for row in &rows {
        let first = last != Some(&row.case);
        last = Some(&row.case);
        let cells: String = peers.iter().map(|peer| cell(results, row, *peer)).collect();
        lines += &format!(
            "<tr{}><td>{}</td><td class=\"metric\">{}</td>{cells}</tr>\n",
            if first { " class=\"first\"" } else { "" },
            if first { escaped(&row.case) } else { String::new() },
            escaped(&row.metric.heading()),
        );
    }
    format!(
        "<h2>{}</h2>\n<div class=\"wide\"><table><tr><th></th><th></th>{heads}</tr>\n{lines}</table></div>\n",
        section.title()
    )
}

fn cell(results: &Results, row: &Row, peer: Peer) -> String {
    let Some(spread) = results.spread(row, peer) else {
        return "<td class=\"number\">-</td>".to_owned();
    };
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| row.metric.show(value));
    let range = if min == max { String::new() } else { format!(" <small>{min}..{max}</small>") };
    let class = if results.wins(row, peer) { "number wins" } else { "number" };
    format!("<td class=\"{class}\">{median}{range}</td>")
}

fn losses(results: &Results) -> String {
    let losses = losses::losses(results);
    if losses.is_empty() {
        return String::new();
    }
    let line = |loss: &Loss| {
        format!(
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{:.1} %</td><td>{}</td></tr>\n",
            loss.peer,
            escaped(&loss.case),
            loss.share,
            escaped(&loss.causes.join(", "))
        )
    };
    let lines: String = losses.iter().map(line).collect();
    format!(
        "<h2>Losses under flood, in percent of what was sent</h2>\n<div class=\"wide\"><table><tr><th>peer</th><th>case</th>\
         <th class=\"number\">lost</th><th>where it was counted</th></tr>\n{lines}</table></div>\n"
    )
}

fn tail(results: &Results) -> String {
    let notes = results.notes.iter().map(|note| format!("<li>{}</li>\n", escaped(note)));
    let failures = results.failures.iter().map(|failure| format!("<li class=\"warning\">{}</li>\n", escaped(failure)));
    let disturbed = format!(
        "<li>{} of {} figures were taken while the hypervisor stole over 2 % of the time.</li>\n",
        results.disturbed(),
        results.samples.len()
    );
    let lines: String = notes.chain([disturbed]).chain(failures).collect();
    format!(
        "<h2>Notes</h2>\n<ul>\n<li>Bold on green: better than every other VTEP, and the ranges do not overlap.</li>\n\
         {lines}</ul>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const STYLE: &str = "\
:root{color-scheme:light dark;--page:#fff;--card:#fff;--ink:#22262b;--pale:#686e76;--faint:#8a9099;--line:#e4e6e9;\
--shade:#f3f4f6;--win:#e8f4ec;--warn:#fdf0d5}\
@media(prefers-color-scheme:dark){:root{--page:#14171a;--card:#1a1e22;--ink:#e4e7ea;--pale:#a3acb5;--faint:#7f8891;\
--line:#2f353b;--shade:#23282e;--win:#17382a;--warn:#4a3a16}\
rect[fill=\"#FFFFFF\"]{fill:var(--card)}text[fill=\"#22262B\"]{fill:var(--ink)}text[fill=\"#686E76\"]{fill:var(--pale)}\
[stroke=\"#22262B\"]{stroke:var(--ink)}[stroke=\"#E4E6E9\"]{stroke:var(--line)}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1360px;margin:2em auto;\
padding:0 1.2em}h1{font-size:1.7em;margin:0}h2{font-size:1.15em;margin:1.8em 0 .5em}\
.about{color:var(--pale)}code{font-size:.92em;background:var(--shade);padding:.1em .35em;border-radius:3px}\
.warning{background:var(--warn);border-left:4px solid #e38b2c;padding:.5em .8em;list-style:none}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(560px,100%),1fr));gap:1em;margin-top:1.5em}\
figure{margin:0;border:1px solid var(--line);border-radius:6px;padding:.4em;background:var(--card)}\
svg{width:100%;height:auto;display:block}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}\
th{text-align:left;color:var(--pale);font-weight:600;padding:.25em .7em}td{padding:.22em .7em;white-space:nowrap}\
th.number,.number{text-align:right}tr.first td{border-top:1px solid var(--line)}\
.metric{color:var(--pale)}small{color:var(--faint);font-size:.82em}\
.wins{font-weight:700;background:var(--win)}\
.kept,.mostly,.broken,.none{padding:.08em .6em;border-radius:9px;font-weight:600}\
.kept{background:#d9efe0;color:#14532d}.mostly{background:#e9f1d8;color:#3f5212}\
.broken{background:#fae0e0;color:#8a1f1f}.none{background:#eee;color:#666}";
