//! `/v1/express`

use axum::extract::{Query, State, rejection::QueryRejection};

use super::{OfNetwork, query};
use crate::api::{
    server::{Answer, Shared},
    types::{
        ApiError,
        express::{ExpressFlushed, ExpressStatus},
    },
};

/// The express lane, its devices, its flows, and its sessions of address translation.
#[utoipa::path(
    get,
    path = "/v1/express",
    params(OfNetwork),
    responses((status = 200, body = ExpressStatus), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn show(
    State(daemon): State<Shared>,
    asked: Result<Query<OfNetwork>, QueryRejection>,
) -> Answer<ExpressStatus> {
    let asked = query(asked)?;
    daemon.ask(move |daemon| daemon.express(asked.network.as_deref())).await
}

/// Has workers decide again about every flow and session.
#[utoipa::path(
    delete,
    path = "/v1/express/flows",
    params(OfNetwork),
    responses((status = 200, body = ExpressFlushed), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn flush(
    State(daemon): State<Shared>,
    asked: Result<Query<OfNetwork>, QueryRejection>,
) -> Answer<ExpressFlushed> {
    let asked = query(asked)?;
    daemon.ask(move |daemon| daemon.flush_flows(asked.network.as_deref())).await
}
