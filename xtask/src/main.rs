//! The tasks of this repository: one subcommand per file.

mod ci;
mod ebpf;
mod repo;
mod setup;
mod tidy;

use clap::Parser;

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Build the BPF programs and put the objects beside their sources
    Ebpf(ebpf::Ebpf),
    /// Install what the build and the tests need
    Setup(setup::Setup),
    /// Everything that must pass before a change is merged
    Ci(ci::Ci),
    /// Check the house rules that no other tool checks
    Tidy(tidy::Tidy),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Ebpf(task) => task.run(),
        Task::Setup(task) => task.run(),
        Task::Ci(task) => task.run(),
        Task::Tidy(task) => task.run(),
    }
}
