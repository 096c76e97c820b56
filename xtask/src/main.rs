//! The tasks of this repository: one subcommand per file.

mod bench;
mod ci;
mod demo;
mod dist;
mod ebpf;
mod fuzz;
mod repo;
mod setup;
mod soak;
mod test;
mod tidy;

use clap::Parser;

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Show three hosts and two networks at work
    Demo(demo::Demo),
    /// Run every test there is
    Test(test::Test),
    /// Run the long versions of the tests that have one
    Soak(soak::Soak),
    /// Feed the parsers and the worker whatever the fuzzer comes up with
    Fuzz(fuzz::Fuzz),
    /// Build the BPF programs and put the objects beside their sources
    Ebpf(ebpf::Ebpf),
    /// Measure vxlane beside its peers and print a table
    Bench(bench::Bench),
    /// Put what a package of vxlane holds into one folder: binary, unit, completions, man pages
    Dist(dist::Dist),
    /// Install what the build and the tests need
    Setup(setup::Setup),
    /// Everything that must pass before a change is merged
    Ci(ci::Ci),
    /// Check the house rules that no other tool checks
    Tidy(tidy::Tidy),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Demo(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::Soak(task) => task.run(),
        Task::Fuzz(task) => task.run(),
        Task::Ebpf(task) => task.run(),
        Task::Bench(task) => task.run(),
        Task::Dist(task) => task.run(),
        Task::Setup(task) => task.run(),
        Task::Ci(task) => task.run(),
        Task::Tidy(task) => task.run(),
    }
}
