//! The proxy's record: what happened to every request, in slices of 100 ms. It is the source of the receipts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The length of a slice in milliseconds.
pub const SLICE_MS: u64 = 100;

/// How long a worker remembers slices, in milliseconds: longer than any sensible rollout takes, and bounded in memory.
pub const KEPT_MS: u64 = 15 * 60 * 1000;

/// The causes of failure that a proxy counts. The names stand in receipts.
pub mod cause {
    /// No ready node, and the hold was over (503).
    pub const NO_READY_NODE: &str = "no-ready-node";
    /// The worker could not read its snapshot, has been given none since, and so could not tell whose request it was (503). Such requests stand in slices
    /// whose service is empty.
    pub const NO_ROUTES: &str = "no-routes";
    /// No node could be connected (502).
    pub const CONNECT: &str = "connect";
    /// A node closed or reset the connection before it answered (502).
    pub const NODE_CLOSED: &str = "node-closed";
    /// A node's answer could not be understood (502).
    pub const BAD_ANSWER: &str = "bad-answer";
    /// A node's answer ended before its end.
    pub const TRUNCATED: &str = "truncated";
    /// A node did not answer in time (504).
    pub const TIMEOUT: &str = "timeout";
}

/// What a worker recorded since an instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The worker's process id.
    pub worker: u32,
    /// When the worker began to record, in milliseconds since the Unix epoch: before that it knows nothing.
    pub began_ms: u64,
    /// From when on no slice is missing, in milliseconds since the Unix epoch: `began_ms`, or later when old slices were dropped to bound memory. Earlier than
    /// `began_ms` (0 from a worker that does not tell it) it says nothing more.
    #[serde(default)]
    pub complete_from_ms: u64,
    /// The instant up to which the slices are complete. A worker answers only when the slice in which it was asked is over, so everything that had ended by
    /// then is here, no slice changes later, and the next question is `since=` this.
    pub until_ms: u64,
    /// Slices in which something happened, the oldest first.
    pub slices: Vec<Slice>,
    /// What the worker's kernel counted since it began: connections that were dropped before they were accepted. The kernel counts them for all
    /// listening sockets of the host's network namespace together.
    pub listen_drops: u64,
    /// The kernel's count could not be read, so `listen_drops` is 0 and says nothing.
    #[serde(default)]
    pub listen_drops_unknown: bool,
    /// Responses that were configured refusals (unknown host and the like), since the worker began: counted apart, in no slice.
    pub refused: u64,
    /// Clients that went away before their answer was complete, since the worker began: shown, not counted as requests. Those of them that waited for a node alone stand in
    /// [`Slice::unanswered`], too.
    pub client_gone: u64,
}

/// 100 ms of one service and one release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The slice's beginning, in milliseconds since the Unix epoch, a multiple of [`SLICE_MS`].
    pub at_ms: u64,
    /// The full service name; empty for requests that failed with [`cause::NO_ROUTES`].
    pub service: String,
    /// The release that answered, or whose node was tried (`web-r7`); empty for requests that none answered.
    pub release: String,
    /// Requests that ended in this slice.
    pub requests: u64,
    /// Of these, how many the promise counts as failed, by [`cause`].
    pub failed: BTreeMap<String, u64>,
    /// Of these, how many were given to a further node after a try that came to nothing. It counts also when nothing of that try had left, because no
    /// connection was to be had: the client waited for it, and a planned rollout must cause none.
    pub retried: u64,
    /// Tries given to a node of this release that came to nothing, and by the node's doing: no connection, or no answer that could be understood in time. They are no requests of this slice: what
    /// became of the request stands where it was answered, or where it failed. Older workers do not count them.
    #[serde(default)]
    pub failed_tries: u64,
    /// Of the requests, how many were held because no node was ready.
    pub held: u64,
    /// Of the requests, how many were cut at the drain deadline.
    pub cut: u64,
    /// Requests for which a node of this release was asked in this slice, as the first one and at once: not those that were held before, or tried with another node. They are counted whatever becomes
    /// of them. Older workers do not count them.
    #[serde(default)]
    pub asked: u64,
    /// Of such requests, those whose answer began in this slice: pairs of the beginning of the slice in which the node was asked, in milliseconds since the Unix epoch, and how many.
    #[serde(default)]
    pub answered: Vec<(u64, u64)>,
    /// Of such requests, those that a node had whole, or was being connected for, and had not begun to answer when their client went away. They are no requests of this slice, and the promise does
    /// not count them. Older workers do not count them.
    #[serde(default)]
    pub unanswered: u64,
    /// Answers by the first digit of their status, 1 to 5: the index is the digit minus one.
    pub statuses: [u64; 5],
    /// Small GETs (an answer of at most [`SMALL_BYTES`]) from the request's head read to the answer's last byte handed on: pairs of
    /// microseconds (two significant digits, rounded up) and how many.
    pub latencies: Vec<(u64, u64)>,
    /// When the first and the last successful small GET of this slice ended, in milliseconds since the epoch.
    pub small_ended: Option<(u64, u64)>,
    /// The longest time between two successive successful small GETs inside this slice, in milliseconds.
    pub small_gap_ms: u64,
}

/// The largest answer that counts as small, in bytes.
pub const SMALL_BYTES: u64 = 64 * 1024;
