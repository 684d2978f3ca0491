//! The normal form of a service's state: what only counts up is renumbered, what is past is forgotten, what only people read is left out.
//!
//! The core looks at none of these but by comparing them with each other:
//!
//! - Effect numbers become the ranks of the pending effects, from 1.
//! - The generation that was decided last becomes [`PRESENT`], the earlier ones keep their distance from it. 0 stays 0: no route yet.
//! - Instants are told relative to a present that is always [`NOW`]: when time passes, the deadlines come nearer. A deadline that has passed is due now. How long ago a
//!   replacement was allowed counts up to [`REPLACE_CALM`], after which the count of tries does not matter. Since when a canary's step is compared only has to tell its own
//!   comparisons from those of an earlier step.
//! - Tries are counted up to where their waits grow no more.
//! - The texts of a rejection's reason are blank, and it names the first node of its group: they go into a notice and nowhere else.
//!
//! That the core really decides alike on a state and on its normal form is not assumed: `tests/explorer.rs` renumbers states at random and compares. The patterns below name
//! every field, so that a new one in the core does not compile here before it was thought about.

use gapless_core::effect::{Effect, EffectId};
use gapless_core::limit::{CRASH_LOOP_TRIES, REPLACE_CALM};
use gapless_core::notice::Rejection;
use gapless_core::observation::Evidence;
use gapless_core::route::Generation;
use gapless_core::service::{Canary, Draining, Healing, Retry, Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use std::time::Duration;

/// The present, always.
pub const NOW: Instant = Instant(1 << 40);

/// The generation that was decided last, always.
pub const PRESENT: Generation = Generation(1000);

/// Waits that double from a quarter of a second to 15 s, and counts up to 4, are the same from here on.
const TRIES_OF_EFFECTS: u32 = 7;

/// Comparisons that are under way for another step of a canary than the present one.
fn tell_stale_comparisons(state: &ServiceState) -> Vec<EffectId> {
    let present = state.rollout.as_ref().and_then(|rollout| match &rollout.stage {
        Stage::Canary(canary) => canary.since,
        _ => None,
    });
    let stale = |effect: &Effect| matches!(effect, Effect::Analyse { since, .. } if Some(*since) != present);
    state.pending.iter().filter(|(_, effect)| stale(effect)).map(|(id, _)| *id).collect()
}

fn mark_stale(state: &mut ServiceState, stale: &[EffectId]) {
    for id in stale {
        if let Some(Effect::Analyse { since, .. }) = state.pending.get_mut(id) {
            *since = Instant(NOW.0 - 1);
        }
    }
}

/// What [`normalise`] did, so that the world can follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Renaming {
    /// The pending effects' numbers before, in the order of their new ranks.
    pub effects: Vec<EffectId>,
    /// Is added to every generation but 0, wrapping.
    pub generations: u64,
}

impl Renaming {
    /// The generation as it is called now.
    pub fn generation(&self, generation: Generation) -> Generation {
        shifted(generation, self.generations)
    }

    /// The rank of an effect that is still pending.
    pub fn effect(&self, id: EffectId) -> Option<EffectId> {
        self.effects.iter().position(|known| *known == id).map(|rank| EffectId(rank as u64 + 1))
    }
}

/// Adds to a generation, wrapping; 0 stays 0.
pub fn shifted(generation: Generation, by: u64) -> Generation {
    if generation == Generation(0) { generation } else { Generation(generation.0.wrapping_add(by)) }
}

/// Brings a state into its normal form.
pub fn normalise(state: &mut ServiceState) -> Renaming {
    let stale = tell_stale_comparisons(state);
    each_instant(state, &mut |instant| *instant = (*instant).max(NOW));
    mark_stale(state, &stale);
    forget_calm(&mut state.healing);
    state.retries.values_mut().for_each(|Retry { tries, at: _ }| *tries = (*tries).min(TRIES_OF_EFFECTS));
    if let Some(Rollout { to, stage: Stage::Undo { reason } | Stage::Unroll { reason } | Stage::Restore { reason, .. }, .. }) =
        &mut state.rollout
    {
        *reason = blank(reason, *to);
    }
    let by = if state.route.generation == Generation(0) { 0 } else { PRESENT.0.wrapping_sub(state.route.generation.0) };
    each_generation(state, &mut |generation| *generation = shifted(*generation, by));
    let effects: Vec<EffectId> = state.pending.keys().copied().collect();
    state.pending = std::mem::take(&mut state.pending).into_values().zip(1..).map(|(effect, rank)| (EffectId(rank), effect)).collect();
    state.next.effects = EffectId(effects.len() as u64);
    Renaming { effects, generations: by }
}

/// The same state when this much time has passed. While a rollout is paused, its own deadlines stay as far away as they are: that is what resuming it makes of them.
pub fn later(state: &mut ServiceState, by: Duration) {
    let milliseconds = by.as_millis() as u64;
    let mut back = |instant: &mut Instant| instant.0 = instant.0.saturating_sub(milliseconds);
    let paused = state.rollout.as_ref().is_some_and(|rollout| rollout.paused.is_some());
    if !paused {
        each_instant_of_the_rollout(state, &mut back);
    }
    each_other_instant(state, &mut back);
    back(&mut state.healing.not_before);
}

fn forget_calm(healing: &mut Healing) {
    let Healing { tries, not_before, stopped: _, blocked: _ } = healing;
    let calm = Instant(NOW.0 - REPLACE_CALM.as_millis() as u64);
    *not_before = (*not_before).max(calm);
    *tries = if *not_before == calm { 0 } else { (*tries).min(CRASH_LOOP_TRIES) };
}

/// Every armed deadline, but the one of replacements, which counts after it has passed.
pub fn each_instant(state: &mut ServiceState, change: &mut dyn FnMut(&mut Instant)) {
    each_instant_of_the_rollout(state, change);
    each_other_instant(state, change);
}

fn each_instant_of_the_rollout(state: &mut ServiceState, change: &mut dyn FnMut(&mut Instant)) {
    let Some(rollout) = &mut state.rollout else { return };
    let Rollout {
        stage,
        paused,
        number: _,
        kind: _,
        from: _,
        to: _,
        tasks: _,
        gate_passed: _,
        together: _,
        partners_ready: _,
        vacated: _,
        by_hand: _,
    } = rollout;
    paused.iter_mut().for_each(&mut *change);
    match stage {
        Stage::Prepare { deadline: instant, booted: _ }
        | Stage::Bake { until: instant }
        | Stage::Await { deadline: instant }
        | Stage::Roll { deadline: instant }
        | Stage::Restore { deadline: instant, reason: _ } => change(instant),
        Stage::Canary(Canary { since, until, look, step: _, good: _, holds: _ }) => {
            since.iter_mut().chain(until).chain(look).for_each(change);
        }
        Stage::Vacate
        | Stage::Command
        | Stage::Shift
        | Stage::Confirm
        | Stage::Retire
        | Stage::Undo { reason: _ }
        | Stage::Unroll { reason: _ } => {}
    }
}

fn each_other_instant(state: &mut ServiceState, change: &mut dyn FnMut(&mut Instant)) {
    let ServiceState {
        queued,
        draining,
        joining,
        destroyed,
        retries,
        pending,
        rollout: _,
        healing: _,
        releases: _,
        declared: _,
        live: _,
        previous: _,
        pinned: _,
        served: _,
        together: _,
        scaled: _,
        tried: _,
        revoked: _,
        evicted_in_vain: _,
        groups: _,
        route: _,
        lost: _,
        next: _,
    } = state;
    queued.iter_mut().filter_map(|queued| queued.not_before.as_mut()).for_each(&mut *change);
    for Draining { deadline, ends, unnamed_since: _, cut: _, over: _ } in draining.values_mut() {
        change(deadline);
        ends.iter_mut().for_each(&mut *change);
    }
    joining.values_mut().for_each(&mut *change);
    destroyed.values_mut().for_each(&mut *change);
    retries.values_mut().filter_map(|retry| retry.at.as_mut()).for_each(&mut *change);
    for effect in pending.values_mut() {
        if let Effect::Analyse { since, .. } = effect {
            change(since);
        }
    }
}

/// Every generation that the state remembers.
pub fn each_generation(state: &mut ServiceState, change: &mut dyn FnMut(&mut Generation)) {
    change(&mut state.route.generation);
    state.draining.values_mut().for_each(|drain| change(&mut drain.unnamed_since));
    for effect in state.pending.values_mut() {
        match effect {
            Effect::Route(route) => change(&mut route.generation),
            Effect::EnsureGroup { .. }
            | Effect::Drain { .. }
            | Effect::DestroyNodes { .. }
            | Effect::RunTask { .. }
            | Effect::Analyse { .. }
            | Effect::Notify(_) => {}
        }
    }
}

fn blank(reason: &Rejection, group: gapless_core::node::GroupId) -> Rejection {
    let (node, blank) = (group.node(0), String::new());
    match reason {
        Rejection::GateFailed { .. } => {
            Rejection::GateFailed { node, evidence: Evidence { check: blank.clone(), result: blank, times: 0 } }
        }
        Rejection::NodeExited { .. } => Rejection::NodeExited { node, code: None, output: blank },
        Rejection::ProgressDeadline { .. } => Rejection::ProgressDeadline { waiting_for: blank },
        Rejection::WrongImage { .. } => Rejection::WrongImage { node },
        Rejection::EffectFailed { .. } => Rejection::EffectFailed { effect: blank.clone(), reason: blank },
        Rejection::TaskFailed { task, .. } => Rejection::TaskFailed { task: *task, reason: blank },
        Rejection::AnalysisFailed { .. } => Rejection::AnalysisFailed { evidence: blank },
        Rejection::Inconclusive { .. } => Rejection::Inconclusive { evidence: blank },
        Rejection::PartnerFailed { .. } => Rejection::PartnerFailed { reason: blank },
        Rejection::PartnerTakenBack { .. } => Rejection::PartnerTakenBack { reason: blank },
        Rejection::TakenBack | Rejection::Cancelled | Rejection::Superseded | Rejection::Revoked => reason.clone(),
    }
}
