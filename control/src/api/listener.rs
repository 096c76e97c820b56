//! The socket that the API listens on, and its file.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use super::server::{Shared, router};

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
