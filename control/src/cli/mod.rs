//! The command line: what can be said, and who answers.

pub mod columns;
mod endpoint;
mod events;
mod express;
mod fdb;
pub mod generate;
mod nat;
mod neigh;
mod network;
mod peer;
mod process;
mod shortened;
mod stats;
mod status;

use std::{
    fmt::Display,
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use hyper::{Method, StatusCode, body::Bytes};
use serde::{Serialize, de::DeserializeOwned};

pub use endpoint::EndpointCommand;
pub use events::EventsArgs;
pub use express::ExpressCommand;
pub use fdb::{AddArgs, FdbCommand};
pub use nat::NatCommand;
pub use neigh::NeighCommand;
pub use network::{ConnectArgs, CreateArgs, NetworkCommand};
pub use peer::{PeerArgs, PeerCommand};
pub use process::{DetachArgs, HoldArgs, detach};
pub use shortened::ambiguous;
pub use stats::StatsArgs;

use crate::{
    api::client::{self, ClientError},
    config::DEFAULT_SOCKET,
};

/// A userspace VXLAN dataplane.
#[derive(Clone, Debug, Parser)]
#[command(name = "vxlane", version, infer_subcommands = true, propagate_version = true)]
pub struct Cli {
    /// Where the daemon listens [default: /run/vxlane/vxlane.sock, or as its file says]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Forward, until told to stop
    Run(RunArgs),
    /// The daemon, its ports and its peers
    Status,
    /// Counters
    Stats(StatsArgs),
    /// Why frames were dropped
    Drops,
    /// What happened lately
    Events(EventsArgs),
    /// Who is where
    #[command(infer_subcommands = true)]
    Fdb {
        /// What to do with it.
        #[command(subcommand)]
        command: Option<FdbCommand>,
    },
    /// Whose address is whose
    #[command(infer_subcommands = true)]
    Neigh {
        /// What to do with it.
        #[command(subcommand)]
        command: Option<NeighCommand>,
    },
    /// Overlay networks
    #[command(infer_subcommands = true)]
    Network {
        /// What to do with them.
        #[command(subcommand)]
        command: Option<NetworkCommand>,
    },
    /// Attachments to networks
    #[command(infer_subcommands = true)]
    Endpoint {
        /// What to do with them.
        #[command(subcommand)]
        command: Option<EndpointCommand>,
    },
    /// The way out of the overlay
    #[command(infer_subcommands = true)]
    Nat {
        /// What to do with it.
        #[command(subcommand)]
        command: Option<NatCommand>,
    },
    /// The express lane and its flows
    #[command(infer_subcommands = true)]
    Express {
        /// What to do with it.
        #[command(subcommand)]
        command: Option<ExpressCommand>,
    },
    /// Remote VTEPs
    #[command(infer_subcommands = true)]
    Peer {
        /// What to do with them.
        #[command(subcommand)]
        command: Option<PeerCommand>,
    },
    /// Have the daemon read its file again
    Reload,
    /// Replace the daemon by a new process, perhaps of a new version, without losing a frame
    Restart,
    /// Leave interfaces as they were found by a daemon that was killed
    Detach(DetachArgs),
    /// Keep interfaces attached between two daemons
    #[command(hide = true)]
    Hold(HoldArgs),
    /// Write shell completions and man pages
    #[command(hide = true)]
    Generate {
        /// Where to
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
}

/// `vxlane run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/vxlane/vxlane.toml")]
    pub config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or filters by module
    #[arg(long, value_name = "LEVEL", env = "VXLANE_LOG", default_value = "warn")]
    pub log: String,
}

/// Where answers are printed.
pub type Output<'a> = &'a mut dyn Write;

/// Has the daemon answer `cli`, and prints that.
///
/// # Errors
/// [`ClientError`], if it does not or says no.
pub async fn answer(cli: &Cli, out: Output<'_>) -> Result<(), ClientError> {
    let ask = Question { cli };
    let text = match &cli.command {
        // Main does these itself and does not come here with them.
        Command::Run(_) | Command::Generate { .. } | Command::Detach(_) | Command::Hold(_) => String::new(),
        Command::Reload => process::reload(&ask).await?,
        Command::Restart => process::restart(&ask).await?,
        Command::Events(args) => return events::answer(&ask, args, out).await,
        Command::Stats(args) => return stats::answer(&ask, args, out).await,
        Command::Status => ask.show("/v1/status", status::render).await?,
        Command::Drops => ask.show("/v1/stats", stats::render_drops).await?,
        Command::Network { command } => network::answer(&ask, command.as_ref().unwrap_or(&NetworkCommand::Ls)).await?,
        Command::Nat { command } => {
            nat::answer(&ask, command.as_ref().unwrap_or(&NatCommand::Show { network: None })).await?
        }
        Command::Express { command } => {
            express::answer(&ask, command.as_ref().unwrap_or(&ExpressCommand::Show { network: None })).await?
        }
        Command::Endpoint { command } => {
            endpoint::answer(&ask, command.as_ref().unwrap_or(&EndpointCommand::Ls)).await?
        }
        Command::Peer { command } => peer::answer(&ask, command.as_ref().unwrap_or(&PeerCommand::Ls)).await?,
        Command::Neigh { command } => {
            let show = NeighCommand::Show { network: None, statistics: false };
            neigh::answer(&ask, command.as_ref().unwrap_or(&show)).await?
        }
        Command::Fdb { command } => {
            let show = FdbCommand::Show { network: None, statistics: false };
            fdb::answer(&ask, command.as_ref().unwrap_or(&show)).await?
        }
    };
    print(out, &text)
}

/// Prints `text` now.
fn print(out: Output<'_>, text: &str) -> Result<(), ClientError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ClientError::Print)
}

/// What the command line wants to know from the daemon.
struct Question<'a> {
    cli: &'a Cli,
}

impl Question<'_> {
    /// Like [`show`](Self::show), for answers that are lists.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        render: impl Fn(&[T]) -> String,
    ) -> Result<String, ClientError> {
        self.show(path, |items: &Vec<T>| render(items)).await
    }

    /// The answer to `path`: as it came with `--json`, else as `render` puts it.
    async fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        render: impl Fn(&T) -> String,
    ) -> Result<String, ClientError> {
        self.render(&self.send(Method::GET, path, Bytes::new()).await?, render)
    }

    /// The answer to `path`.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.send(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Answer { status: StatusCode::OK, source })
    }

    /// Asks for what `request` says, and shows the answer like [`show`](Self::show).
    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        render: impl Fn(&T) -> String,
    ) -> Result<String, ClientError> {
        let body = serde_json::to_vec(request).map_err(ClientError::Body)?;
        self.render(&self.send(Method::POST, path, body.into()).await?, render)
    }

    /// Has what is at `path` taken away.
    async fn delete(&self, path: &str) -> Result<String, ClientError> {
        self.send(Method::DELETE, path, Bytes::new()).await?;
        Ok(String::new())
    }

    /// Has what is at `path` taken away, and shows the answer like [`show`](Self::show).
    async fn delete_and_show<T: DeserializeOwned>(
        &self,
        path: &str,
        render: impl Fn(&T) -> String,
    ) -> Result<String, ClientError> {
        self.render(&self.send(Method::DELETE, path, Bytes::new()).await?, render)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        client::send(self.socket(), method, path, body).await
    }

    async fn open(&self, method: Method, path: &str, body: Bytes) -> Result<client::Answer, ClientError> {
        client::open(self.socket(), method, path, body).await
    }

    fn socket(&self) -> &Path {
        self.cli.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    fn render<T: DeserializeOwned>(&self, body: &Bytes, render: impl Fn(&T) -> String) -> Result<String, ClientError> {
        let answer = |source| ClientError::Answer { status: StatusCode::OK, source };
        if self.cli.json {
            let value: serde_json::Value = serde_json::from_slice(body).map_err(answer)?;
            return Ok(format!("{value}\n"));
        }
        Ok(render(&serde_json::from_slice(body).map_err(answer)?))
    }
}

/// A line of JSON.
fn json(item: &impl Serialize) -> Result<String, ClientError> {
    serde_json::to_string(item).map(|text| text + "\n").map_err(ClientError::Body)
}

/// In one cell of a table.
fn joined(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// An IPv4 thing and its IPv6 likeness, as far as they are there.
fn both(one: Option<impl Display>, other: Option<impl Display>) -> String {
    let told = one.map(|one| one.to_string()).into_iter().chain(other.map(|other| other.to_string()));
    joined(&told.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_can_be_shortened_while_they_are_unique() {
        let cli = Cli::try_parse_from(["vxlane", "f", "s", "--network", "blue"]).unwrap();
        assert!(matches!(cli.command, Command::Fdb { command: Some(FdbCommand::Show { network: Some(_), .. }) }));
        let cli = Cli::try_parse_from(["vxlane", "net", "ls", "--json", "--socket", "x"]).unwrap();
        assert!(cli.json && cli.socket == Some("x".into()));
    }
}
