//! One core's connections to nodes that wait for the next request.

use crate::exchange::Abort;
use crate::http1::node::Connection;
use crate::node::{Node, NodeKey};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a connection may wait for its next request: Apache closes idle ones after 5 s, and the proxy has to be first.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How many may wait, for each core and node: as many as a thousand clients need at once, or they would be opened and closed all the time. A node whose threads they hold has them back after [`IDLE_LIMIT`].
const IDLE_COUNT_LIMIT: usize = 512;
/// The same for connections of requests that could not have used an idle one: they do not say how many are needed, and a node's threads are not ours to hold.
const UNASKED_COUNT_LIMIT: usize = 64;

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
            let idle_for = idle.since.elapsed();
            if idle_for < IDLE_LIMIT && idle.connection.is_usable(idle_for) {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, unless its node has left meanwhile, or there are enough. `is_asked_for`: its request would have used one that was kept.
    pub(crate) fn keep(&mut self, node: &Arc<Node>, connection: Connection, is_asked_for: bool) {
        if !node.may_idle() {
            return;
        }
        let shelf = self.shelves.entry(node.key).or_insert_with(|| Shelf { node: node.clone(), idle: Vec::new() });
        if shelf.idle.len() < if is_asked_for { IDLE_COUNT_LIMIT } else { UNASKED_COUNT_LIMIT } {
            node.idle_added();
            shelf.idle.push(Idle { connection, since: Instant::now() });
        } else {
            // Nothing is on its way on it. Closed in order, its port would rest for a minute, and many requests that each need a fresh connection would use up all ports.
            connection.stream.reset_at_close();
        }
    }

    /// Closes what waits for these nodes.
    pub(crate) fn forget(&mut self, nodes: &[NodeKey]) {
        for shelf in nodes.iter().filter_map(|key| self.shelves.remove(key)) {
            for idle in shelf.idle {
                drop(idle.connection);
                shelf.node.idle_removed();
            }
        }
    }

    /// Closes what waited too long, or was closed by its node.
    pub(crate) fn reap(&mut self) {
        self.shelves.retain(|_, shelf| {
            let before = shelf.idle.len();
            shelf.idle.retain(|idle| idle.since.elapsed() < IDLE_LIMIT && !idle.connection.stream.has_been_heard());
            for _ in shelf.idle.len()..before {
                shelf.node.idle_removed();
            }
            !shelf.idle.is_empty()
        });
    }
}
