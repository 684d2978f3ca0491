//! The way of one request: claim a node, send, and pass the answer on; or try again, or hold, or say why not.

use crate::account::{Account, End};
use crate::admission;
use crate::client::{Sink, Source, SourceFault, Unheard};
use crate::cookie;
use crate::core::Core;
use crate::exchange::{Abort, Exchange};
use crate::http1::head::Framing;
use crate::http1::node::{Connection, NoAnswer, connect_failure};
use crate::http2;
use crate::link::{self, Link, Torn, Writer};
use crate::node::{Claim, Node, NodeKey};
use crate::request::{Client, Inbound, Refusal};
use crate::route::{Choice, Service, Wish};
use crate::tunnel::{self, Mouth};
use crate::upload::Upload;
use gapless_wire::record::cause;
use gapless_wire::settings::{NodesSpeak, Testers, Timeouts};
use hyper::{Method, StatusCode};
use std::future::{pending, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The largest request body that is kept so that the request can be sent again, in bytes: the promise names it.
pub(crate) const REPLAY_LIMIT: u64 = 64 * 1024;
/// How long a client may be silent inside a body that is kept: mobile networks lose packets for some seconds.
const KEPT_BODY_SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// How long a body that is kept may take in all: [`REPLAY_LIMIT`] at 9 kbit/s, slower than any line in use.
const KEPT_BODY_LIMIT: Duration = Duration::from_secs(60);
/// How many interim answers may come before an answer: each lets the node have its time again, and one that says every second how far it is has a quarter of an hour.
const INTERIM_LIMIT: usize = 1000;
/// A piece of a body that is smaller than so many bytes is sent together with those that follow it at once.
const SMALL_PIECE: usize = 4 * 1024;

const RELEASE: &[u8] = b"x-gapless-release";
const NODE: &[u8] = b"x-gapless-node";
const SET_COOKIE: &[u8] = b"set-cookie";

/// Why no node was claimed.
#[derive(Debug)]
enum Unclaimed {
    /// None may be used; with the reason.
    NoneReady(&'static str),
    /// The worker ends, and its patience is over.
    Cut,
    /// Nobody waits for the answer any more.
    ClientGone,
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
    Client(SourceFault),
}

impl Failure {
    /// Why the node is to blame, if it is.
    fn of_node(&self) -> Option<&str> {
        match self {
            Failure::Unsent { reason, is_nodes_fault: true, .. } | Failure::Sent { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// A request's body, as far as it can be sent.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// As often as need be.
    Kept(Vec<u8>),
    /// Once, as it comes.
    Streamed,
    /// It was sent.
    Gone,
}

/// A request under way.
struct Passage<'a> {
    core: &'a Rc<Core>,
    client: &'a Client,
    inbound: &'a Inbound,
    content: Content,
    account: &'a mut Account,
    timeouts: Timeouts,
    testers: Option<&'a Testers>,
    /// Where the client was before, as its cookie says.
    place: Option<(&'a str, &'a str)>,
}

/// Answers a request.
pub(crate) async fn respond(core: &Rc<Core>, client: &Client, inbound: &Inbound, source: &mut Source<'_>, sink: &mut Sink<'_>) {
    let begun = Instant::now();
    if let Some(proof) = prove(core, inbound) {
        return sink.own(StatusCode::OK, "application/octet-stream", &proof, &[], !source.is_over()).await;
    }
    if let Some(port) = client.redirects_to {
        return redirect(core, inbound, port, source, sink).await;
    }
    let Some(service) = core.shared.routes.service(&inbound.host, inbound.target()) else {
        return no_service(core, inbound, source, sink, begun).await;
    };
    let mut account = core.account(&service.name, inbound.method == Method::GET, begun);
    serve(core, client, inbound, &service, &mut account, source, sink).await;
    if let Some(closed) = account.settle() {
        core.log(client, inbound, &closed);
    }
}

/// What an authority asks for that gives a certificate (RFC 8555, section 8.3).
fn prove(core: &Core, inbound: &Inbound) -> Option<String> {
    let path = inbound.target();
    if !path.starts_with(b"/.well-known/acme-challenge/") {
        return None;
    }
    core.shared.challenges.answer(std::str::from_utf8(path).ok()?)
}

/// Answers a request of this service.
async fn serve(
    core: &Rc<Core>,
    client: &Client,
    inbound: &Inbound,
    service: &Service,
    account: &mut Account,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
) {
    let treatment = &service.treatment;
    if let Some(closed_door) = admission::refusal(core, client, inbound, service, source) {
        sink.close_if(!source.is_over());
        return closed_door.tell(account, sink).await;
    }
    source.limit(treatment.body_bytes.unwrap_or(u64::MAX));
    sink.wait_for_reader(Duration::from_millis(treatment.timeouts.unread_ms));
    let place = treatment.sticky.as_ref().and_then(|sticky| cookie::value(inbound.fields(), &sticky.cookie)).and_then(cookie::place);
    match take(core, inbound, service, source).await {
        Ok(content) => {
            Passage { core, client, inbound, content, account, timeouts: treatment.timeouts, testers: treatment.testers.as_ref(), place }
                .pass(source, sink)
                .await;
        }
        Err(NotTaken::Cut) => cut(account, sink).await,
        Err(NotTaken::Fault(fault)) => broken_off(account, fault, sink).await,
    }
}

/// Sends a client to the same address over TLS.
async fn redirect(core: &Core, inbound: &Inbound, port: u16, source: &Source<'_>, sink: &mut Sink<'_>) {
    core.shared.refused.fetch_add(1, Ordering::Relaxed);
    // 308 keeps the method, which 301 does not (RFC 9110, section 15.4.9).
    let location = [("location", inbound.secure_address(port))];
    sink.own(StatusCode::PERMANENT_REDIRECT, "text/plain; charset=utf-8", "over TLS, please\n", &location, !source.is_over()).await;
}

/// Why a body was not taken in.
enum NotTaken {
    Fault(SourceFault),
    /// The worker ends, and its patience is over.
    Cut,
}

/// Takes a body in: whole, if it is empty, or if it may have to be sent again and is small enough.
async fn take(core: &Core, inbound: &Inbound, service: &Service, source: &mut Source<'_>) -> Result<Content, NotTaken> {
    match inbound.framing {
        Framing::Empty => Ok(Content::Kept(Vec::new())),
        Framing::Length(length) if length <= REPLAY_LIMIT && service.retry && inbound.is_idempotent() => {
            tokio::select! {
                biased;
                kept = keep(source, Duration::from_millis(service.treatment.timeouts.body_ms)) => kept.map_err(NotTaken::Fault),
                () = core.shared.cut() => Err(NotTaken::Cut),
            }
        }
        _ => Ok(Content::Streamed),
    }
}

/// Takes a whole body into memory: no more than the length that its head promised.
async fn keep(source: &mut Source<'_>, silence: Duration) -> Result<Content, SourceFault> {
    let until = Instant::now() + KEPT_BODY_LIMIT;
    let mut whole = Vec::new();
    while let Some(length) = source.next(silence.min(KEPT_BODY_SILENCE_LIMIT), Some(until)).await? {
        whole.extend_from_slice(&source.data()[..length]);
        source.consume(length);
    }
    Ok(Content::Kept(whole))
}

/// Answers what is nobody's.
pub(crate) async fn refuse(core: &Core, sink: &mut Sink<'_>, refusal: &Refusal) {
    core.shared.refused.fetch_add(1, Ordering::Relaxed);
    sink.text(refusal.0, refusal.1, false).await;
}

/// Nobody's host, which is a configured refusal; but a worker that lost its routes does not know that, and fails what it cannot place.
async fn no_service(core: &Rc<Core>, inbound: &Inbound, source: &Source<'_>, sink: &mut Sink<'_>, begun: Instant) {
    sink.close_if(!source.is_over());
    if !core.shared.without_routes.load(Ordering::SeqCst) {
        return refuse(core, sink, &Refusal(StatusCode::NOT_FOUND, "no service answers this host")).await;
    }
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut account = core.account(&Arc::from(""), inbound.method == Method::GET, begun);
    account.answered_by_proxy(status.as_u16());
    account.close(End::Failed(cause::NO_ROUTES));
    sink.text(status, &format!("{}: the proxy could not read its routes and waits for new ones", cause::NO_ROUTES), false).await;
}

async fn broken_off(account: &mut Account, fault: SourceFault, sink: &mut Sink<'_>) {
    account.close_client_gone();
    match fault {
        SourceFault::Broken => sink.text(StatusCode::BAD_REQUEST, "the request broke off", true).await,
        SourceFault::Late => sink.text(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time", true).await,
        SourceFault::Refused(refusal) => sink.text(refusal.0, refusal.1, true).await,
    }
}

async fn cut(account: &mut Account, sink: &mut Sink<'_>) {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    account.answered_by_proxy(status.as_u16());
    account.close(End::Cut);
    sink.text(status, "cut: the request was still running when its drain deadline passed", true).await;
}

impl Passage<'_> {
    /// The whole policy: which failure leads to another try.
    async fn pass(mut self, source: &mut Source<'_>, sink: &mut Sink<'_>) {
        let mut tried: Vec<NodeKey> = Vec::new();
        let mut held_until = None;
        loop {
            let (claim, service) = match self.claim(&tried, &mut held_until, source).await {
                Ok(claimed) => claimed,
                Err(Unclaimed::NoneReady(reason)) => {
                    sink.close_if(!source.is_over());
                    return self.fail(StatusCode::SERVICE_UNAVAILABLE, cause::NO_READY_NODE, reason, sink).await;
                }
                Err(Unclaimed::Cut) => return cut(self.account, sink).await,
                Err(Unclaimed::ClientGone) => return self.account.close_client_gone(),
            };
            let node = claim.node.clone();
            let failure = match self.attempt(claim, &service, source, sink).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            if let Some(reason) = failure.of_node() {
                self.account.try_failed(&node);
                node.note_failed_request(service.treatment.eject_after, reason);
            }
            // A client that went away waited for whom was asked to its end.
            if !matches!(failure, Failure::Client(_)) {
                self.account.asks_nobody();
            }
            tried.push(node.key);
            let may_try_again = service.retry && tried.len() < service.tries() && !self.is_sent_for_good(&failure);
            if may_try_again {
                self.account.retried = true;
                continue;
            }
            sink.close_if(!source.is_over());
            return self.give_up(&node, failure, sink).await;
        }
    }

    /// Sending it again could do the same thing twice, or is not possible.
    fn is_sent_for_good(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Unsent { .. } => self.content == Content::Gone,
            // It had its time; another node would need as long.
            Failure::Sent { cause: cause::TIMEOUT, .. } => true,
            Failure::Sent { .. } => !(self.inbound.is_idempotent() && self.is_kept()),
            Failure::Cut | Failure::Client(_) => true,
        }
    }

    fn may_be_sent_again(&self, service: &Service) -> bool {
        service.retry && self.inbound.is_idempotent() && self.is_kept() && !self.inbound.wants_upgrade
    }

    fn is_kept(&self) -> bool {
        matches!(self.content, Content::Kept(_))
    }

    /// Claims a node; while none is ready, waits as long as the service holds requests.
    async fn claim(
        &mut self,
        tried: &[NodeKey],
        held_until: &mut Option<Instant>,
        source: &mut Source<'_>,
    ) -> Result<(Claim, Arc<Service>), Unclaimed> {
        let mut changes = None;
        let is_kept = self.is_kept();
        let wish = Wish { newest: self.is_tester(), place: self.place };
        loop {
            if self.core.shared.is_cut() {
                return Err(Unclaimed::Cut);
            }
            match self.core.claim(self.inbound, tried, wish) {
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
                    tokio::select! {
                        // Whether it was a change or the end of the hold is seen in the next round.
                        _ = tokio::time::timeout_at(until.into(), changes.changed()) => {}
                        () = source.gone(), if is_kept => return Err(Unclaimed::ClientGone),
                    }
                }
            }
        }
    }

    /// One try with one node. Only a request that could be sent again may use a connection that the node may be about to close.
    async fn attempt(&mut self, claim: Claim, service: &Service, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<(), Failure> {
        let node = claim.node.clone();
        let upload = (self.content == Content::Streamed).then(Upload::new);
        self.account.asks(&node, upload.clone());
        let mut may_use_idle = self.may_be_sent_again(service);
        let mut claim = Some(claim);
        loop {
            let (link, reused) = tokio::select! {
                biased;
                link = self.link(&node, service, may_use_idle) => link?,
                () = self.core.shared.cut() => return Err(Failure::Cut),
            };
            let exchange = self.core.exchanges.enter(node.clone(), link.abort());
            if node.is_cut() || self.core.shared.is_cut() {
                return Err(Failure::Cut);
            }
            let talk = Talk { link, service, exchange: &exchange, claim: &mut claim, upload: upload.as_deref() };
            match self.talk(talk, source, sink).await {
                Ok(()) => return Ok(()),
                Err(_) if exchange.was_cut() => return Err(Failure::Cut),
                // The node closed it while it was idle, and nothing was written: no try was made.
                Err(Failure::Unsent { .. }) if reused => {}
                // It closed it just as this was written. Others may be as old, and a node that is alone has no other to make up for it.
                Err(Failure::Sent { cause: cause::NODE_CLOSED, .. }) if reused => {
                    may_use_idle = false;
                    self.account.retried = true;
                }
                Err(failure) => {
                    if let Failure::Sent { cause: cause::NODE_CLOSED | cause::BAD_ANSWER, .. } = failure {
                        node.check_now.notify_one();
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// A connection to the node, and whether it was used before.
    async fn link(&self, node: &Node, service: &Service, may_use_idle: bool) -> Result<(Link, bool), Failure> {
        let limit = Duration::from_millis(self.timeouts.connect_ms);
        if service.treatment.nodes_speak == NodesSpeak::Http2 {
            // A node that ends such a connection says which requests it has not looked at, so others than those that can be sent again may use it, too.
            if let Some(link) = self.core.link(node) {
                return Ok((Link::Http2(Box::new(http2::node::Talk::new(link))), true));
            }
            let link = http2::node::open(self.core, node, limit).await.map_err(|error| unconnected(node, &error, limit))?;
            return Ok((Link::Http2(Box::new(http2::node::Talk::new(link))), false));
        }
        let idle = if may_use_idle { self.core.idle_connection(node) } else { None };
        if let Some(connection) = idle {
            return Ok((Link::Http1(connection), true));
        }
        let opened = Connection::open(&self.core.streams, node, limit).await;
        opened.map(|connection| (Link::Http1(connection), false)).map_err(|error| unconnected(node, &error, limit))
    }

    /// Sends the request on a connection and passes the answer on. Once that has begun, whatever happens has been accounted for.
    async fn talk(&mut self, mut talk: Talk<'_>, source: &mut Source<'_>, sink: &mut Sink<'_>) -> Result<(), Failure> {
        let (exchange, upload, service) = (talk.exchange, talk.upload, talk.service);
        let writer = self.send_head(&mut talk.link, exchange.node()).await?;
        if self.content == Content::Streamed {
            self.content = Content::Gone;
        }
        let is_torn = matches!(writer, Writer::Torn);
        let spoken = self.converse(&mut talk, writer, source, sink).await?;
        let link = talk.link;
        match spoken {
            Spoken::Over(Ok(bytes)) => {
                self.account.close(End::Whole(bytes));
                let is_sent = !is_torn && upload.is_none_or(|upload| upload.ended.get());
                match link {
                    Link::Http1(connection) if connection.answer.keeps_connection && is_sent && connection.inlet.data().is_empty() => {
                        if service.retry {
                            self.core.keep(exchange.node(), connection, self.may_be_sent_again(service));
                        } else {
                            // Nobody may use it again, and closed in order its port would rest for a minute.
                            connection.stream.reset_at_close();
                        }
                    }
                    Link::Http1(_) => {}
                    Link::Http2(talk) => self.core.keep_link(exchange.node(), talk.link()),
                }
            }
            Spoken::Over(Err(BrokenOff::ByNode)) => {
                self.account.close(if exchange.was_cut() { End::Cut } else { End::Failed(cause::TRUNCATED) });
                // What came before it broke off is the client's, if it takes it.
                let _ = sink.flush().await;
                sink.break_off();
            }
            // The account is dropped open: the client went away, or was cut.
            Spoken::Over(Err(BrokenOff::ByClient)) => {}
            Spoken::Switched => self.tunnel(link, exchange, source).await,
        }
        Ok(())
    }

    async fn send_head(&self, link: &mut Link, node: &Node) -> Result<Writer, Failure> {
        let kept = if let Content::Kept(bytes) = &self.content { Some(bytes.as_slice()) } else { None };
        let limit = Duration::from_millis(self.timeouts.answer_ms);
        let unsent =
            || Failure::Unsent { cause: cause::NODE_CLOSED, reason: "the node closed the connection".to_string(), is_nodes_fault: true };
        match link {
            Link::Http1(connection) => {
                let stream = connection.stream.clone();
                let mut head = self.core.scratch();
                self.inbound.write_head(&mut head, self.client);
                let by = Some(Instant::now() + limit);
                stream.read_by(by);
                stream.write_by(by);
                let sent = stream.write(&mut [IoSlice::new(&head), IoSlice::new(kept.unwrap_or_default())]).await;
                self.core.give_scratch(head);
                match sent {
                    Err(unwritten) if unwritten.written == 0 => Err(unsent()),
                    // A node that takes no more may have answered already.
                    Err(_) => Ok(Writer::Torn),
                    Ok(()) => Ok(Writer::Http1(stream, self.inbound.framing)),
                }
            }
            Link::Http2(talk) => match talk.send(self.inbound, self.client, kept, limit).await {
                Ok(outgoing) => Ok(Writer::Http2(outgoing)),
                Err(_) => {
                    self.core.forget_link(node);
                    Err(unsent())
                }
            },
        }
    }

    /// Both directions at once: the rest of the request goes up while the answer is waited for and passed on.
    async fn converse(
        &mut self,
        talk: &mut Talk<'_>,
        writer: Writer,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<Spoken, Failure> {
        let (service, exchange, upload) = (talk.service, talk.exchange, talk.upload);
        let mut uploading = pin!(send_rest(source, writer, upload, self.timeouts));
        self.await_answer(talk, &mut uploading, sink).await?;
        let (link, claim) = (&mut talk.link, &mut *talk.claim);
        if let Some(upload) = upload {
            upload.is_answered.set(true);
        }
        link.answer_has_begun();
        let node = self.begin_answer(link.answer().status, exchange, claim);
        let cookie = self.new_place(service, &node);
        let mut own: Vec<(&[u8], &[u8])> = Vec::with_capacity(3);
        if service.treatment.tells_release {
            own.extend([(RELEASE, node.release_header.as_bytes()), (NODE, node.name_header.as_bytes())]);
        }
        own.extend(cookie.as_ref().map(|cookie| (SET_COOKIE, cookie.as_bytes())));
        exchange.answering(sink.abort(), sink.needs_reset());
        if link.answer().status == 101 {
            let switched = sink.switch(link.answer(), &own).await;
            return Ok(switched.map_or(Spoken::Over(Err(BrokenOff::ByClient)), |()| Spoken::Switched));
        }
        // What still comes of the request's body would be taken for the next request.
        sink.close_if(upload.is_some_and(|upload| !upload.ended.get()));
        sink.begin(link.answer(), &own);
        Ok(Spoken::Over(match hear(&mut uploading, hand_on(self.core, link, sink, self.timeouts)).await {
            Heard::Node(handed_on) => handed_on,
            Heard::Client(_) => Err(BrokenOff::ByClient),
        }))
    }

    /// Waits for the answer, and passes on what comes before it.
    async fn await_answer(
        &self,
        talk: &mut Talk<'_>,
        uploading: &mut Pin<&mut impl Future<Output = SourceFault>>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Failure> {
        let (link, exchange) = (&mut talk.link, talk.exchange);
        let (is_head, limit) = (self.inbound.method == Method::HEAD, Duration::from_millis(self.timeouts.answer_ms));
        for _ in 0..=INTERIM_LIMIT {
            let answered = link.read_answer(&self.core.buffers, is_head, talk.upload, limit);
            match hear(uploading, unless_gone(sink, answered)).await {
                Heard::Node(Some(Ok(()))) => {}
                Heard::Node(Some(Err(no_answer))) => return Err(self.sent_failure(&no_answer, exchange.node())),
                Heard::Node(None) => return Err(Failure::Client(SourceFault::Broken)),
                Heard::Client(fault) => return Err(Failure::Client(fault)),
            }
            match link.answer().status {
                101 if !self.inbound.wants_upgrade => {
                    return Err(bad_answer("it switches to a protocol that nobody asked for".to_string()));
                }
                100 => {}
                102..200 => {
                    exchange.answering(sink.abort(), sink.needs_reset());
                    // Who does not take it has gone, which is seen at the answer.
                    let _ = sink.interim(link.answer()).await;
                    link.expect_answer_by(Instant::now() + limit);
                }
                _ => return Ok(()),
            }
        }
        Err(bad_answer(format!("it says more than {INTERIM_LIMIT} times that an answer will come")))
    }

    /// The claim is the account's from here on.
    fn begin_answer(&mut self, status: u16, exchange: &Exchange, claim: &mut Option<Claim>) -> Arc<Node> {
        exchange.node().note_answered_request();
        if let Some(claim) = claim.take() {
            self.account.answered(claim, exchange.cut_mark(), status);
        }
        exchange.node().clone()
    }

    /// The client tries new releases first.
    fn is_tester(&self) -> bool {
        let Some(testers) = self.testers else { return false };
        let by_header = testers.header.iter().any(|(name, value)| self.inbound.fields().says(name, value));
        by_header || testers.cookie.iter().any(|(name, value)| cookie::value(self.inbound.fields(), name) == Some(value))
    }

    /// The cookie for a client that has another place from now on, or its first one.
    fn new_place(&self, service: &Service, node: &Node) -> Option<String> {
        let sticky = service.treatment.sticky.as_ref()?;
        let is_there = self.place == Some((node.name.as_str(), &*node.release));
        (!is_there).then(|| cookie::set(&sticky.cookie, &cookie::place_of(node), self.client.is_secure()))
    }

    async fn tunnel(&mut self, link: Link, exchange: &Exchange, source: &mut Source<'_>) {
        // No other protocol than HTTP/1 switches.
        let (Link::Http1(mut connection), Source::Http1(source)) = (link, source) else { return };
        let node = Mouth { stream: &connection.stream, inlet: &mut connection.inlet };
        let client = Mouth { stream: source.stream, inlet: source.inlet };
        // How a tunnel ends is its two ends' affair, unless it was cut.
        tunnel::carry(node, client, &self.core.buffers).await;
        let end = if exchange.was_cut() { End::Cut } else { End::Whole(u64::MAX) };
        // A stream is no small GET, however little it carried.
        self.account.close(end);
    }

    fn sent_failure(&self, no_answer: &NoAnswer, node: &Node) -> Failure {
        match no_answer {
            NoAnswer::Unseen => {
                self.core.forget_link(node);
                Failure::Unsent {
                    cause: cause::NODE_CLOSED,
                    reason: "the node takes no more requests on this connection".to_string(),
                    is_nodes_fault: true,
                }
            }
            NoAnswer::Closed(error) if is_own_limit(error) => {
                let limit = Duration::from_millis(self.timeouts.answer_ms);
                Failure::Sent { cause: cause::TIMEOUT, reason: format!("no answer within {limit:?}") }
            }
            NoAnswer::Closed(error) => {
                self.core.forget_link(node);
                let is_end = error.kind() == ErrorKind::UnexpectedEof;
                let reason = if is_end { "the node closed the connection before it answered".to_string() } else { error.to_string() };
                Failure::Sent { cause: cause::NODE_CLOSED, reason }
            }
            NoAnswer::Malformed(fault) => bad_answer(fault.to_string()),
        }
    }

    async fn give_up(self, node: &Node, failure: Failure, sink: &mut Sink<'_>) {
        match failure {
            Failure::Client(fault) => broken_off(self.account, fault, sink).await,
            Failure::Cut => cut(self.account, sink).await,
            Failure::Unsent { cause, reason, .. } | Failure::Sent { cause, reason } => {
                let status = if cause == cause::TIMEOUT { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
                tracing::warn!(node = node.name, cause, reason, "a request failed");
                self.fail(status, cause, &format!("node {}: {reason}", node.name), sink).await;
            }
        }
    }

    async fn fail(self, status: StatusCode, cause: &'static str, reason: &str, sink: &mut Sink<'_>) {
        self.account.answered_by_proxy(status.as_u16());
        self.account.close(End::Failed(cause));
        sink.text(status, &format!("{cause}: {reason}"), false).await;
    }
}

/// What one try works with.
struct Talk<'a> {
    link: Link,
    service: &'a Service,
    exchange: &'a Exchange,
    /// Taken when the answer begins.
    claim: &'a mut Option<Claim>,
    upload: Option<&'a Upload>,
}

/// What came of a conversation with a node that answered.
enum Spoken {
    /// The answer was passed on, with so many bytes of body; or not to its end.
    Over(Result<u64, BrokenOff>),
    /// Both sides speak another protocol now.
    Switched,
}

/// Who ended an answer before its end.
enum BrokenOff {
    ByNode,
    ByClient,
}

/// Whose word came first.
enum Heard<T> {
    Node(T),
    Client(SourceFault),
}

/// Waits for the node, while the client's side goes on. What both say at once, the node has said first.
async fn hear<T>(client: &mut Pin<&mut impl Future<Output = SourceFault>>, node: impl Future<Output = T>) -> Heard<T> {
    let mut node = pin!(node);
    poll_fn(|cx| {
        if let Poll::Ready(said) = node.as_mut().poll(cx) {
            return Poll::Ready(Heard::Node(said));
        }
        client.as_mut().poll(cx).map(Heard::Client)
    })
    .await
}

/// What comes of this, or `None` when the client goes before.
async fn unless_gone<T>(sink: &mut Sink<'_>, act: impl Future<Output = T>) -> Option<T> {
    let mut act = pin!(act);
    poll_fn(|cx| {
        if let Poll::Ready(done) = act.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        sink.poll_gone(cx).map(|()| None)
    })
    .await
}

/// Sends the body after its head, and then looks whether the client is still there. Ends only with the client's side of the request.
async fn send_rest(source: &mut Source<'_>, writer: Writer, upload: Option<&Upload>, timeouts: Timeouts) -> SourceFault {
    if matches!(writer, Writer::Torn) {
        return pending().await;
    }
    if let Some(upload) = upload {
        match send_body(source, writer, upload, timeouts).await {
            Ok(()) => upload.ended.set(true),
            Err(NotSent::ByClient(fault)) => return fault,
            // It may have answered before it closed: that is for whoever reads the answer.
            Err(NotSent::ByNode) => return pending().await,
        }
    }
    source.gone().await;
    SourceFault::Broken
}

/// Why a body was not sent whole.
enum NotSent {
    ByClient(SourceFault),
    ByNode,
}

impl From<link::NotTaken> for NotSent {
    fn from(_: link::NotTaken) -> Self {
        NotSent::ByNode
    }
}

async fn send_body(source: &mut Source<'_>, mut writer: Writer, upload: &Upload, timeouts: Timeouts) -> Result<(), NotSent> {
    let limit = Duration::from_millis(timeouts.answer_ms);
    loop {
        // An upload that goes on is movement; while the next bytes are the client's to send, the node is not late.
        if upload.is_answered.get() {
            source.withhold_word();
        } else {
            writer.expect_answer_by(None);
        }
        let next = source.next(Duration::from_millis(timeouts.body_ms), None).await.map_err(NotSent::ByClient)?;
        upload.moved.set(Some(Instant::now()));
        if !upload.is_answered.get() {
            writer.expect_answer_by(Some(Instant::now() + limit));
        }
        let Some(length) = next else {
            writer.finish(source.trailers()).await?;
            return Ok(());
        };
        if length >= SMALL_PIECE || !source.has_more_after(length) {
            writer.data(&source.data()[..length], limit).await?;
            source.consume(length);
            continue;
        }
        // Tiny chunks of a client would each be a packet to the node.
        let mut gathered = Vec::with_capacity(SMALL_PIECE);
        let mut next = Some(length);
        while let Some(length) = next.filter(|length| gathered.len() + length <= 2 * SMALL_PIECE) {
            gathered.extend_from_slice(&source.data()[..length]);
            source.consume(length);
            next = source.ready();
        }
        writer.data(&gathered, limit).await?;
    }
}

/// Passes an answer's body on, in pieces as they come.
async fn hand_on(core: &Core, link: &mut Link, sink: &mut Sink<'_>, timeouts: Timeouts) -> Result<u64, BrokenOff> {
    let silence = (timeouts.answer_body_ms > 0).then(|| Duration::from_millis(timeouts.answer_body_ms));
    let mut body = link.body();
    let mut bytes = 0;
    loop {
        let next = match body.piece()? {
            Some(piece) => piece,
            None => {
                sink.flush().await?;
                unless_gone(sink, body.next(&core.buffers, silence)).await.ok_or(BrokenOff::ByClient)??
            }
        };
        let Some(length) = next else { break };
        sink.data(&body.data()[..length]).await?;
        body.consume(length);
        bytes += length as u64;
    }
    sink.finish(body.trailers()).await?;
    if let Link::Http1(connection) = link {
        connection.inlet.rest(&core.buffers);
    }
    Ok(bytes)
}

impl From<Torn> for BrokenOff {
    fn from(_: Torn) -> Self {
        BrokenOff::ByNode
    }
}

impl From<Unheard> for BrokenOff {
    fn from(_: Unheard) -> Self {
        BrokenOff::ByClient
    }
}

fn bad_answer(reason: String) -> Failure {
    Failure::Sent { cause: cause::BAD_ANSWER, reason }
}

/// What a connection that could not be had says of the node.
fn unconnected(node: &Node, error: &io::Error, limit: Duration) -> Failure {
    let reason = connect_failure(error, limit);
    let is_nodes_fault = is_nodes_fault(error);
    match error.kind() {
        // Perhaps it only has too much to do: that is for its checks to say.
        ErrorKind::TimedOut => node.check_now.notify_one(),
        _ if is_nodes_fault => node.note_refused(&reason),
        _ => {}
    }
    Failure::Unsent { cause: cause::CONNECT, reason, is_nodes_fault }
}

/// It was waited for as long as it may be; the kernel's own time-out is another one, and means that nobody is there any more.
fn is_own_limit(error: &io::Error) -> bool {
    error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none()
}

/// Nobody listens there; a want of descriptors or ports is the proxy's own and says nothing about the node.
fn is_nodes_fault(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut)
}
