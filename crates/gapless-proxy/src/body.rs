//! The two bodies that pass through the proxy, frame by frame, with what has to happen when they end.

use crate::account::{Account, End};
use crate::core::Core;
use crate::exchange::Exchange;
use crate::node::Node;
use crate::pool::Connection;
use crate::stream::Handle;
use bytes::Bytes;
use gapless_wire::record::cause;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Why a body broke off.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The other side of the proxy did.
    Broken(hyper::Error),
    /// The drain deadline did.
    Cut,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Broken(error) => write!(f, "the body broke off: {error}"),
            BodyError::Cut => f.write_str("the body was cut at the drain deadline"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What is known of an upload while hyper owns its body.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The client broke it off.
    pub(crate) broken: Cell<bool>,
    /// The client has sent all of it.
    pub(crate) ended: Cell<bool>,
    /// The next bytes are the client's to send.
    pub(crate) waits_for_client: Cell<bool>,
    /// When bytes came last.
    pub(crate) moved: Cell<Instant>,
}

impl Upload {
    pub(crate) fn new() -> Rc<Self> {
        let (broken, ended, waits_for_client) = (Cell::new(false), Cell::new(false), Cell::new(false));
        Rc::new(Self { broken, ended, waits_for_client, moved: Cell::new(Instant::now()) })
    }
}

/// A request's body on its way to a node.
#[derive(Debug)]
pub(crate) enum NodeRequestBody {
    /// Kept whole, to be sent again if need be; empty ones too.
    Kept(Full<Bytes>),
    /// Passed on as it comes.
    Streamed(Incoming, Rc<Upload>),
}

impl Body for NodeRequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            NodeRequestBody::Kept(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            NodeRequestBody::Streamed(incoming, upload) => {
                let polled = Pin::new(&mut *incoming).poll_frame(cx);
                upload.waits_for_client.set(polled.is_pending());
                match &polled {
                    Poll::Ready(Some(Err(_))) => upload.broken.set(true),
                    Poll::Ready(frame) => {
                        upload.moved.set(Instant::now());
                        upload.ended.set(frame.is_none() || incoming.is_end_stream());
                    }
                    Poll::Pending => {}
                }
                polled.map_err(BodyError::Broken)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            NodeRequestBody::Kept(whole) => whole.is_end_stream(),
            NodeRequestBody::Streamed(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            NodeRequestBody::Kept(whole) => whole.size_hint(),
            NodeRequestBody::Streamed(incoming, _) => incoming.size_hint(),
        }
    }
}

/// What has to be done when a node's answer ends.
pub(crate) struct Ending {
    pub(crate) core: Rc<Core>,
    pub(crate) node: Arc<Node>,
    pub(crate) account: Account,
    pub(crate) exchange: Exchange,
    pub(crate) connection: Connection,
    /// Set when only a reset can tell the client that the answer is not whole (HTTP/1.0 without a length).
    pub(crate) reset_client: Option<Handle>,
}

impl Ending {
    fn whole(mut self, bytes: u64) {
        self.account.close(End::Whole(bytes));
        drop(self.exchange);
        self.core.keep(self.node, self.connection);
    }

    fn broken(mut self) {
        let end = if self.exchange.was_cut() { End::Cut } else { End::Failed(cause::TRUNCATED) };
        self.account.close(end);
        if let Some(client) = self.reset_client {
            client.reset_at_close();
        }
    }
}

/// An answer's body on its way to the client.
pub(crate) enum AnswerBody {
    /// Of the proxy's own making, or none.
    Own(Full<Bytes>),
    /// A node's. `None` once it has ended.
    Node(Incoming, u64, Option<Box<Ending>>),
}

impl AnswerBody {
    /// A node's body; one that has no bytes ends here and now.
    pub(crate) fn node(incoming: Incoming, ending: Ending) -> Self {
        if incoming.is_end_stream() {
            ending.whole(0);
            return AnswerBody::Node(incoming, 0, None);
        }
        AnswerBody::Node(incoming, 0, Some(Box::new(ending)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            AnswerBody::Own(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            AnswerBody::Node(incoming, bytes, ending) => {
                let polled = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
                Poll::Ready(pass_on(polled, incoming, bytes, ending))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own(whole) => whole.is_end_stream(),
            AnswerBody::Node(incoming, _, ending) => ending.is_none() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own(whole) => whole.size_hint(),
            AnswerBody::Node(incoming, _, _) => incoming.size_hint(),
        }
    }
}

type Polled<E> = Option<Result<Frame<Bytes>, E>>;

fn pass_on(polled: Polled<hyper::Error>, incoming: &Incoming, bytes: &mut u64, ending: &mut Option<Box<Ending>>) -> Polled<BodyError> {
    match polled {
        Some(Ok(frame)) => {
            *bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            // hyper drops a body of known length after its last byte without asking for the end.
            if incoming.is_end_stream()
                && let Some(ending) = ending.take()
            {
                ending.whole(*bytes);
            }
            Some(Ok(frame))
        }
        Some(Err(error)) => {
            let ending = ending.take()?;
            let cut = ending.exchange.was_cut();
            ending.broken();
            Some(Err(if cut { BodyError::Cut } else { BodyError::Broken(error) }))
        }
        None => {
            let ending = ending.take()?;
            // An answer without a length ends with its connection, and that was the proxy's doing.
            if ending.exchange.was_cut() {
                ending.broken();
                return Some(Err(BodyError::Cut));
            }
            ending.whole(*bytes);
            None
        }
    }
}
