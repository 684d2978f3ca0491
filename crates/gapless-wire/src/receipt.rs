//! Receipts: what a rollout did, measured on the requests themselves, and signed.

use crate::rollout::{Outcome, Reason, RolloutKind, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of [`Receipt`].
pub const RECEIPT_VERSION: u32 = 1;

/// A receipt with its signature: Ed25519 (RFC 8032) over the canonical JSON of `receipt`: no white space, the keys of each object in the order of their bytes. It has no fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// What was signed.
    pub receipt: Receipt,
    /// The installation's public key, 64 hexadecimal digits.
    pub key: String,
    /// The signature, 128 hexadecimal digits.
    pub signature: String,
}

/// A rollout's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// [`RECEIPT_VERSION`].
    pub version: u32,
    /// The installation's short unique id.
    pub installation: String,
    /// The full service name.
    pub service: String,
    /// The rollout's number in the service.
    pub rollout: u32,
    /// Why it was begun.
    pub kind: RolloutKind,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it was rejected.
    pub reason: Option<Reason>,
    /// What was live before.
    pub from: Option<Ran>,
    /// What was rolled out.
    pub to: Ran,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// Every step with its time and reason.
    pub steps: Vec<Step>,
    /// What the proxies measured from the rollout's start to its end. `None` when no proxy's record was to be had.
    pub measured: Option<Measured>,
    /// From the artifact ready (published for this deploy, else the rollout's start) to the last acknowledgement of the route, in milliseconds. `None`: the traffic was never shifted.
    pub switch_ms: Option<u64>,
    /// From the same beginning until the last old node was destroyed, in milliseconds. `None`: there was none.
    pub gone_ms: Option<u64>,
    /// How long the build took, when it was made for this deploy, in milliseconds.
    pub build_ms: Option<u64>,
    /// How long nothing answered, because the old nodes had to leave before there were new ones (`recreate`), in milliseconds. `None`: there was no such time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage_ms: Option<u64>,
    /// How long each phase took.
    pub phases: Phases,
    /// The name of the longest phase.
    pub longest_phase: Option<String>,
    /// How often the server was started again during the rollout.
    pub server_restarts: u32,
    /// Why the measure is not whole; empty: it is.
    pub incomplete: Vec<String>,
}

/// What ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// `web-r7`.
    pub release: String,
    /// `project/image`.
    pub artifact: String,
    /// The artifact's version.
    pub version: u32,
    /// The commit, when it is known.
    pub commit: Option<String>,
    /// The digest of the image's manifest.
    pub image: String,
    /// The digests of its layers, by name.
    pub layers: BTreeMap<String, String>,
    /// The hash of the whole declaration.
    pub declaration: String,
}

/// How long the phases of a rollout took, in milliseconds. `None`: not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// The build's begin to the artifact published; only when it was built for this deploy.
    pub build: Option<u64>,
    /// The release command's begin to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_command: Option<u64>,
    /// The rollout's start, or the end of what comes before the first new node (the release command; the old nodes' drain, where they leave first), to all new nodes running.
    pub boot: Option<u64>,
    /// To the gate passed.
    pub gate: Option<u64>,
    /// The hooks before and after the shift, together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<u64>,
    /// The passed gate to the services that move together with this one being ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partners: Option<u64>,
    /// The canary's first step to its last one's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<u64>,
    /// The decision to give the new nodes all traffic to every proxy's acknowledgement of the last route; in a rolling rollout from the first batch to the last.
    pub shift: Option<u64>,
    /// The old group out of the routes to its last request over; the bake window lies before it and belongs to no phase.
    pub drain: Option<u64>,
    /// To the last old node destroyed; in a rejected rollout, of the new nodes.
    pub destroy: Option<u64>,
}

/// What the proxies measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The window, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Its end.
    pub until_ms: u64,
    /// Requests that ended in the window.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Failed by cause (see [`crate::record::cause`]).
    pub failed_by_cause: BTreeMap<String, u64>,
    /// Of these, sent again to another node.
    pub retried: u64,
    /// Of these, held because no node was ready.
    pub held: u64,
    /// Of these, cut at the drain deadline.
    pub cut: u64,
    /// Requests that a node had and had not begun to answer when their client went away: shown, not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unanswered: u64,
    /// Requests by release; the empty name: no node answered.
    pub by_release: BTreeMap<String, u64>,
    /// Answers by the first digit of their status, `1xx` to `5xx`; the application's own 5xx are here, not in `failed`.
    pub by_status: BTreeMap<String, u64>,
    /// Requests in flight on all nodes when the last proxy acknowledged the new route. `None`: it was never shifted.
    pub in_flight_at_switch: Option<u64>,
    /// The longest time between successive successful small GETs, in milliseconds. `None`: fewer than two.
    pub longest_gap_ms: Option<u64>,
    /// Small GETs in the minute before the rollout began, as far as it was recorded.
    pub before: Quantiles,
    /// Small GETs from the rollout's start to the last acknowledgement of the new route; to the rollout's end when it was rejected.
    pub during: Quantiles,
    /// Small GETs from then to the rollout's end: bake, drain, destroy.
    pub after: Quantiles,
    /// Connections that the kernel dropped at the listening sockets, since the workers began.
    pub listen_drops: u64,
}

/// What did not happen is not told: receipts from before it was counted stay as they were signed.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Latencies of small GETs in microseconds, from histograms of two significant digits, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// 99 of 100 were as quick.
    pub p99_us: u64,
    /// 999 of 1,000 were as quick.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}
