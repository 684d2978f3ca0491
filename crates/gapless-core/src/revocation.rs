//! Revoked artifacts: none is deployed, and nodes that run one leave for the newest good release.

use crate::notice::{Notice, Rejection, RolloutKind};
use crate::pass::Pass;
use crate::release::{ArtifactVersion, ReleaseNumber};
use crate::request::{broken_by, busy, warm_group};
use crate::rollout::{Round, Step};
use crate::service::{Rollout, ServiceState, Stage};
use crate::time::Instant;
use alloc::collections::BTreeSet;

/// These versions are revoked now, and no others.
pub(crate) fn revoke(state: &ServiceState, artifacts: &BTreeSet<ArtifactVersion>, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    if state.revoked == *artifacts {
        return pass.step();
    }
    pass.state.revoked = artifacts.clone();
    pass.state.evicted_in_vain.clear();
    pass.notify(Notice::RevocationsChanged { artifacts: artifacts.clone() });
    if state.queued.as_ref().is_some_and(|queued| pass.state.is_revoked(queued.release)) {
        pass.dequeue();
    }
    if state.rollout.as_ref().is_some_and(|rollout| rollout.can_be_rejected() && pass.state.is_revoked(rollout.to.release)) {
        pass.reject(Rejection::Revoked);
    }
    pass.step()
}

/// The newest release that was live, is kept and may run.
fn newest_good(state: &ServiceState) -> Option<ReleaseNumber> {
    state.served.iter().rev().copied().find(|release| may_be_evicted_to(state, *release))
}

/// Whether nodes of a revoked release may leave for this one by themselves. What a person rolled back from does not come back, and nothing goes back past a release that took away
/// what earlier ones need.
fn may_be_evicted_to(state: &ServiceState, release: ReleaseNumber) -> bool {
    let failed_just_now = state.rollout.as_ref().is_some_and(|rollout| {
        let superseded = matches!(&rollout.stage, Stage::Undo { reason } | Stage::Unroll { reason } if *reason == Rejection::Superseded);
        rollout.kind == RolloutKind::Eviction && rollout.is_given_up() && !superseded && rollout.to.release == release
    });
    let was_left_by_hand = state.pinned && state.live_release().is_some_and(|live| release > live);
    state.releases.contains_key(&release)
        && !state.is_revoked(release)
        && !state.evicted_in_vain.contains(&release)
        && !failed_just_now
        && !was_left_by_hand
        && broken_by(state, release).is_none()
}

impl Round<'_> {
    /// A revoked release that is live leaves, when nothing else is on its way.
    pub fn evict(&mut self) {
        let state = &self.pass.state;
        let Some(live) = state.live_release().filter(|live| state.is_revoked(*live)) else { return self.cool_down() };
        if busy(state).is_some() {
            return;
        }
        let warm = warm_group(state).filter(|group| may_be_evicted_to(state, group.release));
        if let Some(group) = warm {
            return self.pass.return_to(RolloutKind::Eviction, group);
        }
        match newest_good(state) {
            Some(good) => {
                self.pass.make_room();
                self.pass.begin(RolloutKind::Eviction, good, None);
                self.take_out_what_has_to_go();
            }
            None if self.pass.state.evicted_in_vain.insert(live) => self.pass.notify(Notice::NothingToEvictTo { live }),
            None => {}
        }
    }

    /// A revoked release is not kept warm.
    fn cool_down(&mut self) {
        let Some(Rollout { from: Some(from), stage: Stage::Bake { .. }, .. }) = self.rollout() else { return };
        if self.pass.state.is_revoked(from.release) {
            self.end_bake();
        }
    }
}
