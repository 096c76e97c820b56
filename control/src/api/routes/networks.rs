//! `/v1/networks`

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};

use super::always;
use crate::api::{
    refusal::Refusal,
    server::{Answer, Shared, parse},
    types::{
        ApiError, Network,
        requests::{NetworkRequest, RouteRequest},
    },
};

/// Every network.
#[utoipa::path(get, path = "/v1/networks", responses((status = 200, body = [Network])))]
pub(in crate::api) async fn list(State(daemon): State<Shared>) -> Answer<Vec<Network>> {
    daemon.ask(|daemon| always(daemon.networks())).await
}

/// Has a network be there. Asking again for the same changes nothing.
#[utoipa::path(
    post,
    path = "/v1/networks",
    request_body = NetworkRequest,
    responses((status = 200, body = Network), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn create(State(daemon): State<Shared>, body: Bytes) -> Answer<Network> {
    let request: NetworkRequest = parse(&body)?;
    daemon.ask(move |daemon| daemon.create_network(&request)).await
}

/// One network.
#[utoipa::path(
    get,
    path = "/v1/networks/{network}",
    params(("network", description = "Its name")),
    responses((status = 200, body = Network), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn inspect(State(daemon): State<Shared>, Path(network): Path<String>) -> Answer<Network> {
    daemon.ask(move |daemon| daemon.network_called(&network)).await
}

/// Takes a network away; it must have no endpoints.
#[utoipa::path(
    delete,
    path = "/v1/networks/{network}",
    params(("network", description = "Its name")),
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn remove(
    State(daemon): State<Shared>,
    Path(network): Path<String>,
) -> Result<StatusCode, Refusal> {
    daemon.tell(move |daemon| daemon.remove_network(&network)).await
}

/// Has two networks reach each other through their gateways. Asking again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/networks/{network}/routes",
    params(("network", description = "Its name")),
    request_body = RouteRequest,
    responses((status = 200, body = Network), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn add_route(
    State(daemon): State<Shared>,
    Path(network): Path<String>,
    body: Bytes,
) -> Answer<Network> {
    let request: RouteRequest = parse(&body)?;
    daemon.ask(move |daemon| daemon.add_route(&network, &request.network)).await
}

/// Has two networks no longer reach each other.
#[utoipa::path(
    delete,
    path = "/v1/networks/{network}/routes/{other}",
    params(("network", description = "Its name"), ("other", description = "The name of the other")),
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn remove_route(
    State(daemon): State<Shared>,
    Path((network, other)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    daemon.tell(move |daemon| daemon.remove_route(&network, &other)).await
}
