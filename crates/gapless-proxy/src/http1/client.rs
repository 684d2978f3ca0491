//! A client's connection: one request after another.

use super::body::{BodyFault, BodyReader, Piece};
use super::head::{EndOfHead, Fault, Framing};
use super::node::Answer;
use crate::buffer::{Buffers, Inlet};
use crate::client::{self, SourceFault, TOO_LARGE, Unheard};
use crate::core::Core;
use crate::fields::{Field, Fields, Name};
use crate::forward;
use crate::http2;
use crate::request::{Client, Inbound, Protocol, Refusal};
use crate::stream::{Stream, Unwritten};
use gapless_wire::settings::Clients;
use hyper::{Method, StatusCode};
use std::future::{pending, poll_fn};
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

/// So many bytes a connection keeps to write heads into while it waits; whoever needed more gives them back.
pub(crate) const KEPT_CAPACITY: usize = 4 * 1024;
/// Empty lines before a request that are read over: some old clients send one after a body (RFC 9112, section 2.2).
const EMPTY_LINES: usize = 2;
/// How long a client may leave a short answer of the proxy's own unread.
const UNREAD_LIMIT: Duration = Duration::from_secs(10);
/// How long what a client still sends is read over after the last answer, so that the close does not destroy that answer on its way.
const LINGER_LIMIT: Duration = Duration::from_secs(2);
/// A piece of a body of at most so many bytes is copied behind what waits to be written; a larger one is written from where it is.
const COPIED: usize = 4 * 1024;

/// Serves a client until its connection ends.
pub(crate) async fn serve(core: &Rc<Core>, stream: &Rc<Stream>, client: Client) {
    let (mut inlet, mut inbound, mut out) = (Inlet::default(), Inbound::default(), Vec::new());
    let mut is_first = true;
    loop {
        let limits = core.settings.borrow().clients.clone();
        let is_first = std::mem::take(&mut is_first);
        let read = match next_head(core, &limits, stream, &mut inlet).await {
            Ok(Some(length)) if inlet.data()[..length] == *http2::PREFACE_HEAD && is_first => {
                return http2::client::serve(core, stream, inlet, client).await;
            }
            Ok(Some(length)) => {
                let read = inbound.read(&inlet.data()[..length], limits.head_fields, || core.new_id());
                inlet.consume(length);
                read
            }
            Ok(None) => return,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = read {
            inbound = Inbound::default();
            let mut sink = Sink::new(core, stream, &inbound, &mut out);
            sink.must_close = true;
            forward::refuse(core, &mut client::Sink::Http1(sink), &refusal).await;
            return linger(core, stream, &mut inlet).await;
        }
        let sink = Sink::new(core, stream, &inbound, &mut out);
        let source = Source {
            inlet: &mut inlet,
            stream,
            buffers: &core.buffers,
            reader: BodyReader::new(inbound.framing),
            owes_word: inbound.expects_continue,
            most: u64::MAX,
            taken: 0,
        };
        let (mut source, mut sink) = (client::Source::Http1(source), client::Sink::Http1(sink));
        forward::respond(core, &client, &inbound, &mut source, &mut sink).await;
        let (end, is_read) = (sink.end(), source.is_over());
        match end {
            End::GoesOn if is_read => {
                inlet.rest(&core.buffers);
                inbound.shrink();
                out.clear();
                out.shrink_to(KEPT_CAPACITY);
            }
            End::Broken => return,
            End::GoesOn | End::Closes => {
                let has_more = !is_read || !inlet.data().is_empty();
                return if has_more { linger(core, stream, &mut inlet).await } else { stream.close_writing() };
            }
        }
    }
}

/// Waits for a request, and says how long its head is; `None`: there is none any more.
///
/// # Errors
/// When what came can be no request, or took too long.
async fn next_head(core: &Core, limits: &Clients, stream: &Stream, inlet: &mut Inlet) -> Result<Option<usize>, Refusal> {
    let mut end = EndOfHead::default();
    let mut empty_lines = 0;
    let mut has_begun = false;
    loop {
        while end.is_at_the_beginning() && empty_lines < EMPTY_LINES && inlet.data().starts_with(b"\r\n") {
            inlet.consume(2);
            empty_lines += 1;
        }
        let found = end.find(inlet.data())?;
        if found.unwrap_or(inlet.data().len()) > limits.head_bytes {
            let first_line = memchr::memchr(b'\n', inlet.data()).unwrap_or(usize::MAX);
            return Err(if first_line > limits.head_bytes { Fault::TargetTooLong } else { Fault::TooLarge }.into());
        }
        if found.is_some() {
            return Ok(found);
        }
        if !has_begun {
            has_begun = !inlet.data().is_empty();
            let limit = Duration::from_millis(if has_begun { limits.head_ms } else { limits.idle_ms });
            stream.read_by(Some(Instant::now() + limit));
        }
        let filled = poll_fn(|cx| {
            let polled = inlet.poll_fill(cx, stream, &core.buffers);
            // Nothing has begun, and nothing is on its way that the kernel knows of.
            if polled.is_pending() && core.closes_idle() && inlet.data().is_empty() && stream.is_quiet() {
                stream.close_writing();
                return Poll::Ready(Ok(0));
            }
            polled
        });
        match filled.await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::TimedOut && has_begun => {
                return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the request's head did not come in time"));
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Ends a connection whose client may still be sending: a plain close would answer that with a reset, which destroys what the client has not read yet.
async fn linger(core: &Core, stream: &Stream, inlet: &mut Inlet) {
    stream.close_writing();
    stream.read_by(Some(Instant::now() + LINGER_LIMIT));
    let until = Instant::now() + LINGER_LIMIT;
    while Instant::now() < until {
        inlet.consume(inlet.data().len());
        if !matches!(inlet.fill(stream, &core.buffers).await, Ok(1..)) {
            return;
        }
    }
}

/// A request's body, as it comes.
pub(crate) struct Source<'a> {
    pub(crate) inlet: &'a mut Inlet,
    pub(crate) stream: &'a Rc<Stream>,
    buffers: &'a Buffers,
    reader: BodyReader,
    /// The client waits for a word before it sends.
    owes_word: bool,
    /// So many bytes it may have, and so many were taken.
    pub(crate) most: u64,
    taken: u64,
}

impl Source<'_> {
    pub(crate) fn is_over(&self) -> bool {
        self.reader.is_over()
    }

    /// Waits for a piece of so many bytes, or the end. `silence`: how long the client may send nothing; `until`: when it must have sent all of it.
    ///
    /// # Errors
    /// When the client breaks it off, sends nothing for too long, or what is no body.
    pub(crate) async fn next(&mut self, silence: Duration, until: Option<Instant>) -> Result<Option<usize>, SourceFault> {
        if std::mem::take(&mut self.owes_word) && self.inlet.data().is_empty() {
            // Whether it is heard is seen at the body.
            let _ = self.stream.write(&mut [IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")]).await;
        }
        let latest = Instant::now() + silence;
        self.stream.read_by(Some(until.map_or(latest, |until| until.min(latest))));
        let next = self.reader.next(self.inlet, self.stream, self.buffers).await;
        self.stream.read_by(None);
        if let Ok(Some(length)) = next
            && self.taken + length as u64 > self.most
        {
            return Err(SourceFault::Refused(TOO_LARGE));
        }
        next.map_err(|fault| match fault {
            BodyFault::Malformed(fault) => SourceFault::Refused(fault.into()),
            BodyFault::Broken(error) if error.kind() == ErrorKind::TimedOut => SourceFault::Late,
            BodyFault::Broken(_) => SourceFault::Broken,
        })
    }

    /// Looks at what has come of the body already.
    ///
    /// # Errors
    /// When it is no body.
    pub(crate) fn check_begun(&mut self) -> Result<(), Refusal> {
        self.reader.piece(self.inlet).map(|_| ()).map_err(Refusal::from)
    }

    /// The next piece of so many bytes, if it is here already, and not too much.
    pub(crate) fn ready(&mut self) -> Option<usize> {
        match self.reader.piece(self.inlet) {
            Ok(Piece::Data(length)) if self.taken + length as u64 <= self.most => Some(length),
            _ => None,
        }
    }

    pub(crate) fn withhold_word(&mut self) {
        self.owes_word = false;
    }

    pub(crate) fn data(&self) -> &[u8] {
        self.inlet.data()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        self.reader.consume(self.inlet, count);
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.reader.trailers()
    }

    /// Returns when the client has gone, after its body. Behind a further request that is there already nobody sees it.
    pub(crate) async fn gone(&mut self) {
        self.stream.read_by(None);
        self.inlet.rest(self.buffers);
        while self.inlet.data().is_empty() {
            if !matches!(self.inlet.fill(self.stream, self.buffers).await, Ok(1..)) {
                return;
            }
        }
        pending().await
    }
}

/// How an answer left its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Ready for another request.
    GoesOn,
    /// The answer was the last one.
    Closes,
    /// The answer is not whole.
    Broken,
}

/// How an answer's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Plain,
    Chunked,
}

/// Where an answer goes.
pub(crate) struct Sink<'a> {
    core: &'a Core,
    pub(crate) stream: &'a Rc<Stream>,
    inbound: &'a Inbound,
    out: &'a mut Vec<u8>,
    body: Written,
    /// No request may follow on this connection.
    pub(crate) must_close: bool,
    /// How long the client may leave what it gets unread.
    pub(crate) unread: Duration,
    closes: bool,
    is_over: bool,
}

impl From<Unwritten> for Unheard {
    fn from(_: Unwritten) -> Self {
        Unheard
    }
}

impl<'a> Sink<'a> {
    fn new(core: &'a Core, stream: &'a Rc<Stream>, inbound: &'a Inbound, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self { core, stream, inbound, out, body: Written::Plain, must_close: false, unread: UNREAD_LIMIT, closes: false, is_over: false }
    }

    pub(crate) fn end(&self) -> End {
        match (self.is_over, self.closes) {
            (false, _) => End::Broken,
            (true, true) => End::Closes,
            (true, false) => End::GoesOn,
        }
    }

    /// Only a reset can tell this client that an answer is not whole (HTTP/1.0 knows no chunks).
    pub(crate) fn needs_reset(&self) -> bool {
        self.inbound.protocol == Protocol::Http10
    }

    /// Passes the head of a node's answer on, with these fields of the proxy's own.
    pub(crate) fn begin(&mut self, answer: &Answer, own: &[(&[u8], &[u8])]) {
        let framing = answer.framing;
        self.status_line(answer.status, &answer.reason);
        self.pass_fields(answer, own);
        self.closes = self.must_close || !self.inbound.keeps_connection || self.core.is_leaving();
        match framing {
            Framing::Length(length) => self.line(b"content-length", length.to_string().as_bytes()),
            Framing::Empty => self.length_of_none(answer),
            Framing::Chunked | Framing::UntilClose if self.inbound.protocol == Protocol::Http10 => self.closes = true,
            Framing::Chunked | Framing::UntilClose => {
                self.body = Written::Chunked;
                self.line(b"transfer-encoding", b"chunked");
            }
        }
        self.end_of_head();
    }

    /// An answer without a body may still tell the length that one would have (RFC 9110, section 8.6).
    fn length_of_none(&mut self, answer: &Answer) {
        let told = answer.fields.first(Name::ContentLength);
        match told {
            Some(length) if answer.status != 204 => self.line(b"content-length", length),
            None if self.inbound.method == Method::HEAD
                && answer.status != 204
                && self.inbound.protocol != Protocol::Http10
                && answer.fields.has(Name::TransferEncoding) =>
            {
                self.line(b"transfer-encoding", b"chunked");
            }
            _ => {}
        }
    }

    fn end_of_head(&mut self) {
        match (self.closes, self.inbound.protocol) {
            (true, _) => self.line(b"connection", b"close"),
            (false, Protocol::Http10) => self.line(b"connection", b"keep-alive"),
            (false, _) => {}
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn status_line(&mut self, status: u16, reason: &str) {
        let version: &[u8] = if self.inbound.protocol == Protocol::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " };
        self.out.extend_from_slice(version);
        let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + u8::try_from(digit).unwrap_or(9));
        self.out.extend_from_slice(&digits);
        self.out.push(b' ');
        self.out.extend_from_slice(reason.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// What the proxy says of itself, no node says in its place.
    fn pass_fields(&mut self, answer: &Answer, own: &[(&[u8], &[u8])]) {
        for Field { name, value, known } in answer.fields.passed_on() {
            if !matches!(known, Name::GaplessNode | Name::GaplessRelease) {
                self.line(name, value);
            }
        }
        own.iter().for_each(|(name, value)| self.line(name, value));
        // It says which protocol would do (RFC 9110, section 15.5.22).
        if answer.status == 426 {
            answer.fields.all(Name::Upgrade).for_each(|protocol| self.line(b"upgrade", protocol));
        }
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, b": ", value, b"\r\n"] {
            self.out.extend_from_slice(part);
        }
    }

    /// Passes an interim answer on (RFC 9110, section 15.2), which a client of HTTP/1.0 would not understand.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn interim(&mut self, answer: &Answer) -> Result<(), Unheard> {
        if self.inbound.protocol == Protocol::Http10 {
            return Ok(());
        }
        self.status_line(answer.status, &answer.reason);
        self.pass_fields(answer, &[]);
        self.out.extend_from_slice(b"\r\n");
        self.flush().await
    }

    /// Answers that the connection speaks the other protocol from here on.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn switch(&mut self, answer: &Answer, own: &[(&[u8], &[u8])]) -> Result<(), Unheard> {
        self.status_line(answer.status, &answer.reason);
        self.pass_fields(answer, own);
        self.line(b"connection", b"upgrade");
        answer.fields.all(Name::Upgrade).for_each(|protocol| self.line(b"upgrade", protocol));
        self.out.extend_from_slice(b"\r\n");
        self.flush().await
    }

    /// Passes a piece of the body on. A small one may wait for [`Self::flush`] or [`Self::finish`].
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn data(&mut self, bytes: &[u8]) -> Result<(), Unheard> {
        let end: &[u8] = match self.body {
            Written::Plain => b"",
            Written::Chunked => {
                self.out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                b"\r\n"
            }
        };
        if bytes.len() <= COPIED {
            self.out.extend_from_slice(bytes);
            self.out.extend_from_slice(end);
            return if self.out.len() > COPIED { self.flush().await } else { Ok(()) };
        }
        self.stream.write_by(Some(Instant::now() + self.unread));
        self.stream.write(&mut [IoSlice::new(self.out), IoSlice::new(bytes), IoSlice::new(end)]).await?;
        self.out.clear();
        Ok(())
    }

    /// Ends the body, and with it the answer.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Unheard> {
        if self.body == Written::Chunked {
            self.out.extend_from_slice(b"0\r\n");
            write_trailers(self.out, trailers);
        }
        self.flush().await?;
        self.is_over = true;
        Ok(())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn flush(&mut self) -> Result<(), Unheard> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.write_by(Some(Instant::now() + self.unread));
        self.stream.write(&mut [IoSlice::new(self.out)]).await?;
        self.out.clear();
        Ok(())
    }

    /// Answers with a body of the proxy's own.
    pub(crate) async fn own(&mut self, status: StatusCode, kind: &str, body: &str, fields: &[(&str, String)], closes: bool) {
        self.status_line(status.as_u16(), status.canonical_reason().unwrap_or_default());
        self.line(b"content-type", kind.as_bytes());
        // Who has a clock tells its date (RFC 9110, section 6.6.1).
        self.line(b"date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
        fields.iter().for_each(|(name, value)| self.line(name.as_bytes(), value.as_bytes()));
        self.line(b"content-length", body.len().to_string().as_bytes());
        self.closes = closes || self.must_close || !self.inbound.keeps_connection || self.core.is_leaving();
        self.end_of_head();
        if self.inbound.method != Method::HEAD {
            self.out.extend_from_slice(body.as_bytes());
        }
        self.is_over = self.flush().await.is_ok();
    }
}

/// Writes the fields after the last chunk that may go beyond this connection, and the end. What frames or routes a message, or says who sent it, is none of a trailer's business
/// (RFC 9110, section 6.5.1).
pub(crate) fn write_trailers(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    for field in trailers.into_iter().flat_map(Fields::passed_on).filter(|field| field.known == Name::Other) {
        for part in [field.name, b": ", field.value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}
