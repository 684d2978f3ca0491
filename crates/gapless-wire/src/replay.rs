//! A rollout that is run through the core again, record by record.

use serde::{Deserialize, Serialize};

/// What came of running a rollout's records again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The full service name.
    pub service: String,
    /// The rollout's number.
    pub rollout: u32,
    /// Where the replay began: the record before the first that was run. 0: at the beginning of the journal.
    pub from_record: u64,
    /// How many records were run until the rollout's last one.
    pub records: u64,
    /// The core decided in every one of them what was decided then.
    pub agrees: bool,
    /// Every record from the rollout's begin to its end.
    pub steps: Vec<ReplayStep>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStep {
    /// Its place in the service's journal, from 1.
    pub record: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened, in plain words.
    pub event: String,
    /// What the core decides on it now, in plain words, in order.
    pub decided: Vec<String>,
    /// What was decided then, if that is something else.
    pub recorded: Option<Vec<String>>,
    /// The state after it, in one line.
    pub state: String,
}
