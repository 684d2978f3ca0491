//! What `gapless doctor` finds.

use serde::{Deserialize, Serialize};

/// The state of health of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examination {
    /// What is not as it should be, the gravest first. Empty: all is well.
    pub findings: Vec<Finding>,
    /// What a restart of the server would do now, service by service, in plain words.
    pub restart: Vec<RestartPlan>,
    /// What was removed, when that was wished.
    pub removed: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Such as `missing-tool`, `leftover`, `tampered-tree`, `proxy`.
    pub kind: String,
    /// What it is about.
    pub what: String,
    /// Why it is a finding.
    pub why: String,
    /// What the person can do.
    pub hint: Option<String>,
    /// `gapless doctor --fix` removes it.
    pub removable: bool,
}

/// What a restart would do to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPlan {
    /// The full service name.
    pub service: String,
    /// What it is at, and would go on with, in plain words. Empty: the journal does not tell.
    #[serde(default)]
    pub state: String,
    /// Effects that were sent and whose end is not known.
    pub pending: Vec<String>,
    /// Effects that the next look at the world would bring. Empty: it would only look, and wait.
    pub next: Vec<String>,
}

/// What the doctor may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treatment {
    /// Remove leftovers that no live node explains.
    pub remove_leftovers: bool,
}
