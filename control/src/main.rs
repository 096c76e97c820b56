//! The one binary, `vxlane`: arguments in, exit code out.

use std::{env, io, process::ExitCode, time::Duration};

use clap::{Parser, error::ErrorKind};
use vxlane::{
    api::client::ClientError,
    cli::{self, Cli, Command, HoldArgs, RunArgs},
    keep, run,
};

/// What was asked for is wrong, or cannot be had on this host.
const USAGE: u8 = 1;
/// The daemon said no, or is not there.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let arguments: Vec<String> = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
            if let Some(said) = cli::ambiguous(&arguments).filter(|_| error.kind() == ErrorKind::InvalidSubcommand) {
                eprintln!("vxlane: {said}");
                return USAGE.into();
            }
            // There is nowhere left to say that printing failed.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is a question to the daemon")]
    let (outcome, code) = match &cli.command {
        Command::Run(args) => (forward(&cli, args), USAGE),
        Command::Detach(args) => (cli::detach(args), REFUSED),
        Command::Hold(args) => (hold(args), USAGE),
        Command::Generate { directory } => (cli::generate::generate(directory).map_err(Into::into), USAGE),
        _ => (ask(&cli), REFUSED),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("vxlane: {line}");
            }
            code.into()
        }
    }
}

fn forward(cli: &Cli, args: &RunArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // Where nobody reads the log any more, it is not worth a panic.
    log.log_internal_errors(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(run::run(&args.config, cli.socket.as_deref()))?)
}

fn hold(args: &HoldArgs) -> anyhow::Result<()> {
    Ok(keep::hold::serve(&args.listening, Duration::from_secs(args.patience))?)
}

fn ask(cli: &Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(cli::answer(cli, &mut io::stdout())) {
        // Whoever reads has seen enough.
        Err(ClientError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        answered => Ok(answered?),
    }
}
