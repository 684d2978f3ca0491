//! Services whose releases shift together: none before all are ready, and when one goes back, the others do, too.

use crate::notice::{Notice, Rejection, RolloutKind};
use crate::operation::old_group;
use crate::pass::Pass;
use crate::release::ReleaseNumber;
use crate::request::{busy, no_way_back_to};
use crate::rollout::Step;
use crate::service::{Rollout, ServiceState, Stage, TogetherOutcome};
use crate::time::Instant;

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
            pass.pin_after(outcome, rollout.to.release, state.live_release());
        }
        Some(rollout) => {
            if let Some(old) = old_group(state) {
                pass.take_back(old, reason);
                pass.pin_after(outcome, rollout.to.release, Some(old.release));
                if by_hand {
                    pass.is_by_hand();
                }
            } else if matches!(rollout.stage, Stage::Bake { .. } | Stage::Retire) && busy(state).is_none() {
                // Not enough of the old nodes are left.
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
        let from = end.from;
        self.state.together.0.entry(release).and_modify(|end| end.outcome = outcome);
        let state = &self.state;
        let may_run = |release: &ReleaseNumber| state.served.contains(release) && no_way_back_to(state, *release, false).is_none();
        let to = from.filter(may_run);
        self.notify(Notice::FollowsBack { from: release, to, reason: why.into() });
        let Some(to) = to else { return };
        if outcome == TogetherOutcome::Failed {
            self.state.served.remove(&release);
        }
        self.pin_after(outcome, release, Some(to));
        self.begin(RolloutKind::Rollback, to, None);
        if outcome == TogetherOutcome::TakenBack {
            self.is_by_hand();
        }
    }

    /// What a person took back stays back for all that came together, and nothing that waits undoes it; what failed is tried again when it is declared again. What else is declared,
    /// nobody took back; and what a person wanted before goes on to hold.
    fn pin_after(&mut self, outcome: TogetherOutcome, left: ReleaseNumber, live: Option<ReleaseNumber>) {
        let by_hand = outcome == TogetherOutcome::TakenBack;
        let takes_back = by_hand && (self.state.queued.is_some() || self.state.declared == Some(left));
        if by_hand {
            self.dequeue();
        }
        self.state.pinned = (self.state.pinned || takes_back) && self.state.declared != live;
    }

    /// Somebody wanted the rollout that was just begun.
    pub fn is_by_hand(&mut self) {
        if let Some(rollout) = &mut self.state.rollout {
            rollout.by_hand = true;
        }
    }

    /// The traffic has moved, and not together with others: what came together has gone back to where it came from, which the others are told, or has gone on without them.
    pub fn leave_the_others(&mut self) {
        let Some(Rollout { from: Some(from), to, together: None, by_hand, .. }) = &self.state.rollout else { return };
        let (left, to, by_hand) = (from.release, to.release, *by_hand);
        // A way back that came to nothing ends where it began.
        if left == to {
            return;
        }
        let Some(end) = self.state.together.0.get_mut(&left) else { return };
        if end.from == Some(to) {
            if end.outcome == TogetherOutcome::Live {
                end.outcome = if by_hand { TogetherOutcome::TakenBack } else { TogetherOutcome::Failed };
            }
        } else {
            self.state.together.0.remove(&left);
        }
    }
}
