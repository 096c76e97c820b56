//! `vxlane peer`: remote VTEPs.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{Question, columns::Columns, joined, network};
use crate::api::{
    client::ClientError,
    types::{Network, Peer, PeerState, requests::PeerRequest},
};

/// `vxlane peer`
#[derive(Clone, Debug, Subcommand)]
pub enum PeerCommand {
    /// Print them
    #[command(alias = "list", alias = "show")]
    Ls,
    /// Have one take part in a network
    Add(PeerArgs),
    /// Have one no longer take part in a network
    #[command(alias = "rm", alias = "delete", alias = "remove")]
    Del(PeerArgs),
}

/// `vxlane peer add`, `vxlane peer del`
#[derive(Clone, Debug, Args)]
pub struct PeerArgs {
    /// Its underlay address
    pub address: IpAddr,
    /// The network
    #[arg(long, value_name = "NAME")]
    pub network: String,
}

pub(super) async fn answer(ask: &Question<'_>, command: &PeerCommand) -> Result<String, ClientError> {
    match command {
        PeerCommand::Ls => ask.list("/v1/peers", table).await,
        PeerCommand::Add(PeerArgs { address, network }) => {
            let path = format!("{}/peers", network::path(network));
            ask.post(&path, &PeerRequest { address: *address }, |_: &Network| String::new()).await
        }
        PeerCommand::Del(PeerArgs { address, network }) => {
            ask.delete(&format!("{}/peers/{address}", network::path(network))).await
        }
    }
}

pub(super) fn table(peers: &[Peer]) -> String {
    let mut columns = Columns::titled(&["ADDRESS", "STATE", "VIA", "MAC", "NETWORKS"]);
    for Peer { address, networks, via, mac, state } in peers {
        let state = match state {
            PeerState::Resolved => "resolved",
            PeerState::Unresolved => "unresolved",
            PeerState::Unreachable => "unreachable",
        };
        columns.row([
            address.to_string(),
            state.to_owned(),
            via.map(|via| via.to_string()).unwrap_or_default(),
            mac.clone().unwrap_or_default(),
            joined(networks),
        ]);
    }
    columns.render()
}
