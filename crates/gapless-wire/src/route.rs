//! What a proxy is told, and what it tells: the admin socket's language. HTTP/1.1 with JSON bodies on a Unix socket of mode 0600.
//!
//! | on which socket | request | body | answer |
//! |---|---|---|---|
//! | holder | `GET /v1/proxy` | | [`ProxyStatus`] |
//! | holder | `POST /v1/upgrade` | | [`ProxyStatus`] once the new worker serves |
//! | holder | `POST /v1/hand-on` | | 202 and [`ProxyStatus`] once a new worker serves; the holder's process goes on as the program on the disk then, and tells it by `handed_on` |
//! | holder | `PUT /v1/settings` | [`crate::settings::Settings`] | the same, once the worker serves with them; 400 with what is wrong, and nothing has changed |
//! | worker | `GET /v1/settings` | | [`crate::settings::Settings`] in force |
//! | worker | `GET /v1/metrics` | | text for Prometheus |
//! | worker | `PUT /v1/snapshot` | [`Snapshot`] | [`Applied`], after it was persisted and applied; 409 with [`Applied`] when a service's generation is older than the applied one |
//! | worker | `GET /v1/snapshot` | | [`Snapshot`] as applied |
//! | worker | `POST /v1/drain` | [`DrainRequest`] | 204 |
//! | worker | `GET /v1/status?after=N&wait_ms=M` | | [`WorkerStatus`]; waits up to M milliseconds for a change after revision N |
//! | worker | `GET /v1/record?since=T` | | [`crate::record::Record`] |

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The version of this language. A proxy refuses another one.
pub const SNAPSHOT_VERSION: u32 = 1;

/// All services that a proxy serves. A service that is missing here and was applied before is no longer served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SNAPSHOT_VERSION`].
    pub version: u32,
    /// By full service name (`project/service`).
    pub services: BTreeMap<String, ServiceRoute>,
}

/// The route of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    /// A proxy refuses a generation older than the one it applied, service by service.
    pub generation: u64,
    /// The `Host` that the service answers (lower case, no port); `*` for any that no other service has. A path behind it (`shop.example/api`) restricts it to targets that begin with that; of
    /// several, the longest counts.
    pub host: String,
    /// Every member by node name (`r7-i12-n0`).
    pub members: BTreeMap<String, Member>,
    /// Whether an idempotent request may be sent again to another node (see the promise in the design).
    pub retry: bool,
    /// How long a request is held when no member with weight is ready, in milliseconds; 0: not at all.
    pub hold_ms: u64,
}

/// A node in a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where its application listens.
    pub address: SocketAddr,
    /// Its share of the traffic; 0: probed, no traffic.
    pub weight: u16,
    /// The release that it runs (`web-r7`): stands in the record and in the response header `x-gapless-release`.
    pub release: String,
    /// How it is checked.
    pub check: Check,
}

/// An HTTP GET; any status from 200 to 299 passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// With its leading slash.
    pub path: String,
    /// From start to start. A member of weight 0 that passed and has not yet `passes` in a row is checked again after [`trial_interval`].
    pub interval_ms: u64,
    /// No whole answer after that: failed.
    pub timeout_ms: u64,
    /// Passed checks in a row after which a member that failed is used again.
    pub passes: u32,
    /// Failed checks in a row after which a member gets no more requests while others are ready.
    pub failures: u32,
}

/// The part of the interval after which a node on trial is checked again, once it has passed: see `docs/decisions/0010-a-node-on-trial-is-checked-sooner.md`.
const TRIAL_PART: u32 = 10;

/// The shortest interval between two checks of a node on trial: two that follow each other at once would see the same instant twice.
const TRIAL_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// From one check to the next of a node on trial that has passed, where nodes are checked in this interval.
#[must_use]
pub fn trial_interval(interval: Duration) -> Duration {
    (interval / TRIAL_PART).max(TRIAL_INTERVAL_MIN).min(interval)
}

/// What a worker applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation in force, by service.
    pub generations: BTreeMap<String, u64>,
}

/// Nodes whose idle connections are closed at once, and whose requests are cut when the deadline has passed. It is answered when no idle connection is left and no check of
/// them runs; a check that takes long is waited for no longer than a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The full service name.
    pub service: String,
    /// Node names.
    pub nodes: Vec<String>,
    /// From now; the first deadline given for a node stays.
    pub deadline_ms: u64,
}

/// What the holder knows of its workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// The holder's process id.
    pub holder: u32,
    /// The addresses that it listens on.
    pub listening: Vec<SocketAddr>,
    /// Every worker that has not exited, the newest last. All of them must acknowledge.
    pub workers: Vec<Worker>,
    /// How often a worker ended by itself and was replaced.
    pub replaced: u32,
    /// How often the holder's process went on as a newer program.
    #[serde(default)]
    pub handed_on: u32,
    /// The certificates that are ordered from an authority.
    #[serde(default)]
    pub certificates: Vec<OrderedCertificate>,
}

/// A certificate that is ordered and renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedCertificate {
    /// The hosts that it proves.
    pub hosts: Vec<String>,
    /// Until when it is valid, in milliseconds since the Unix epoch; `None`: there is none yet.
    pub valid_until_ms: Option<u64>,
    /// Failures since the last success, and the last one with what to do about it.
    pub failures: u32,
    /// See above.
    pub failure: Option<String>,
    /// When it is ordered next, in milliseconds since the Unix epoch.
    pub next_order_ms: u64,
}

/// A worker of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// Its admin socket.
    pub socket: String,
    /// It takes no new connections and ends when its last request is over.
    pub leaving: bool,
}

/// How a worker and the nodes it knows are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Counts up with every change of a check's result, a generation, a drain or an in-flight count that reached zero.
    pub revision: u64,
    /// The generation in force, by service.
    pub generations: BTreeMap<String, u64>,
    /// By service, then by node: members of the applied route, and nodes that left it and still have requests.
    pub nodes: BTreeMap<String, BTreeMap<String, NodeStatus>>,
    /// What keeps the worker from being whole, for people: such as a snapshot on disk that could not be read, so that it began without routes.
    #[serde(default)]
    pub problem: Option<String>,
}

/// How a node is, as one worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Requests that were claimed for it and are not over.
    pub requests_in_flight: u32,
    /// Connections to it that wait for use.
    pub idle_connections: u32,
    /// Passed checks in a row.
    pub passes: u32,
    /// Failed checks in a row.
    pub failures: u32,
    /// Of `failures`, those from the first check on, ever, in which the node gave an answer of any kind (any status line, also a wrong one; a refused
    /// connection or a timeout is no answer). While a node boots this stays 0.
    #[serde(default)]
    pub failures_after_answer: u32,
    /// What came of the latest failed check of the present run, such as `status 500`.
    pub failure: Option<String>,
    /// Why it is left alone just now, while its checks may pass: it lost requests in a row. Nodes of its release and weight that did not get its part, if there are any.
    #[serde(default)]
    pub ejected: Option<String>,
    /// Requests get sent to it (its weight is not 0 and its checks did not fail).
    pub ready: bool,
}
