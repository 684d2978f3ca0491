//! An admin socket: HTTP/1.1 with JSON on a Unix socket that only its owner may open.

use crate::error::ProxyError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::fs::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::net::UnixListener;
use tokio::task::spawn_local;

/// The largest body that an admin request may have, in bytes: a snapshot of ten thousand nodes is about 3 MB.
pub(crate) const ADMIN_BODY_LIMIT: usize = 16 * 1024 * 1024;
/// How many callers may wait to be accepted.
const ADMIN_BACKLOG: i32 = 64;

/// The answers of admin sockets.
pub(crate) type AdminAnswer = Response<Full<Bytes>>;

/// Opens the socket under its name at one stroke, with mode 0600 from its first moment. One that nobody answers on is replaced.
///
/// # Errors
/// When somebody answers there, or the folder does not allow it.
pub(crate) fn open(path: &Path) -> Result<UnixListener, ProxyError> {
    if UnixStream::connect(path).is_ok() {
        return Err(ProxyError::new(format!("another process answers on {}", path.display()))
            .hint("one proxy for each state folder: stop the other, or choose another folder"));
    }
    let temporary = temporary_name(path);
    let opened = open_at(&temporary).and_then(|listener| fs::rename(&temporary, path).map(|()| listener)).and_then(UnixListener::from_std);
    opened.map_err(|error| {
        // It may not even be there; what matters is the error that is told.
        let _ = fs::remove_file(&temporary);
        ProxyError::path("open the admin socket", path, &error)
            .hint("the folder must exist and be yours, and the path be shorter than 100 bytes")
    })
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

fn open_at(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file that bind makes takes its mode from the socket: there is no moment at which others could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(ADMIN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Answers on the socket for ever.
pub(crate) async fn serve<H, F>(listener: UnixListener, handler: Rc<H>)
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = AdminAnswer> + 'static,
{
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot accept on the admin socket");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let handler = handler.clone();
        spawn_local(async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            // A caller that goes away has no effect on what it asked for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Reads a JSON body.
///
/// # Errors
/// With the answer that says what is wrong with it.
pub(crate) async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, AdminAnswer> {
    let whole = Limited::new(request.into_body(), ADMIN_BODY_LIMIT).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return text(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is larger than {ADMIN_BODY_LIMIT} bytes"));
        }
        text(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}"))
    })?;
    serde_json::from_slice(&whole.to_bytes())
        .map_err(|error| text(StatusCode::BAD_REQUEST, &format!("the body is not what this address takes: {error}")))
}

/// An answer in JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> AdminAnswer {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(status, "application/json", Bytes::from(bytes)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer cannot be written: {error}")),
    }
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, text: &str) -> AdminAnswer {
    answer(status, "text/plain; charset=utf-8", Bytes::from(text.to_string()))
}

/// An error with its hint.
pub(crate) fn refused(status: StatusCode, error: &ProxyError) -> AdminAnswer {
    let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
    text(status, &format!("{error}{hint}"))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> AdminAnswer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A number of the query, such as `since=5`.
///
/// # Errors
/// When it is there and no number.
pub(crate) fn number(request: &Request<Incoming>, name: &str) -> Result<Option<u64>, ProxyError> {
    let mut pairs = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(key, _)| *key == name) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| ProxyError::new(format!("`{name}` must be a number, not `{value}`")))
}
