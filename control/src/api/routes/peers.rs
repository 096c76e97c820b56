//! `/v1/peers`, and the peers of `/v1/networks/{network}`

use std::net::IpAddr;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};

use super::always;
use crate::api::{
    refusal::Refusal,
    server::{Answer, Shared, parse},
    types::{ApiError, Network, Peer, requests::PeerRequest},
};

/// Every remote VTEP.
#[utoipa::path(get, path = "/v1/peers", responses((status = 200, body = [Peer])))]
pub(in crate::api) async fn list(State(daemon): State<Shared>) -> Answer<Vec<Peer>> {
    daemon.ask(|daemon| always(daemon.peers())).await
}

/// Has a VTEP take part in a network. Asking again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/networks/{network}/peers",
    params(("network", description = "Its name")),
    request_body = PeerRequest,
    responses((status = 200, body = Network), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn add(
    State(daemon): State<Shared>,
    Path(network): Path<String>,
    body: Bytes,
) -> Answer<Network> {
    let request: PeerRequest = parse(&body)?;
    daemon.ask(move |daemon| daemon.add_peer(&network, request)).await
}

/// Has a VTEP no longer take part in a network.
#[utoipa::path(
    delete,
    path = "/v1/networks/{network}/peers/{address}",
    params(("network", description = "Its name"), ("address", description = "The underlay address of the VTEP")),
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn remove(
    State(daemon): State<Shared>,
    Path((network, address)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let not_one = |_| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", "not an IP address", Some("address"));
    let address: IpAddr = address.parse().map_err(not_one)?;
    daemon.tell(move |daemon| daemon.remove_peer(&network, address)).await
}
