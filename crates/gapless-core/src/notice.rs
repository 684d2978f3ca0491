//! Facts that people and receipts are told: the story of a rollout.

use crate::node::{GroupId, NodeId};
use crate::observation::Evidence;
use crate::release::ReleaseNumber;
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
    /// No route names the old nodes any more; their last requests run out.
    DrainBegan {
        /// The rollout.
        rollout: RolloutNumber,
        /// The old nodes.
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
            | Notice::RolloutEnded { rollout, .. } => Some(*rollout),
            Notice::NodeLost { .. } | Notice::NodeReplaced { .. } | Notice::EffectFailed { .. } => None,
        }
    }
}
