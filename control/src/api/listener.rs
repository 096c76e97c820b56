//! The socket that the API listens on, and its file.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};

use super::server::{Shared, metrics_router, router};
use crate::config::{self, Control};

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon does.
    #[error("{}: another daemon listens here", .0.display())]
    InUse(PathBuf),
    /// Something that is not ours to replace is in the way.
    #[error("{}: exists, and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Prometheus cannot be served.
    #[error("control.metrics = \"{address}\"")]
    Metrics {
        /// Where it would be.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
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
    /// For Prometheus alone.
    metrics: Option<TcpListener>,
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

    /// Listens at `path`, for those whom `control` names only. A socket that a daemon left behind
    /// when it was killed is replaced. Where `control` says so, Prometheus is served by TCP too.
    ///
    /// # Errors
    /// [`ListenError`]
    pub async fn bind(path: &Path, control: &Control) -> Result<Self, ListenError> {
        Self::probe(path)?;
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        let metrics = match control.metrics {
            None => None,
            Some(address) => {
                let refused = |source| ListenError::Metrics { address, source };
                Some(TcpListener::bind(address).await.map_err(refused)?)
            }
        };
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
        let Control { owner, group, mode, .. } = control;
        chown(path, owner.map(|config::User(id)| id), group.map(|config::Group(id)| id)).map_err(io)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode.0)).map_err(io)?;
        Ok(Self { socket, file, metrics })
    }

    /// Answers for `daemon` until the future is dropped.
    ///
    /// # Errors
    /// If accepting connections fails for good.
    pub async fn serve(self, daemon: Shared) -> io::Result<()> {
        let _file = self.file;
        let socket = axum::serve(self.socket, router(daemon.clone()));
        match self.metrics {
            None => socket.await,
            Some(metrics) => tokio::select! {
                ended = socket.into_future() => ended,
                ended = axum::serve(metrics, metrics_router(daemon)).into_future() => ended,
            },
        }
    }
}
