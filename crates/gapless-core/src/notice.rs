//! Facts that people and receipts are told: the story of a rollout.

use crate::analysis::Judgement;
use crate::effect::Task;
use crate::node::{GroupId, NodeId};
use crate::observation::Evidence;
use crate::release::{ArtifactVersion, ReleaseNumber};
use crate::route::Generation;
use crate::time::Instant;
use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

/// The number of a rollout, counted up from 1 per service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutNumber(pub u32);

impl fmt::Display for RolloutNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a rollout was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RolloutKind {
    /// A declaration changed.
    Deploy,
    /// An earlier release was asked for.
    Rollback,
    /// The live release's artifact was revoked: its nodes leave for the newest good release.
    Eviction,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The wanted release has all the traffic.
    Live,
    /// The old release, if there was one, is live; the new nodes leave, or are gone.
    Rejected(Rejection),
}

/// Why a rollout was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// A new node failed its health gate.
    GateFailed {
        /// Which node.
        node: NodeId,
        /// What the checks said.
        evidence: Evidence,
    },
    /// A new node's command ended by itself.
    NodeExited {
        /// Which node.
        node: NodeId,
        /// The exit code, if it is known.
        code: Option<i32>,
        /// The last lines it wrote.
        output: String,
    },
    /// The nodes did not become ready before the progress deadline.
    ProgressDeadline {
        /// Nodes that were not ready, with what was seen of them last.
        waiting_for: String,
    },
    /// A new node was made from another image than its release names (I3).
    WrongImage {
        /// Which node.
        node: NodeId,
    },
    /// An effect could not be carried out.
    EffectFailed {
        /// The effect's name.
        effect: String,
        /// Why.
        reason: String,
    },
    /// Somebody wanted the old release back before every proxy had acknowledged the new one.
    TakenBack,
    /// Somebody cancelled it.
    Cancelled,
    /// A later declaration took its place.
    Superseded,
    /// A task of the release did not end well.
    TaskFailed {
        /// Which task.
        task: Task,
        /// Its status and last output, or why it could not be run.
        reason: String,
    },
    /// The new group's answers were worse than the old one's.
    AnalysisFailed {
        /// The numbers.
        evidence: String,
    },
    /// The comparison of the two groups' answers came to no verdict in time.
    Inconclusive {
        /// What was missing last.
        evidence: String,
    },
    /// The new release's artifact was revoked.
    Revoked,
    /// A service that should move together with this one could not.
    PartnerFailed {
        /// Which one, and why.
        reason: String,
    },
    /// Somebody took a service back that moves together with this one.
    PartnerTakenBack {
        /// Which one.
        reason: String,
    },
}

impl Rejection {
    /// Whether a person took it back after it had the traffic, here or of what moves together with it: nothing says that it is bad.
    pub(crate) fn is_by_hand(&self) -> bool {
        matches!(self, Rejection::TakenBack | Rejection::PartnerTakenBack { .. })
    }
}

/// One fact of the story, in the order in which they happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A rollout began.
    RolloutStarted {
        /// Its number.
        rollout: RolloutNumber,
        /// Why it was begun.
        kind: RolloutKind,
        /// The release that is live, if one is.
        from: Option<ReleaseNumber>,
        /// The release that shall be live.
        to: ReleaseNumber,
    },
    /// All nodes of the new group run; their checks begin.
    NodesBooted {
        /// The rollout.
        rollout: RolloutNumber,
        /// The new group.
        group: GroupId,
    },
    /// All nodes of the new group passed the gate.
    GatePassed {
        /// The rollout.
        rollout: RolloutNumber,
        /// The new group.
        group: GroupId,
    },
    /// The route that gives the new group the traffic was decided. The way back was there: the old nodes were healthy (`way_back` false: there were none, or they were not).
    ShiftBegan {
        /// The rollout.
        rollout: RolloutNumber,
        /// The route's generation.
        generation: Generation,
        /// Whether the old group could take the traffic back at that moment.
        way_back: bool,
    },
    /// Every proxy acknowledged that route: all traffic is on the new group.
    Shifted {
        /// The rollout.
        rollout: RolloutNumber,
        /// The route's generation.
        generation: Generation,
    },
    /// The old group stays warm until then.
    BakeBegan {
        /// The rollout.
        rollout: RolloutNumber,
        /// The end of the bake window.
        until: Instant,
    },
    /// No route names these nodes any more; their last requests run out.
    DrainBegan {
        /// The rollout.
        rollout: RolloutNumber,
        /// The old group's, or those of a new one that was given up.
        nodes: BTreeSet<NodeId>,
        /// When what still runs is cut.
        deadline: Instant,
    },
    /// The old nodes have no request in flight, or the drain deadline has passed.
    Drained {
        /// The rollout.
        rollout: RolloutNumber,
        /// Requests that were still in flight at the deadline.
        cut: u32,
    },
    /// The new release was given up; the old one stays live. Its nodes are being destroyed.
    Rejecting {
        /// The rollout.
        rollout: RolloutNumber,
        /// Why.
        reason: Rejection,
    },
    /// The rollout is over.
    RolloutEnded {
        /// The rollout.
        rollout: RolloutNumber,
        /// How.
        outcome: Outcome,
        /// Everything of the other group is gone. When not, a person's next wish closed the rollout early, or its group goes on as part of the
        /// next one: its nodes still run or drain, and leave beside the next rollout.
        settled: bool,
    },
    /// A task of the release begins.
    TaskBegan {
        /// The rollout.
        rollout: RolloutNumber,
        /// Which task.
        task: Task,
    },
    /// A task of the release ended well.
    TaskEnded {
        /// The rollout.
        rollout: RolloutNumber,
        /// Which task.
        task: Task,
    },
    /// A step of the canary: the route that gives the new group this share was decided.
    CanaryStepBegan {
        /// The rollout.
        rollout: RolloutNumber,
        /// Which step, from 1.
        step: u32,
        /// The new group's share, in percent.
        percent: u8,
        /// The route's generation.
        generation: Generation,
    },
    /// The answers of the two groups were compared.
    Analysed {
        /// The rollout.
        rollout: RolloutNumber,
        /// The verdict and its evidence.
        judgement: Judgement,
    },
    /// Somebody promoted the canary's step.
    Promoted {
        /// The rollout.
        rollout: RolloutNumber,
    },
    /// Somebody paused the rollout.
    Paused {
        /// The rollout.
        rollout: RolloutNumber,
    },
    /// Somebody resumed the rollout.
    Resumed {
        /// The rollout.
        rollout: RolloutNumber,
        /// How long it was paused, in milliseconds: its deadlines are later by so much.
        after: u64,
    },
    /// A batch of a rolling rollout: so many new nodes have traffic now, and so many old ones have it still.
    BatchJoined {
        /// The rollout.
        rollout: RolloutNumber,
        /// New nodes with traffic.
        new: u32,
        /// Old nodes with traffic.
        old: u32,
    },
    /// The old nodes leave before there are new ones: from now until [`Notice::Shifted`] or [`Notice::RolloutEnded`] nothing answers.
    OutageBegan {
        /// The rollout.
        rollout: RolloutNumber,
    },
    /// The new nodes were given up, and nodes of the old release are made again.
    Restoring {
        /// The rollout.
        rollout: RolloutNumber,
        /// The group that takes the old one's place.
        group: GroupId,
    },
    /// The new nodes passed the gate and wait for the services that move together with this one.
    PartnersAwaited {
        /// The rollout.
        rollout: RolloutNumber,
    },
    /// A service that moved together with this one went back, and so does this one.
    FollowsBack {
        /// The live release.
        from: ReleaseNumber,
        /// The one that was live before; none: there is none that may run.
        to: Option<ReleaseNumber>,
        /// Which service went back, and why.
        reason: String,
    },
    /// A release waits: for the end of the rollout in progress, or of a freeze window.
    Queued {
        /// The release.
        release: ReleaseNumber,
        /// The end of the freeze window that it waits for, if it does.
        frozen_until: Option<Instant>,
    },
    /// A release that waited will not be tried: a later declaration took its place, or the live release was declared again.
    Dequeued {
        /// The release.
        release: ReleaseNumber,
    },
    /// Somebody gave the service another number of nodes.
    Scaled {
        /// Before.
        from: u32,
        /// From now on.
        to: u32,
    },
    /// Versions of the artifact were revoked, or given free again.
    RevocationsChanged {
        /// All that are revoked now.
        artifacts: BTreeSet<ArtifactVersion>,
    },
    /// The live release is revoked, and there is no good one to go to: its nodes go on until one is declared.
    NothingToEvictTo {
        /// The live release.
        live: ReleaseNumber,
    },
    /// Nodes of the live group die again and again: no more are made until somebody asks for it.
    CrashLoop {
        /// The group.
        group: GroupId,
        /// Replacements in a row that did not help.
        tries: u32,
    },
    /// A node of the live group died by itself; it leaves the routes and a new one is made.
    NodeLost {
        /// Which node.
        node: NodeId,
        /// What was seen of it.
        why: String,
    },
    /// A new node took a lost one's place.
    NodeReplaced {
        /// The new node.
        node: NodeId,
    },
    /// An effect could not be carried out; it is tried again.
    EffectFailed {
        /// The effect's name.
        effect: String,
        /// Why.
        reason: String,
    },
}

impl Notice {
    /// The rollout that this fact belongs to, if it belongs to one.
    #[must_use]
    pub fn rollout(&self) -> Option<RolloutNumber> {
        match self {
            Notice::RolloutStarted { rollout, .. }
            | Notice::NodesBooted { rollout, .. }
            | Notice::GatePassed { rollout, .. }
            | Notice::ShiftBegan { rollout, .. }
            | Notice::Shifted { rollout, .. }
            | Notice::BakeBegan { rollout, .. }
            | Notice::DrainBegan { rollout, .. }
            | Notice::Drained { rollout, .. }
            | Notice::Rejecting { rollout, .. }
            | Notice::TaskBegan { rollout, .. }
            | Notice::TaskEnded { rollout, .. }
            | Notice::CanaryStepBegan { rollout, .. }
            | Notice::Analysed { rollout, .. }
            | Notice::Promoted { rollout }
            | Notice::Paused { rollout }
            | Notice::Resumed { rollout, .. }
            | Notice::BatchJoined { rollout, .. }
            | Notice::OutageBegan { rollout }
            | Notice::Restoring { rollout, .. }
            | Notice::PartnersAwaited { rollout }
            | Notice::RolloutEnded { rollout, .. } => Some(*rollout),
            Notice::Queued { .. }
            | Notice::Dequeued { .. }
            | Notice::Scaled { .. }
            | Notice::RevocationsChanged { .. }
            | Notice::NothingToEvictTo { .. }
            | Notice::FollowsBack { .. }
            | Notice::CrashLoop { .. }
            | Notice::NodeLost { .. }
            | Notice::NodeReplaced { .. }
            | Notice::EffectFailed { .. } => None,
        }
    }
}
