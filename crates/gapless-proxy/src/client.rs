//! The client's side of a request, whatever it speaks: where the body comes from, and where the answer goes.

use crate::exchange::Abort;
use crate::fields::Fields;
use crate::http1;
use crate::http1::client::End;
use crate::http1::node::Answer;
use crate::http2;
use crate::request::Refusal;
use hyper::StatusCode;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Why a request's body came to no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceFault {
    /// The client broke it off.
    Broken,
    /// It did not come in time.
    Late,
    /// It is not what its head says.
    Refused(Refusal),
}

/// A body that is larger than its service takes.
pub(crate) const TOO_LARGE: Refusal = Refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is larger than this service takes");

/// The client does not take the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unheard;

/// A request's body, as it comes.
pub(crate) enum Source<'a> {
    Http1(http1::client::Source<'a>),
    Http2(http2::client::Source),
}

impl Source<'_> {
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Source::Http1(source) => source.is_over(),
            Source::Http2(source) => source.is_over(),
        }
    }

    /// It may have so many bytes.
    pub(crate) fn limit(&mut self, most: u64) {
        match self {
            Source::Http1(source) => source.most = most,
            Source::Http2(source) => source.most = most,
        }
    }

    /// Looks at what has come of the body already.
    ///
    /// # Errors
    /// When it is no body.
    pub(crate) fn check_begun(&mut self) -> Result<(), Refusal> {
        match self {
            Source::Http1(source) => source.check_begun(),
            Source::Http2(_) => Ok(()),
        }
    }

    /// Waits for a piece of so many bytes, or the end. `silence`: how long the client may send nothing; `until`: when it must have sent all of it.
    ///
    /// # Errors
    /// When the client breaks it off, sends nothing for too long, or what is no body.
    pub(crate) async fn next(&mut self, silence: Duration, until: Option<Instant>) -> Result<Option<usize>, SourceFault> {
        match self {
            Source::Http1(source) => source.next(silence, until).await,
            Source::Http2(source) => source.next(silence, until).await,
        }
    }

    pub(crate) fn data(&self) -> &[u8] {
        match self {
            Source::Http1(source) => source.data(),
            Source::Http2(source) => source.data(),
        }
    }

    /// Uses up so many bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        match self {
            Source::Http1(source) => source.consume(count),
            Source::Http2(source) => source.consume(count),
        }
    }

    /// The next piece of so many bytes, if it is here already.
    pub(crate) fn ready(&mut self) -> Option<usize> {
        match self {
            Source::Http1(source) => source.ready(),
            Source::Http2(_) => None,
        }
    }

    /// Whether more than so many bytes have come, so that a further piece may be here.
    pub(crate) fn has_more_after(&self, length: usize) -> bool {
        self.data().len() > length
    }

    /// The answer has begun: a client that waits for a word before it sends its body gets none any more.
    pub(crate) fn withhold_word(&mut self) {
        if let Source::Http1(source) = self {
            source.withhold_word();
        }
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        match self {
            Source::Http1(source) => source.trailers(),
            Source::Http2(source) => source.trailers(),
        }
    }

    /// Returns when the client has gone, after its body, as far as that is seen here.
    pub(crate) async fn gone(&mut self) {
        match self {
            Source::Http1(source) => source.gone().await,
            Source::Http2(_) => std::future::pending().await,
        }
    }
}

/// Where an answer goes.
pub(crate) enum Sink<'a> {
    Http1(http1::client::Sink<'a>),
    Http2(http2::client::Sink<'a>),
}

impl Sink<'_> {
    /// How the answer left its connection. That of HTTP/2 goes on whatever becomes of one answer.
    pub(crate) fn end(&self) -> End {
        match self {
            Sink::Http1(sink) => sink.end(),
            Sink::Http2(_) => End::GoesOn,
        }
    }

    /// No request may follow on this connection, if this is so. One of HTTP/2 carries others.
    pub(crate) fn close_if(&mut self, is_so: bool) {
        if let Sink::Http1(sink) = self {
            sink.must_close |= is_so;
        }
    }

    /// How long the client may leave what it gets unread.
    pub(crate) fn wait_for_reader(&mut self, limit: Duration) {
        match self {
            Sink::Http1(sink) => sink.unread = limit,
            Sink::Http2(sink) => sink.unread = limit,
        }
    }

    /// Only a reset can tell this client that an answer is not whole.
    pub(crate) fn needs_reset(&self) -> bool {
        matches!(self, Sink::Http1(sink) if sink.needs_reset())
    }

    /// What breaks the answer off from outside.
    pub(crate) fn abort(&self) -> Rc<dyn Abort> {
        match self {
            Sink::Http1(sink) => sink.stream.clone(),
            Sink::Http2(sink) => sink.abort(),
        }
    }

    /// The answer has no end, because the node's has none.
    pub(crate) fn break_off(&mut self) {
        match self {
            Sink::Http1(sink) if sink.needs_reset() => sink.stream.reset_at_close(),
            Sink::Http1(_) => {}
            Sink::Http2(sink) => sink.break_off(),
        }
    }

    /// Ready when the client has gone, as far as that is seen here.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sink::Http1(_) => Poll::Pending,
            Sink::Http2(sink) => sink.poll_gone(cx),
        }
    }

    /// Passes the head of a node's answer on, with these fields of the proxy's own.
    pub(crate) fn begin(&mut self, answer: &Answer, own: &[(&[u8], &[u8])]) {
        match self {
            Sink::Http1(sink) => sink.begin(answer, own),
            Sink::Http2(sink) => sink.begin(answer, own),
        }
    }

    /// Passes an interim answer on (RFC 9110, section 15.2).
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn interim(&mut self, answer: &Answer) -> Result<(), Unheard> {
        match self {
            Sink::Http1(sink) => sink.interim(answer).await,
            Sink::Http2(sink) => sink.interim(answer),
        }
    }

    /// Answers that the connection speaks the other protocol from here on; one of HTTP/2 cannot.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn switch(&mut self, answer: &Answer, own: &[(&[u8], &[u8])]) -> Result<(), Unheard> {
        match self {
            Sink::Http1(sink) => sink.switch(answer, own).await,
            Sink::Http2(_) => Err(Unheard),
        }
    }

    /// Passes a piece of the body on. A small one may wait for [`Self::flush`] or [`Self::finish`].
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn data(&mut self, bytes: &[u8]) -> Result<(), Unheard> {
        match self {
            Sink::Http1(sink) => sink.data(bytes).await,
            Sink::Http2(sink) => sink.data(bytes).await,
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn flush(&mut self) -> Result<(), Unheard> {
        match self {
            Sink::Http1(sink) => sink.flush().await,
            Sink::Http2(sink) => sink.flush(),
        }
    }

    /// Ends the body, and with it the answer.
    ///
    /// # Errors
    /// When the client does not take it.
    pub(crate) async fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Unheard> {
        match self {
            Sink::Http1(sink) => sink.finish(trailers).await,
            Sink::Http2(sink) => sink.finish(trailers),
        }
    }

    /// Answers with a short text of the proxy's own.
    pub(crate) async fn text(&mut self, status: StatusCode, text: &str, closes: bool) {
        self.own(status, "text/plain; charset=utf-8", &format!("{text}\n"), &[], closes).await;
    }

    /// Answers with a body of the proxy's own.
    pub(crate) async fn own(&mut self, status: StatusCode, kind: &str, body: &str, fields: &[(&str, String)], closes: bool) {
        match self {
            Sink::Http1(sink) => sink.own(status, kind, body, fields, closes).await,
            Sink::Http2(sink) => sink.own(status, kind, body, fields).await,
        }
    }
}
