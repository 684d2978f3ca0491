//! The API: which request goes to which handler. The table stands in [`gapless_wire::api`].

mod answer;
mod artifacts;
mod backups;
mod builds;
mod deploys;
mod doctor;
mod operations;
mod replays;
mod rollouts;
mod services;
mod together;

use crate::problem::Refused;
use crate::server::Server;
pub(crate) use answer::Teller;
use answer::{Answer, json, whole};
use gapless_wire::api::REQUEST_LIMIT;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// The most that is read of a body that is too large, in bytes: more is cut off without an answer.
const DISCARD_LIMIT: usize = 16 * REQUEST_LIMIT;

/// A request, taken apart.
pub(crate) struct Call {
    server: Arc<Server>,
    query: BTreeMap<String, String>,
    body: Incoming,
}

/// Answers one request. A refusal is an answer, too.
pub(crate) async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let (head, body) = request.into_parts();
    let query = query(head.uri.query().unwrap_or_default());
    let segments: Vec<String> = head.uri.path().trim_start_matches('/').split('/').map(unescape).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let call = Call { server, query, body };
    let answered = match segments.as_slice() {
        ["v1", rest @ ..] => dispatch(&head.method, rest, call).await,
        _ => Err(unknown(head.uri.path())),
    };
    Ok(answered.unwrap_or_else(refusal))
}

async fn dispatch(method: &Method, path: &[&str], call: Call) -> Result<Response<Answer>, Refused> {
    match (method.as_str(), path) {
        ("GET", ["server"]) => json(&call.server.status()),
        ("POST", ["builds"]) => builds::begin(call).await,
        ("GET", ["builds", number, "log"]) => builds::log(&call, number).await,
        ("POST", ["plan"]) => deploys::plan(call).await,
        ("POST", ["deploys"]) => deploys::deploy(call).await,
        ("GET", ["services"]) => services::list(&call).await,
        ("GET", ["services", project, service]) => services::show(&call, &full(project, service)).await,
        ("GET", ["services", project, service, "releases"]) => services::releases(&call, &full(project, service)).await,
        ("GET", ["services", project, service, "logs"]) => services::logs(&call, &full(project, service)).await,
        ("POST", ["services", project, service, "rollback"]) => deploys::rollback(call, &full(project, service)).await,
        ("POST", ["services", project, service, "operations"]) => operations::operate(call, &full(project, service)).await,
        ("GET", ["services", project, service, "rollouts"]) => rollouts::list(&call, &full(project, service)).await,
        ("GET", ["services", project, service, "rollouts", number, noun]) => {
            rollouts::show(call, &full(project, service), number, noun).await
        }
        ("GET", ["artifacts"]) => artifacts::list(&call).await,
        ("POST", ["prune"]) => operations::prune(call).await,
        ("POST", ["revocations"]) => operations::revoke(call).await,
        ("GET", ["record"]) => artifacts::record(&call).await,
        ("POST", ["backups"]) => backups::make(call).await,
        ("GET", ["doctor"]) => doctor::examine(&call).await,
        ("POST", ["doctor"]) => doctor::treat(call).await,
        _ => Err(unknown(&format!("/v1/{}", path.join("/")))),
    }
}

/// Carries work that changes something to its end, also when the client goes away: what answers a request is dropped together with its connection.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = Result<T, Refused>> + Send + 'static) -> Result<T, Refused> {
    let broke_off = |error| {
        let what = format!("the work broke off: {error}");
        Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, what, "this is a fault of gapless: see the server's log, and report it"))
    };
    tokio::spawn(work).await.unwrap_or_else(broke_off)
}

fn full(project: &str, service: &str) -> String {
    format!("{project}/{service}")
}

fn unknown(path: &str) -> Refused {
    Refused::not_found(format!("the API has no {path} for this method"), "is the command line of the same version as the server?")
}

fn refusal(refused: Refused) -> Response<Answer> {
    let body = serde_json::to_vec(&refused.problem).unwrap_or_default();
    whole(refused.status, body)
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (unescape(name), unescape(value))).collect()
}

/// Percent-encoding (RFC 3986) taken away. What is no such code stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Call {
    /// The body as JSON.
    async fn read<T: serde::de::DeserializeOwned>(self) -> Result<(Arc<Server>, T), Refused> {
        let bytes = whole_body(self.body).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(bytes).map_err(|error| {
            Refused::bad_request(format!("the body is not what it should be: {error}"), "the API's types are in the crate gapless-wire")
        })?;
        Ok((self.server, value))
    }

    fn number(&self, name: &str) -> Result<u64, Refused> {
        let Some(text) = self.query.get(name) else { return Ok(0) };
        text.parse().map_err(|_| Refused::bad_request(format!("`{name}` is \"{text}\""), "a whole number"))
    }
}

/// A body up to the limit. What is beyond is read, too, within reason: a client that still writes when the connection ends would not see its answer.
async fn whole_body(mut body: Incoming) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refused::bad_request(format!("the body breaks off: {error}"), "send it whole"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= REQUEST_LIMIT {
            bytes.extend_from_slice(&data);
        } else if length > DISCARD_LIMIT {
            break;
        }
    }
    if length <= REQUEST_LIMIT {
        return Ok(bytes);
    }
    let what = format!("the body has more than {REQUEST_LIMIT} bytes");
    Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, what, "requests name folders and commits, they carry no content"))
}
