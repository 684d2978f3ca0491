//! The node's side of a request, whatever it speaks.

use crate::buffer::Buffers;
use crate::exchange::Abort;
use crate::fields::Fields;
use crate::http1::body::{BodyReader, Piece};
use crate::http1::client::write_trailers;
use crate::http1::head::Framing;
use crate::http1::node::{Answer, Connection, NoAnswer};
use crate::http2;
use crate::http2::body::Outgoing;
use crate::stream::Stream;
use crate::upload::Upload;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A connection to a node, or a request's part of one.
#[derive(Debug)]
pub(crate) enum Link {
    Http1(Connection),
    Http2(Box<http2::node::Talk>),
}

impl Link {
    /// What breaks the exchange off from outside.
    pub(crate) fn abort(&self) -> Rc<dyn Abort> {
        match self {
            Link::Http1(connection) => connection.stream.clone(),
            Link::Http2(talk) => talk.abort(),
        }
    }

    /// Waits for the head of an answer.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn read_answer(
        &mut self,
        buffers: &Buffers,
        is_head: bool,
        upload: Option<&Upload>,
        limit: Duration,
    ) -> Result<(), NoAnswer> {
        match self {
            Link::Http1(connection) => connection.read_answer(buffers, is_head).await,
            Link::Http2(talk) => talk.read_answer(is_head, upload, limit).await,
        }
    }

    /// Until when it has to come.
    pub(crate) fn expect_answer_by(&self, deadline: Instant) {
        if let Link::Http1(connection) = self {
            connection.stream.read_by(Some(deadline));
        }
    }

    pub(crate) fn answer(&self) -> &Answer {
        match self {
            Link::Http1(connection) => &connection.answer,
            Link::Http2(talk) => &talk.answer,
        }
    }

    /// Nobody waits for the answer's head any more.
    pub(crate) fn answer_has_begun(&self) {
        if let Link::Http1(connection) = self {
            connection.stream.read_by(None);
        }
    }

    pub(crate) fn body(&mut self) -> Body<'_> {
        match self {
            Link::Http1(connection) => Body::Http1(BodyReader::new(connection.answer.framing), connection),
            Link::Http2(talk) => Body::Http2(talk),
        }
    }
}

/// The body of a node's answer, as it comes.
pub(crate) enum Body<'a> {
    Http1(BodyReader, &'a mut Connection),
    Http2(&'a mut http2::node::Talk),
}

/// The node's answer broke off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Torn;

impl Body<'_> {
    /// A piece that is here already; `None`: whoever asks has to wait.
    ///
    /// # Errors
    /// When it is no body.
    pub(crate) fn piece(&mut self) -> Result<Option<Option<usize>>, Torn> {
        match self {
            Body::Http1(reader, connection) => match reader.piece(&mut connection.inlet).map_err(|_| Torn)? {
                Piece::Data(length) => Ok(Some(Some(length))),
                Piece::End => Ok(Some(None)),
                Piece::More => Ok(None),
            },
            Body::Http2(talk) => match &talk.body {
                Some(body) if body.has_data() => Ok(Some(Some(body.data().len()))),
                Some(body) if body.is_over() => Ok(Some(None)),
                Some(_) => Ok(None),
                None => Ok(Some(None)),
            },
        }
    }

    /// Waits for a piece of so many bytes, or the end, no longer than `silence`, if that is given.
    ///
    /// # Errors
    /// When it breaks off.
    pub(crate) async fn next(&mut self, buffers: &Buffers, silence: Option<Duration>) -> Result<Option<usize>, Torn> {
        match self {
            Body::Http1(reader, connection) => {
                let Connection { stream, inlet, .. } = &mut **connection;
                if let Some(silence) = silence {
                    stream.read_by(Some(Instant::now() + silence));
                }
                reader.next(inlet, stream, buffers).await.map_err(|_| Torn)
            }
            Body::Http2(talk) => {
                let switch = talk.abort_switch();
                let Some(body) = &mut talk.body else { return Ok(None) };
                let next = switch.unless_off(body.next());
                let next = match silence {
                    Some(silence) => tokio::time::timeout(silence, next).await.map_err(|_| Torn)?,
                    None => next.await,
                };
                next.ok_or(Torn)?.map_err(|_| Torn)
            }
        }
    }

    pub(crate) fn data(&self) -> &[u8] {
        match self {
            Body::Http1(_, connection) => connection.inlet.data(),
            Body::Http2(talk) => talk.body.as_ref().map_or(&[], |body| body.data()),
        }
    }

    pub(crate) fn consume(&mut self, count: usize) {
        match self {
            Body::Http1(reader, connection) => reader.consume(&mut connection.inlet, count),
            Body::Http2(talk) => talk.body.iter_mut().for_each(|body| body.consume(count)),
        }
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        match self {
            Body::Http1(reader, _) => reader.trailers(),
            Body::Http2(talk) => talk.body.as_ref().and_then(|body| body.trailers()),
        }
    }
}

/// Where a request's body goes.
pub(crate) enum Writer {
    Http1(Rc<Stream>, Framing),
    Http2(Outgoing),
    /// Nowhere: the head before it did not reach the node whole.
    Torn,
}

/// The node takes no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotTaken;

impl Writer {
    /// Until when the node has to answer; `None`: while it waits for the client.
    pub(crate) fn expect_answer_by(&self, deadline: Option<Instant>) {
        if let Writer::Http1(stream, _) = self {
            stream.read_by(deadline);
        }
    }

    /// Passes a piece on.
    ///
    /// # Errors
    /// When the node takes no more, or nothing for so long.
    pub(crate) async fn data(&mut self, bytes: &[u8], limit: Duration) -> Result<(), NotTaken> {
        match self {
            Writer::Http1(stream, framing) => {
                stream.write_by(Some(Instant::now() + limit));
                let size = format!("{:x}\r\n", bytes.len());
                let chunked: &mut [IoSlice<'_>] = &mut [IoSlice::new(size.as_bytes()), IoSlice::new(bytes), IoSlice::new(b"\r\n")];
                let written =
                    if *framing == Framing::Chunked { stream.write(chunked).await } else { stream.write(&mut chunked[1..2]).await };
                written.map_err(|_| NotTaken)
            }
            Writer::Http2(outgoing) => outgoing.data(bytes, false, limit).await.map_err(|_| NotTaken),
            Writer::Torn => Err(NotTaken),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When the node takes no more.
    pub(crate) async fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), NotTaken> {
        match self {
            Writer::Http1(stream, Framing::Chunked) => {
                let mut end = b"0\r\n".to_vec();
                write_trailers(&mut end, trailers);
                stream.write(&mut [IoSlice::new(&end)]).await.map_err(|_| NotTaken)
            }
            Writer::Http1(..) => Ok(()),
            Writer::Torn => Err(NotTaken),
            Writer::Http2(outgoing) => outgoing.finish(trailers).map_err(|_| NotTaken),
        }
    }
}
