//! What people do with a rollout in progress, and with the number of nodes.

use crate::effect::EffectKind;
use crate::node::GroupId;
use crate::notice::{Notice, Rejection, RolloutKind};
use crate::pass::Pass;
use crate::policy::Strategy;
use crate::request::{self, busy, frozen_until, group_to_take_back, warm_group};
use crate::rollout::Step;
use crate::service::{Canary, Healing, Queued, Rollout, Scaled, ServiceState, Stage, Together};
use crate::time::Instant;
use alloc::format;
use core::time::Duration;

const STATUS: &str = "`gapless status` tells what is in progress";

/// The rollout goes no further until it is resumed.
pub(crate) fn pause(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let Some(Rollout { number, to, stage, paused, .. }) = &state.rollout else {
        return pass.refuse(state, "there is no rollout that could be paused".into(), STATUS);
    };
    if paused.is_some() {
        return pass.refuse(state, format!("rollout {number} is paused already"), "`gapless resume` lets it go on");
    }
    let pauses = matches!(stage, Stage::Prepare { .. } | Stage::Await { .. } | Stage::Canary(_) | Stage::Roll { .. } | Stage::Bake { .. });
    if !pauses {
        let hint = "what is on its way now goes to its end by itself; `gapless cancel` gives a rollout up";
        return pass.refuse(state, format!("rollout {number} to {} is at nothing that could wait", to.release), hint);
    }
    if let Some(rollout) = &mut pass.state.rollout {
        rollout.paused = Some(now);
        pass.notify(Notice::Paused { rollout: *number });
    }
    pass.step()
}

/// The rollout goes on, and what it may take ends later by the time that it waited.
pub(crate) fn resume(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let Some(Rollout { number, paused: Some(since), stage, .. }) = &state.rollout else {
        return pass.refuse(state, "no rollout is paused".into(), STATUS);
    };
    let waited = now.since(*since);
    let stage = later(stage.clone(), waited);
    if let Some(rollout) = &mut pass.state.rollout {
        (rollout.paused, rollout.stage) = (None, stage);
    }
    pass.notify(Notice::Resumed { rollout: *number, after: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) });
    pass.step()
}

fn later(stage: Stage, by: Duration) -> Stage {
    match stage {
        Stage::Prepare { deadline, booted } => Stage::Prepare { deadline: deadline.after(by), booted },
        Stage::Await { deadline } => Stage::Await { deadline: deadline.after(by) },
        Stage::Roll { deadline } => Stage::Roll { deadline: deadline.after(by) },
        Stage::Bake { until } => Stage::Bake { until: until.after(by) },
        Stage::Canary(canary) => {
            let after = |at: Instant| at.after(by);
            Stage::Canary(Canary { until: canary.until.map(after), look: canary.look.map(after), ..canary })
        }
        other => other,
    }
}

/// The rollout ends in the old release; without one that could, what waits for the end of a freeze window is not tried.
pub(crate) fn cancel(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    if state.rollout.as_ref().is_some_and(Rollout::can_be_rejected) {
        pass.reject(Rejection::Cancelled);
        return pass.step();
    }
    let shifts = |rollout: &&Rollout| matches!(rollout.stage, Stage::Shift | Stage::Confirm | Stage::Bake { .. });
    if let Some(rollout) = state.rollout.as_ref().filter(shifts).filter(|rollout| rollout.kind == RolloutKind::Deploy) {
        return request::roll_back(state, rollout.from.map(|from| from.release), false, now);
    }
    if state.queued.is_some() && busy(state).is_none() {
        pass.dequeue();
        return pass.step();
    }
    let Some(rollout) = &state.rollout else {
        return pass.refuse(state, "there is no rollout that could be cancelled".into(), STATUS);
    };
    let reason = format!("rollout {} has come too far to be cancelled", rollout.number);
    pass.refuse(state, reason, "it ends by itself; `gapless rollback` begins one to an earlier release then")
}

/// The step of the canary is good enough.
pub(crate) fn promote(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    match &mut pass.state.rollout {
        Some(Rollout { number, stage: Stage::Canary(canary), paused: None, .. }) if canary.since.is_some() => {
            let rollout = *number;
            (canary.until, canary.good, canary.look) = (Some(now), true, None);
            // A verdict that is still on its way says nothing against a person's word.
            pass.state.pending.retain(|_, effect| effect.kind() != EffectKind::Analyse);
            pass.notify(Notice::Promoted { rollout });
            pass.step()
        }
        Some(Rollout { stage: Stage::Canary(_), paused: None, .. }) => {
            let hint = "try again in a moment; `gapless explain` tells which proxy does not answer";
            pass.refuse(state, "not every proxy sends the new nodes their share yet".into(), hint)
        }
        Some(Rollout { stage: Stage::Canary(_), .. }) => {
            pass.refuse(state, "the canary is paused".into(), "`gapless resume` lets it go on")
        }
        _ => pass.refuse(state, "there is no canary in progress that could be promoted".into(), STATUS),
    }
}

/// The declared release is tried again, or what was given up in a crash loop.
pub(crate) fn retry(state: &ServiceState, together: Option<&Together>, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    if let Some((reason, hint)) = busy(state) {
        return pass.refuse(state, reason, hint);
    }
    if state.healing.stopped {
        pass.state.healing = Healing::default();
        return pass.step();
    }
    let Some(declared) = state.declared.filter(|declared| state.live_release() != Some(*declared) && state.queued.is_none()) else {
        return pass.refuse(state, "there is nothing that could be tried again".into(), "what is declared is live, or on its way");
    };
    if state.is_revoked(declared) {
        let hint = "deploy another version, or lift the revocation: `gapless revoke --lift`";
        return pass.refuse(state, format!("the artifact of {declared} is revoked"), hint);
    }
    if together.is_none() && (state.left_together().is_some() || state.is_leaving_together()) {
        let hint = "try all of them again: `gapless retry`";
        return pass.refuse(state, format!("{declared} moves together with other services, and would go alone"), hint);
    }
    pass.state.pinned = false;
    if let Some(until) = state.declaration(declared).and_then(|declaration| frozen_until(declaration, now)) {
        pass.queue(Queued { release: declared, urgent: false, not_before: Some(until), together: together.cloned() }, Some(until));
        return pass.step();
    }
    pass.make_room();
    pass.begin(RolloutKind::Deploy, declared, together.cloned());
    pass.step()
}

/// The service gets another number of nodes, as it is.
pub(crate) fn scale(state: &ServiceState, nodes: u32, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let Some(live) = state.live_release().and_then(|live| state.declaration(live)) else {
        return pass.refuse(state, "nothing is live that could be scaled".into(), "`gapless deploy` begins it");
    };
    if let Some((reason, hint)) = busy(state) {
        return pass.refuse(state, reason, hint);
    }
    if nodes == 0 {
        return pass.refuse(state, "0 nodes serve nobody".into(), "scale to at least 1");
    }
    if nodes > live.nodes && live.policy.strategy == Strategy::Recreate {
        let reason = format!("the release is recreated because no more than {} may use its state", live.nodes);
        return pass.refuse(state, reason, "declare another strategy first, if more of them may");
    }
    if nodes < live.policy.floor {
        let floor = live.policy.floor;
        let reason = if nodes == 1 {
            format!("1 node is less than the floor of {floor}")
        } else {
            format!("{nodes} nodes are fewer than the floor of {floor}")
        };
        return pass.refuse(state, reason, "lower the floor in the declaration first");
    }
    let from = state.live_release().map_or(0, |live| state.size_of(live));
    pass.state.scaled = (nodes != live.nodes).then_some(Scaled { declared: live.nodes, nodes });
    if from != nodes {
        pass.state.healing = Healing::default();
        pass.notify(Notice::Scaled { from, to: nodes });
    }
    pass.step()
}

/// The old group of the rollout in progress that could take the traffic back now.
pub(crate) fn old_group(state: &ServiceState) -> Option<GroupId> {
    let from = state.rollout.as_ref().and_then(|rollout| rollout.from)?;
    if request::broken_by(state, from.release).is_some() {
        return None;
    }
    group_to_take_back(state, Some(from.release)).or_else(|| warm_group(state))
}

impl Pass {
    /// The old group of the rollout in progress that could take the traffic back now.
    pub fn old_group(&self) -> Option<GroupId> {
        old_group(&self.state)
    }
}
