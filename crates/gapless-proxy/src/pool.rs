//! One core's connections to nodes that wait for the next request.

use crate::body::NodeRequestBody;
use crate::error::ProxyError;
use crate::node::{Node, NodeKey};
use crate::stream::{Handle, Stream};
use hyper::client::conn::http1::{self, SendRequest};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long a connection may wait for its next request: Apache closes idle ones after 5 s, and the proxy has to be first.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How many may wait, for each core and node: what is more than a burst's worth only holds the node's threads.
const IDLE_COUNT_LIMIT: usize = 64;
/// How long connecting to a node may take: one repetition of the first packet (after 1 s) included.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<NodeRequestBody>,
    pub(crate) handle: Handle,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// With the system's reason, or `TimedOut`.
    pub(crate) async fn open(node: &Node) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(node.address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let stream = Stream::to_node(stream);
        let handle = stream.handle();
        let (sender, connection) = http1::Builder::new().handshake(stream).await.map_err(io::Error::other)?;
        let driver = tokio::task::spawn_local(async move {
            // What went wrong reaches whoever waits for the answer.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self { sender, handle, driver })
    }

    /// Nothing stands against another request: hyper is ready, and the node has not closed it in the meantime.
    fn is_usable(&self) -> bool {
        self.sender.is_ready() && self.handle.is_quiet()
    }

    /// Closes it, and returns when the descriptor is closed.
    async fn close(self) {
        drop(self.sender);
        self.driver.abort();
        let _ = self.driver.await;
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Shelf {
    node: Arc<Node>,
    idle: Vec<Idle>,
}

/// Idle connections by node, the latest used on top.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    shelves: HashMap<NodeKey, Shelf>,
}

impl Pool {
    /// The connection used last that can still be used.
    pub(crate) fn take(&mut self, node: &Node) -> Option<Connection> {
        let shelf = self.shelves.get_mut(&node.key)?;
        while let Some(idle) = shelf.idle.pop() {
            shelf.node.idle_removed();
            if idle.since.elapsed() < IDLE_LIMIT && idle.connection.is_usable() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, unless its node has left meanwhile.
    pub(crate) fn keep(&mut self, node: &Arc<Node>, connection: Connection) {
        if !node.may_idle() || connection.sender.is_closed() {
            return;
        }
        let shelf = self.shelves.entry(node.key).or_insert_with(|| Shelf { node: node.clone(), idle: Vec::new() });
        if shelf.idle.len() < IDLE_COUNT_LIMIT {
            node.idle_added();
            shelf.idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Takes out what waits for these nodes.
    pub(crate) fn forget(&mut self, nodes: &[NodeKey]) -> Forgotten {
        let shelves: Vec<Shelf> = nodes.iter().filter_map(|key| self.shelves.remove(key)).collect();
        Forgotten(shelves)
    }

    /// Closes what waited too long, or was closed by its node.
    pub(crate) fn reap(&mut self) {
        self.shelves.retain(|_, shelf| {
            let before = shelf.idle.len();
            shelf.idle.retain(|idle| idle.since.elapsed() < IDLE_LIMIT && !idle.connection.sender.is_closed());
            for _ in shelf.idle.len()..before {
                shelf.node.idle_removed();
            }
            !shelf.idle.is_empty()
        });
    }
}

/// Connections on their way out.
#[derive(Debug)]
pub(crate) struct Forgotten(Vec<Shelf>);

impl Forgotten {
    /// Closes them all; when it returns, the node has been told.
    pub(crate) async fn close(self) {
        for shelf in self.0 {
            for idle in shelf.idle {
                shelf.node.idle_removed();
                idle.connection.close().await;
            }
        }
    }
}

/// What to call a failed connect.
pub(crate) fn connect_failure(error: &io::Error) -> ProxyError {
    let text = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
        io::ErrorKind::ConnectionReset => "connection reset".to_string(),
        io::ErrorKind::TimedOut => format!("no connection within {CONNECT_LIMIT:?}"),
        _ => error.to_string(),
    };
    ProxyError::new(text)
}
