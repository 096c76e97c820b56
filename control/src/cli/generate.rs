//! Shell completions and man pages, from the one definition of the command line.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// Shells that completions are written for, with the name that each looks for.
const COMPLETIONS: [(Shell, &str); 3] =
    [(Shell::Bash, "vxlane"), (Shell::Zsh, "_vxlane"), (Shell::Fish, "vxlane.fish")];

/// Writes `completions/SHELL/…` and `man/….1` below `directory`.
///
/// # Errors
/// If a file cannot be written.
pub fn generate(directory: &Path) -> io::Result<()> {
    for (shell, name) in COMPLETIONS {
        let directory = directory.join("completions").join(shell.to_string());
        fs::create_dir_all(&directory)?;
        let mut file = File::create(directory.join(name))?;
        clap_complete::generate(shell, &mut Cli::command(), "vxlane", &mut file);
    }
    let directory = directory.join("man");
    fs::create_dir_all(&directory)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, &directory)
}

/// One page for `command` and one for each of its subcommands that is not hidden.
fn pages(command: &clap::Command, directory: &Path) -> io::Result<()> {
    let page = Man::new(command.clone()).manual("vxlane");
    page.render(&mut File::create(directory.join(page.get_filename()))?)?;
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| pages(command, directory))
}
