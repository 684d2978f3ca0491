//! Logs of nodes and builds.

use serde::{Deserialize, Serialize};

/// The most of a log that is told, in bytes, from its end: more is on disk.
pub const LOG_LIMIT: u64 = 1024 * 1024;

/// The end of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Whose: a node's name (`r7-i12-n0`) or `build 3`.
    pub of: String,
    /// The text; at most [`LOG_LIMIT`] bytes of its end.
    pub text: String,
    /// Whether an earlier part was left out.
    pub shortened: bool,
    /// Whether what wrote it is still there.
    pub running: bool,
}
