//! A connection to a node.

use super::head::{ANSWER_HEAD_LIMIT, EndOfHead, Fault, Framing, StatusLine, answer_framing, parse_answer};
use crate::buffer::{Buffers, Inlet};
use crate::fields::{Fields, Name};
use crate::node::Node;
use crate::stream::{Stream, Streams};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A connection that was used longer ago than this is looked at before it is used again: a look costs a system call, and what is used all the time is not worth it.
const FRESH: Duration = Duration::from_millis(10);

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection ended, or could not be read.
    Closed(io::Error),
    /// It is not what the protocol says.
    Malformed(Fault),
    /// The node says that it has not looked at the request.
    Unseen,
}

/// The largest head of an answer of HTTP/2: see [`ANSWER_HEAD_LIMIT`].
pub(crate) const ANSWER_HEAD: u32 = 256 * 1024;

/// The head of a node's answer. Read again and again, it takes no memory anew.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// The node lets the connection go on.
    pub(crate) keeps_connection: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Rc<Stream>,
    pub(crate) inlet: Inlet,
    pub(crate) answer: Answer,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// With the system's reason, or `TimedOut`.
    pub(crate) async fn open(streams: &Rc<Streams>, node: &Node, limit: Duration) -> io::Result<Self> {
        let stream = tokio::time::timeout(limit, TcpStream::connect(node.address)).await.map_err(|_| ErrorKind::TimedOut)??;
        Ok(Self { stream: streams.to_node(stream), inlet: Inlet::default(), answer: Answer::default() })
    }

    /// Nothing stands against another request: the node has said nothing since the last answer, not even that it closes.
    pub(crate) fn is_usable(&self, idle: Duration) -> bool {
        !self.stream.has_been_heard() && (idle < FRESH || self.stream.is_quiet())
    }

    /// Waits for the head of an answer.
    ///
    /// # Errors
    /// When the connection ends first, or the head is malformed.
    pub(crate) async fn read_answer(&mut self, buffers: &Buffers, is_head: bool) -> Result<(), NoAnswer> {
        let mut end = EndOfHead::default();
        let length = loop {
            let found = end.find(self.inlet.data()).map_err(NoAnswer::Malformed)?;
            if found.unwrap_or(self.inlet.data().len()) > ANSWER_HEAD_LIMIT {
                return Err(NoAnswer::Malformed(Fault::TooLarge));
            }
            if let Some(length) = found {
                break length;
            }
            if self.inlet.fill(&self.stream, buffers).await.map_err(NoAnswer::Closed)? == 0 {
                return Err(NoAnswer::Closed(ErrorKind::UnexpectedEof.into()));
            }
        };
        let parsed = self.answer.read(&self.inlet.data()[..length], is_head);
        self.inlet.consume(length);
        parsed.map_err(NoAnswer::Malformed)
    }
}

impl Answer {
    fn read(&mut self, head: &[u8], is_head: bool) -> Result<(), Fault> {
        let (line, reason) = parse_answer(head, &mut self.fields)?;
        let StatusLine { status, minor } = line;
        self.status = status;
        self.reason.clear();
        self.reason.push_str(reason);
        self.framing = answer_framing(&self.fields, line, is_head)?;
        self.keeps_connection = minor == 1 && self.framing != Framing::UntilClose && !self.fields.lists(Name::Connection, "close");
        Ok(())
    }
}

/// What to call a failed connect.
pub(crate) fn connect_failure(error: &io::Error, limit: Duration) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_string(),
        ErrorKind::ConnectionReset => "connection reset".to_string(),
        ErrorKind::TimedOut => format!("no connection within {limit:?}"),
        _ => error.to_string(),
    }
}
