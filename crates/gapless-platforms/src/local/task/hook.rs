//! Hooks over HTTP: one POST from the server, with a key by which the receiver knows it again.

use super::record::{TaskEnd, TaskResult};
use bytes::Bytes;
use gapless_core::digest::Digest;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_engine::error::{Context, Error, ErrorKind};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// The most of an answer that is read, in bytes: only its beginning is told.
const ANSWER_LIMIT: usize = 64 * 1024;

/// The most of an answer that is told, in characters.
const ANSWER_TOLD: usize = 400;

/// The port of HTTP.
const HTTP_PORT: u16 = 80;

/// The header by which a receiver knows a request again (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Who calls.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The installation's id: services of others may have the same name.
    pub installation: &'a str,
    /// The release's content: an installation that is restored gives the numbers again that it had given since the backup.
    pub content: Digest,
    /// The service.
    pub service: &'a ServiceName,
    /// The group.
    pub group: GroupId,
    /// The task.
    pub task: Task,
}

impl Call<'_> {
    /// The same for every delivery of this task, and for no other task.
    fn key(&self) -> String {
        format!("{}-{}-{}-{}-{}", self.installation, self.service, self.group, self.task, self.content.hex())
    }

    fn body(&self) -> Vec<u8> {
        let release = format!("{}-{}", self.service.service(), self.group.release);
        let body = serde_json::json!({
            "installation": self.installation, "service": self.service.to_string(), "release": release, "group": self.group.to_string(),
            "content": self.content.to_string(), "task": self.task.name(),
        });
        body.to_string().into_bytes()
    }
}

/// Posts to an address and gives what came of it.
///
/// # Errors
/// When it may be tried again: nobody answers there, or with a status from 500 on. [`ErrorKind::Invalid`] when the address is none.
pub async fn post(call: &Call<'_>, url: &str, deadline: Duration) -> Result<TaskResult, Error> {
    let deadline_ms = crate::local::route::milliseconds(deadline);
    let result = |end, output| TaskResult { end, what: format!("POST {url}"), output, deadline_ms };
    let address = Address::of(url)?;
    let at = || format!("POST {url}");
    let stream = match tokio::time::timeout(deadline, TcpStream::connect((address.host.as_str(), address.port))).await {
        Ok(connected) => connected.context(at)?,
        // Nothing of it was received.
        Err(_) => return Err(Error::new(format!("nobody answers within {deadline:?}")).context(at())),
    };
    match tokio::time::timeout(deadline, exchange(stream, &address, call)).await {
        Err(_) => Ok(result(TaskEnd::Unanswered, String::new())),
        Ok(Err(error)) => Err(error.context(at())),
        Ok(Ok((status, answer))) if status >= 500 => Err(Error::new(format!("the answer is {status}: {answer}")).context(at())),
        Ok(Ok((status, answer))) => Ok(result(TaskEnd::Answered(status), answer)),
    }
}

struct Address {
    host: String,
    port: u16,
    /// As the `Host` header has it.
    authority: String,
    path: String,
}

impl Address {
    fn of(url: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::new(format!("`{url}` is no address that a hook can post to"))
                .kind(ErrorKind::Invalid)
                .hint("write `http://HOST:PORT/PATH`; a hook over TLS goes through a command, such as curl")
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_string();
        let named = authority.as_str().rsplit('@').next().unwrap_or_default().to_string();
        Ok(Self { host, port: authority.port_u16().unwrap_or(HTTP_PORT), authority: named, path })
    }
}

async fn exchange(stream: TcpStream, address: &Address, call: &Call<'_>) -> Result<(u16, String), Error> {
    let broken = |error: hyper::Error| Error::new(format!("the conversation broke off: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(&address.path)
        .header(header::HOST, &address.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(IDEMPOTENCY_KEY, call.key())
        .body(Full::new(Bytes::from(call.body())))
        .map_err(|error| Error::new(error.to_string()).kind(ErrorKind::Invalid))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status().as_u16();
    // What the receiver did is told by its status; its words are an extra.
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).trim().chars().take(ANSWER_TOLD).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::of("http://hooks.example:8080/migrate?now=1").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("hooks.example", 8080));
        assert_eq!((address.authority.as_str(), address.path.as_str()), ("hooks.example:8080", "/migrate?now=1"));
        let address = Address::of("http://[::1]").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.path.as_str()), ("::1", 80, "/"));
        for wrong in ["", "hooks", "https://hooks.example/", "ftp://x/", "/path", "http://"] {
            assert_eq!(Address::of(wrong).err().map(|error| error.error_kind()), Some(ErrorKind::Invalid), "{wrong}");
        }
    }

    #[test]
    fn a_call_is_known_again() {
        let (service, group) = ("hello/web".parse().unwrap(), "r7-i12".parse().unwrap());
        let call = Call { installation: "09fa3c", content: Digest([7; 32]), service: &service, group, task: Task::BeforeShift };
        let content = "07".repeat(32);
        assert_eq!(call.key(), format!("09fa3c-hello/web-r7-i12-before-shift-{content}"));
        let body: serde_json::Value = serde_json::from_slice(&call.body()).unwrap();
        let expected = serde_json::json!({
            "installation": "09fa3c", "service": "hello/web", "release": "web-r7", "group": "r7-i12", "content": format!("sha256:{content}"),
            "task": "before-shift",
        });
        assert_eq!(body, expected);
        for other in [Call { installation: "09fa3d", ..call }, Call { content: Digest([8; 32]), ..call }] {
            assert_ne!(other.key(), call.key());
        }
    }
}
