//! Every single measurement of a run, and what is known about how it was made.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vxlane_tests::LabError;

use crate::machine::Machine;
use crate::peer::Peer;
use crate::stats::{Better, Spread};

/// A run: what is in the JSON file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// How the figures were made.
    pub about: About,
    /// The figures, in the order they were taken.
    pub samples: Vec<Sample>,
    /// How long answers took, as distributions.
    pub latencies: Vec<Latency>,
    /// What was lost, and where, under flood.
    pub drops: Vec<Drops>,
    /// What a reader should know, one sentence each.
    pub notes: Vec<String>,
    /// Peers that could not be measured, or not to the end, and why.
    pub failures: Vec<String>,
}

/// How the figures of a run were made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The machine.
    pub machine: Machine,
    /// Start of the run, UTC.
    pub date: String,
    /// The command line.
    pub command: String,
    /// The commit that was measured, where known.
    pub commit: Option<String>,
    /// Rounds asked for.
    pub rounds: u32,
    /// Whether trials were short.
    pub quick: bool,
    /// Load average at the start and at the end.
    pub load_average: (f64, f64),
    /// Share of the processors in use before each round, by others than us: 0 to 1.
    pub background: Vec<f64>,
    /// Offered loads of the fixed-load cases, in packets per second, the lowest first.
    pub fixed_loads: Vec<f64>,
    /// Processors that generator and sink were kept on, if they were.
    pub pins: Option<(usize, usize)>,
    /// Seconds the run took.
    pub seconds: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Part of the report.
    pub section: Section,
    /// What was done, such as `64 B, 1 flow`.
    pub case: String,
    /// What was measured.
    pub metric: Metric,
    /// Who did it.
    pub peer: Peer,
    /// In which round, from 0.
    pub round: u32,
    /// The figure, in the metric's unit.
    pub value: f64,
    /// Share of processor time stolen by the hypervisor meanwhile, 0 to 1, where measured.
    pub stolen: f64,
}

/// How long the answers of one exchange took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// What was done.
    pub case: String,
    /// Who did it.
    pub peer: Peer,
    /// In which round, from 0.
    pub round: u32,
    /// Percentages, and the microseconds within which so many of the answers came.
    pub curve: Vec<(f64, f64)>,
}

/// Losses during one flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drops {
    /// Part of the report.
    pub section: Section,
    /// What was done.
    pub case: String,
    /// Who did it.
    pub peer: Peer,
    /// In which round, from 0.
    pub round: u32,
    /// Packets sent in the flood.
    pub sent: u64,
    /// Those of them that did not arrive.
    pub lost: u64,
    /// Where, and how many; the largest first.
    pub causes: Vec<(String, u64)>,
}

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// Delivered packets per second.
    Pps,
    /// Processor time per delivered packet.
    Cpu,
    /// TCP throughput.
    Tcp,
    /// Request and response.
    Rr,
    /// Cost of doing nothing.
    Idle,
    /// Cost of doing nothing for many ports.
    Crowd,
    /// One direction of one VTEP alone.
    Half,
    /// Out of the overlay by address translation.
    Nat,
}

impl Section {
    /// All, in the order of the report.
    pub const ALL: [Self; 8] =
        [Self::Pps, Self::Cpu, Self::Tcp, Self::Rr, Self::Idle, Self::Crowd, Self::Half, Self::Nat];

    /// Whether there is anything to measure of `peer`.
    pub fn concerns(self, peer: Peer) -> bool {
        match self {
            Self::Pps | Self::Cpu | Self::Tcp | Self::Rr => true,
            Self::Half => peer != Peer::Wire,
            // The kernel has no process that could be busy.
            Self::Idle => !matches!(peer, Peer::Wire | Peer::Kernel),
            // `null` connects one container and no more.
            Self::Crowd => !matches!(peer, Peer::Wire | Peer::Kernel | Peer::Null),
            // Open vSwitch's userspace datapath would need a router beside it.
            Self::Nat => matches!(peer, Peer::Kernel | Peer::Vxlane | Peer::VxlaneExpress),
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pps => "pps",
            Self::Cpu => "cpu",
            Self::Tcp => "tcp",
            Self::Rr => "rr",
            Self::Idle => "idle",
            Self::Crowd => "crowd",
            Self::Half => "half",
            Self::Nat => "nat",
        }
    }

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pps => "Delivered packets per second, container to container over two VTEPs",
            Self::Cpu => "Processor time per delivered packet, generator and sink included (64 B, 1 flow)",
            Self::Tcp => "TCP throughput",
            Self::Rr => "Request and response over UDP, 64 B",
            Self::Idle => "Idle: VTEP processes of both hosts, one port each",
            Self::Crowd => "Idle: VTEP processes of one host with 64 ports",
            Self::Half => "Half path: one VTEP, packets per second under flood",
            Self::Nat => "Ways out: container to a server outside, by masquerade (kernel: bridge and nftables)",
        }
    }
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Highest rate with loss below the limit.
    Lossless,
    /// Rate that arrives when the generator does not hold back.
    Flood,
    /// Processor time per packet, generator and sink included.
    CpuGross,
    /// The same without what the bare wire costs.
    CpuNet,
    /// Processor time of the whole machine per packet, others' programs included.
    CpuMachine,
    /// Packets per second that arrived during the cost measurement.
    Arrived,
    /// Share of the packets lost, in percent.
    Loss,
    /// TCP payload rate.
    Throughput,
    /// TCP connections per second, each with one request.
    Connections,
    /// Half of the answers came within this time.
    P50,
    /// 99 % of the answers came within this time.
    P99,
    /// 99.9 % of the answers came within this time.
    P999,
    /// Processor use while idle, in percent of one core.
    IdleCpu,
    /// Resident memory.
    Rss,
}

impl About {
    /// The machine, in a line.
    pub fn machine_line(&self) -> String {
        let Machine { cpu, cpus, memory_mib, kernel, hypervisor } = &self.machine;
        let kind = if *hypervisor { "virtual machine" } else { "machine" };
        let memory = memory_mib.div_ceil(1024);
        format!("{cpu}, {cpus} CPUs ({kind}), {memory} GiB, Linux {kernel}")
    }

    /// When and how the run was made, in a line.
    pub fn run_line(&self) -> String {
        format!(
            "{}, {} rounds{}, commit {}, {:.0} minutes",
            self.date,
            self.rounds,
            if self.quick { " (quick)" } else { "" },
            self.commit.as_deref().unwrap_or("unknown"),
            (self.seconds / 60.0).ceil(),
        )
    }
}

impl Metric {
    /// Its name in a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Lossless => "loss < 0.5 %",
            Self::Flood => "under flood",
            Self::CpuGross => "gross",
            Self::CpuNet => "net of wire",
            Self::CpuMachine => "whole machine",
            Self::Arrived => "delivered",
            Self::Loss => "lost",
            Self::Throughput | Self::Connections => "",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::IdleCpu => "CPU",
            Self::Rss => "RSS",
        }
    }

    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Lossless | Self::Flood | Self::Arrived => "kpps",
            Self::CpuGross | Self::CpuNet | Self::CpuMachine => "µs/pkt",
            Self::Throughput => "Gbit/s",
            Self::Connections => "conn/s",
            Self::P50 | Self::P99 | Self::P999 => "µs",
            Self::IdleCpu => "% of a CPU",
            Self::Loss => "%",
            Self::Rss => "MiB",
        }
    }

    /// Which way it is good.
    pub fn better(self) -> Better {
        match self {
            Self::Lossless | Self::Flood | Self::Arrived | Self::Throughput | Self::Connections => Better::Higher,
            Self::CpuGross | Self::CpuNet | Self::CpuMachine => Better::Lower,
            Self::P50 | Self::P99 | Self::P999 => Better::Lower,
            Self::IdleCpu | Self::Rss | Self::Loss => Better::Lower,
        }
    }

    /// Its name and its unit, as they head a column.
    pub fn heading(self) -> String {
        format!("{} {}", self.label(), self.unit()).trim().to_owned()
    }

    /// What a value is divided by to be in the [unit](Self::unit).
    pub fn scale(self) -> f64 {
        if self.unit() == "kpps" { 1e3 } else { 1.0 }
    }

    /// `value` in the metric's unit, with as many digits as say something.
    pub fn show(self, value: f64) -> String {
        let value = value / self.scale();
        match value.abs() {
            _ if self.unit() == "µs" => format!("{value:.0}"),
            size if size >= 99.95 => format!("{value:.0}"),
            size if size >= 9.995 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        }
    }

    /// `spread` as every report shows it: the median, and the range where there is one.
    pub fn show_spread(self, spread: &Spread) -> String {
        let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| self.show(value));
        if min == max { median } else { format!("{median} [{min}..{max}]") }
    }
}

/// One line of a table: what was done, and what was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Part of the report.
    pub section: Section,
    /// What was done.
    pub case: String,
    /// What was measured.
    pub metric: Metric,
}

impl Results {
    /// The lines of `section`: cases in the order their first samples were taken, and within a
    /// case metrics in the order of [`Metric`].
    pub fn rows(&self, section: Section) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.section == section) {
            let row = Row { section, case: sample.case.clone(), metric: sample.metric };
            if !rows.contains(&row) {
                let behind = |other: &Row| other.case == row.case && other.metric < row.metric;
                let before = rows.iter().position(|other| other.case == row.case);
                let at = rows.iter().rposition(behind).map(|at| at + 1).or(before);
                rows.insert(at.unwrap_or(rows.len()), row);
            }
        }
        rows
    }

    /// The peers that have samples, in the order of [`Peer::ALL`].
    pub fn peers(&self) -> Vec<Peer> {
        let has = |peer: &Peer| self.samples.iter().any(|sample| sample.peer == *peer);
        Peer::ALL.into_iter().filter(has).collect()
    }

    /// Those of them that have something on one of `rows`.
    pub fn peers_on(&self, rows: &[Row]) -> Vec<Peer> {
        let on = |peer: &Peer| rows.iter().any(|row| self.spread(row, *peer).is_some());
        self.peers().into_iter().filter(on).collect()
    }

    /// Whether `peer` beats every other competitor on the line `row` beyond doubt.
    pub fn wins(&self, row: &Row, peer: Peer) -> bool {
        let Some(own) = self.spread(row, peer).filter(|_| peer.competes()) else {
            return false;
        };
        let others = self.peers().into_iter().filter(|other| !peer.is_kin(*other) && other.competes());
        let mut spreads = others.filter_map(|other| self.spread(row, other)).peekable();
        spreads.peek().is_some() && spreads.all(|other| own.beats(&other, row.metric.better()))
    }

    /// The most that others used of the processors between rounds, in percent.
    pub fn background(&self) -> f64 {
        self.about.background.iter().copied().fold(0.0, f64::max) * 100.0
    }

    /// Whether the others on the machine left it alone enough for its figures to be quoted.
    pub fn is_quiet(&self) -> bool {
        self.background() <= NOT_QUIET
    }

    /// The value of `peer` on the line `row` in one round.
    pub fn value(&self, row: &Row, peer: Peer, round: u32) -> Option<f64> {
        self.on(row, peer).find(|sample| sample.round == round).map(|sample| sample.value)
    }

    /// All values of `peer` on the line `row`.
    pub fn values(&self, row: &Row, peer: Peer) -> Vec<f64> {
        self.on(row, peer).map(|sample| sample.value).collect()
    }

    fn on(&self, row: &Row, peer: Peer) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.peer == peer
                && sample.section == row.section
                && sample.metric == row.metric
                && sample.case == row.case
        })
    }

    /// The spread of `peer` on the line `row`.
    pub fn spread(&self, row: &Row, peer: Peer) -> Option<Spread> {
        Spread::of(&self.values(row, peer))
    }

    /// Samples during which the hypervisor took away more than [`MUCH_STOLEN`].
    pub fn disturbed(&self) -> usize {
        self.samples.iter().filter(|sample| sample.stolen > MUCH_STOLEN).count()
    }

    /// Writes the run as JSON.
    ///
    /// # Errors
    /// [`LabError`] when the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<(), LabError> {
        let text = serde_json::to_string(self)
            .map_err(|error| LabError::Unfit { what: "a run that can be written as JSON", text: error.to_string() })?;
        fs::write(path, text).map_err(LabError::syscall("write", path.display().to_string()))
    }

    /// Reads a run that [`write_json`](Self::write_json) wrote.
    ///
    /// # Errors
    /// [`LabError`] when the file cannot be read, or is something else.
    pub fn read_json(path: &Path) -> Result<Self, LabError> {
        let text = fs::read_to_string(path).map_err(LabError::syscall("read", path.display().to_string()))?;
        serde_json::from_str(&text).map_err(|error| LabError::Unfit {
            what: "a file written by `vxlane-bench --json` was expected",
            text: format!("{}: {error}", path.display()),
        })
    }
}

/// Use of the processors by others, in percent, above which no figure should be quoted.
const NOT_QUIET: f64 = 10.0;

/// Share of stolen time above which a sample is called disturbed.
pub const MUCH_STOLEN: f64 = 0.02;
