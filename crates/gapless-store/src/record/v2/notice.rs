//! Notices in version 2.

use super::form::form_of_enum;
use gapless_core::analysis::Judgement;
use gapless_core::effect::Task;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind, RolloutNumber};
use gapless_core::observation::Evidence;
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::route::Generation;
use gapless_core::time::Instant;
use std::collections::BTreeSet;

form_of_enum!(Notice {
    RolloutStarted { rollout: RolloutNumber, kind: RolloutKind, from: Option<ReleaseNumber>, to: ReleaseNumber },
    NodesBooted { rollout: RolloutNumber, group: GroupId },
    GatePassed { rollout: RolloutNumber, group: GroupId },
    ShiftBegan { rollout: RolloutNumber, generation: Generation, way_back: bool },
    Shifted { rollout: RolloutNumber, generation: Generation },
    BakeBegan { rollout: RolloutNumber, until: Instant },
    DrainBegan { rollout: RolloutNumber, nodes: BTreeSet<NodeId>, deadline: Instant },
    Drained { rollout: RolloutNumber, cut: u32 },
    Rejecting { rollout: RolloutNumber, reason: Rejection },
    RolloutEnded { rollout: RolloutNumber, outcome: Outcome, settled: bool },
    TaskBegan { rollout: RolloutNumber, task: Task },
    TaskEnded { rollout: RolloutNumber, task: Task },
    CanaryStepBegan { rollout: RolloutNumber, step: u32, percent: u8, generation: Generation },
    Analysed { rollout: RolloutNumber, judgement: Judgement },
    Promoted { rollout: RolloutNumber },
    Paused { rollout: RolloutNumber },
    Resumed { rollout: RolloutNumber, after: u64 },
    BatchJoined { rollout: RolloutNumber, new: u32, old: u32 },
    OutageBegan { rollout: RolloutNumber },
    Restoring { rollout: RolloutNumber, group: GroupId },
    PartnersAwaited { rollout: RolloutNumber },
    Queued { release: ReleaseNumber, frozen_until: Option<Instant> },
    Dequeued { release: ReleaseNumber },
    Scaled { from: u32, to: u32 },
    RevocationsChanged { artifacts: BTreeSet<ArtifactVersion> },
    NothingToEvictTo { live: ReleaseNumber },
    FollowsBack { from: ReleaseNumber, to: Option<ReleaseNumber>, reason: String },
    CrashLoop { group: GroupId, tries: u32 },
    NodeLost { node: NodeId, why: String },
    NodeReplaced { node: NodeId },
    EffectFailed { effect: String, reason: String },
});

form_of_enum!(RolloutKind { Deploy, Rollback, Eviction });

form_of_enum!(Outcome { Live, Rejected(reason: Rejection) });

form_of_enum!(Rejection {
    GateFailed { node: NodeId, evidence: Evidence },
    NodeExited { node: NodeId, code: Option<i32>, output: String },
    ProgressDeadline { waiting_for: String },
    WrongImage { node: NodeId },
    EffectFailed { effect: String, reason: String },
    TakenBack,
    Cancelled,
    Superseded,
    TaskFailed { task: Task, reason: String },
    AnalysisFailed { evidence: String },
    Inconclusive { evidence: String },
    Revoked,
    PartnerFailed { reason: String },
    PartnerTakenBack { reason: String },
});
