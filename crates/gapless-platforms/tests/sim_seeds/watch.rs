//! Watches every record that becomes durable: the invariants, with the memory that the state does not keep, and the situations that it shows.

use gapless_core::analysis::Verdict;
use gapless_core::effect::{Effect, EffectKind};
use gapless_core::event::Event;
use gapless_core::invariant::Monitor;
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind};
use gapless_core::rollout::step;
use gapless_core::service::{ServiceState, Stage};
use gapless_core::time::Instant;
use gapless_engine::store::JournalRecord;
use gapless_platforms::sometimes;

/// One service's records so far.
#[derive(Default)]
pub struct Watched {
    /// What they amount to.
    pub state: ServiceState,
    monitor: Monitor,
    at: Instant,
}

impl Watched {
    /// Watches one more. `others`: the states of the other services.
    pub fn watch(&mut self, record: &JournalRecord, others: &[ServiceState]) -> Result<(), String> {
        let decided = step(&self.state, &record.event, record.at);
        let verdict = self.monitor.watch(&self.state, &record.event, record.at, &decided).map_err(|violation| violation.to_string());
        situations(&self.state, record, others);
        self.state = decided.state;
        if record.at < self.at {
            return Err(format!("the time went back from {:?} to {:?}", self.at, record.at));
        }
        self.at = record.at;
        if decided.effects != record.effects {
            return Err(format!("{:?} was written, and the core decides {:?}", record.effects, decided.effects));
        }
        verdict
    }
}

fn situations(before: &ServiceState, record: &JournalRecord, others: &[ServiceState]) {
    match &record.event {
        Event::Restarted => restart(before),
        Event::EffectEnded { result, .. } => {
            sometimes!("an effect fails for good", result.as_ref().is_err_and(|failure| failure.is_final));
        }
        _ => {}
    }
    for (_, effect) in &record.effects {
        match effect {
            Effect::Notify(notice) => told(before, notice),
            Effect::Route(route) => sometimes!("a route is sent again", *route == before.route),
            Effect::Drain { .. } => {
                sometimes!("two services drain at once", others.iter().any(|other| !other.draining.is_empty()));
                sometimes!("what an earlier rollout left drains beside the next one", is_preparing(before));
            }
            Effect::DestroyNodes { nodes } => {
                let unknown = nodes.iter().any(|node| !before.groups.contains_key(&node.group));
                sometimes!("nodes are destroyed of which no journal tells", unknown);
                sometimes!("a node that died is cleared away", nodes.iter().any(|node| before.lost.contains(node)));
            }
            _ => {}
        }
    }
}

fn is_preparing(state: &ServiceState) -> bool {
    state.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Prepare { .. }))
}

fn restart(before: &ServiceState) {
    let pending = |kind| before.pending.values().any(|effect| effect.kind() == kind);
    sometimes!("the engine starts again and does not know whether nodes were made", pending(EffectKind::EnsureGroup));
    sometimes!("the engine starts again and does not know whether a route was applied", pending(EffectKind::Route));
    sometimes!("the engine starts again and does not know whether proxies heard of a drain", pending(EffectKind::Drain));
    sometimes!("the engine starts again and does not know whether nodes were destroyed", pending(EffectKind::DestroyNodes));
    sometimes!("the engine starts again while nodes drain", !before.draining.is_empty());
    match before.rollout.as_ref().map(|rollout| &rollout.stage) {
        Some(Stage::Prepare { booted: false, .. }) => sometimes!("the engine starts again while nodes are made"),
        Some(Stage::Prepare { booted: true, .. }) => sometimes!("the engine starts again while nodes are checked"),
        Some(Stage::Vacate) => sometimes!("the engine starts again while the old group leaves before there is a new one"),
        Some(Stage::Command) => sometimes!("the engine starts again and does not know whether the release command ran"),
        Some(Stage::Canary(_)) => sometimes!("the engine starts again in a canary"),
        Some(Stage::Roll { .. }) => sometimes!("the engine starts again while nodes take others' place"),
        Some(Stage::Unroll { .. }) => sometimes!("the engine starts again while nodes roll back"),
        Some(Stage::Confirm) => sometimes!("the engine starts again before a shift is confirmed"),
        Some(Stage::Restore { .. }) => sometimes!("the engine starts again while the old release is restored"),
        Some(Stage::Shift) => sometimes!("the engine starts again in a shift"),
        Some(Stage::Bake { .. }) => sometimes!("the engine starts again in a bake window"),
        Some(Stage::Retire) => sometimes!("the engine starts again while the old group leaves"),
        Some(Stage::Undo { .. }) => sometimes!("the engine starts again while a rejected group leaves"),
        _ => {}
    }
}

fn told(before: &ServiceState, notice: &Notice) {
    match notice {
        Notice::RolloutStarted { kind: RolloutKind::Deploy, .. } => {
            sometimes!("a deployment begins while nodes drain", !before.draining.is_empty());
            let undoing = before.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Undo { .. }));
            sometimes!("a deployment begins while a rejected group leaves", undoing);
            let retiring = before.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Retire));
            sometimes!("a deployment begins while the old group leaves", retiring);
            let baking = before.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Bake { .. }));
            sometimes!("a deployment begins in a bake window", baking);
        }
        Notice::RolloutStarted { kind: RolloutKind::Rollback, to, .. } => {
            let stage = before.rollout.as_ref().map(|rollout| &rollout.stage);
            let warm = before.rollout.as_ref().is_some_and(|rollout| rollout.from.is_some_and(|from| from.release == *to));
            sometimes!("a rollback goes to the warm group", warm && matches!(stage, Some(Stage::Bake { .. })));
            sometimes!("a rollback makes a new group", before.rollout.is_none());
            sometimes!("a shift is taken back", matches!(stage, Some(Stage::Shift)));
        }
        Notice::RolloutStarted { kind: RolloutKind::Eviction, .. } => sometimes!("nodes of a revoked version are evicted"),
        Notice::NothingToEvictTo { .. } => sometimes!("there is nothing good to evict to"),
        Notice::CrashLoop { .. } => sometimes!("a crash loop is told"),
        Notice::FollowsBack { to, .. } => sometimes!("a service follows back that came with another", to.is_some()),
        Notice::PartnersAwaited { .. } => sometimes!("a rollout waits for the services that move together with it"),
        Notice::ShiftBegan { way_back: true, .. } => sometimes!("a shift begins with the way back rehearsed"),
        Notice::ShiftBegan { way_back: false, .. } => sometimes!("a shift begins without a way back", before.live.is_some()),
        Notice::Drained { cut, .. } => {
            sometimes!("a drain ends before its deadline", *cut == 0);
            sometimes!("a drain ends with requests cut", *cut > 0);
        }
        Notice::NodeLost { .. } => {
            sometimes!("a live node is lost while nothing is rolled out", before.rollout.is_none());
            sometimes!("a live node is lost in a rollout", before.rollout.is_some());
        }
        Notice::NodeReplaced { .. } => sometimes!("a lost node is replaced"),
        Notice::Rejecting { reason, .. } => rejected(before, reason),
        Notice::RolloutEnded { outcome, settled, .. } => ended(outcome, *settled),
        Notice::TaskEnded { .. } => sometimes!("a task ends well"),
        Notice::CanaryStepBegan { .. } => sometimes!("a canary gets a share of the traffic"),
        Notice::Analysed { judgement, .. } => {
            sometimes!("an analysis decides nothing", judgement.verdict == Verdict::Hold);
            sometimes!("an analysis lets a canary go on", judgement.verdict == Verdict::Promote);
        }
        Notice::BatchJoined { .. } => sometimes!("a batch of new nodes takes old ones' place"),
        Notice::OutageBegan { .. } => sometimes!("an outage begins as declared"),
        Notice::Restoring { .. } => sometimes!("the old release is restored"),
        Notice::Queued { frozen_until, .. } => {
            sometimes!("a declaration waits for the rollout's end", frozen_until.is_none());
            sometimes!("a declaration waits for the end of a freeze window", frozen_until.is_some());
        }
        Notice::Dequeued { .. } => sometimes!("a declaration takes a waiting one's place"),
        _ => {}
    }
}

fn rejected(before: &ServiceState, reason: &Rejection) {
    match reason {
        Rejection::GateFailed { evidence, .. } => {
            sometimes!("a gate fails and says which check", evidence.result.contains("status"));
        }
        Rejection::NodeExited { .. } => sometimes!("a new node ends by itself and the rollout is rejected"),
        Rejection::ProgressDeadline { .. } => sometimes!("nodes never become ready and the progress deadline rejects them"),
        Rejection::WrongImage { .. } => sometimes!("a node is made from another image"),
        Rejection::TaskFailed { .. } => sometimes!("a task fails and rejects the release"),
        Rejection::AnalysisFailed { .. } => sometimes!("an analysis rejects the release"),
        Rejection::Superseded => sometimes!("a declaration ends the rollout in progress"),
        Rejection::EffectFailed { .. } => sometimes!("nodes cannot be made and the rollout is rejected"),
        _ => {}
    }
    let given_back = before.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Shift | Stage::Bake { .. }));
    sometimes!("the traffic is given back because the new nodes cannot serve", given_back && *reason != Rejection::TakenBack);
}

fn ended(outcome: &Outcome, settled: bool) {
    match outcome {
        Outcome::Live => {
            sometimes!("a rollout ends live with everything of the old group gone", settled);
            sometimes!("a rollout is closed by the next wish", !settled);
        }
        Outcome::Rejected(_) => sometimes!("a rejected rollout ends with everything of the new group gone", settled),
    }
}
