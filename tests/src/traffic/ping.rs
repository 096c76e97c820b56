//! Runs `ping` and reads what it reports.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use crate::LabError;
use crate::netns::Netns;

/// How to ping.
#[derive(Clone, Debug)]
pub struct PingOptions {
    /// How many requests.
    pub count: u32,
    /// Time from one request to the next; `None` sends the next as soon as an answer is there.
    pub interval: Option<Duration>,
    /// Payload bytes; at least 16, or `ping` measures no time.
    pub size: u16,
    /// More words for `ping`, such as `-M do`.
    pub extra: Vec<String>,
}

impl Default for PingOptions {
    fn default() -> Self {
        Self { count: 5, interval: Some(Duration::from_millis(10)), size: 56, extra: Vec::new() }
    }
}

/// What `ping` reports.
#[derive(Clone, Debug, PartialEq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Distinct answers received.
    pub received: u32,
    /// Answers beyond the first to a request.
    pub duplicates: u32,
    /// Round-trip times; absent when nothing came back.
    pub rtt: Option<Rtt>,
    /// The round-trip time of each answer, in milliseconds; a flood tells only [`rtt`](Self::rtt).
    pub times: Vec<f64>,
}

impl PingReport {
    /// Whether every request was answered exactly once.
    pub fn complete(&self) -> bool {
        self.received == self.sent && self.duplicates == 0
    }
}

/// Round-trip times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rtt {
    /// Shortest.
    pub min: f64,
    /// Mean.
    pub avg: f64,
    /// Longest.
    pub max: f64,
    /// Standard deviation.
    pub mdev: f64,
}

/// Pings `target` from inside `ns`; missing answers are a report, not an error.
///
/// # Errors
/// [`LabError::Unfit`] when `ping` did not get as far as its summary.
pub fn ping(ns: &Netns, target: impl Into<IpAddr>, options: &PingOptions) -> Result<PingReport, LabError> {
    let mut command: Command = ns.command("ping");
    command
        .args(["-n", "-W", "1", "-c", &options.count.to_string()])
        .args(["-s", &options.size.to_string()])
        .args(&options.extra);
    match options.interval {
        Some(interval) => command.args(["-i", &interval.as_secs_f64().to_string()]),
        None => command.args(["-f", "-q"]),
    };
    let output = command.arg(target.into().to_string()).output().map_err(LabError::syscall("run", "ping"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| LabError::Unfit {
        what: "ping printed no summary",
        text: format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
    })
}

/// Reads the answers and the two summary lines of iputils' `ping`.
fn parse(text: &str) -> Option<PingReport> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let number_before = |word: &str| -> Option<u32> {
        let part = summary.split(", ").find(|part| part.contains(word))?;
        part.trim_start_matches('+').split(' ').next()?.parse().ok()
    };
    let rtt = text.lines().find(|line| line.starts_with("rtt")).and_then(parse_rtt);
    Some(PingReport {
        sent: number_before("transmitted")?,
        received: number_before("received")?,
        duplicates: number_before("duplicates").unwrap_or(0),
        rtt,
        times: text.lines().filter_map(parse_time).collect(),
    })
}

fn parse_time(line: &str) -> Option<f64> {
    line.split_once(" time=")?.1.split(' ').next()?.parse().ok()
}

fn parse_rtt(line: &str) -> Option<Rtt> {
    let values = line.split(" = ").nth(1)?.split(' ').next()?;
    let mut values = values.split('/').map(|value| value.parse().ok());
    let mut next = || values.next().flatten();
    Some(Rtt { min: next()?, avg: next()?, max: next()?, mdev: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_with_losses_and_duplicates_is_read() {
        let text = "64 bytes from 10.0.1.1: icmp_seq=1 ttl=64 time=0.030 ms\n\
            64 bytes from 10.0.1.1: icmp_seq=3 ttl=64 time=0.058 ms\n\
            --- 10.0.1.1 ping statistics ---\n\
            5 packets transmitted, 4 received, +2 duplicates, 20% packet loss, time 42ms\n\
            rtt min/avg/max/mdev = 0.030/0.041/0.058/0.009 ms, ipg/ewma 10.1/0.045 ms\n";
        let report = parse(text).unwrap();
        assert_eq!((report.sent, report.received, report.duplicates), (5, 4, 2));
        assert_eq!(report.rtt.unwrap().max, 0.058);
        assert_eq!(report.times, [0.030, 0.058]);
        assert!(!report.complete());
    }

    #[test]
    fn a_summary_without_answers_has_no_times() {
        let report = parse("3 packets transmitted, 0 received, 100% packet loss, time 20ms\n\n").unwrap();
        assert_eq!((report.received, report.rtt), (0, None));
    }
}
