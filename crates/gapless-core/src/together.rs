//! Services whose releases shift together: none before all are ready, and when one goes back, the others do, too.

use crate::digest::Digest;
use crate::notice::{Notice, Rejection, RolloutKind};
use crate::operation::old_group;
use crate::pass::Pass;
use crate::release::ReleaseNumber;
use crate::request::{busy, no_way_back_to};
use crate::rollout::Step;
use crate::service::{Rollout, ServiceState, Stage, Together, TogetherEnd, TogetherOutcome};
use crate::time::Instant;

impl ServiceState {
    /// What is live, if it came with other services and none of them is known to have gone back.
    #[must_use]
    pub fn came_together(&self) -> Option<(ReleaseNumber, &TogetherEnd)> {
        let live = self.live_release()?;
        let end = self.together.0.get(&live).filter(|end| end.outcome == TogetherOutcome::Live)?;
        Some((live, end))
    }

    /// What is declared, if it was to move together with other services, was given up or taken back, and is not live: alone it would leave them behind.
    #[must_use]
    pub fn left_together(&self) -> Option<(ReleaseNumber, &TogetherEnd)> {
        let declared = self.declared.filter(|declared| self.live_release() != Some(*declared))?;
        let end = self.together.0.get(&declared).filter(|end| end.outcome != TogetherOutcome::Live)?;
        Some((declared, end))
    }

    /// Whether what is declared is just being given up, or left, that was to move or came together with other services.
    #[must_use]
    pub fn is_leaving_together(&self) -> bool {
        let moving = self.rollout.as_ref().filter(|rollout| Some(rollout.to.release) == self.declared).and_then(|_| self.moves_with());
        let came = || self.declared.and_then(|declared| self.together.0.get(&declared)).map(|end| end.id);
        moving.map(|together| together.id).or_else(came).is_some_and(|id| self.is_leaving(id))
    }

    /// Whom it moves together with in the rollout in progress.
    #[must_use]
    pub fn moves_with(&self) -> Option<&Together> {
        self.rollout.as_ref()?.together.as_ref()
    }

    /// Whom what is next moves together with.
    #[must_use]
    pub fn is_next_with(&self) -> Option<&Together> {
        self.queued.as_ref()?.together.as_ref()
    }

    /// Whom it is about to shift together with: in what is next, or in the rollout in progress if that was not given up and has not shifted.
    #[must_use]
    pub fn is_about_to_move_with(&self) -> Option<&Together> {
        let may_shift = self.rollout.as_ref().is_some_and(Rollout::can_be_rejected);
        self.is_next_with().or(self.moves_with().filter(|_| may_shift))
    }

    /// Whether it was declared in this together with others, whatever came of it.
    #[must_use]
    pub fn has_part_in(&self, id: Digest) -> bool {
        self.is_part_begun(id) || self.is_next_with().is_some_and(|together| together.id == id)
    }

    /// Whether its part in this was begun, whatever came of it.
    #[must_use]
    pub fn is_part_begun(&self, id: Digest) -> bool {
        self.moves_with().is_some_and(|together| together.id == id) || self.together.of(id).is_some()
    }

    /// Whether it is just giving up its part in this, or going back from what it came with: its rollout is not over.
    #[must_use]
    pub fn is_leaving(&self, id: Digest) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        if rollout.together.as_ref().is_some_and(|together| together.id == id) {
            return matches!(rollout.stage, Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. });
        }
        let left = |release: ReleaseNumber| rollout.from.is_some_and(|from| from.release == release);
        self.together.of(id).is_some_and(|(release, end)| left(release) && end.from == Some(rollout.to.release))
    }

    /// Whether it left what it came with, and is by now somewhere else than where it was to go back to, also when it could not go: it binds nobody any more.
    #[must_use]
    pub fn has_gone_on_from(&self, id: Digest) -> bool {
        let left = self.together.of(id).filter(|(_, end)| end.outcome != TogetherOutcome::Live);
        let vacated = || self.rollout.as_ref().and_then(|rollout| rollout.from).map(|from| from.release);
        let at = self.live_release().or_else(vacated);
        left.is_some_and(|(_, end)| at.is_some() && at != end.from)
    }

    /// Whether that service is leaving, or has left, what this one moves in, is next in, or came with: this one gives it up, or goes back, as soon as it is told.
    #[must_use]
    pub fn is_left_by(&self, other: &ServiceState) -> bool {
        let mut to_come = self.moves_with().into_iter().chain(self.is_next_with());
        let came = self.came_together().map(|(_, end)| end.id).filter(|id| !other.has_gone_on_from(*id));
        to_come.any(|together| other.has_left(together.id)) || came.is_some_and(|id| other.has_left(id))
    }

    /// Whether it is leaving this or has left it, and does not move in it again.
    #[must_use]
    pub fn has_left(&self, id: Digest) -> bool {
        let moves_again = self.moves_with().is_some_and(|together| together.id == id);
        let left = self.together.of(id).is_some_and(|(_, end)| end.outcome != TogetherOutcome::Live);
        self.is_leaving(id) || (left && !moves_again)
    }

    /// Where this service goes back to when another one is taken back that it moves in this with, or came with. `None`: it stays where it is.
    #[must_use]
    pub fn follows_back_to(&self, id: Digest) -> Option<ReleaseNumber> {
        let may_run = |release: &ReleaseNumber| self.served.contains(release) && no_way_back_to(self, *release, false).is_none();
        let Some(rollout) = &self.rollout else {
            return self.came_together().filter(|(_, end)| end.id == id)?.1.from.filter(may_run);
        };
        if rollout.together.as_ref().is_none_or(|together| together.id != id) {
            return None;
        }
        let warm = old_group(self).map(|old| old.release);
        warm.or_else(|| rollout.from.map(|from| from.release).filter(|from| is_cold(self, rollout) && may_run(from)))
    }
}

/// The traffic has moved, and not enough of the old nodes are left to take it back at once; another rollout can.
fn is_cold(state: &ServiceState, rollout: &Rollout) -> bool {
    matches!(rollout.stage, Stage::Bake { .. } | Stage::Retire) && busy(state).is_none()
}

/// Every service that moves together with this one's rollout is ready.
pub(crate) fn be_ready(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    if let Some(rollout) = pass.state.rollout.as_mut().filter(|rollout| rollout.together.is_some()) {
        rollout.partners_ready = true;
    }
    pass.step()
}

/// A service that should move together with this one cannot, or has gone back: neither does this one move, and if it has, it goes back.
pub(crate) fn go_back(state: &ServiceState, why: &str, outcome: TogetherOutcome, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let by_hand = outcome == TogetherOutcome::TakenBack;
    let reason = if by_hand { Rejection::PartnerTakenBack { reason: why.into() } } else { Rejection::PartnerFailed { reason: why.into() } };
    match &state.rollout {
        None => pass.follow_back(why, outcome),
        Some(rollout) if rollout.together.is_none() => {}
        Some(rollout) if rollout.can_be_rejected() => {
            pass.reject(reason);
            pass.pin_after(outcome, state.live_release());
        }
        Some(rollout) => {
            if let Some(old) = old_group(state) {
                pass.take_back(old, reason);
                pass.pin_after(outcome, Some(old.release));
                if by_hand {
                    pass.is_by_hand();
                }
            } else if is_cold(state, rollout) {
                pass.make_room();
                pass.follow_back(why, outcome);
            }
        }
    }
    pass.step()
}

impl Pass {
    /// The rollout is over, and its old nodes are gone: what was live before is made again.
    fn follow_back(&mut self, why: &str, outcome: TogetherOutcome) {
        let Some((release, end)) = self.state.came_together() else { return };
        let to = self.state.follows_back_to(end.id);
        self.state.together.0.entry(release).and_modify(|end| end.outcome = outcome);
        let told = Notice::FollowsBack { from: release, to, reason: why.into() };
        let Some(to) = to else { return self.notify(told) };
        if outcome == TogetherOutcome::Failed {
            self.state.served.remove(&release);
        }
        self.pin_after(outcome, Some(to));
        self.begin(RolloutKind::Rollback, to, None);
        // After its beginning: it belongs to the story of this rollout.
        self.notify(told);
        if outcome == TogetherOutcome::TakenBack {
            self.is_by_hand();
        }
    }

    /// What a person took back stays back for all that came together, as if each had been taken back by hand; what failed is tried again when it is declared again, and what a
    /// person wanted before goes on to hold.
    fn pin_after(&mut self, outcome: TogetherOutcome, live: Option<ReleaseNumber>) {
        let by_hand = outcome == TogetherOutcome::TakenBack;
        if by_hand {
            self.dequeue();
        }
        self.state.pinned = (self.state.pinned || by_hand) && self.state.declared != live;
    }

    /// Its turn will not come: the others are told, and what was to move is tried again together.
    pub fn leave_before_its_turn(&mut self, release: ReleaseNumber, together: Together) {
        let Together { id, with } = together;
        let end = TogetherEnd { id, with, from: self.state.live_release(), outcome: TogetherOutcome::Failed };
        self.state.together.0.insert(release, end);
    }

    /// A way back from what it came with others in was ended for another release: should that come to nothing, the way back is taken again.
    pub fn be_bound_again(&mut self, left: ReleaseNumber, to: ReleaseNumber) {
        if let Some(end) = self.state.together.0.get_mut(&left).filter(|end| end.from == Some(to)) {
            end.outcome = TogetherOutcome::Live;
        }
    }

    /// What is next moves with these: those that it was to move with before have given that up.
    pub fn be_next_with(&mut self, together: &Together) {
        let declared = self.state.declared;
        if let Some(queued) = self.state.queued.as_mut().filter(|queued| Some(queued.release) == declared) {
            queued.together = Some(together.clone());
        }
    }

    /// Somebody wanted the rollout that was just begun.
    pub fn is_by_hand(&mut self) {
        if let Some(rollout) = &mut self.state.rollout {
            rollout.by_hand = true;
        }
    }

    /// The traffic has moved, and not together with others: what came together has gone back to where it came from, which the others are told. What went on without them is bound again
    /// when it comes back.
    pub fn leave_the_others(&mut self) {
        let Some(Rollout { from: Some(from), to, together: None, by_hand, .. }) = &self.state.rollout else { return };
        let (left, to, by_hand) = (from.release, to.release, *by_hand);
        // A way back that came to nothing ends where it began.
        if left == to {
            return;
        }
        let Some(end) = self.state.together.0.get_mut(&left) else { return };
        if end.from == Some(to) && end.outcome == TogetherOutcome::Live {
            end.outcome = if by_hand { TogetherOutcome::TakenBack } else { TogetherOutcome::Failed };
        }
    }
}
