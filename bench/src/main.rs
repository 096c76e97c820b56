//! `vxlane-bench`: measures vxlane beside its peers, and shows what came of it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use vxlane_bench::load::{self, Generator, Tools};
use vxlane_bench::measure::Plan;
use vxlane_bench::peer::Peer;
use vxlane_bench::pktgen;
use vxlane_bench::results::{Results, Section};
use vxlane_bench::run::{self, Options};
use vxlane_bench::table::markdown;
use vxlane_bench::{builds, compare, figures, html, instructions, null, table};

/// Measures vxlane beside its peers. Needs root; all traffic stays in namespaces of its own.
#[derive(Parser)]
#[command(name = "vxlane-bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Task {
    /// Forward between two interfaces without looking: the peer `null`
    Null(Null),
    /// Set two runs side by side, from the files that `--json` wrote
    Compare(Compare),
    /// Measure several builds of vxlane against each other, in turns within one run
    Builds(Builds),
    /// Count the instructions that a packet takes without I/O, and time them beside memcpy
    Instructions(Instructions),
    /// Make the report of a run again, from the file that `--json` wrote
    Show(Show),
}

#[derive(Args)]
struct Compare {
    /// The run before
    before: PathBuf,
    /// The run after
    after: PathBuf,
}

#[derive(Args)]
struct Builds {
    /// The programs, each as `PATH` or `NAME=PATH`
    #[arg(required = true)]
    programs: Vec<builds::Program>,
    /// How often each is measured
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of the UDP frames in bytes, without FCS
    #[arg(long, default_value_t = load::SMALLEST)]
    frame: usize,
    /// Where the table goes as Markdown: a new file, or between the marks in one that has them
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
struct Instructions {
    /// Where the table goes as Markdown: a new file, or between the marks in one that has them
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// What is made of a run beside the table on the terminal.
#[derive(Args)]
struct Reports {
    /// Where the report with plots goes
    #[arg(long)]
    html: Option<PathBuf>,
    /// Where a picture of the most telling plots goes
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Where the tables go as Markdown: a new file, or between the marks in one that has them
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
struct Show {
    /// The run
    run: PathBuf,
    #[command(flatten)]
    reports: Reports,
}

#[derive(Args)]
struct Null {
    /// Interface on the underlay
    #[arg(long)]
    uplink: String,
    /// Interface of the container
    #[arg(long)]
    access: String,
}

#[derive(Args)]
struct Run {
    /// Shorter measurements and three rounds
    #[arg(long)]
    quick: bool,
    /// Who is measured
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Option<Vec<Peer>>,
    /// Which parts of the report
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Option<Vec<Section>>,
    /// How often everything is measured
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Where every single figure goes
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    reports: Reports,
    /// What offers the load
    #[arg(long, value_enum, default_value_t = Generator::Packets)]
    generator: Generator,
    /// CPUs that generator and sink are kept on; otherwise they run anywhere
    #[arg(long, value_names = ["GENERATOR", "SINK"], num_args = 2, value_delimiter = ',')]
    pin: Option<Vec<usize>>,
    /// The shortest measurements that still are some, to test the harness
    #[arg(long, hide = true)]
    tiny: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.task {
        Some(Task::Null(ports)) => null::forward(&ports.uplink, &ports.access).context("null"),
        Some(Task::Compare(files)) => {
            let (before, after) = (Results::read_json(&files.before)?, Results::read_json(&files.after)?);
            print!("{}", compare::report(&before, &after));
            Ok(())
        }
        Some(Task::Show(show)) => {
            let results = Results::read_json(&show.run)?;
            print!("{}", table::report(&results));
            show.reports.write(&results)
        }
        Some(Task::Builds(task)) => {
            let lines = builds::run(&task.programs, task.rounds, task.frame)?;
            print!("{}", table::aligned(&lines));
            task.markdown.map_or(Ok(()), |path| markdown::place(&path, "builds", &markdown::table(lines)))
        }
        Some(Task::Instructions(task)) => {
            let program = std::env::current_exe().context("where is this program?")?;
            let measured = instructions::measure(&program.with_file_name("dry-run"))?;
            print!("{}", table::aligned(&measured.lines()));
            if let Some(path) = task.markdown {
                markdown::place(&path, "instructions", &markdown::table(measured.lines()))?;
            }
            measured.check()
        }
        None => arguments.run.run(),
    }
}

impl Run {
    fn run(self) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("measuring makes namespaces and devices: run this as root");
        }
        if self.generator == Generator::Pktgen && !pktgen::available() {
            bail!("this kernel has no pktgen (no {}): see bench/pktgen/README.md", pktgen::DIRECTORY);
        }
        let results = run::run(&self.options())?;
        print!("{}", table::report(&results));
        if let Some(path) = &self.json {
            results.write_json(path)?;
        }
        self.reports.write(&results)?;
        if !results.failures.is_empty() {
            bail!("{} failures, see above", results.failures.len());
        }
        Ok(())
    }

    fn options(&self) -> Options {
        let mut plan = match (self.tiny, self.quick) {
            (true, _) => Plan::tiny(),
            (_, true) => Plan::quick(),
            _ => Plan::full(),
        };
        let pins = match self.pin.as_deref() {
            Some([generator, sink]) => Some((*generator, *sink)),
            _ => None,
        };
        plan.tools = Tools { generator: self.generator, pins };
        let words = std::env::args().skip(1);
        Options {
            peers: self.peers.clone().unwrap_or_else(|| DEFAULT_PEERS.to_vec()),
            sections: self.only.clone().unwrap_or_else(|| Section::ALL.to_vec()),
            rounds: self.rounds.unwrap_or(if self.quick { 3 } else { 5 }),
            plan,
            quick: self.quick,
            command: std::iter::once("vxlane-bench".to_owned()).chain(words).collect::<Vec<_>>().join(" "),
            commit: std::env::var("VXLANE_BENCH_COMMIT").ok(),
        }
    }
}

impl Reports {
    fn write(&self, results: &Results) -> Result<()> {
        if let Some(path) = &self.html {
            html::write(results, path)?;
        }
        if let Some(path) = &self.svg {
            std::fs::write(path, figures::picture(results)?).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.markdown {
            markdown::place(path, "run", &markdown::figures(results))?;
        }
        Ok(())
    }
}

/// Those that a run compares unless told otherwise.
const DEFAULT_PEERS: [Peer; 6] =
    [Peer::Kernel, Peer::OvsSystem, Peer::OvsAfxdp, Peer::Null, Peer::Vxlane, Peer::VxlaneExpress];
