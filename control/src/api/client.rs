//! The command line's side of the API.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinSet};

use super::types::ApiError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon at {} (is `vxlane run` running?)", .0.display())]
    NoDaemon(PathBuf),
    /// The socket is there, but would not have us.
    #[error("connecting to {}", .socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("talking to the daemon")]
    Http(#[from] hyper::Error),
    /// The address of the request cannot be written in HTTP.
    #[error("writing the request")]
    Request(#[from] hyper::http::Error),
    /// The request cannot be written as JSON.
    #[error("writing the request")]
    Body(#[source] serde_json::Error),
    /// What was answered cannot be printed.
    #[error("printing")]
    Print(#[source] io::Error),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(ApiError),
    /// The answer is not what this version of the API says.
    #[error("the daemon's answer is not understood (HTTP {status})")]
    Answer {
        /// Its HTTP status.
        status: StatusCode,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    /// The conversation goes on in here, and ends with this.
    _connection: JoinSet<()>,
}

impl Answer {
    /// The next part of the body; `None` at its end.
    ///
    /// # Errors
    /// [`ClientError::Http`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    async fn whole(self) -> Result<Bytes, ClientError> {
        Ok(self.body.collect().await?.to_bytes())
    }
}

/// Sends the daemon at `socket` a request with a body that is JSON or empty; so is the answer.
///
/// # Errors
/// [`ClientError::NoDaemon`] if nobody listens, [`ClientError::Refused`] if the daemon said no.
pub async fn send(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
    open(socket, method, path, body).await?.whole().await
}

/// Like [`send`], for answers that are read as they come.
///
/// # Errors
/// As [`send`].
pub async fn open(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&source.kind());
        let socket = socket.to_owned();
        if nobody { ClientError::NoDaemon(socket) } else { ClientError::Connect { socket, source } }
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // Its errors come out of the request that they break.
        let _ = connection.await;
    });
    let request = Request::builder().method(method).uri(path).header(header::HOST, "vxlane");
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let answer = Answer { body: answer.into_body(), _connection: task };
    if status.is_success() {
        return Ok(answer);
    }
    match serde_json::from_slice(&answer.whole().await?) {
        Ok(error) => Err(ClientError::Refused(error)),
        Err(source) => Err(ClientError::Answer { status, source }),
    }
}

/// Escapes `text` for the query part of an address (RFC 3986 section 2.3).
pub fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_has_a_meaning_in_an_address_is_escaped() {
        assert_eq!(escape("a-b&c=d é"), "a-b%26c%3Dd%20%C3%A9");
    }
}
