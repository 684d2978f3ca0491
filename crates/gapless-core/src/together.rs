//! Services whose releases shift together: none before all are ready, and when one goes back, the others do, too.

use crate::notice::{Notice, Rejection, RolloutKind};
use crate::operation::old_group;
use crate::pass::Pass;
use crate::release::ReleaseNumber;
use crate::request::no_way_back_to;
use crate::rollout::Step;
use crate::service::{Rollout, ServiceState, TogetherEnd, TogetherOutcome};
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
    let Some(rollout) = state.rollout.as_ref() else { return follow_back(state, why, outcome, now) };
    let mut pass = Pass::new(state, now);
    if rollout.together.is_none() {
        return pass.step();
    }
    let reason = Rejection::PartnerFailed { reason: why.into() };
    if rollout.can_be_rejected() {
        pass.reject(reason);
        pass.pin_after(outcome, state.live_release());
    } else if let Some(old) = old_group(state) {
        pass.take_back(old, reason);
        pass.pin_after(outcome, Some(old.release));
    }
    pass.step()
}

/// The rollout is over, and its old nodes are gone: what was live before is made again.
fn follow_back(state: &ServiceState, why: &str, outcome: TogetherOutcome, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    let Some(end) = state.came_together() else { return pass.step() };
    pass.state.together = Some(TogetherEnd { outcome, ..end });
    let to = state.previous.filter(|previous| state.served.contains(previous) && no_way_back_to(state, *previous, false).is_none());
    pass.notify(Notice::FollowsBack { from: end.release, to, reason: why.into() });
    let Some(to) = to else { return pass.step() };
    if outcome == TogetherOutcome::Failed {
        pass.state.served.remove(&end.release);
    }
    pass.pin_after(outcome, Some(to));
    pass.begin(RolloutKind::Rollback, to, None);
    pass.step()
}

impl Pass {
    /// What a person took back stays back for all that came together; what failed is tried again when it is declared again.
    fn pin_after(&mut self, outcome: TogetherOutcome, live: Option<ReleaseNumber>) {
        self.state.pinned = outcome == TogetherOutcome::TakenBack && self.state.declared != live;
    }

    /// The services that came together with what `before` has live, or is giving the traffic to, go back as this one does, if it goes to where they all come from.
    pub fn take_the_others_along(&mut self, before: &ServiceState, to: ReleaseNumber, outcome: TogetherOutcome) {
        let moving = before.rollout.as_ref().and_then(|rollout: &Rollout| {
            let together = rollout.together.as_ref().filter(|_| rollout.from.is_some_and(|from| from.release == to))?;
            Some(TogetherEnd { id: together.id, release: rollout.to.release, outcome })
        });
        let moved = before.came_together().filter(|_| before.rollout.is_none() && before.previous == Some(to));
        if let Some(end) = moving.or(moved) {
            self.state.together = Some(TogetherEnd { outcome, ..end });
        }
    }
}
