//! `vxlane network ls`, `vxlane endpoint ls`, `vxlane peer ls`: one row each.

use std::fmt::Display;

use super::columns::Columns;
use crate::api::types::{Endpoint, Network, Peer, PeerState};

pub(super) fn networks(networks: &Vec<Network>) -> String {
    let mut columns = Columns::titled(&["NAME", "VNI", "MTU", "AGEING", "ENDPOINTS", "PEERS"]);
    for Network { name, vni, mtu, ageing, peers, endpoints, .. } in networks {
        columns.row([
            name.clone(),
            vni.to_string(),
            mtu.to_string(),
            ageing.to_string(),
            joined(endpoints),
            joined(peers),
        ]);
    }
    columns.render()
}

pub(super) fn endpoints(endpoints: &Vec<Endpoint>) -> String {
    let mut columns = Columns::titled(&["INTERFACE", "NETWORK", "VNI", "XDP", "FRAMES"]);
    for Endpoint { interface, network, vni, xdp, zero_copy } in endpoints {
        columns.row([interface.clone(), network.clone(), vni.to_string(), xdp.clone(), copying(*zero_copy).to_owned()]);
    }
    columns.render()
}

pub(super) fn peers(peers: &Vec<Peer>) -> String {
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

/// How frames come and go, in one word.
pub(super) fn copying(zero_copy: bool) -> &'static str {
    if zero_copy { "zero-copy" } else { "copy" }
}

fn joined(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
