//! `/v1/reload` and `/v1/restart`

use axum::{extract::State, http::StatusCode};

use crate::api::{refusal::Refusal, server::Shared, types::ApiError};

/// Reads the configuration file again. If anything is wrong with it nothing changes.
#[utoipa::path(
    post,
    path = "/v1/reload",
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn reload(State(daemon): State<Shared>) -> Result<StatusCode, Refusal> {
    daemon.tell(|daemon| daemon.reload()).await
}

/// Has a new process go on with everything, right after the answer.
#[utoipa::path(
    post,
    path = "/v1/restart",
    responses((status = 204), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError))
)]
pub(in crate::api) async fn restart(State(daemon): State<Shared>) -> Result<StatusCode, Refusal> {
    daemon.tell(|daemon| daemon.restart()).await
}
