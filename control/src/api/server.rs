//! The daemon's side of the API.
//!
//! Requests are answered on threads of their own, because the answer to most is with the
//! workers, and whoever waits for a worker must not keep netlink and signals waiting.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::net::UnixListener;

use super::types::ApiError;
use crate::{
    causes::chain,
    daemon::{Daemon, FdbError},
};

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
    async fn ask<T, E>(self, answer: impl FnOnce(&mut Daemon) -> Result<T, E> + Send + 'static) -> Answer<T>
    where
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
    {
        let answered = tokio::task::spawn_blocking(move || answer(&mut self.lock())).await;
        answered.map_err(|error| Refusal::internal(&error))?.map(Json).map_err(Into::into)
    }
}

type Answer<T> = Result<Json<T>, Refusal>;

/// Everything that can be asked.
pub fn router(daemon: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(|State(daemon): State<Shared>| daemon.ask(|daemon| daemon.status())))
        .route("/v1/networks", get(|State(daemon): State<Shared>| daemon.ask(|daemon| always(daemon.networks()))))
        .route("/v1/endpoints", get(|State(daemon): State<Shared>| daemon.ask(|daemon| always(daemon.endpoints()))))
        .route("/v1/peers", get(|State(daemon): State<Shared>| daemon.ask(|daemon| always(daemon.peers()))))
        .route("/v1/stats", get(|State(daemon): State<Shared>| daemon.ask(|daemon| daemon.stats())))
        .route("/v1/fdb", get(stations))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path", None))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "not that way", None)
        })
        .with_state(daemon)
}

/// The query of `GET /v1/fdb`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StationsQuery {
    /// Only of this network.
    network: Option<String>,
}

async fn stations(
    State(daemon): State<Shared>,
    query: Result<Query<StationsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", error.body_text(), None))?;
    daemon.ask(move |daemon| daemon.stations(query.network.as_deref())).await
}

fn always<T>(answer: T) -> Result<T, std::convert::Infallible> {
    Ok(answer)
}

/// An answer that is not a success.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    body: ApiError,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>, field: Option<&str>) -> Self {
        let body = ApiError { code: code.to_owned(), message: message.into(), field: field.map(str::to_owned) };
        Self { status, body }
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", chain(error), None)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<FdbError> for Refusal {
    fn from(error: FdbError) -> Self {
        match &error {
            FdbError::NoSuchNetwork(_) => {
                Self::new(StatusCode::NOT_FOUND, "not_found", error.to_string(), Some("network"))
            }
            FdbError::Gone(_) => Self::internal(&error),
        }
    }
}

impl From<vxlane_dataplane::engine::WorkerGone> for Refusal {
    fn from(error: vxlane_dataplane::engine::WorkerGone) -> Self {
        Self::internal(&error)
    }
}

impl From<crate::daemon::StartError> for Refusal {
    fn from(error: crate::daemon::StartError) -> Self {
        Self::internal(&error)
    }
}

impl From<std::convert::Infallible> for Refusal {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon does.
    #[error("{}: another daemon listens here", .0.display())]
    InUse(PathBuf),
    /// Something that is not ours to replace is in the way.
    #[error("{}: exists, and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
}

/// A listening socket whose file goes away with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing follows that could care.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Makes sure that no daemon listens at `path`.
    ///
    /// # Errors
    /// [`ListenError::InUse`]
    pub fn probe(path: &Path) -> Result<(), ListenError> {
        if UnixStream::connect(path).is_ok() { Err(ListenError::InUse(path.to_owned())) } else { Ok(()) }
    }

    /// Listens at `path`, for this user and group only. A socket that a daemon left behind
    /// when it was killed is replaced.
    ///
    /// # Errors
    /// [`ListenError`]
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        Self::probe(path)?;
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(io)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
            Ok(_) => fs::remove_file(path).map_err(io)?,
            Err(_) => {}
        }
        let socket = UnixListener::bind(path).map_err(io)?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(io)?;
        Ok(Self { socket, file })
    }

    /// Answers for `daemon` until the future is dropped.
    ///
    /// # Errors
    /// If accepting connections fails for good.
    pub async fn serve(self, daemon: Shared) -> io::Result<()> {
        let _file = self.file;
        axum::serve(self.socket, router(daemon)).await
    }
}
