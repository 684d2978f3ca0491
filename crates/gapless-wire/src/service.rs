//! Services and their nodes, as the server tells them.

use crate::api::Problem;
use crate::release::Release;
use crate::rollout::{RolloutKind, Waiting};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The full name, `project/service`.
    pub service: String,
    /// The `Host` that it answers.
    pub host: String,
    /// The release that has the traffic.
    pub live: Option<Release>,
    /// The release that the declarer wants.
    pub declared: Option<String>,
    /// The release that a rollback without a name goes to.
    pub previous: Option<String>,
    /// Rolled back by hand: only a changed declaration moves it.
    pub pinned: bool,
    /// The rollout in progress.
    pub rollout: Option<RolloutStatus>,
    /// The generation of the route that was decided last.
    pub generation: u64,
    /// What each proxy worker applied; `None`: it does not answer, or does not know the service.
    pub proxies: BTreeMap<String, Option<u64>>,
    /// Every node that exists, by name.
    pub nodes: Vec<NodeStatus>,
    /// Until when the way back is one `Route`, in milliseconds since the Unix epoch.
    pub undo_until_ms: Option<u64>,
    /// How it moves from one release to the next, as the live or else the declared release says: `blue-green`, `rolling`, `canary`, `recreate`.
    #[serde(default)]
    pub strategy: String,
    /// The number of nodes that somebody wanted, if that is not what is declared.
    #[serde(default)]
    pub scaled: Option<Scaled>,
    /// The release that is tried next.
    #[serde(default)]
    pub queued: Option<Queued>,
    /// Nodes of the live release died again and again: no more are made until somebody asks for them.
    #[serde(default)]
    pub crash_loop: bool,
    /// The live release's artifact is revoked.
    #[serde(default)]
    pub revoked: bool,
    /// Why it does not get on by itself just now (no room for the journal, a world that cannot be looked at). What is live serves all the same.
    #[serde(default)]
    pub trouble: Option<Problem>,
    /// Why what it did long ago cannot be told: old records of its journal are damaged. It goes on all the same.
    #[serde(default)]
    pub damage: Option<Problem>,
}

/// A rollout in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Its number in the service.
    pub number: u32,
    /// Why it was begun.
    pub kind: RolloutKind,
    /// The release that was live at its start.
    pub from: Option<String>,
    /// The release that shall be live.
    pub to: String,
    /// How far it has come.
    pub stage: Stage,
    /// Since when it is paused, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub paused_since_ms: Option<u64>,
    /// When the stage ends, or ends badly, at the latest; in milliseconds since the Unix epoch.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// The canary's step.
    #[serde(default)]
    pub canary: Option<CanaryStatus>,
    /// The other services that move together with it.
    #[serde(default)]
    pub together: Vec<String>,
    /// Why it is given up, in plain words, if it is.
    #[serde(default)]
    pub given_up: Option<String>,
}

/// A step of a canary in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStatus {
    /// Which step, from 1.
    pub step: u32,
    /// How many there are before all of the traffic.
    pub steps: u32,
    /// The new nodes' share of the traffic.
    pub percent: u8,
    /// Every proxy sends the new nodes their share since then, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// The step ends then at the earliest. `None`: with a person's word, or it has not begun to count.
    pub until_ms: Option<u64>,
    /// It ends with a person's word.
    pub person: bool,
    /// The answers are compared.
    pub compared: bool,
    /// What the last comparison of this step said, with its evidence.
    pub analysis: Option<String>,
}

/// A number of nodes that somebody wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// What is declared.
    pub declared: u32,
    /// What is wanted until a declaration names another number.
    pub nodes: u32,
}

/// A release that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The release, `web-r7`.
    pub release: String,
    /// What it waits for.
    pub waiting: Waiting,
}

/// How far a rollout has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The old group leaves before the new one is made.
    Vacate,
    /// The release command runs.
    Command,
    /// The new nodes are created, started and checked.
    Prepare,
    /// The new nodes passed the gate and wait for services that move together with this one.
    Await,
    /// The new group has a share of the traffic.
    Canary,
    /// New nodes take old ones' place, some after others.
    Roll,
    /// The traffic goes over.
    Shift,
    /// The new group has all the traffic; what has to be done after the shift is not done.
    Confirm,
    /// The new group has all the traffic; the old one is kept warm.
    Bake,
    /// The old group leaves.
    Retire,
    /// The new group was given up and leaves.
    Undo,
    /// A rolling rollout was given up: old nodes take new ones' place again.
    Unroll,
    /// The new group is gone, and nodes of the old release are made again.
    Restore,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name, `r7-i12-n0`.
    pub name: String,
    /// Its release, `web-r7`.
    pub release: String,
    /// `starting`, `running`, `exited`.
    pub condition: String,
    /// Its weight in the route; `None`: no route names it.
    pub weight: Option<u16>,
    /// Passed checks in a row.
    pub passes: u32,
    /// Failed checks in a row.
    pub failures: u32,
    /// What came of its latest failed check.
    pub failure: Option<String>,
    /// Requests that it is answering.
    pub requests_in_flight: u32,
    /// The digest of the image it was made from, as verified.
    pub image: String,
}
