//! `/v1/neighbours`

use axum::extract::{Query, State, rejection::QueryRejection};

use super::{OfNetwork, query};
use crate::api::{
    server::{Answer, Shared},
    types::{ApiError, neighbours::Neighbour},
};

/// Whose address is whose, as far as ARP and neighbour discovery are answered here.
#[utoipa::path(
    get,
    path = "/v1/neighbours",
    params(OfNetwork),
    responses((status = 200, body = [Neighbour]), (status = "4XX", body = ApiError))
)]
pub(in crate::api) async fn list(
    State(daemon): State<Shared>,
    which: Result<Query<OfNetwork>, QueryRejection>,
) -> Answer<Vec<Neighbour>> {
    let OfNetwork { network } = query(which)?;
    daemon.ask(move |daemon| daemon.neighbours(network.as_deref())).await
}
