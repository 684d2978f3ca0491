//! Which releases are kept: those that run, those that are wanted, and those that a rollback may go to.

use crate::pass::Pass;
use crate::policy::KEEP_DEFAULT;
use crate::release::ReleaseNumber;
use alloc::collections::BTreeSet;

impl Pass {
    /// Forgets releases that nothing can need any more, so that neither the state nor the images grow with history.
    pub fn forget_releases(&mut self) {
        let state = &self.state;
        let keep = state.live_release().and_then(|live| state.declaration(live)).map_or(KEEP_DEFAULT, |live| live.policy.keep);
        let mut kept: BTreeSet<ReleaseNumber> = state.groups.keys().map(|group| group.release).collect();
        kept.extend(state.declared.into_iter().chain(state.live_release()).chain(state.previous));
        kept.extend(state.queued.as_ref().map(|queued| queued.release).into_iter().chain(state.tried));
        kept.extend(state.rollout.iter().flat_map(|rollout| rollout.from.into_iter().chain([rollout.to])).map(|group| group.release));
        let earlier = state.served.iter().rev().filter(|release| Some(**release) != state.live_release());
        kept.extend(earlier.take(keep as usize).copied());
        let state = &mut self.state;
        state.releases.retain(|release, _| kept.contains(release));
        state.served.retain(|release| kept.contains(release));
        state.evicted_in_vain.retain(|release| kept.contains(release));
        // The others may not have heard of the last one yet.
        let last = state.together.0.keys().next_back().copied();
        state.together.0.retain(|release, _| kept.contains(release) || Some(*release) == last);
    }
}
