//! A small HTTP client on Unix sockets, for the proxy's and the server's APIs.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The largest JSON answer that is read whole, in bytes: a record of a quarter of an hour stays far below it.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// Why a call came to nothing.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens on the socket.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The other side ended the conversation, or it took longer than it may.
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The other side refused, and said why.
    Refused {
        /// The status.
        status: StatusCode,
        /// The body, as text.
        body: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { socket, source } => write!(f, "nobody answers on {}: {source}", socket.display()),
            ClientError::Broken { socket, reason } => write!(f, "the conversation on {} broke off: {reason}", socket.display()),
            ClientError::Refused { status, body } => write!(f, "refused ({status}): {body}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A client of whoever listens on a Unix socket. Each call uses a connection of its own.
#[derive(Clone, Debug)]
pub struct UnixClient {
    socket: PathBuf,
    timeout: Option<Duration>,
}

impl UnixClient {
    /// A client of this socket. A call may take as long as it likes.
    #[must_use]
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self { socket: socket.as_ref().to_path_buf(), timeout: None }
    }

    /// The same; a call that takes longer is broken off.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// GET, with a JSON answer.
    ///
    /// # Errors
    /// When nobody answers, the other side refuses, or the answer is not what it should be.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// A request with a JSON body and a JSON answer (`null` for an empty one).
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn send<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: &B) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(format!("the request cannot be written: {error}")))?;
        self.call(method, path, Bytes::from(body)).await
    }

    /// A request with a JSON body whose answer is a stream of lines, each a JSON value.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn lines<B: Serialize>(&self, method: Method, path: &str, body: &B) -> Result<Lines, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(format!("the request cannot be written: {error}")))?;
        let answer = self.open(method, path, Bytes::from(body)).await?;
        Ok(Lines { socket: self.socket.clone(), body: answer, buffer: Vec::new() })
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let exchange = async {
            let answer = self.open(method, path, body).await?;
            read_whole(answer).await.map_err(|reason| self.broken(reason))
        };
        let bytes = match self.timeout {
            None => exchange.await?,
            Some(limit) => {
                tokio::time::timeout(limit, exchange).await.map_err(|_| self.broken(format!("no answer within {limit:?}")))??
            }
        };
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| self.broken(format!("the answer cannot be read: {error}")))
    }

    async fn open(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error.to_string()))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gapless")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = read_whole(response.into_body()).await.unwrap_or_default();
        Err(ClientError::Refused { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), reason }
    }
}

async fn read_whole(body: Incoming) -> Result<Bytes, String> {
    http_body_util::Limited::new(body, ANSWER_LIMIT).collect().await.map(|whole| whole.to_bytes()).map_err(|error| error.to_string())
}

/// An answer that comes line by line.
#[derive(Debug)]
pub struct Lines {
    socket: PathBuf,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line as a value; `None` at the end.
    ///
    /// # Errors
    /// When the conversation breaks off or a line is not such a value.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|error| self.broken(format!("a line cannot be read: {error}")));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), reason }
    }
}
