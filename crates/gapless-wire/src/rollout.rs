//! Rollouts: what is asked, what would happen, and the story as it happens.

use crate::api::Problem;
use crate::receipt::SignedReceipt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Declare the services of a commit. The `gapless.hcl` that counts is the one in the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRequest {
    /// The folder of the project's Git repository, absolute, on the server's machine.
    pub project: PathBuf,
    /// The commit, or any name of one.
    pub commit: String,
    /// The service, by its name in `gapless.hcl`; every service if it is left out.
    #[serde(default)]
    pub service: Option<String>,
    /// Which artifact version to run; by default the newest that was built from this commit.
    #[serde(default)]
    pub artifact: ArtifactChoice,
    /// The artifact was built for this deploy: `switch_ms` of the receipt counts from the moment it was published, and the build is one of its phases.
    #[serde(default)]
    pub built_for_this: bool,
    /// It does not wait for the end of a freeze window.
    #[serde(default)]
    pub urgent: bool,
}

/// Which artifact version a deploy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactChoice {
    /// The newest version that was built from the commit.
    #[default]
    OfCommit,
    /// The newest version.
    Latest,
    /// This version.
    Version(u32),
}

/// What came of a declaration, a rollback or an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The full service name.
    pub service: String,
    /// The release, `web-r7`.
    pub release: String,
    /// The number of the rollout that is on its way; `None`: nothing changed, nothing happens (I6).
    pub rollout: Option<u32>,
    /// Whether anything changed.
    pub changed: bool,
    /// The release is not tried yet, and what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// The declared release, which is not tried: the service was rolled back by hand to `release`, and stays there until its declaration changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<String>,
    /// The services that do the same, because they move together with this one: full names. Of a rollback and of another try alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
}

/// What a declared release waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The rollout whose end it waits for, if one is in progress.
    pub rollout: Option<u32>,
    /// The end of the freeze window that it waits for, in milliseconds since the Unix epoch.
    pub frozen_until_ms: Option<u64>,
}

/// Go back to an earlier release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// The release's number; the one that was live before if it is left out.
    #[serde(default)]
    pub to: Option<u32>,
    /// Also past a release that declared that what was before it can no longer run.
    #[serde(default)]
    pub force: bool,
}

/// What a deploy would do to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The full service name.
    pub service: String,
    /// Whether anything would change.
    pub changed: bool,
    /// The declaration would be refused; the line says why.
    #[serde(default)]
    pub refused: bool,
    /// What would happen, in order, in plain words.
    pub lines: Vec<String>,
}

/// Why a rollout was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutKind {
    /// A declaration changed.
    Deploy,
    /// An earlier release was asked for.
    Rollback,
    /// The live release's artifact was revoked.
    Eviction,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The wanted release has all the traffic.
    Live,
    /// The old release stayed live.
    Rejected,
}

/// A rollout in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// The full service name.
    pub service: String,
    /// Its number in the service.
    pub number: u32,
    /// Why it was begun.
    pub kind: RolloutKind,
    /// The release that was live at its start.
    pub from: Option<String>,
    /// The release that should be live.
    pub to: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended; `None`: it is in progress.
    pub ended_ms: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Whether its receipt is there.
    pub receipt: bool,
}

/// A fact of the story, in plain words and for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The rollout that it belongs to, if it belongs to one.
    pub rollout: Option<u32>,
    /// What happened.
    pub fact: Fact,
    /// The same in plain words, with the evidence.
    pub text: String,
    /// The rule that was followed, in plain words.
    pub rule: String,
}

/// What may happen in a rollout. The fields are as in the core's notices; releases are written `web-r7`, nodes `r7-i12-n0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Fact {
    RolloutStarted { kind: RolloutKind, from: Option<String>, to: String },
    NodesBooted { group: String },
    GatePassed { group: String },
    ShiftBegan { generation: u64, way_back: bool },
    Shifted { generation: u64 },
    BakeBegan { until_ms: u64 },
    DrainBegan { nodes: Vec<String>, deadline_ms: u64 },
    Drained { cut: u32 },
    Rejecting { reason: Reason },
    RolloutEnded { outcome: Outcome },
    NodeLost { node: String, why: String },
    NodeReplaced { node: String },
    EffectFailed { effect: String, why: String },
    TaskBegan { task: String },
    TaskEnded { task: String },
    CanaryStepBegan { step: u32, percent: u8, generation: u64 },
    Analysed { verdict: Verdict, evidence: String },
    Promoted,
    Paused,
    Resumed { after_ms: u64 },
    BatchJoined { new: u32, old: u32 },
    OutageBegan,
    Restoring { group: String },
    PartnersAwaited,
    Queued { release: String, frozen_until_ms: Option<u64> },
    Dequeued { release: String },
    Scaled { from: u32, to: u32 },
    RevocationsChanged { versions: Vec<u32> },
    NothingToEvictTo { live: String },
    FollowsBack { from: String, to: Option<String>, why: String },
    CrashLoop { group: String, tries: u32 },
}

/// What a comparison of two releases' answers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The new release's answers are not worse than is allowed.
    Promote,
    /// Not decided.
    Hold,
    /// They are worse, and not by chance.
    Abort,
}

/// Why a rollout was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `gate-failed`, `node-exited`, `progress-deadline`, `wrong-image`, `effect-failed`, `taken-back`, `cancelled`, `superseded`, `task-failed`, `analysis-failed`,
    /// `inconclusive`, `revoked`, `partner-failed`.
    pub kind: String,
    /// The reason in plain words.
    pub text: String,
    /// The node that it was seen on.
    pub node: Option<String>,
    /// The check that failed, such as `GET /healthz`.
    pub check: Option<String>,
    /// What came of the check, such as `status 500`.
    pub result: Option<String>,
    /// How often in a row.
    pub times: Option<u32>,
    /// The last lines that the node wrote.
    pub output: Option<String>,
}

/// One line of the stream of a rollout: the story so far, then live, with counts between, to its end. The stream ends after `End`, or after `Baking` when that is what was waited for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum RolloutLine {
    /// A fact.
    Step(Step),
    /// What the proxies counted.
    Counts(Counts),
    /// The traffic is on the new release, and the old one is kept warm at present: `gapless deploy` ends here. It comes again when a pause made the bake window later.
    Baking {
        /// Until when the way back is one `Route`, in milliseconds since the Unix epoch.
        until_ms: u64,
        /// What was counted so far.
        counts: Counts,
    },
    /// The rollout is over. It is the last line.
    End {
        /// How.
        outcome: Outcome,
        /// Why, when it was rejected.
        reason: Option<Reason>,
        /// Its receipt.
        receipt: Option<Box<SignedReceipt>>,
    },
    /// The server cannot tell more. It is the last line; the rollout is not touched.
    Lost(Problem),
}

/// What the proxies counted for the service since the rollout's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Up to when, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Of these, sent again.
    pub retried: u64,
    /// Of these, held.
    pub held: u64,
    /// Of these, cut.
    pub cut: u64,
    /// Requests of the last second, by release.
    pub split: BTreeMap<String, u64>,
    /// Nodes of the new release that run, and that passed a check; the number that is wanted.
    pub nodes: NodeCounts,
}

/// How far the nodes of the new release are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts {
    /// Wanted.
    pub wanted: u32,
    /// Running.
    pub running: u32,
    /// Whose latest check passed.
    pub passing: u32,
}

/// The story of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The rollout.
    pub rollout: RolloutSummary,
    /// Every fact in order.
    pub steps: Vec<Step>,
}
