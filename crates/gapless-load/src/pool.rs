//! The connections that rest between requests.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;

/// Most connections that rest at once: more than the standard mix has in flight at any time.
const MAX_IDLE_CONNECTIONS: usize = 1024;

/// Idle connections, the longest idle first: all of them are used in turn, so that a switch meets many
/// kept connections and not the same one over and over.
pub struct Pool {
    idle: Mutex<VecDeque<(Instant, Connection)>>,
    idle_limit: Duration,
}

/// What was found for a request.
pub struct Taken {
    /// An open connection, if one rested.
    pub connection: Option<Connection>,
    /// Connections that the server had closed while they rested.
    pub stale: u64,
}

impl Pool {
    /// An empty pool whose connections rest at most `idle_limit`.
    pub fn new(idle_limit: Duration) -> Self {
        Self { idle: Mutex::new(VecDeque::new()), idle_limit }
    }

    /// Takes an open connection. Those found closed are dropped and counted: nothing was sent on
    /// them, so opening another is no retry.
    pub fn take(&self) -> Taken {
        let mut idle = self.lock();
        let mut stale = 0;
        while let Some((since, connection)) = idle.pop_front() {
            if connection.is_stale() {
                stale += 1;
            } else if since.elapsed() < self.idle_limit {
                return Taken { connection: Some(connection), stale };
            }
        }
        Taken { connection: None, stale }
    }

    /// Lets a connection rest.
    pub fn put(&self, connection: Connection) {
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push_back((Instant::now(), connection));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
