//! The rule that a fact follows from.

use gapless_core::analysis::Verdict;
use gapless_core::effect::Task;
use gapless_core::notice::{Notice, Rejection, RolloutKind};

pub(super) fn rule(notice: &Notice) -> &'static str {
    match notice {
        Notice::RolloutStarted { kind, .. } => started(*kind),
        Notice::NodesBooted { .. } => "new nodes are made beside the old ones: nothing live is ever changed",
        Notice::GatePassed { .. } => "I3: a node gets traffic only after its image was verified by digest and it passed the health gate",
        Notice::ShiftBegan { .. } => {
            "I1: ready capacity in the routes never falls below the floor; the way back is looked at before every shift"
        }
        Notice::Shifted { .. } => "I5: a proxy applies a route whole, keeps it on disk, and acknowledges it; older ones it refuses",
        Notice::BakeBegan { .. } => "the bake window: what is warm can be gone back to in one step",
        Notice::DrainBegan { .. } => "I2: first every proxy acknowledges a route without these nodes, then they are drained",
        Notice::Drained { .. } => "I2: a node is destroyed only with no request in flight, or when its drain deadline has passed",
        Notice::Rejecting { reason, .. } => rejection(reason),
        Notice::RolloutEnded { .. } => "a rollout ends when the groups that are not wanted are gone, or when the next one takes its place",
        Notice::TaskBegan { task, .. } | Notice::TaskEnded { task, .. } => task_rule(*task),
        Notice::CanaryStepBegan { .. } => {
            "a canary gives the new nodes a growing share; each step counts from every proxy's acknowledgement on"
        }
        Notice::Analysed { judgement, .. } => verdict(judgement.verdict),
        Notice::Promoted { .. } => "a person's word ends a step, whatever the comparison says",
        Notice::Paused { .. } | Notice::Resumed { .. } => {
            "a pause holds decisions, not safety: what has to be done for I1 and I2 is done all the same"
        }
        Notice::BatchJoined { .. } => "I1: old nodes leave only as new ones take their place, within the room that surge and floor leave",
        Notice::OutageBegan { .. } => {
            "I7: where only one may use the state, new nodes are made when no other is there; the outage is counted"
        }
        Notice::Restoring { .. } => "a rejected rollout ends in the old release, also where its nodes had to leave first",
        Notice::PartnersAwaited { .. } => "services that move together shift together, or none of them does",
        Notice::FollowsBack { .. } => "services that came together go back together; where no old nodes are left, by a rollout of its own",
        Notice::Queued { frozen_until: None, .. } => "one rollout per service: a declaration waits its turn, and the newest wins",
        Notice::Queued { frozen_until: Some(_), .. } => {
            "in a freeze window no deployment begins unless it is urgent; rollbacks and evictions are never frozen"
        }
        Notice::Dequeued { .. } => "what is tried next is what was wanted last",
        Notice::Scaled { .. } => "scaling changes no release: it holds until a declaration names another number of nodes",
        Notice::RevocationsChanged { .. } => "a revoked version is not deployed, not gone back to, and leaves where it runs",
        Notice::NothingToEvictTo { .. } => "I1: ready capacity is not given up for nothing",
        Notice::CrashLoop { .. } => {
            "a crash loop is told rather than repeated for ever, and never begins a rollback to the same bad version"
        }
        Notice::NodeLost { .. } | Notice::NodeReplaced { .. } => "a node is replaced, never repaired",
        Notice::EffectFailed { .. } => "I4: every effect may be done twice with the same end, so it is simply tried again",
    }
}

fn started(kind: RolloutKind) -> &'static str {
    match kind {
        RolloutKind::Deploy => "a declaration whose content is new is a new release (I6: the same again would do nothing)",
        RolloutKind::Rollback => {
            "a rollback is an ordinary rollout to an earlier release, and pins the service until its declaration changes"
        }
        RolloutKind::Eviction => "a revoked version leaves by an ordinary rollout to the newest good release",
    }
}

fn rejection(reason: &Rejection) -> &'static str {
    match reason {
        Rejection::GateFailed { .. } | Rejection::NodeExited { .. } | Rejection::ProgressDeadline { .. } => {
            "a failed gate ends in the old release"
        }
        Rejection::WrongImage { .. } => "I3: a node gets traffic only after its image was verified by digest",
        Rejection::EffectFailed { .. } => "what trying again cannot help ends in the old release",
        Rejection::TakenBack | Rejection::Cancelled => "until the old nodes are gone a person may give the traffic back",
        Rejection::Superseded => "`supersede = \"replace\"`: a later declaration ends a rollout that has not shifted the traffic",
        Rejection::TaskFailed { .. } => "a release whose command or hook fails ends in the old release",
        Rejection::AnalysisFailed { .. } => "answers that are worse than the margins allow, and not by chance, end in the old release",
        Rejection::Inconclusive { .. } => "what is not shown to be good does not get more traffic",
        Rejection::Revoked => "a revoked version is not deployed",
        Rejection::PartnerTakenBack { .. } => "services that came together go back together",
        Rejection::PartnerFailed { .. } => "services that move together shift together, or none of them does",
    }
}

fn task_rule(task: Task) -> &'static str {
    match task {
        Task::ReleaseCommand => "a release command runs once, before any node that serves: a failure rejects the release",
        Task::BeforeShift => "a hook before the shift runs once: a failure rejects the release, and nothing has touched the old nodes",
        Task::AfterShift => "a hook after the shift runs once: a failure gives the traffic back to the old nodes, which are kept for it",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Promote => "enough requests show that the new nodes are not worse than the margins allow",
        Verdict::Hold => "too few requests, or a difference that may be chance: nothing follows from it yet",
        Verdict::Abort => "worse than the margins allow, and not by chance: the release is given up",
    }
}
