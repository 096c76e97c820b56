//! What can be asked, one function for each path and method.

pub(super) mod endpoints;
pub(super) mod networks;
pub(super) mod peers;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    refusal::Refusal,
    server::{Answer, Shared},
    types::{ApiError, Station, Stats, Status},
};

/// The daemon, its ports and its peers.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(daemon): State<Shared>) -> Answer<Status> {
    daemon.ask(|daemon| daemon.status()).await
}

/// Counters.
#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = Stats)))]
pub(super) async fn stats(State(daemon): State<Shared>) -> Answer<Stats> {
    daemon.ask(|daemon| daemon.stats()).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OfNetwork {
    /// Only of this network.
    network: Option<String>,
}

/// The stations that are known.
#[utoipa::path(
    get,
    path = "/v1/fdb",
    params(OfNetwork),
    responses((status = 200, body = [Station]), (status = "4XX", body = ApiError))
)]
pub(super) async fn stations(
    State(daemon): State<Shared>,
    query: Result<Query<OfNetwork>, QueryRejection>,
) -> Answer<Vec<Station>> {
    let Query(query) =
        query.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.body_text(), None))?;
    daemon.ask(move |daemon| daemon.stations(query.network.as_deref())).await
}

/// An answer that cannot fail.
fn always<T>(answer: T) -> Result<T, std::convert::Infallible> {
    Ok(answer)
}
