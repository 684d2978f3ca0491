//! The way to the authority: HTTP/1.1 over TLS, one connection for each request. An order is about a dozen requests, so nothing is kept open between them.

use crate::certificate::{HTTP_1, provider};
use crate::error::ProxyError;
use crate::sync::lock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long one request may take, with the connection. Authorities answer in less than a second, also when they are busy.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The largest answer, in bytes: a chain with many names has some 10 KiB.
const ANSWER_LIMIT: usize = 1 << 20;

/// Sends requests to the authority.
#[derive(Clone)]
pub(super) struct Transport {
    connector: TlsConnector,
    retry_after: Arc<Mutex<Option<Duration>>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

/// Why there is no answer that could be understood.
#[derive(Debug)]
pub(super) enum TransportError {
    /// The authority named an address that is none over TLS.
    Address(String),
    /// Nobody answers.
    Unreachable(String, std::io::Error),
    /// Who answers cannot prove the name, or speaks no TLS.
    Untrusted(String, std::io::Error),
    /// The conversation broke off.
    Broken(String, String),
    /// The answer took too long.
    Slow(String),
    /// A status that tells of an error, without a problem document.
    Refused(String, StatusCode),
}

impl TransportError {
    /// What a person can do.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Address(_) => "look whether the directory is that of an ACME authority; its addresses begin with https://",
            Self::Unreachable(..) => "look at the directory's address, at the DNS, and whether a firewall lets this machine out",
            Self::Untrusted(..) => "name the authority's own root in the setting `authorities`, or install the package ca-certificates",
            Self::Broken(..) | Self::Slow(_) | Self::Refused(..) => {
                "the authority has trouble, or the directory's address is wrong; it is tried again"
            }
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address:?} is no address of an authority"),
            Self::Unreachable(host, error) => write!(f, "nobody answers at {host}: {error}"),
            Self::Untrusted(host, error) => write!(f, "{host} cannot be trusted: {error}"),
            Self::Broken(host, reason) => write!(f, "the conversation with {host} broke off: {reason}"),
            Self::Slow(host) => write!(f, "{host} did not answer within {REQUEST_LIMIT:?}"),
            Self::Refused(host, status) => write!(f, "{host} answered {status}"),
        }
    }
}

impl std::error::Error for TransportError {}

impl Transport {
    /// A transport that trusts these roots.
    ///
    /// # Errors
    /// Never in practice: the cryptography has suites for both versions of TLS.
    pub(super) fn new(roots: RootCertStore) -> Result<Self, ProxyError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]);
        let broken = |error| ProxyError::new(format!("TLS cannot be set up: {error}")).hint("this build is broken");
        let mut config = builder.map_err(broken)?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), retry_after: Arc::default() })
    }

    /// How long the authority asked to be left alone in an answer since the last call: RFC 8555, section 6.6.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        lock(&self.retry_after).take()
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, TransportError> {
        let authority = Authority::parse(request.uri())?;
        let answer = tokio::time::timeout(REQUEST_LIMIT, exchange(&self.connector, &authority, request)).await;
        let (method, response) = answer.map_err(|_| TransportError::Slow(authority.text.clone()))??;
        if let Some(pause) = asked_pause(response.status(), response.headers()) {
            *lock(&self.retry_after) = Some(pause);
        }
        let explained = method == Method::POST && is_json(response.headers());
        if response.status().as_u16() >= 400 && !explained {
            return Err(TransportError::Refused(authority.text, response.status()));
        }
        Ok(BytesResponse::from(response))
    }
}

impl HttpClient for Transport {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let sent = self.clone().send(request);
        Box::pin(async move { sent.await.map_err(|error| Error::Other(Box::new(error))) })
    }
}

/// Whom a URL names.
struct Authority {
    /// As it stands in the URL: what errors tell, and the header `Host`.
    text: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Authority {
    fn parse(uri: &Uri) -> Result<Self, TransportError> {
        let parsed = || {
            let text = uri.authority().filter(|_| uri.scheme_str() == Some("https"))?.as_str();
            // With a user's name in front it would be another's address at first sight.
            let text = Some(text).filter(|text| !text.contains('@'))?.to_owned();
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host.clone()).ok()?;
            Some(Self { text, port: uri.port_u16().unwrap_or(443), host, name })
        };
        parsed().ok_or_else(|| TransportError::Address(uri.to_string()))
    }
}

async fn exchange(
    connector: &TlsConnector,
    authority: &Authority,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<(Method, Response<Full<Bytes>>), TransportError> {
    let name = || authority.text.clone();
    let broken = |reason: String| TransportError::Broken(name(), reason);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
    *request.uri_mut() = path.map_err(|_| TransportError::Address(name()))?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(&authority.text).map_err(|_| TransportError::Address(name()))?);
    let tcp = TcpStream::connect((authority.host.as_str(), authority.port)).await;
    let tls = connector.connect(authority.name.clone(), tcp.map_err(|error| TransportError::Unreachable(name(), error))?).await;
    let stream = TokioIo::new(tls.map_err(|error| TransportError::Untrusted(name(), error))?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| broken(error.to_string()))?;
    let method = request.method().clone();
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| broken(error.to_string()))?;
        Ok((method, Response::from_parts(parts, Full::new(body.to_bytes()))))
    };
    let driven = async {
        // Its end is seen by the answer, which may still have to take what has come.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = driven => Err(broken("it has no end".to_owned())),
    }
}

/// Only the form in seconds: the other one (RFC 9110, section 10.2.3) is used by no authority that is known.
fn asked_pause(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Problems are JSON: RFC 8555, section 6.7.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.contains("json"))
}
