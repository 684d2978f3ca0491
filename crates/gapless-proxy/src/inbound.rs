//! A request as it came: parsed once, at the border.

use crate::body::{NodeRequestBody, Upload};
use crate::headers;
use crate::route::normal_host;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{EXPECT, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri, Version};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The largest request body that is kept so that the request can be sent again, in bytes: the promise names it.
pub(crate) const REPLAY_LIMIT: u64 = 64 * 1024;

/// How long a client may be silent inside a body that is kept: mobile networks lose packets for some seconds.
const KEPT_BODY_SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long a body that is kept may take in all: [`REPLAY_LIMIT`] at 9 kbit/s, slower than any line in use.
const KEPT_BODY_LIMIT: Duration = Duration::from_secs(60);

/// A request that is refused before it is anybody's.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) &'static str);

/// What is known of a request's head.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// As routes name it.
    pub(crate) host: String,
    /// The protocol that the client wants to speak instead.
    pub(crate) upgrade: Option<HeaderValue>,
    target: PathAndQuery,
    headers: HeaderMap,
}

impl Inbound {
    /// Reads a head.
    ///
    /// # Errors
    /// With the refusal, for a request that names no host, several, or is a CONNECT.
    pub(crate) fn parse(head: Parts, peer: IpAddr) -> Result<Self, Refusal> {
        if head.method == Method::CONNECT {
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "CONNECT: this is no forward proxy"));
        }
        let host_header = named_host(&head)?;
        let host = normal_host(host_header.to_str().map_err(|_| Refusal(StatusCode::BAD_REQUEST, "the Host header is not text"))?);
        let upgrade = (head.version == Version::HTTP_11).then(|| headers::wanted_upgrade(&head.headers)).flatten();
        let target = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut headers = head.headers;
        headers::strip_hop_by_hop(&mut headers);
        // Asking the client for its body is the proxy's part: it does so when the node's connection takes the first bytes.
        headers.remove(EXPECT);
        headers::add_forwarded(&mut headers, peer, &host_header);
        headers.insert(HOST, host_header);
        Ok(Self { method: head.method, version: head.version, host, upgrade, target, headers })
    }

    /// Sending it twice is the same as sending it once (RFC 9110, section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE)
    }

    /// The request as a node gets it.
    pub(crate) fn request(&self, body: NodeRequestBody) -> Request<NodeRequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.target.clone());
        *request.headers_mut() = self.headers.clone();
        // Of a method that usually has no body, hyper would not send one of unknown length.
        if matches!(request.body(), NodeRequestBody::Streamed(..)) && request.body().size_hint().exact().is_none() {
            request.headers_mut().insert(hyper::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(protocol) = &self.upgrade {
            request.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(hyper::header::UPGRADE, protocol.clone());
        }
        request
    }
}

/// The host that a request is for: the target's, if it has one (RFC 9112, section 3.2.2), else the header's.
fn named_host(head: &Parts) -> Result<HeaderValue, Refusal> {
    let mut named = head.headers.get_all(HOST).iter();
    let first = named.next();
    if named.next().is_some() {
        return Err(Refusal(StatusCode::BAD_REQUEST, "more than one Host header"));
    }
    if let Some(authority) = head.uri.authority() {
        return HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal(StatusCode::BAD_REQUEST, "the target's host is not text"));
    }
    match first {
        Some(host) => Ok(host.clone()),
        None if head.version == Version::HTTP_10 => Ok(HeaderValue::from_static("localhost")),
        None => Err(Refusal(StatusCode::BAD_REQUEST, "the Host header is missing")),
    }
}

/// Why a body could not be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The client broke it off.
    Broken,
    /// It did not come in time.
    Late,
}

/// A request's body, as far as it can be sent.
#[derive(Debug)]
pub(crate) enum Content {
    /// As often as need be.
    Kept(Bytes),
    /// Once.
    Streamed(Incoming, Rc<Upload>),
    /// It was sent.
    Gone,
}

impl Content {
    /// Takes a body in: whole, if it is empty, or if it may have to be sent again and is small enough.
    ///
    /// # Errors
    /// When the client broke it off, or takes too long for one that has to be kept.
    pub(crate) async fn take(incoming: Incoming, may_be_sent_again: bool) -> Result<Self, NotTaken> {
        if incoming.is_end_stream() {
            return Ok(Content::Kept(Bytes::new()));
        }
        let small = incoming.size_hint().exact().is_some_and(|length| length <= REPLAY_LIMIT);
        if !(small && may_be_sent_again) {
            return Ok(Content::Streamed(incoming, Upload::new()));
        }
        keep(incoming).await.map(Content::Kept)
    }

    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Content::Kept(_))
    }

    /// The upload under way, when the body is streamed.
    pub(crate) fn upload(&self) -> Option<Rc<Upload>> {
        if let Content::Streamed(_, upload) = self { Some(upload.clone()) } else { None }
    }

    /// The body for one try; `None` when it is gone.
    pub(crate) fn body(&mut self) -> Option<NodeRequestBody> {
        if let Content::Kept(bytes) = self {
            return Some(NodeRequestBody::Kept(Full::new(bytes.clone())));
        }
        match std::mem::replace(self, Content::Gone) {
            Content::Streamed(incoming, upload) => Some(NodeRequestBody::Streamed(incoming, upload)),
            _ => None,
        }
    }

    /// Takes a body back that did not leave.
    pub(crate) fn restore(&mut self, body: NodeRequestBody) {
        if let NodeRequestBody::Streamed(incoming, upload) = body {
            *self = Content::Streamed(incoming, upload);
        }
    }
}

/// Takes a whole body into memory. hyper hands on no more than the length that the head promised, which is at most [`REPLAY_LIMIT`].
async fn keep(mut incoming: Incoming) -> Result<Bytes, NotTaken> {
    let until = Instant::now() + KEPT_BODY_LIMIT;
    let mut whole = BytesMut::new();
    loop {
        let deadline = until.min(Instant::now() + KEPT_BODY_SILENCE_LIMIT);
        match tokio::time::timeout_at(deadline.into(), incoming.frame()).await {
            Ok(Some(Ok(frame))) => whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(_))) => return Err(NotTaken::Broken),
            Ok(None) => return Ok(whole.freeze()),
            Err(_) => return Err(NotTaken::Late),
        }
    }
}
