//! What the tests drive: a proxy as real processes, nodes and clients on plain sockets.

pub mod client;
pub mod load;
pub mod node;
pub mod node2;
pub mod proxy;
pub mod script;
pub mod tls;

use std::time::{Duration, Instant};

/// How long anything that has to happen may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Looks until it is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
