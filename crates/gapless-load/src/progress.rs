//! How a run stands while it goes on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A snapshot of a run, made every 250 ms. Counts are since the start unless they stand in `interval`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// When it was made: milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Milliseconds since the run's start.
    pub elapsed_ms: u64,
    /// Requests that were started.
    pub requests: u64,
    /// Requests that ended, failed ones included.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Failed requests by cause.
    pub failed_by_cause: BTreeMap<String, u64>,
    /// Requests started and not ended, by class.
    pub in_flight: BTreeMap<String, u64>,
    /// Requests by the release that answered; `none` where no response named one.
    pub by_release: BTreeMap<String, u64>,
    /// Requests that the witness itself started late.
    pub late_starts: u64,
    /// What ended since the snapshot before.
    pub interval: Interval,
}

/// What ended between two snapshots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Length of the interval in milliseconds.
    pub length_ms: u64,
    /// Requests that ended.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests by the release that answered.
    pub by_release: BTreeMap<String, u64>,
    /// Longest latency from the scheduled instant, by class, in milliseconds, of requests that succeeded.
    pub max_ms: BTreeMap<String, f64>,
}
