//! What can be asked, one function for each path and method.

pub(super) mod endpoints;
pub(super) mod express;
pub(super) mod nat;
pub(super) mod neighbours;
pub(super) mod networks;
pub(super) mod peers;
pub(super) mod process;
pub(super) mod stations;

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    refusal::Refusal,
    server::{Answer, Shared},
    types::{ApiError, Stats, Status, events::Event},
};
use crate::{events::Events, metrics};

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
    pub(in crate::api) network: Option<String>,
}

/// What a query says.
fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    let bad = |error: QueryRejection| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.body_text(), None);
    query.map(|Query(query)| query).map_err(bad)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichEvents {
    /// Only those with a higher number.
    #[serde(default)]
    after: u64,
    /// Whether to go on with those that are yet to come, until the client has enough.
    #[serde(default)]
    follow: bool,
}

/// What happened lately, a line of JSON each, and with `follow` what happens from now on.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(WhichEvents),
    responses(
        (status = 200, body = Event, content_type = "application/x-ndjson"),
        (status = "4XX", body = ApiError)
    )
)]
pub(super) async fn events(
    State(daemon): State<Shared>,
    which: Result<Query<WhichEvents>, QueryRejection>,
) -> Result<Response, Refusal> {
    let WhichEvents { after, follow } = query(which)?;
    let Json(events) = daemon.ask(|daemon| always(daemon.events())).await?;
    let first = events.after(after);
    let body = if follow { Body::from_stream(following(events, after, first)) } else { Body::from(lines(&first)) };
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Counters, as Prometheus reads them.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(daemon): State<Shared>) -> Result<Response, Refusal> {
    let Json(families) = daemon.ask(|daemon| daemon.metrics()).await?;
    let text = metrics::render(families).map_err(|error| Refusal::internal(&error))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// `first`, and then what comes after.
fn following(events: Events, after: u64, first: Vec<Event>) -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold((events, after, first), |(events, mut after, mut batch)| async move {
        while batch.is_empty() {
            events.wait(after).await;
            batch = events.after(after);
        }
        after = batch.last().map_or(after, |event| event.sequence);
        Some((Ok(lines(&batch)), (events, after, Vec::new())))
    })
}

fn lines(events: &[Event]) -> String {
    // Plain data with text for keys: writing it as JSON cannot fail.
    events.iter().map(|event| serde_json::to_string(event).unwrap_or_default() + "\n").collect()
}

/// An answer that cannot fail.
fn always<T>(answer: T) -> Result<T, Infallible> {
    Ok(answer)
}
