//! Bodies of HTTP/2, as they come and as they are sent, within the windows that the other side grants.

use crate::exchange::Abort;
use crate::fields::{Fields, Name};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A body that comes.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    chunk: Bytes,
    is_over: bool,
    trailers: Option<Fields>,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        let is_over = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), is_over, trailers: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over || (self.chunk.is_empty() && self.stream.is_end_stream())
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.chunk
    }

    /// Whether something can be taken without a wait.
    pub(crate) fn has_data(&self) -> bool {
        !self.chunk.is_empty()
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    /// Uses up so many bytes, and lets the other side send as many more.
    pub(crate) fn consume(&mut self, count: usize) {
        let _ = self.chunk.split_to(count.min(self.chunk.len()));
        // One that is over needs no room.
        let _ = self.stream.flow_control().release_capacity(count);
    }

    /// Waits for a piece of so many bytes, or the end.
    ///
    /// # Errors
    /// When the other side breaks it off.
    pub(crate) async fn next(&mut self) -> Result<Option<usize>, h2::Error> {
        while self.chunk.is_empty() && !self.is_over {
            match self.stream.data().await {
                Some(chunk) => self.chunk = chunk?,
                None => {
                    self.trailers = self.stream.trailers().await?.map(|trailers| fields_of(&trailers));
                    self.is_over = true;
                }
            }
        }
        Ok((!self.chunk.is_empty()).then_some(self.chunk.len()))
    }
}

/// The fields of a message.
pub(crate) fn fields_of(headers: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    headers.iter().for_each(|(name, value)| fields.push(name.as_str().as_bytes(), value.as_bytes()));
    fields
}

/// Adds a field, unless it can be none.
pub(crate) fn add(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

/// The trailers that may go beyond a connection.
fn headers_of(trailers: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::new();
    trailers.passed_on().filter(|field| field.known == Name::Other).for_each(|field| add(&mut headers, field.name, field.value));
    headers
}

/// Breaks a stream off from outside.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    is_off: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Switch {
    /// Ready when it is broken off; whoever asks is woken then.
    pub(crate) fn poll_off(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_off.get() {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Switch {
    /// What comes of this, or `None` when it is broken off before.
    pub(crate) async fn unless_off<T>(&self, act: impl Future<Output = T>) -> Option<T> {
        let mut act = std::pin::pin!(act);
        poll_fn(|cx| {
            if self.poll_off(cx).is_ready() {
                return Poll::Ready(None);
            }
            act.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl Abort for Switch {
    fn abort(&self) {
        self.is_off.set(true);
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Why a body cannot be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsent;

/// A body that is sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    stream: SendStream<Bytes>,
    switch: Rc<Switch>,
    is_over: bool,
}

impl Outgoing {
    pub(crate) fn new(stream: SendStream<Bytes>, switch: Rc<Switch>, is_over: bool) -> Self {
        Self { stream, switch, is_over }
    }

    /// Ready when the other side wants no more of it.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over { Poll::Pending } else { self.stream.poll_reset(cx).map(|_| ()) }
    }

    /// Sends bytes as the other side grants room for them, and may wait for it no longer than that. `is_last`: nothing follows.
    ///
    /// # Errors
    /// When the other side wants no more, grants nothing for too long, or this was broken off.
    pub(crate) async fn data(&mut self, mut bytes: &[u8], is_last: bool, limit: Duration) -> Result<(), Unsent> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let room = match self.stream.capacity() {
                0 => self.room(limit).await?,
                room => room,
            };
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            bytes = later;
            let is_end = is_last && bytes.is_empty();
            self.stream.send_data(Bytes::copy_from_slice(now), is_end).map_err(|_| Unsent)?;
            self.is_over |= is_end;
        }
        Ok(())
    }

    async fn room(&mut self, limit: Duration) -> Result<usize, Unsent> {
        let until = Instant::now() + limit;
        let granted = poll_fn(|cx| {
            if self.switch.poll_off(cx).is_ready() || self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Unsent));
            }
            self.stream.poll_capacity(cx).map(|room| room.and_then(Result::ok).ok_or(Unsent))
        });
        tokio::time::timeout_at(until.into(), granted).await.unwrap_or(Err(Unsent))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the other side wants no more.
    pub(crate) fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Unsent> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        let ended = match trailers {
            Some(trailers) => self.stream.send_trailers(headers_of(trailers)),
            None => self.stream.send_data(Bytes::new(), true),
        };
        ended.map_err(|_| Unsent)
    }

    /// Says that it has no end.
    pub(crate) fn break_off(&mut self) {
        if !self.is_over {
            self.stream.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
