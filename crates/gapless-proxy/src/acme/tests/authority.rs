//! A certificate authority in the process: the part of RFC 8555 that an order with http-01 uses, strict in what it takes.
//!
//! It serves over TLS on loopback. Each nonce is good once; each signature, URL and key is verified; a challenge is really fetched.

use crate::certificate::provider;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData, SignatureAlgorithm};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the authority has seen, and how it behaves from now on.
pub(super) struct Book {
    base: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    nonces: HashSet<String>,
    nonces_given: u32,
    pub(super) accounts: Vec<AccountEntry>,
    pub(super) orders: Vec<OrderEntry>,
    /// All requests: when, and `METHOD /path`.
    pub(super) requests: Vec<(Instant, String)>,
    /// How many requests were refused for their nonce.
    pub(super) nonces_refused: u32,
    /// Refuses so many good nonces.
    pub(super) refuse_nonces: u32,
    /// Answers every request with this status, without a problem document, and with these seconds in `Retry-After`.
    pub(super) trouble: Option<(StatusCode, Option<u32>)>,
    /// Never comes to an end with a challenge.
    pub(super) dawdle: bool,
    /// Where it looks for proofs: the port of 127.0.0.1 that stands for port 80 of all names.
    pub(super) proof_port: u16,
    /// How long before and after now a certificate is valid.
    pub(super) validity: (Duration, Duration),
    /// Issues for a key that nobody asked for.
    pub(super) mistake: bool,
}

pub(super) struct AccountEntry {
    /// The point of the public key, uncompressed.
    point: Vec<u8>,
    thumbprint: String,
    pub(super) contacts: Value,
    pub(super) closed: bool,
}

pub(super) struct OrderEntry {
    account: usize,
    pub(super) proofs: Vec<Proof>,
    certificate: Option<String>,
    /// The next look at a finalized order still says `processing`.
    processing: bool,
}

/// An authorization with its one challenge.
pub(super) struct Proof {
    name: String,
    pub(super) token: String,
    asked: bool,
    outcome: Option<Result<(), String>>,
}

/// The authority; it is gone when this is dropped.
pub(super) struct Authority {
    pub(super) directory: String,
    book: Arc<Mutex<Book>>,
    serving: JoinHandle<()>,
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Answer = Response<Full<Bytes>>;

impl Authority {
    /// Starts an authority whose root is written to `root`, and that looks for proofs on `proof_port`.
    pub(super) async fn start(root: &Path, proof_port: u16) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(root, issuer.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let book = Arc::new(Mutex::new(Book::new(base.clone(), issuer, proof_port)));
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), book.clone()));
        Self { directory: format!("{base}/directory"), book, serving }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, book: Arc<Mutex<Book>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, book) = (acceptor.clone(), book.clone());
        tokio::spawn(async move {
            // Whoever does not trust it breaks off here.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(book.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(book: Arc<Mutex<Book>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path().to_owned();
    let jose = parts.headers.get("content-type").is_some_and(|kind| kind == "application/jose+json");
    let mut entries = book.lock().unwrap();
    entries.requests.push((Instant::now(), format!("{} {path}", parts.method)));
    if let Some((status, pause)) = entries.trouble {
        let mut response = Response::builder().status(status);
        if let Some(pause) = pause {
            response = response.header("Retry-After", pause);
        }
        return Ok(response.body(Full::from("<html>trouble</html>")).unwrap());
    }
    let mut response = match (parts.method, path.as_str()) {
        (Method::GET, "/directory") => entries.directory(),
        (Method::HEAD, "/new-nonce") => json_answer(StatusCode::OK, &json!({})),
        (Method::POST, _) if !jose => problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "malformed", "not application/jose+json"),
        (Method::POST, path) => entries.post(&book, path, &body).unwrap_or_else(|refusal| *refusal),
        _ => problem(StatusCode::NOT_FOUND, "malformed", "nothing is here"),
    };
    let nonce = entries.new_nonce();
    response.headers_mut().insert("Replay-Nonce", nonce.parse().unwrap());
    Ok(response)
}

fn json_answer(status: StatusCode, content: &Value) -> Answer {
    Response::builder().status(status).header("Content-Type", "application/json").body(Full::from(content.to_string())).unwrap()
}

fn problem(status: StatusCode, kind: &str, detail: &str) -> Answer {
    let content = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status.as_u16() });
    let response = Response::builder().status(status).header("Content-Type", "application/problem+json");
    response.body(Full::from(content.to_string())).unwrap()
}

fn refuse(kind: &str, detail: &str) -> Box<Answer> {
    Box::new(problem(StatusCode::BAD_REQUEST, kind, detail))
}

/// A request whose signature is verified.
struct Signed {
    /// Empty for POST-as-GET.
    payload: Vec<u8>,
    /// `None` for a new account, whose key is this.
    account: Option<usize>,
    point: Vec<u8>,
    thumbprint: String,
}

impl Signed {
    fn json(&self) -> Result<Value, Box<Answer>> {
        serde_json::from_slice(&self.payload).map_err(|_| refuse("malformed", "the payload is no JSON"))
    }
}

impl Book {
    fn new(base: String, issuer: CertifiedIssuer<'static, KeyPair>, proof_port: u16) -> Self {
        Self {
            base,
            issuer,
            nonces: HashSet::new(),
            nonces_given: 0,
            accounts: Vec::new(),
            orders: Vec::new(),
            requests: Vec::new(),
            nonces_refused: 0,
            refuse_nonces: 0,
            trouble: None,
            dawdle: false,
            proof_port,
            validity: (DAY, 89 * DAY),
            mistake: false,
        }
    }

    /// How often something was asked for.
    pub(super) fn count(&self, request: &str) -> usize {
        self.requests.iter().filter(|(_, asked)| asked == request).count()
    }

    fn directory(&self) -> Answer {
        let url = |path: &str| format!("{}/{path}", self.base);
        let content = json!({ "newNonce": url("new-nonce"), "newAccount": url("new-account"), "newOrder": url("new-order") });
        json_answer(StatusCode::OK, &content)
    }

    fn new_nonce(&mut self) -> String {
        self.nonces_given += 1;
        let nonce = BASE64.encode(format!("nonce {}", self.nonces_given));
        self.nonces.insert(nonce.clone());
        nonce
    }

    fn post(&mut self, book: &Arc<Mutex<Book>>, path: &str, body: &[u8]) -> Result<Answer, Box<Answer>> {
        let signed = self.verify(path, body)?;
        let (kind, number) = path.trim_start_matches('/').split_once('/').unwrap_or((&path[1..], ""));
        let numbers: Vec<usize> = number.split('/').filter_map(|part| part.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("new-account", []) => self.new_account(signed),
            ("account", [place]) => {
                self.accounts[*place].contacts = signed.json()?["contact"].clone();
                Ok(json_answer(StatusCode::OK, &json!({ "status": "valid" })))
            }
            ("new-order", []) => self.new_order(&signed),
            ("order", [order]) => {
                let answer = self.order(*order, StatusCode::OK);
                self.orders[*order].processing = false;
                Ok(answer)
            }
            ("authorization", [order, proof]) => Ok(json_answer(StatusCode::OK, &self.authorization(*order, *proof))),
            ("challenge", [order, proof]) => self.challenge(book, &signed, *order, *proof),
            ("finalize", [order]) => self.finalize(&signed, *order),
            ("certificate", [order]) => Ok(Response::new(Full::from(self.orders[*order].certificate.clone().unwrap()))),
            _ => Err(refuse("malformed", "nothing is here")),
        }
    }

    /// RFC 8555, section 6.2 to 6.5.
    fn verify(&mut self, path: &str, body: &[u8]) -> Result<Signed, Box<Answer>> {
        let malformed = |what: &str| refuse("malformed", what);
        let body: Value = serde_json::from_slice(body).map_err(|_| malformed("no JSON"))?;
        let part = |name: &str| body[name].as_str().ok_or_else(|| malformed(name));
        let decode = |text: &str| BASE64.decode(text).map_err(|_| malformed("no base64url"));
        let protected: Value = serde_json::from_slice(&decode(part("protected")?)?).map_err(|_| malformed("no header"))?;
        let good = protected["nonce"].as_str().is_some_and(|nonce| self.nonces.remove(nonce));
        if !good || self.refuse_nonces > 0 {
            self.refuse_nonces = self.refuse_nonces.saturating_sub(1);
            self.nonces_refused += 1;
            return Err(refuse("badNonce", "this nonce is not good"));
        }
        if protected["alg"] != "ES256" || protected["url"] != format!("{}{path}", self.base) {
            return Err(malformed("alg or url"));
        }
        let (account, point, thumbprint) = match (protected.get("kid"), protected.get("jwk")) {
            (Some(kid), None) if path != "/new-account" => self.known_account(kid)?,
            (None, Some(jwk)) if path == "/new-account" => {
                let coordinate = |name: &str| jwk[name].as_str().ok_or_else(|| malformed("jwk"));
                let (x, y) = (coordinate("x")?, coordinate("y")?);
                // RFC 7638, section 3: these members, in this order.
                let thumb =
                    ring::digest::digest(&ring::digest::SHA256, format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes());
                (None, [vec![4], decode(x)?, decode(y)?].concat(), BASE64.encode(thumb))
            }
            _ => return Err(malformed("kid or jwk")),
        };
        let text = format!("{}.{}", part("protected")?, part("payload")?);
        let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(text.as_bytes(), &decode(part("signature")?)?);
        verified.map_err(|_| malformed("the signature is wrong"))?;
        Ok(Signed { payload: decode(part("payload")?)?, account, point, thumbprint })
    }

    fn known_account(&self, kid: &Value) -> Result<(Option<usize>, Vec<u8>, String), Box<Answer>> {
        let place = kid.as_str().and_then(|kid| kid.strip_prefix(&format!("{}/account/", self.base))?.parse::<usize>().ok());
        let known = place.and_then(|place| Some((place, self.accounts.get(place)?))).filter(|(_, account)| !account.closed);
        let (place, account) = known.ok_or_else(|| refuse("accountDoesNotExist", "no such account"))?;
        Ok((Some(place), account.point.clone(), account.thumbprint.clone()))
    }

    fn new_account(&mut self, signed: Signed) -> Result<Answer, Box<Answer>> {
        let wanted = signed.json()?;
        if wanted["termsOfServiceAgreed"] != true {
            return Err(refuse("userActionRequired", "agree to the terms"));
        }
        let location = format!("{}/account/{}", self.base, self.accounts.len());
        let (point, thumbprint, contacts) = (signed.point, signed.thumbprint, wanted["contact"].clone());
        self.accounts.push(AccountEntry { point, thumbprint, contacts, closed: false });
        let mut answer = json_answer(StatusCode::CREATED, &json!({ "status": "valid" }));
        answer.headers_mut().insert("Location", location.parse().unwrap());
        Ok(answer)
    }

    fn new_order(&mut self, signed: &Signed) -> Result<Answer, Box<Answer>> {
        let wanted = signed.json()?;
        let names = wanted["identifiers"].as_array().unwrap().iter().map(|name| {
            assert_eq!(name["type"], "dns");
            name["value"].as_str().unwrap().to_owned()
        });
        let order = self.orders.len();
        let proof = |(place, name)| {
            let token = BASE64.encode(format!("a token for order {order:03} and name {place:03}"));
            Proof { name, token, asked: false, outcome: None }
        };
        let proofs = names.enumerate().map(proof).collect();
        self.orders.push(OrderEntry { account: signed.account.unwrap(), proofs, certificate: None, processing: false });
        Ok(self.order(order, StatusCode::CREATED))
    }

    /// RFC 8555, section 7.1.3.
    fn order(&self, place: usize, code: StatusCode) -> Answer {
        let order = &self.orders[place];
        let outcomes = || order.proofs.iter().map(|proof| &proof.outcome);
        let status = match &order.certificate {
            Some(_) if order.processing => "processing",
            Some(_) => "valid",
            None if outcomes().any(|outcome| matches!(outcome, Some(Err(_)))) => "invalid",
            None if outcomes().all(Option::is_some) => "ready",
            None => "pending",
        };
        let url = |path: String| format!("{}/{path}", self.base);
        let mut content = json!({
            "status": status,
            "identifiers": order.proofs.iter().map(|proof| json!({ "type": "dns", "value": proof.name })).collect::<Vec<_>>(),
            "authorizations": (0..order.proofs.len()).map(|proof| url(format!("authorization/{place}/{proof}"))).collect::<Vec<_>>(),
            "finalize": url(format!("finalize/{place}")),
        });
        if status == "valid" {
            content["certificate"] = json!(url(format!("certificate/{place}")));
        }
        let mut answer = json_answer(code, &content);
        answer.headers_mut().insert("Location", url(format!("order/{place}")).parse().unwrap());
        answer
    }

    /// RFC 8555, section 7.1.4.
    fn authorization(&self, order: usize, place: usize) -> Value {
        let proof = &self.orders[order].proofs[place];
        let status = match &proof.outcome {
            None => "pending",
            Some(Ok(())) => "valid",
            Some(Err(_)) => "invalid",
        };
        let other = json!({ "type": "dns-01", "url": "https://localhost/none", "token": proof.token, "status": "pending" });
        let challenges = [other, self.challenge_content(order, place)];
        json!({ "status": status, "identifier": { "type": "dns", "value": proof.name }, "challenges": challenges })
    }

    /// RFC 8555, section 7.1.5.
    fn challenge_content(&self, order: usize, place: usize) -> Value {
        let proof = &self.orders[order].proofs[place];
        let url = format!("{}/challenge/{order}/{place}", self.base);
        let status = match &proof.outcome {
            None if proof.asked => "processing",
            None => "pending",
            Some(Ok(())) => "valid",
            Some(Err(_)) => "invalid",
        };
        let mut content = json!({ "type": "http-01", "url": url, "token": proof.token, "status": status });
        if let Some(Err(detail)) = &proof.outcome {
            content["error"] = json!({ "type": "urn:ietf:params:acme:error:connection", "detail": detail });
        }
        content
    }

    fn challenge(&mut self, book: &Arc<Mutex<Book>>, signed: &Signed, order: usize, place: usize) -> Result<Answer, Box<Answer>> {
        if signed.json()? != json!({}) {
            return Err(refuse("malformed", "the payload is not {}"));
        }
        let expected = format!("{}.{}", self.orders[order].proofs[place].token, signed.thumbprint);
        let proof = &mut self.orders[order].proofs[place];
        proof.asked = true;
        if !self.dawdle {
            let (book, port, name, token) = (book.clone(), self.proof_port, proof.name.clone(), proof.token.clone());
            tokio::spawn(async move {
                let outcome = fetch(port, &name, &token).await.and_then(|found| match found == expected {
                    true => Ok(()),
                    false => Err(format!("found {found:?} at {name}")),
                });
                book.lock().unwrap().orders[order].proofs[place].outcome = Some(outcome);
            });
        }
        Ok(json_answer(StatusCode::OK, &self.challenge_content(order, place)))
    }

    fn finalize(&mut self, signed: &Signed, place: usize) -> Result<Answer, Box<Answer>> {
        let order = &self.orders[place];
        assert_eq!(Some(order.account), signed.account);
        if !order.proofs.iter().all(|proof| proof.outcome == Some(Ok(()))) {
            return Err(refuse("orderNotReady", "prove the names first"));
        }
        let csr = BASE64.decode(signed.json()?["csr"].as_str().unwrap()).unwrap();
        let names: Vec<String> = order.proofs.iter().map(|proof| proof.name.clone()).collect();
        let key = verify_csr(&csr, &names).ok_or_else(|| refuse("badCSR", "the CSR is wrong"))?;
        let mut params = CertificateParams::new(names).unwrap();
        let now = SystemTime::now();
        (params.not_before, params.not_after) = ((now - self.validity.0).into(), (now + self.validity.1).into());
        let key = if self.mistake { Point(KeyPair::generate().unwrap().public_key_raw().to_vec()) } else { key };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let order = &mut self.orders[place];
        (order.certificate, order.processing) = (Some(certificate.pem() + &self.issuer.pem()), true);
        Ok(self.order(place, StatusCode::OK))
    }
}

/// A point on P-256 that somebody else has the key to.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The key of a request that is signed with it and names exactly these names: RFC 8555, section 7.4.
fn verify_csr(der: &[u8], names: &[String]) -> Option<Point> {
    let request = CertReq::from_der(der).ok()?;
    let point = request.info.public_key.subject_public_key.as_bytes()?.to_vec();
    let signature = request.signature.as_bytes()?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point).verify(&request.info.to_der().ok()?, signature).ok()?;
    let asked = request.info.attributes.iter().find_map(|attribute| {
        let extensions = ExtensionReq::from_der(&attribute.values.get(0)?.to_der().ok()?).ok()?;
        let names = extensions.0.iter().find_map(|extension| SubjectAltName::from_der(extension.extn_value.as_bytes()).ok())?;
        Some(names.0.iter().filter_map(|name| if let GeneralName::DnsName(name) = name { Some(name.to_string()) } else { None }).collect())
    });
    let asked: HashSet<String> = asked?;
    (asked == names.iter().cloned().collect()).then_some(Point(point))
}

/// Asks for a proof as RFC 8555, section 8.3 says.
async fn fetch(port: u16, name: &str, token: &str) -> Result<String, String> {
    let trouble = |error: std::io::Error| format!("cannot reach {name}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(trouble)?;
    let request = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(trouble)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(trouble)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("{name} answers {head:?}")) }
}
