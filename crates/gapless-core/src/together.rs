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
    let by_hand = outcome == TogetherOutcome::TakenBack;
    let reason = if by_hand { Rejection::PartnerTakenBack { reason: why.into() } } else { Rejection::PartnerFailed { reason: why.into() } };
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
    let may_run = |release: &ReleaseNumber| state.served.contains(release) && no_way_back_to(state, *release, false).is_none();
    let to = end.from.filter(may_run);
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
    /// What a person took back stays back for all that came together, and nothing that waits undoes it; what failed is tried again when it is declared again.
    fn pin_after(&mut self, outcome: TogetherOutcome, live: Option<ReleaseNumber>) {
        let by_hand = outcome == TogetherOutcome::TakenBack;
        if by_hand {
            self.dequeue();
        }
        self.state.pinned = by_hand && self.state.declared != live;
    }

    /// The traffic has moved, and not together with others: what came together has gone back to where it came from, which the others are told, or has gone on without them.
    pub fn leave_the_others(&mut self) {
        let Some(Rollout { kind, from, to, together: None, .. }) = &self.state.rollout else { return };
        // A way back that came to nothing ends where it began.
        let Some(end) = self.state.together.filter(|end| end.outcome != TogetherOutcome::Live || end.release != to.release) else { return };
        let goes_back = from.map(|from| from.release) == Some(end.release) && Some(to.release) == end.from;
        let outcome = match end.outcome {
            TogetherOutcome::Live if *kind == RolloutKind::Rollback && self.state.pinned => TogetherOutcome::TakenBack,
            TogetherOutcome::Live => TogetherOutcome::Failed,
            known => known,
        };
        self.state.together = goes_back.then_some(TogetherEnd { outcome, ..end });
    }
}
