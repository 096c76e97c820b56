//! `cargo xtask tidy`: the house rules that no other tool checks.
//!
//! A rule is waived by `// tidy: allow <rule>: <reason>` on the offending line or the one
//! above it; a rule about a whole file, anywhere in its first twenty lines.

use crate::repo;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{fs, path::Path};

/// The longest file, tests apart.
const FILE_LINES: usize = 600;
/// The longest function, tests apart.
const FUNCTION_LINES: usize = 80;
/// Where a waiver for a whole file is looked for.
const HEAD_LINES: usize = 20;

/// Rule, what gives a breach away, and what to say. Spelled apart so as not to match itself.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("ignored-test", concat!("#[", "ignore"), "a test runs or is deleted"),
    ("unfinished", concat!("to", "do!("), "what is merged is finished"),
    ("unfinished", concat!("unimple", "mented!("), "what is merged is finished"),
    ("disabled-file", concat!("#![", "cfg(any())]"), "a file is compiled or is deleted"),
];

#[derive(Args)]
pub(crate) struct Tidy {}

impl Tidy {
    pub(crate) fn run(self) -> Result<()> {
        let mut breaches = Vec::new();
        let files = rust_files()?;
        for file in &files {
            let text = fs::read_to_string(repo::root().join(file)).context(file.clone())?;
            for breach in Source::new(file, &text).breaches() {
                breaches.push(format!("{file}:{breach}"));
            }
        }
        ensure!(!files.is_empty(), "git knows no Rust file here");
        if breaches.is_empty() {
            return Ok(());
        }
        bail!("tidy:\n{}", breaches.join("\n"))
    }
}

/// Every Rust file that is, or would be, in git.
fn rust_files() -> Result<Vec<String>> {
    let output = std::process::Command::new("git")
        .current_dir(repo::root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .output()
        .context("cannot run git ls-files")?;
    ensure!(output.status.success(), "git ls-files failed: {}", output.status);
    let listing = String::from_utf8(output.stdout)?;
    let exists = |file: &&str| repo::root().join(file).exists();
    Ok(listing.lines().filter(exists).map(str::to_owned).collect())
}

/// One file, cut into what the size rules see and what they do not.
struct Source<'a> {
    lines: Vec<&'a str>,
    /// Whether it is a test program, which says what it needs.
    is_program: bool,
    /// How many lines come before the tests.
    body: usize,
}

impl<'a> Source<'a> {
    fn new(file: &str, text: &'a str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let is_test =
            Path::new(file).components().any(|part| part.as_os_str() == "tests") && !file.starts_with("tests/src");
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
        let body = if is_test { 0 } else { tests.unwrap_or(lines.len()) };
        let is_program = matches!(file.split('/').collect::<Vec<_>>()[..], [_, "tests", _]);
        Self { lines, is_program, body }
    }

    fn breaches(&self) -> Vec<String> {
        let mut found = self.head();
        found.extend(self.privilege());
        found.extend(self.file_length());
        found.extend((0..self.body).filter_map(|at| self.function_length(at)));
        found.extend((0..self.lines.len()).flat_map(|at| self.forbidden(at)));
        found
    }

    fn head(&self) -> Vec<String> {
        let opens = self.lines.first().is_some_and(|line| line.starts_with("//! "));
        if opens || self.file_waives("head") {
            return Vec::new();
        }
        vec!["1: head: a file opens with `//!` and its purpose".into()]
    }

    /// What `cargo xtask test` goes by where it has no root.
    fn privilege(&self) -> Option<String> {
        let mut head = self.lines.iter().take_while(|line| line.starts_with("//!"));
        let says = head.any(|line| matches!(*line, "//! Needs root." | "//! Needs no root."));
        let breach = self.is_program && !says;
        breach.then(|| "1: privilege: a test program says `//! Needs root.` or `//! Needs no root.`".into())
    }

    fn file_length(&self) -> Option<String> {
        let breach = self.body > FILE_LINES && !self.file_waives("file-length");
        breach.then(|| format!("1: file-length: {} lines, {FILE_LINES} allowed", self.body))
    }

    /// The function that begins at `at`, if one does and it is too long. Relies on rustfmt: a
    /// function ends at the first closing brace of its own indentation.
    fn function_length(&self, at: usize) -> Option<String> {
        let line = self.lines[at];
        let indent = line.len() - line.trim_start().len();
        let signature = line.split(['(', '<']).next()?;
        if !signature.split_whitespace().any(|word| word == "fn") || is_comment(line) {
            return None;
        }
        let ends = |line: &&str| {
            let rest = line.get(indent..).unwrap_or_default();
            line.trim_start() == rest && (rest.starts_with('}') || rest.ends_with(';'))
        };
        let length = match line.trim_end().ends_with(['}', ';']) {
            true => 1,
            false => self.lines[at + 1..].iter().position(ends)? + 2,
        };
        let breach = length > FUNCTION_LINES && !self.line_waives(at, "function-length");
        breach.then(|| format!("{}: function-length: {length} lines, {FUNCTION_LINES} allowed", at + 1))
    }

    fn forbidden(&self, at: usize) -> impl Iterator<Item = String> {
        FORBIDDEN.iter().filter_map(move |(rule, pattern, why)| {
            let line = self.lines[at];
            let breach = line.contains(pattern) && !is_comment(line) && !self.line_waives(at, rule);
            breach.then(|| format!("{}: {rule}: {why}", at + 1))
        })
    }

    fn file_waives(&self, rule: &str) -> bool {
        self.lines.iter().take(HEAD_LINES).any(|line| waives(line, rule))
    }

    fn line_waives(&self, at: usize, rule: &str) -> bool {
        self.lines[at.saturating_sub(1)..=at].iter().any(|line| waives(line, rule))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether `line` waives `rule` and says why.
fn waives(line: &str, rule: &str) -> bool {
    let waiver = line.split_once("// tidy: allow ").map(|(_, rest)| rest);
    let reason = waiver.and_then(|rest| rest.strip_prefix(rule)?.strip_prefix(": "));
    reason.is_some_and(|reason| !reason.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(Source::new("x/src/lib.rs", text).breaches(), expected, "{text}");
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        check("//! Does a thing.\n", &[]);
        check("use x;\n", &["1: head: a file opens with `//!` and its purpose"]);
        check("// tidy: allow head: made by a tool\nuse x;\n", &[]);
    }

    #[test]
    fn a_test_program_says_whether_it_needs_root() {
        let privilege = |text| Source::new("control/tests/x.rs", text).breaches();
        assert_eq!(privilege("//! X.\n//!\n//! Needs no root.\n"), [""; 0]);
        let said = ["1: privilege: a test program says `//! Needs root.` or `//! Needs no root.`"];
        assert_eq!(privilege("//! X.\n\nfn f() {}\n//! Needs root.\n"), said);
        check("//! Not a program.\n", &[]);
    }

    #[test]
    fn a_waiver_without_a_reason_waives_nothing() {
        let text = concat!("//! X.\n// tidy: allow unfinished:  \nto", "do!();\n");
        check(text, &["3: unfinished: what is merged is finished"]);
    }

    #[test]
    fn a_function_of_eighty_lines_passes_and_one_more_does_not() {
        let function = |body: usize| format!("//! X.\nfn f() {{\n{}}}\n", "    x();\n".repeat(body));
        check(&function(78), &[]);
        check(&function(79), &["2: function-length: 81 lines, 80 allowed"]);
    }

    #[test]
    fn tests_may_be_long() {
        let text = format!("//! X.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    x();\n".repeat(700));
        check(&text, &[]);
    }
}
