//! `/v1/nat`

use std::net::IpAddr;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::OfNetwork;
use crate::api::{
    refusal::Refusal,
    server::{Answer, Shared},
    types::{
        ApiError,
        nat::{NatFlushed, NatStatus},
    },
};

/// The way out of the overlay, and its sessions.
#[utoipa::path(
    get,
    path = "/v1/nat",
    params(OfNetwork),
    responses((status = 200, body = NatStatus), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn show(
    State(daemon): State<Shared>,
    query: Result<Query<OfNetwork>, QueryRejection>,
) -> Answer<NatStatus> {
    let query = parsed(query)?;
    daemon.ask(move |daemon| daemon.nat(query.network.as_deref())).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Sessions {
    /// Only of this network.
    network: Option<String>,
    /// Only of the endpoint with this address.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
}

/// Ends sessions.
#[utoipa::path(
    delete,
    path = "/v1/nat/sessions",
    params(Sessions),
    responses((status = 200, body = NatFlushed), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn flush(
    State(daemon): State<Shared>,
    query: Result<Query<Sessions>, QueryRejection>,
) -> Answer<NatFlushed> {
    let Sessions { network, address } = parsed(query)?;
    let flush = move |daemon: &mut crate::daemon::Daemon| daemon.flush_nat(network.as_deref(), address);
    daemon.ask(move |daemon| flush(daemon).map(|sessions| NatFlushed { sessions })).await
}

fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    let bad = |error: QueryRejection| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.body_text(), None);
    query.map(|Query(query)| query).map_err(bad)
}
