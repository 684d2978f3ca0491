//! Facts for machines: a notice as the wire has it.

use super::{kind, outcome, reason, release_name};
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::name::ServiceName;
use gapless_core::notice::Notice;
use gapless_core::release::ReleaseNumber;
use gapless_wire::rollout::{self as wire, Fact};

pub(super) fn fact(service: &ServiceName, notice: &Notice) -> Fact {
    let name = |release: &ReleaseNumber| release_name(service, *release);
    match notice {
        Notice::RolloutStarted { kind: why, from, to, .. } => {
            Fact::RolloutStarted { kind: kind(*why), from: from.as_ref().map(name), to: name(to) }
        }
        Notice::NodesBooted { group, .. } => Fact::NodesBooted { group: group.to_string() },
        Notice::GatePassed { group, .. } => Fact::GatePassed { group: group.to_string() },
        Notice::ShiftBegan { generation, way_back, .. } => Fact::ShiftBegan { generation: generation.0, way_back: *way_back },
        Notice::Shifted { generation, .. } => Fact::Shifted { generation: generation.0 },
        Notice::BakeBegan { until, .. } => Fact::BakeBegan { until_ms: until.0 },
        Notice::DrainBegan { nodes, deadline, .. } => {
            Fact::DrainBegan { nodes: nodes.iter().map(ToString::to_string).collect(), deadline_ms: deadline.0 }
        }
        Notice::Drained { cut, .. } => Fact::Drained { cut: *cut },
        Notice::Rejecting { reason: why, .. } => Fact::Rejecting { reason: reason(why) },
        Notice::RolloutEnded { outcome: how, .. } => Fact::RolloutEnded { outcome: outcome(how) },
        Notice::TaskBegan { task, .. } => Fact::TaskBegan { task: task.to_string() },
        Notice::TaskEnded { task, .. } => Fact::TaskEnded { task: task.to_string() },
        Notice::CanaryStepBegan { step, percent, generation, .. } => {
            Fact::CanaryStepBegan { step: *step, percent: *percent, generation: generation.0 }
        }
        Notice::Analysed { judgement, .. } => analysed(judgement),
        Notice::Promoted { .. } => Fact::Promoted,
        Notice::Paused { .. } => Fact::Paused,
        Notice::Resumed { after, .. } => Fact::Resumed { after_ms: *after },
        Notice::BatchJoined { new, old, .. } => Fact::BatchJoined { new: *new, old: *old },
        Notice::OutageBegan { .. } => Fact::OutageBegan,
        Notice::Restoring { group, .. } => Fact::Restoring { group: group.to_string() },
        Notice::PartnersAwaited { .. } => Fact::PartnersAwaited,
        Notice::Queued { release, frozen_until } => {
            Fact::Queued { release: name(release), frozen_until_ms: frozen_until.map(|until| until.0) }
        }
        Notice::Dequeued { release } => Fact::Dequeued { release: name(release) },
        Notice::Scaled { from, to } => Fact::Scaled { from: *from, to: *to },
        Notice::RevocationsChanged { artifacts } => {
            Fact::RevocationsChanged { versions: artifacts.iter().map(|version| version.0).collect() }
        }
        Notice::FollowsBack { from, to, reason } => Fact::FollowsBack { from: name(from), to: to.as_ref().map(name), why: reason.clone() },
        Notice::NothingToEvictTo { live } => Fact::NothingToEvictTo { live: name(live) },
        Notice::CrashLoop { group, tries } => Fact::CrashLoop { group: group.to_string(), tries: *tries },
        Notice::NodeLost { node, why } => Fact::NodeLost { node: node.to_string(), why: why.clone() },
        Notice::NodeReplaced { node } => Fact::NodeReplaced { node: node.to_string() },
        Notice::EffectFailed { effect, reason } => Fact::EffectFailed { effect: effect.clone(), why: reason.clone() },
    }
}

fn analysed(judgement: &Judgement) -> Fact {
    let verdict = match judgement.verdict {
        Verdict::Promote => wire::Verdict::Promote,
        Verdict::Hold => wire::Verdict::Hold,
        Verdict::Abort => wire::Verdict::Abort,
    };
    Fact::Analysed { verdict, evidence: judgement.evidence.clone() }
}
