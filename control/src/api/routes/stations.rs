//! `/v1/fdb`, and the stations of `/v1/networks/{network}`

use axum::{
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};

use super::{OfNetwork, query};
use crate::{
    api::{
        refusal::Refusal,
        server::{Answer, Shared, parse},
        types::{ApiError, Station, requests::StationRequest},
    },
    mac::Mac,
};

/// The stations that are known.
#[utoipa::path(
    get,
    path = "/v1/fdb",
    params(OfNetwork),
    responses((status = 200, body = [Station]), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn list(
    State(daemon): State<Shared>,
    which: Result<Query<OfNetwork>, QueryRejection>,
) -> Answer<Vec<Station>> {
    let OfNetwork { network } = query(which)?;
    daemon.ask(move |daemon| daemon.stations(network.as_deref())).await
}

/// Forgets the stations that were learned. Static ones stay.
#[utoipa::path(
    delete,
    path = "/v1/fdb",
    params(OfNetwork),
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn flush(
    State(daemon): State<Shared>,
    which: Result<Query<OfNetwork>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let OfNetwork { network } = query(which)?;
    daemon.tell(move |daemon| daemon.flush(network.as_deref())).await
}

/// Has a station be known at a place of a network, and never move. Asking again changes nothing.
#[utoipa::path(
    post,
    path = "/v1/networks/{network}/fdb",
    params(("network", description = "Its name")),
    request_body = StationRequest,
    responses((status = 200, body = Station), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn add(
    State(daemon): State<Shared>,
    Path(network): Path<String>,
    body: Bytes,
) -> Answer<Station> {
    let request: StationRequest = parse(&body)?;
    daemon.ask(move |daemon| daemon.add_station(&network, &request)).await
}

/// Has a static station be learned like all others again.
#[utoipa::path(
    delete,
    path = "/v1/networks/{network}/fdb/{mac}",
    params(("network", description = "Its name"), ("mac", description = "The Ethernet address of the station")),
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn remove(
    State(daemon): State<Shared>,
    Path((network, mac)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let not_one = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", reason, Some("mac"));
    let mac: Mac = mac.parse().map_err(not_one)?;
    daemon.tell(move |daemon| daemon.remove_station(&network, mac)).await
}
