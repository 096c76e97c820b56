//! The daemon's side of the API: who answers what.
//!
//! Requests are answered on threads of their own, because the answer to most is with the
//! workers, and whoever waits for a worker must not keep netlink and signals waiting.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{refusal::Refusal, routes};
use crate::daemon::Daemon;

/// The daemon, as everything that talks to it shares it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Daemon>>);

impl Shared {
    /// Makes `daemon` one that several can talk to.
    pub fn new(daemon: Daemon) -> Self {
        Self(Arc::new(Mutex::new(daemon)))
    }

    /// Has the daemon to itself, once whoever has it now is done.
    pub fn lock(&self) -> MutexGuard<'_, Daemon> {
        // A panic leaves at worst an old view of next hops behind, which the next one renews.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `answer` where it may wait.
    pub(super) async fn ask<T, E>(self, answer: impl FnOnce(&mut Daemon) -> Result<T, E> + Send + 'static) -> Answer<T>
    where
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
    {
        let answered = tokio::task::spawn_blocking(move || answer(&mut self.lock())).await;
        answered.map_err(|error| Refusal::internal(&error))?.map(Json).map_err(Into::into)
    }

    /// Runs `order` where it may wait; there is nothing to answer but that it was done.
    pub(super) async fn tell<E>(
        self,
        order: impl FnOnce(&mut Daemon) -> Result<(), E> + Send + 'static,
    ) -> Result<StatusCode, Refusal>
    where
        E: Into<Refusal> + Send + 'static,
    {
        self.ask(order).await.map(|Json(())| StatusCode::NO_CONTENT)
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// How long a request may take to come in.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request.
const BODY_LIMIT: usize = 1 << 20;

/// What `body` asks for.
///
/// # Errors
/// A refusal that names the field that is not understood.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let understood = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        (error.into_inner(), Some(field).filter(|field| field != "." && field != "?"))
    });
    let understood = understood.and_then(|value| json.end().map(|()| value).map_err(|error| (error, None)));
    understood.map_err(|(error, field)| {
        Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string(), field.as_deref())
    })
}

#[derive(OpenApi)]
#[openapi(info(
    title = "vxlane",
    description = "Networks and endpoints of one vxlane daemon.",
    license(name = "MIT OR Apache-2.0")
))]
struct Document;

/// Everything that can be asked, with its description.
pub fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(routes::status))
        .routes(routes!(routes::stats))
        .routes(routes!(routes::networks::list, routes::networks::create))
        .routes(routes!(routes::networks::inspect, routes::networks::remove))
        .routes(routes!(routes::endpoints::list))
        .routes(routes!(routes::endpoints::connect))
        .routes(routes!(routes::endpoints::inspect, routes::endpoints::disconnect))
        .routes(routes!(routes::peers::list))
        .routes(routes!(routes::peers::add))
        .routes(routes!(routes::peers::remove))
        .routes(routes!(routes::stations::list, routes::stations::flush))
        .routes(routes!(routes::stations::add))
        .routes(routes!(routes::stations::remove))
        .routes(routes!(routes::neighbours::list))
        .routes(routes!(routes::events))
        .routes(routes!(routes::networks::add_route))
        .routes(routes!(routes::networks::remove_route))
        .routes(routes!(routes::metrics))
        .routes(routes!(routes::nat::show))
        .routes(routes!(routes::nat::flush))
        .routes(routes!(routes::express::show))
        .routes(routes!(routes::express::flush))
        .routes(routes!(routes::process::reload))
        .routes(routes!(routes::process::restart))
}

/// The description of the API, as `docs/openapi.json` has it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

/// What Prometheus may ask, and nothing else.
pub fn metrics_router(daemon: Shared) -> Router {
    let router = OpenApiRouter::new().routes(routes!(routes::metrics));
    finished(router.split_for_parts().0, daemon)
}

/// Everything that can be asked.
pub fn router(daemon: Shared) -> Router {
    finished(described().split_for_parts().0, daemon)
}

/// `router` with the answers to what is none of its paths, too long or too slow.
fn finished(router: Router<Shared>, daemon: Shared) -> Router {
    router
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path", None))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "not that way", None)
        })
        .layer(middleware::from_fn(read_whole))
        .with_state(daemon)
}

/// Reads the whole request before anybody acts on it, so that one that is too long or too slow
/// keeps nobody waiting and is told so in the words of the API.
async fn read_whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = match timeout(PATIENCE, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("a request has at most {BODY_LIMIT} bytes");
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, None).into_response();
        }
        Ok(Err(error)) => {
            return Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.to_string(), None).into_response();
        }
        Err(_) => {
            let message = format!("the request did not come within {} s", PATIENCE.as_secs());
            return Refusal::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message, None).into_response();
        }
    };
    next.run(Request::from_parts(head, Body::from(body))).await
}
