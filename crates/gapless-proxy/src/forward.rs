//! The way of one request: claim a node, send, and pass the answer on; or try again, or hold, or say why not.

use crate::account::{Account, End};
use crate::answer;
use crate::body::{AnswerBody, Ending, NodeRequestBody, Upload};
use crate::core::Core;
use crate::exchange::Exchange;
use crate::headers;
use crate::inbound::{Content, Inbound, NotTaken, Refusal};
use crate::node::{Claim, Node, NodeKey};
use crate::pool::{Connection, connect_failure};
use crate::route::{Choice, Service};
use crate::stream::Handle;
use crate::tunnel;
use gapless_wire::record::cause;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a node may take to begin its answer, from the last byte of the request on: what takes longer is taken for hung.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

const RELEASE: HeaderName = HeaderName::from_static("x-gapless-release");
const NODE: HeaderName = HeaderName::from_static("x-gapless-node");

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) peer: IpAddr,
    pub(crate) handle: Handle,
}

/// Why no node was claimed.
#[derive(Debug)]
enum Unclaimed {
    /// None may be used; with the reason.
    NoneReady(&'static str),
    /// The worker ends, and its patience is over.
    Cut,
}

/// Why one try came to nothing.
#[derive(Debug)]
enum Failure {
    /// Nothing of the request reached a node, by the node's doing or for a want of the proxy's own.
    Unsent { cause: &'static str, reason: String, is_nodes_fault: bool },
    /// It was sent, and no answer came.
    Sent { cause: &'static str, reason: String },
    /// The drain deadline cut it.
    Cut,
    /// The client broke its own request off.
    Client,
}

/// A node's answer, with everything that has to be held until its end.
struct Answered {
    response: Response<Incoming>,
    claim: Claim,
    connection: Connection,
    exchange: Exchange,
}

/// A request under way.
struct Passage {
    core: Rc<Core>,
    client: Client,
    inbound: Inbound,
    content: Content,
    account: Account,
    client_upgrade: Option<OnUpgrade>,
}

/// Answers a request.
pub(crate) async fn respond(core: &Rc<Core>, client: Client, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let begun = Instant::now();
    let client_upgrade = hyper::upgrade::on(&mut request);
    let (head, incoming) = request.into_parts();
    let inbound = match Inbound::parse(head, client.peer) {
        Ok(inbound) => inbound,
        Err(refusal) => return refuse(core, &refusal),
    };
    let Some(service) = core.shared.routes.service(&inbound.host) else {
        return no_service(core, &inbound, begun);
    };
    let mut account = core.account(&service.name, &inbound.method, begun);
    let taken = tokio::select! {
        biased;
        taken = Content::take(incoming, service.retry && inbound.is_idempotent()) => taken,
        () = core.shared.cut() => return cut(account),
    };
    let content = match taken {
        Ok(content) => content,
        Err(NotTaken::Broken) => return broken_off(&mut account, StatusCode::BAD_REQUEST, "the request broke off"),
        Err(NotTaken::Late) => return broken_off(&mut account, StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"),
    };
    let client_upgrade = inbound.upgrade.is_some().then_some(client_upgrade);
    Passage { core: core.clone(), client, inbound, content, account, client_upgrade }.pass().await
}

fn refuse(core: &Core, refusal: &Refusal) -> Response<AnswerBody> {
    core.shared.refused.fetch_add(1, Ordering::Relaxed);
    answer::text(refusal.0, refusal.1)
}

/// Nobody's host, which is a configured refusal; but a worker that lost its routes does not know that, and fails what it cannot place.
fn no_service(core: &Rc<Core>, inbound: &Inbound, begun: Instant) -> Response<AnswerBody> {
    if !core.shared.without_routes.load(Ordering::SeqCst) {
        return refuse(core, &Refusal(StatusCode::NOT_FOUND, "no service answers this host"));
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut account = core.account(&Arc::from(""), &inbound.method, begun);
    account.answered_by_proxy(status.as_u16());
    account.close(End::Failed(cause::NO_ROUTES));
    answer::text(status, &format!("{}: the proxy could not read its routes and waits for new ones", cause::NO_ROUTES))
}

fn broken_off(account: &mut Account, status: StatusCode, reason: &str) -> Response<AnswerBody> {
    account.close_client_gone();
    let mut response = answer::text(status, reason);
    answer::close_after(&mut response);
    response
}

fn cut(mut account: Account) -> Response<AnswerBody> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    account.answered_by_proxy(status.as_u16());
    account.close(End::Cut);
    let mut response = answer::text(status, "cut: the request was still running when its drain deadline passed");
    answer::close_after(&mut response);
    response
}

impl Passage {
    /// The whole policy: which failure leads to another try.
    async fn pass(mut self) -> Response<AnswerBody> {
        let mut tried: Vec<NodeKey> = Vec::new();
        let mut held_until = None;
        loop {
            let (claim, service) = match self.claim(&tried, &mut held_until).await {
                Ok(claimed) => claimed,
                Err(Unclaimed::NoneReady(reason)) => return self.fail(StatusCode::SERVICE_UNAVAILABLE, cause::NO_READY_NODE, reason),
                Err(Unclaimed::Cut) => return cut(self.account),
            };
            let node = claim.node.clone();
            let failure = match self.attempt(claim, &service).await {
                Ok(answered) => return self.hand_on(answered),
                Err(failure) => failure,
            };
            self.account.asks_nobody();
            tried.push(node.key);
            if matches!(failure, Failure::Unsent { is_nodes_fault: true, .. } | Failure::Sent { .. }) {
                self.account.try_failed(&node);
            }
            let may_try_again = service.retry && tried.len() < service.tries() && !self.is_sent_for_good(&failure);
            if may_try_again {
                self.account.retried = true;
                continue;
            }
            return self.give_up(&node, failure);
        }
    }

    /// Sending it again could do the same thing twice, or is not possible.
    fn is_sent_for_good(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Unsent { .. } => matches!(self.content, Content::Gone),
            // It had its time; another node would need as long.
            Failure::Sent { cause: cause::TIMEOUT, .. } => true,
            Failure::Sent { .. } => !(self.inbound.is_idempotent() && self.content.is_kept()),
            Failure::Cut | Failure::Client => true,
        }
    }

    /// Claims a node; while none is ready, waits as long as the service holds requests.
    async fn claim(&mut self, tried: &[NodeKey], held_until: &mut Option<Instant>) -> Result<(Claim, Arc<Service>), Unclaimed> {
        let mut changes = None;
        loop {
            if self.core.shared.is_cut() {
                return Err(Unclaimed::Cut);
            }
            match self.core.claim(&self.inbound.host, tried) {
                Choice::Claimed(claim, service) => return Ok((claim, service)),
                Choice::Unknown => return Err(Unclaimed::NoneReady("the service is no longer served")),
                Choice::NoneReady(service) => {
                    // Subscribe first, look again, then wait: a change in between is not missed.
                    let Some(changes) = &mut changes else {
                        changes = Some(self.core.shared.changes.subscribe());
                        continue;
                    };
                    let until = *held_until.get_or_insert_with(|| Instant::now() + service.hold);
                    if Instant::now() >= until {
                        return Err(Unclaimed::NoneReady("no node of the service is ready"));
                    }
                    self.account.held = true;
                    // Whether it was a change or the end of the hold is seen in the next round.
                    let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
                }
            }
        }
    }

    /// One try with one node. Only a request that could be sent again may use a connection that the node may be about to close.
    async fn attempt(&mut self, claim: Claim, service: &Service) -> Result<Answered, Failure> {
        self.account.asks(&claim.node, self.content.upload());
        let may_be_sent_again = service.retry && self.inbound.is_idempotent() && self.content.is_kept() && self.inbound.upgrade.is_none();
        let mut may_use_idle = may_be_sent_again;
        loop {
            let idle = if may_use_idle { self.core.idle_connection(&claim.node) } else { None };
            let reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => tokio::select! {
                    biased;
                    connected = connect(&claim.node) => connected?,
                    () = self.core.shared.cut() => return Err(Failure::Cut),
                },
            };
            let exchange = self.core.exchanges.enter(claim.node.key, connection.handle.clone());
            if claim.node.is_cut() || self.core.shared.is_cut() {
                return Err(Failure::Cut);
            }
            match self.send(&mut connection, &claim.node).await {
                Ok(response) => return Ok(Answered { response, claim, connection, exchange }),
                Err(_) if exchange.was_cut() => return Err(Failure::Cut),
                // The node closed it while it was idle, and nothing was written: no try was made.
                Err(Failure::Unsent { .. }) if reused => {}
                // It closed it just as this was written. Others may be as old, and a node that is alone has no other to make up for it.
                Err(Failure::Sent { cause: cause::NODE_CLOSED, .. }) if reused => {
                    may_use_idle = false;
                    self.account.retried = true;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn send(&mut self, connection: &mut Connection, node: &Node) -> Result<Response<Incoming>, Failure> {
        let upload = self.content.upload();
        let Some(body) = self.content.body() else {
            return Err(Failure::Sent { cause: cause::NODE_CLOSED, reason: "the request's body cannot be sent again".to_string() });
        };
        let sending = connection.sender.try_send_request(self.inbound.request(body));
        match within_limit(sending, upload.as_deref()).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => {
                if let Some(request) = error.take_message() {
                    self.content.restore(request.into_body());
                    return Err(Failure::Unsent {
                        cause: cause::NODE_CLOSED,
                        reason: "the node closed the connection".to_string(),
                        is_nodes_fault: true,
                    });
                }
                Err(self.sent_failure(&error.into_error(), upload.as_deref(), node))
            }
            None if upload.is_some_and(|upload| upload.waits_for_client.get()) => Err(Failure::Client),
            None => Err(Failure::Sent { cause: cause::TIMEOUT, reason: format!("no answer within {ANSWER_LIMIT:?}") }),
        }
    }

    fn sent_failure(&self, error: &hyper::Error, upload: Option<&Upload>, node: &Node) -> Failure {
        if upload.is_some_and(|upload| upload.broken.get()) {
            return Failure::Client;
        }
        node.check_now.notify_one();
        let cause = if error.is_parse() { cause::BAD_ANSWER } else { cause::NODE_CLOSED };
        Failure::Sent { cause, reason: error.to_string() }
    }

    fn give_up(mut self, node: &Node, failure: Failure) -> Response<AnswerBody> {
        match failure {
            Failure::Client => broken_off(&mut self.account, StatusCode::BAD_REQUEST, "the request broke off"),
            Failure::Cut => cut(self.account),
            Failure::Unsent { cause, reason, .. } | Failure::Sent { cause, reason } => {
                let status = if cause == cause::TIMEOUT { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
                tracing::warn!(node = node.name, cause, reason, "a request failed");
                self.fail(status, cause, &format!("node {}: {reason}", node.name))
            }
        }
    }

    fn fail(mut self, status: StatusCode, cause: &'static str, reason: &str) -> Response<AnswerBody> {
        self.account.answered_by_proxy(status.as_u16());
        self.account.close(End::Failed(cause));
        answer::text(status, &format!("{cause}: {reason}"))
    }

    /// Passes a node's answer on; from here on it ends in its body.
    fn hand_on(mut self, answered: Answered) -> Response<AnswerBody> {
        let Answered { mut response, claim, connection, exchange } = answered;
        let node = claim.node.clone();
        self.account.answered(claim, exchange.cut_mark(), response.status().as_u16());
        let upgraded = (response.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
        let (mut head, incoming) = response.into_parts();
        let protocol = head.headers.get(hyper::header::UPGRADE).cloned();
        headers::strip_hop_by_hop(&mut head.headers);
        head.headers.insert(RELEASE, node.release_header.clone());
        head.headers.insert(NODE, node.name_header.clone());
        // What a client of HTTP/1.0 gets without a length ends with the connection, whole or not.
        let reset_client = (self.inbound.version == Version::HTTP_10).then(|| self.client.handle.clone());
        let ending = Ending { core: self.core, node, account: self.account, exchange, connection, reset_client };
        match (upgraded, self.client_upgrade) {
            (Some(node_side), Some(client_side)) => tunnel::begin(head, protocol, node_side, client_side, ending),
            _ => {
                ending.exchange.answering(self.client.handle, ending.reset_client.is_some());
                head.version = Version::HTTP_11;
                Response::from_parts(head, AnswerBody::node(incoming, ending))
            }
        }
    }
}

async fn connect(node: &Node) -> Result<Connection, Failure> {
    Connection::open(node).await.map_err(|error| {
        let reason = connect_failure(&error).to_string();
        let is_nodes_fault = is_nodes_fault(&error);
        if is_nodes_fault {
            node.note_refused(&reason);
        }
        Failure::Unsent { cause: cause::CONNECT, reason, is_nodes_fault }
    })
}

/// Nobody listens there; a want of descriptors or ports is the proxy's own and says nothing about the node.
fn is_nodes_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut)
}

type Sent = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<NodeRequestBody>>>;

/// The answer, or `None` when nothing has moved for [`ANSWER_LIMIT`]. An upload that goes on is movement.
async fn within_limit(sending: impl Future<Output = Sent>, upload: Option<&Upload>) -> Option<Sent> {
    let begun = Instant::now();
    let mut sending = pin!(sending);
    loop {
        let deadline = upload.map_or(begun, |upload| upload.moved.get().max(begun)) + ANSWER_LIMIT;
        if deadline <= Instant::now() {
            return None;
        }
        if let Ok(sent) = tokio::time::timeout_at(deadline.into(), &mut sending).await {
            return Some(sent);
        }
    }
}
