//! `vxlane endpoint`: attachments to networks.

use clap::Subcommand;

use super::{
    Question, both,
    columns::Columns,
    network::{self, owner},
};
use crate::api::{
    client::{ClientError, escape},
    types::{Endpoint, EndpointState},
};

/// `vxlane endpoint`
#[derive(Clone, Debug, Subcommand)]
pub enum EndpointCommand {
    /// Print them
    #[command(alias = "list", alias = "show")]
    Ls,
    /// Print everything about one
    Inspect {
        /// Its network
        network: String,
        /// Its name
        #[arg(long)]
        name: String,
    },
}

pub(super) async fn answer(ask: &Question<'_>, command: &EndpointCommand) -> Result<String, ClientError> {
    match command {
        EndpointCommand::Ls => ask.list("/v1/endpoints", table).await,
        EndpointCommand::Inspect { network, name } => {
            ask.show(&format!("{}/endpoints/{}", network::path(network), escape(name)), details).await
        }
    }
}

/// What is said of an endpoint that has just been connected.
pub(super) fn connected(endpoint: &Endpoint) -> String {
    let Endpoint { name, interface, address, address6, .. } = endpoint;
    let line = format!("{name} {interface} {}", both(*address, *address6));
    format!("{}\n", line.trim_end())
}

fn table(endpoints: &[Endpoint]) -> String {
    let titles = ["NAME", "NETWORK", "VNI", "ADDRESS", "MAC", "INTERFACE", "STATE", "XDP", "FRAMES", "OWNER"];
    let mut columns = Columns::titled(&titles);
    for endpoint in endpoints {
        columns.row([
            endpoint.name.clone(),
            endpoint.network.clone(),
            endpoint.vni.to_string(),
            both(endpoint.address, endpoint.address6),
            endpoint.mac.clone().unwrap_or_default(),
            endpoint.interface.clone(),
            state(endpoint.state).to_owned(),
            endpoint.xdp.clone().unwrap_or_default(),
            copying(endpoint.zero_copy).to_owned(),
            owner(endpoint.owner).to_owned(),
        ]);
    }
    columns.render()
}

fn details(endpoint: &Endpoint) -> String {
    let mut columns = Columns::default();
    let mut row = |key: &str, value: String| columns.row([key.to_owned(), value]);
    row("name", endpoint.name.clone());
    row("network", endpoint.network.clone());
    row("vni", endpoint.vni.to_string());
    row("address", both(endpoint.address, endpoint.address6));
    row("mac", endpoint.mac.clone().unwrap_or_default());
    row("interface", endpoint.interface.clone());
    row("netns", endpoint.netns.clone().unwrap_or_default());
    row("ifname", endpoint.ifname.clone().unwrap_or_default());
    row("state", state(endpoint.state).to_owned());
    row("xdp", endpoint.xdp.clone().unwrap_or_default());
    row("lane", endpoint.lane.map(|lane| lane.name().to_owned()).unwrap_or_default());
    row("frames", copying(endpoint.zero_copy).to_owned());
    row("ring", endpoint.ring.to_string());
    row("owner", owner(endpoint.owner).to_owned());
    columns.render()
}

fn state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Attached => "attached",
        EndpointState::Absent => "absent",
    }
}

/// How frames come and go, in one word.
pub(super) fn copying(zero_copy: bool) -> &'static str {
    if zero_copy { "zero-copy" } else { "copy" }
}
