//! What a run comes to: totals, and the log behind them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::Cause;
use crate::sample::{Name, SampleLog};

/// The totals of a run. Every request that was started is in them; each either succeeded or failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Requests that were started.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Failed requests by cause; causes that did not occur are left out.
    pub failed_by_cause: BTreeMap<String, u64>,
    /// By class; every class of the plan is there.
    pub by_class: BTreeMap<String, ClassReport>,
    /// By the release that answered; `none` where no response named one.
    pub by_release: BTreeMap<String, ReleaseReport>,
    /// Requests that the witness itself started more than 50 ms late: above 0, it was the bottleneck.
    pub late_starts: u64,
    /// Kept connections that the server had closed before anything of a next request was written.
    pub stale_connections: u64,
    /// Requests that are in these totals and not in the log of samples, for it was full.
    pub samples_dropped: u64,
    /// The first failures, told in words.
    pub failure_examples: Vec<FailureExample>,
    /// Milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub ended_unix_ms: u64,
}

/// The totals of one class; latencies from the scheduled instant, of requests that succeeded, to 3 digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Requests that were started.
    pub requests: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that failed.
    pub failed: u64,
    /// Failed requests by cause.
    pub failed_by_cause: BTreeMap<String, u64>,
    /// Median in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// Longest in milliseconds.
    pub max_ms: f64,
}

/// The totals of one release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// Requests it answered.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
}

/// One failed request, for the person who looks for the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureExample {
    /// When it had to start: microseconds since the Unix epoch.
    pub scheduled_us: u64,
    /// Name of its class.
    pub class: String,
    /// The cause it is counted under.
    pub cause: Cause,
    /// What happened, in words.
    pub detail: String,
    /// The release that answered, if one did.
    pub release: Option<Name>,
    /// The node that answered, if one did.
    pub node: Option<Name>,
}

/// A run's totals and its samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The totals.
    pub report: Report,
    /// The log they come from.
    pub samples: SampleLog,
}
