//! `/v1/endpoints`, and the endpoints of `/v1/networks/{network}`

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};

use super::always;
use crate::api::{
    refusal::Refusal,
    server::{Answer, Shared, parse},
    types::{ApiError, Endpoint, requests::EndpointRequest},
};

/// Every endpoint.
#[utoipa::path(get, path = "/v1/endpoints", responses((status = 200, body = [Endpoint])))]
pub(in crate::api) async fn list(State(daemon): State<Shared>) -> Answer<Vec<Endpoint>> {
    daemon.ask(|daemon| always(daemon.endpoints())).await
}

/// Has an endpoint be on a network. Asking again for the same changes nothing.
#[utoipa::path(
    post,
    path = "/v1/networks/{network}/endpoints",
    params(("network", description = "Its name")),
    request_body = EndpointRequest,
    responses((status = 200, body = Endpoint), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn connect(
    State(daemon): State<Shared>,
    Path(network): Path<String>,
    body: Bytes,
) -> Answer<Endpoint> {
    let request: EndpointRequest = parse(&body)?;
    daemon.ask(move |daemon| daemon.connect(&network, &request)).await
}

/// One endpoint.
#[utoipa::path(
    get,
    path = "/v1/networks/{network}/endpoints/{endpoint}",
    params(("network", description = "Its network"), ("endpoint", description = "Its name")),
    responses((status = 200, body = Endpoint), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn inspect(
    State(daemon): State<Shared>,
    Path((network, endpoint)): Path<(String, String)>,
) -> Answer<Endpoint> {
    daemon.ask(move |daemon| daemon.endpoint_called(&network, &endpoint)).await
}

/// Takes an endpoint away, with all that was made for it.
#[utoipa::path(
    delete,
    path = "/v1/networks/{network}/endpoints/{endpoint}",
    params(("network", description = "Its network"), ("endpoint", description = "Its name")),
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn disconnect(
    State(daemon): State<Shared>,
    Path((network, endpoint)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    daemon.tell(move |daemon| daemon.disconnect(&network, &endpoint)).await
}
