//! One pass of the transition function: the next state and the effects, as they come together.

use crate::effect::{Effect, EffectId, EffectKind};
use crate::limit::{RETRY_FIRST, RETRY_LONGEST, doubled};
use crate::node::GroupId;
use crate::notice::{Notice, Outcome, Rejection, RolloutKind};
use crate::rollout::{Refusal, Step};
use crate::service::{Retry, Rollout, ServiceState, Stage, TogetherEnd, TogetherOutcome};
use crate::time::Instant;
use alloc::string::String;
use alloc::vec::Vec;

/// The next state and the effects so far.
pub(crate) struct Pass {
    pub state: ServiceState,
    pub now: Instant,
    effects: Vec<(EffectId, Effect)>,
}

impl Pass {
    pub fn new(state: &ServiceState, now: Instant) -> Self {
        Self { state: state.clone(), now, effects: Vec::new() }
    }

    pub fn step(self) -> Step {
        Step { state: self.state, effects: self.effects, refusal: None }
    }

    pub fn refuse(self, before: &ServiceState, reason: String, hint: &str) -> Step {
        Step { state: before.clone(), effects: Vec::new(), refusal: Some(Refusal { reason, hint: hint.into() }) }
    }

    pub fn notify(&mut self, notice: Notice) {
        let id = self.next_effect();
        self.effects.push((id, Effect::Notify(notice)));
    }

    /// Sends an effect and remembers it until it ends.
    pub fn send(&mut self, effect: Effect) {
        let id = self.next_effect();
        self.state.pending.insert(id, effect.clone());
        self.effects.push((id, effect));
    }

    fn next_effect(&mut self) -> EffectId {
        self.state.next.effects.0 += 1;
        self.state.next.effects
    }

    /// Whether an effect of this kind need not wait for an earlier failure's retry.
    pub fn may_try(&self, kind: EffectKind) -> bool {
        self.state.retries.get(&kind).is_none_or(|retry| retry.at.is_none_or(|at| at <= self.now))
    }

    /// Arms the next try of this kind.
    pub fn try_again_later(&mut self, kind: EffectKind) {
        let tries = self.state.retries.get(&kind).map_or(0, |retry| retry.tries);
        let at = self.now.after(doubled(RETRY_FIRST, tries, RETRY_LONGEST));
        self.state.retries.insert(kind, Retry { tries: tries.saturating_add(1), at: Some(at) });
    }

    /// Every node of the group has to go; what follows (routes, drain, destruction) follows from that.
    pub fn give_up(&mut self, group: GroupId) {
        if let Some(known) = self.state.groups.get_mut(&group) {
            known.nodes.clear();
        }
        self.state.joining.retain(|node, _| node.group != group);
    }

    pub fn set_stage(&mut self, stage: Stage) {
        if let Some(rollout) = &mut self.state.rollout {
            rollout.stage = stage;
        }
    }

    /// What its command or its nodes with traffic took away stays away, also when the release is given up.
    fn remember_what_it_took_away(&mut self, rollout: &Rollout) {
        let breaks = self.state.declaration(rollout.to.release).is_some_and(|declaration| declaration.policy.breaks_the_way_back);
        let exposed = self.state.groups.get(&rollout.to).is_some_and(|group| group.exposed);
        if breaks && rollout.is_given_up() && (exposed || rollout.has_touched_the_old()) {
            self.state.tried = self.state.tried.max(Some(rollout.to.release));
        }
    }

    /// Ends the rollout: everything of the other group is gone.
    pub fn end_rollout(&mut self) {
        self.close_rollout(true);
        // What is declared is live again, as when a rollback failed: there is nothing to keep.
        self.state.pinned &= self.state.live.is_none() || self.state.live_release() != self.state.declared;
    }

    /// Closes the rollout, if there is one, in the way that its stage says. `settled`: everything of the other group is gone.
    pub fn close_rollout(&mut self, settled: bool) {
        let Some(rollout) = self.state.rollout.take() else { return };
        self.remember_what_it_took_away(&rollout);
        let Rollout { number, kind, from, to, stage, together, .. } = rollout;
        let outcome = match stage {
            Stage::Undo { reason } | Stage::Unroll { reason } | Stage::Restore { reason, .. } => {
                // One that failed after its shift was live until then, and is nothing to go back to; one that a person took back may be.
                let failed = (!reason.is_by_hand()).then_some(to.release);
                self.state.served.extend(self.state.live_release().filter(|live| Some(*live) != failed));
                if kind == RolloutKind::Eviction && reason != Rejection::Superseded {
                    self.state.evicted_in_vain.insert(to.release);
                }
                Outcome::Rejected(reason)
            }
            _ => {
                self.state.served.insert(to.release);
                let before = from.map(|group| group.release).filter(|from| self.state.served.contains(from)).or(self.state.previous);
                self.state.previous = before.filter(|before| *before != to.release);
                let declares = |nodes| self.state.declaration(to.release).is_some_and(|known| known.nodes == nodes);
                if settled && self.state.scaled.is_some_and(|scaled| !declares(scaled.declared)) {
                    self.state.scaled = None;
                }
                Outcome::Live
            }
        };
        if let Some(together) = together {
            let outcome = match &outcome {
                Outcome::Live => TogetherOutcome::Live,
                Outcome::Rejected(reason) if reason.is_by_hand() => TogetherOutcome::TakenBack,
                Outcome::Rejected(_) => TogetherOutcome::Failed,
            };
            let end = TogetherEnd { id: together.id, with: together.with, from: from.map(|from| from.release), outcome };
            self.state.together.0.insert(to.release, end);
        }
        if let (RolloutKind::Rollback, Outcome::Rejected(Rejection::Superseded), Some(from)) = (kind, &outcome, from) {
            self.be_bound_again(from.release, to.release);
        }
        self.notify(Notice::RolloutEnded { rollout: number, outcome, settled });
        self.forget_releases();
    }
}
