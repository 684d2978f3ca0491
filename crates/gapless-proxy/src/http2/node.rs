//! Nodes that speak HTTP/2: one connection for each core and node, which all requests share.

use super::body::{Incoming, Outgoing, Switch, add, fields_of};
use crate::buffer::Inlet;
use crate::core::Core;
use crate::exchange::Abort;
use crate::fields::{Fields, Name};
use crate::http1::head::{FIELD_COUNT_LIMIT, Framing, length, parse_request};
use crate::http1::node::{ANSWER_HEAD, Answer, NoAnswer};
use crate::node::{Node, NodeKey};
use crate::request::{Client, Inbound};
use crate::stream::Duplex;
use crate::upload::Upload;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use hyper::{Request, Uri};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

/// So many bytes of one answer may be on their way to the proxy and not passed on.
const STREAM_WINDOW: u32 = 256 * 1024;
/// So many of all answers on one connection.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// So many bytes of one request may wait to be written.
const SEND_BUFFER: usize = 128 * 1024;

/// One core's connections.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<NodeKey, (Arc<Node>, SendRequest<Bytes>)>);

impl Links {
    /// The connection to this node, if there is one.
    pub(crate) fn get(&self, node: &Node) -> Option<SendRequest<Bytes>> {
        self.0.get(&node.key).map(|(_, link)| link.clone())
    }

    /// Keeps a connection for the next requests, unless its node has left meanwhile.
    pub(crate) fn keep(&mut self, node: &Arc<Node>, link: &SendRequest<Bytes>) {
        if node.may_idle() && self.0.insert(node.key, (node.clone(), link.clone())).is_none() {
            node.idle_added();
        }
    }

    /// Takes out what is kept for these nodes. Each connection ends with the last request on it.
    pub(crate) fn forget(&mut self, nodes: &[NodeKey]) {
        for (node, _) in nodes.iter().filter_map(|key| self.0.remove(key)) {
            node.idle_removed();
        }
    }
}

/// Opens a connection.
///
/// # Errors
/// With the system's reason, or `TimedOut`.
pub(crate) async fn open(core: &Core, node: &Node, limit: Duration) -> io::Result<SendRequest<Bytes>> {
    let opening = async {
        let stream = core.streams.to_node(TcpStream::connect(node.address).await?);
        h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(ANSWER_HEAD)
            .handshake::<_, Bytes>(Duplex { stream, inlet: Inlet::default() })
            .await
            .map_err(io::Error::other)
    };
    let (link, connection) = tokio::time::timeout(limit, opening).await.map_err(|_| ErrorKind::TimedOut)??;
    spawn_local(async move {
        // What went wrong reaches whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(link)
}

/// One exchange with a node.
#[derive(Debug)]
pub(crate) struct Talk {
    link: SendRequest<Bytes>,
    switch: Rc<Switch>,
    response: Option<ResponseFuture>,
    pub(crate) answer: Answer,
    pub(crate) body: Option<Incoming>,
}

impl Talk {
    pub(crate) fn new(link: SendRequest<Bytes>) -> Self {
        Self { link, switch: Rc::default(), response: None, answer: Answer::default(), body: None }
    }

    pub(crate) fn abort(&self) -> Rc<dyn Abort> {
        self.switch.clone()
    }

    pub(crate) fn abort_switch(&self) -> Rc<Switch> {
        self.switch.clone()
    }

    pub(crate) fn link(&self) -> &SendRequest<Bytes> {
        &self.link
    }

    /// Sends the head, and the body if it is here already. Returns what the rest of the body goes to.
    ///
    /// # Errors
    /// When nothing of it was sent.
    pub(crate) async fn send(
        &mut self,
        inbound: &Inbound,
        client: &Client,
        kept: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Outgoing, h2::Error> {
        let mut ready = self.link.clone().ready().await?;
        let is_end = kept.is_some_and(<[u8]>::is_empty);
        let (response, stream) = ready.send_request(request(inbound, client), is_end)?;
        self.response = Some(response);
        let mut outgoing = Outgoing::new(stream, self.switch.clone(), is_end);
        if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
            // A node that takes no more may have answered already.
            let _ = outgoing.data(kept, true, limit).await;
        }
        Ok(outgoing)
    }

    /// Waits for the head of the answer. An upload that goes on is movement.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn read_answer(&mut self, is_head: bool, upload: Option<&Upload>, limit: Duration) -> Result<(), NoAnswer> {
        let begun = Instant::now();
        let Some(response) = &mut self.response else { return Err(NoAnswer::Closed(ErrorKind::NotConnected.into())) };
        let switch = self.switch.clone();
        let answered = loop {
            let by = upload.and_then(|upload| upload.moved.get()).unwrap_or(begun).max(begun) + limit;
            if by <= Instant::now() {
                return Err(NoAnswer::Closed(ErrorKind::TimedOut.into()));
            }
            if let Ok(said) = tokio::time::timeout_at(by.into(), switch.unless_off(&mut *response)).await {
                break said;
            }
        };
        let answered = answered.ok_or_else(|| NoAnswer::Closed(ErrorKind::ConnectionAborted.into()))?;
        let (head, body) = answered.map_err(no_answer)?.into_parts();
        let body = Incoming::new(body);
        self.answer.fields = fields_of(&head.headers);
        self.answer.status = head.status.as_u16();
        self.answer.reason = head.status.canonical_reason().unwrap_or_default().to_string();
        self.answer.framing = match length(&self.answer.fields).map_err(NoAnswer::Malformed)? {
            _ if is_head || body.is_over() => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        self.body = Some(body);
        Ok(())
    }
}

/// A request that the node says it has not looked at may be sent elsewhere (RFC 9113, section 8.7).
fn no_answer(error: h2::Error) -> NoAnswer {
    if error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR))
    {
        return NoAnswer::Unseen;
    }
    NoAnswer::Closed(error.into_io().unwrap_or_else(|| ErrorKind::ConnectionReset.into()))
}

/// The request as the node gets it: what a node of HTTP/1 is told, but for what belongs to that protocol.
fn request(inbound: &Inbound, client: &Client) -> Request<()> {
    let (mut head, mut fields) = (Vec::new(), Fields::default());
    inbound.write_head(&mut head, client);
    let mut request = Request::new(());
    *request.method_mut() = inbound.method.clone();
    *request.version_mut() = hyper::Version::HTTP_2;
    let parts = Uri::builder().scheme("http").authority(inbound.authority()).path_and_query(inbound.target());
    // Both were read before, and stand for what cannot be one here.
    *request.uri_mut() = parts.build().unwrap_or_default();
    if parse_request(&head, &mut fields).is_ok() && fields.len() <= FIELD_COUNT_LIMIT {
        let told = fields.iter().filter(|field| !field.known.is_of_one_connection() && field.known != Name::Host);
        told.for_each(|field| add(request.headers_mut(), field.name, field.value));
    }
    // gRPC asks for it, and nothing else may stand there (RFC 9113, section 8.2.2).
    if inbound.fields().lists(Name::Te, "trailers") {
        add(request.headers_mut(), b"te", b"trailers");
    }
    request
}
