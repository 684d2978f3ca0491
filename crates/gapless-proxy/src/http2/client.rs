//! A client's connection of HTTP/2: requests side by side, each in a task of its own.

use super::body::{Incoming, Outgoing, Switch, Unsent, add};
use crate::buffer::Inlet;
use crate::client::{self, SourceFault, TOO_LARGE, Unheard};
use crate::core::Core;
use crate::exchange::Abort;
use crate::fields::{Fields, Name};
use crate::forward;
use crate::http1::head::Framing;
use crate::http1::node::Answer;
use crate::request::{Client, Inbound};
use crate::stream::{Duplex, Stream};
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, StatusCode};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::spawn_local;

/// How many requests of one connection may be under way: browsers ask for a hundred things at once.
const STREAM_LIMIT: u32 = 128;
/// So many bytes of one body may be on their way to the proxy and not passed on.
const STREAM_WINDOW: u32 = 256 * 1024;
/// So many of all bodies of one connection: this is the memory that one connection may hold.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// So many bytes of one answer may wait to be written.
const SEND_BUFFER: usize = 128 * 1024;
/// So many requests that the client took back may be remembered; with more it is disconnected (CVE-2023-44487).
const RESET_LIMIT: usize = 32;

/// Serves a client until its connection ends. `inlet`: what was read of it already, and was seen to be HTTP/2.
pub(crate) async fn serve(core: &Rc<Core>, stream: &Rc<Stream>, inlet: Inlet, client: Client) {
    let limits = core.settings.borrow().clients.clone();
    stream.read_by(Some(Instant::now() + Duration::from_millis(limits.head_ms)));
    stream.write_by(None);
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAM_LIMIT)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_LIMIT)
        .max_pending_accept_reset_streams(RESET_LIMIT)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .handshake(Duplex { stream: stream.clone(), inlet });
    let Ok(mut connection) = handshake.await else { return };
    let under_way = Rc::new(Cell::new(0_usize));
    let idle = Duration::from_millis(limits.idle_ms);
    stream.read_by(Some(Instant::now() + idle));
    // What went wrong with the connection is the client's, or was counted when it happened.
    while let Some(Ok((request, respond))) = next_request(core, &mut connection).await {
        under_way.set(under_way.get() + 1);
        // Its requests have their own limits while there are any.
        stream.read_by(None);
        let (core, stream, client, under_way) = (core.clone(), stream.clone(), client.clone(), under_way.clone());
        spawn_local(async move {
            answer(&core, &client, request, respond).await;
            under_way.set(under_way.get() - 1);
            if under_way.get() == 0 {
                stream.read_by(Some(Instant::now() + idle));
            }
        });
    }
}

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Waits for a request, and carries those that are under way meanwhile. A worker that leaves says so (RFC 9113, section 6.8): what the client has sent by then is answered.
async fn next_request(core: &Core, connection: &mut Connection<Duplex, Bytes>) -> Option<Result<Asked, h2::Error>> {
    poll_fn(|cx| {
        if core.is_leaving() {
            connection.graceful_shutdown();
        }
        connection.poll_accept(cx)
    })
    .await
}

async fn answer(core: &Rc<Core>, client: &Client, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    let body = Incoming::new(body);
    let mut inbound = Inbound::default();
    let read = inbound.read_http2(&head, body.is_over(), core.settings.borrow().clients.head_fields, || core.new_id());
    let mut source = client::Source::Http2(Source { body, most: u64::MAX, taken: 0 });
    let mut sink =
        client::Sink::Http2(Sink { inbound: &inbound, respond, body: None, switch: Rc::default(), left: None, unread: UNREAD_LIMIT });
    match read {
        Ok(()) => forward::respond(core, client, &inbound, &mut source, &mut sink).await,
        Err(refusal) => forward::refuse(core, &mut sink, &refusal).await,
    }
    // One that was answered before its body was read: a reset could overtake the answer, so what is on its way is read over first.
    let until = Instant::now() + LINGER_LIMIT;
    while let Ok(Some(length)) = source.next(LINGER_LIMIT, Some(until)).await {
        source.consume(length);
    }
}

/// How long what a client still sends is read over after its answer.
const LINGER_LIMIT: Duration = Duration::from_secs(2);

/// How long a client may leave a short answer of the proxy's own unread.
const UNREAD_LIMIT: Duration = Duration::from_secs(10);

/// A request's body, as it comes.
pub(crate) struct Source {
    body: Incoming,
    /// So many bytes it may have, and so many were taken.
    pub(crate) most: u64,
    taken: u64,
}

impl Source {
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    pub(crate) async fn next(&mut self, silence: Duration, until: Option<Instant>) -> Result<Option<usize>, SourceFault> {
        let next = if self.body.has_data() || self.body.is_over() {
            self.body.next().await
        } else {
            let latest = Instant::now() + silence;
            let latest = until.map_or(latest, |until| until.min(latest));
            tokio::time::timeout_at(latest.into(), self.body.next()).await.map_err(|_| SourceFault::Late)?
        };
        let next = next.map_err(|_| SourceFault::Broken)?;
        if next.is_some_and(|length| self.taken + length as u64 > self.most) {
            return Err(SourceFault::Refused(TOO_LARGE));
        }
        Ok(next)
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.body.data()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        self.body.consume(count);
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.body.trailers()
    }
}

/// Where an answer goes.
pub(crate) struct Sink<'a> {
    inbound: &'a Inbound,
    respond: SendResponse<Bytes>,
    body: Option<Outgoing>,
    switch: Rc<Switch>,
    /// So many bytes of the body are left, if its length is known.
    left: Option<u64>,
    /// How long the client may leave what it gets unread.
    pub(crate) unread: Duration,
}

impl From<Unsent> for Unheard {
    fn from(_: Unsent) -> Self {
        Unheard
    }
}

impl Sink<'_> {
    pub(crate) fn abort(&self) -> Rc<dyn Abort> {
        self.switch.clone()
    }

    pub(crate) fn break_off(&mut self) {
        match &mut self.body {
            Some(body) => body.break_off(),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_gone(cx),
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    pub(crate) fn begin(&mut self, answer: &Answer, own: &[(&[u8], &[u8])]) {
        let mut headers = headers_of(answer);
        own.iter().for_each(|(name, value)| add(&mut headers, name, value));
        self.left = match answer.framing {
            Framing::Length(length) => Some(length),
            Framing::Empty => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        };
        match (self.left, answer.fields.first(Name::ContentLength)) {
            (Some(0), Some(told)) if answer.status != 204 => add(&mut headers, b"content-length", told),
            (Some(length), _) if length > 0 => add(&mut headers, b"content-length", length.to_string().as_bytes()),
            _ => {}
        }
        self.send_head(answer.status, headers, self.left == Some(0));
    }

    /// Whether the client takes it is seen at the body, or does not matter any more.
    fn send_head(&mut self, status: u16, headers: HeaderMap, is_end: bool) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        *response.headers_mut() = headers;
        if let Ok(stream) = self.respond.send_response(response, is_end) {
            self.body = Some(Outgoing::new(stream, self.switch.clone(), is_end));
        }
    }

    pub(crate) fn interim(&mut self, answer: &Answer) -> Result<(), Unheard> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(answer.status).map_err(|_| Unheard)?;
        *response.headers_mut() = headers_of(answer);
        self.respond.send_informational(response).map_err(|_| Unheard)
    }

    pub(crate) async fn data(&mut self, bytes: &[u8]) -> Result<(), Unheard> {
        let Some(body) = &mut self.body else { return Err(Unheard) };
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        body.data(bytes, self.left == Some(0), self.unread).await?;
        Ok(())
    }

    pub(crate) fn flush(&self) -> Result<(), Unheard> {
        if self.body.is_some() { Ok(()) } else { Err(Unheard) }
    }

    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Unheard> {
        let Some(body) = &mut self.body else { return Err(Unheard) };
        body.finish(trailers)?;
        Ok(())
    }

    pub(crate) async fn own(&mut self, status: StatusCode, kind: &str, text: &str, fields: &[(&str, String)]) {
        let mut headers = HeaderMap::new();
        add(&mut headers, b"content-type", kind.as_bytes());
        add(&mut headers, b"date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
        add(&mut headers, b"content-length", text.len().to_string().as_bytes());
        fields.iter().for_each(|(name, value)| add(&mut headers, name.as_bytes(), value.as_bytes()));
        let is_end = text.is_empty() || self.inbound.method == Method::HEAD;
        self.send_head(status.as_u16(), headers, is_end);
        if let Some(body) = self.body.as_mut().filter(|_| !is_end) {
            // Who does not take it has gone.
            let _ = body.data(text.as_bytes(), true, self.unread).await;
        }
    }
}

/// What of a node's head goes to the client.
fn headers_of(answer: &Answer) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(answer.fields.len() + 4);
    for field in answer.fields.passed_on().filter(|field| !matches!(field.known, Name::GaplessNode | Name::GaplessRelease)) {
        add(&mut headers, field.name, field.value);
    }
    headers
}
