//! Which releases an eviction is not tried to again.

use crate::states::{NOW, group, live, release, seen};
use gapless_core::event::Event;
use gapless_core::notice::{Rejection, RolloutKind, RolloutNumber};
use gapless_core::release::ReleaseNumber;
use gapless_core::rollout::step;
use gapless_core::service::{Rollout, Stage};
use std::collections::BTreeSet;

/// What counts as evicted in vain after a rollout from the second release to the first has come to nothing.
fn in_vain(kind: RolloutKind, reason: Rejection) -> BTreeSet<ReleaseNumber> {
    let mut state = live(2);
    state.served = [release(1), release(2)].into();
    state.rollout = Some(Rollout::new(RolloutNumber(3), kind, state.live, group(1), Stage::Undo { reason }));
    let after = step(&state, &Event::Observed(seen(&[2])), NOW).state;
    assert_eq!(after.rollout, None);
    after.evicted_in_vain
}

#[test]
fn only_an_eviction_that_came_to_nothing_of_itself_was_in_vain() {
    let failed = || Rejection::ProgressDeadline { waiting_for: "a node".to_string() };
    assert_eq!(in_vain(RolloutKind::Eviction, failed()), [release(1)].into());
    assert_eq!(in_vain(RolloutKind::Eviction, Rejection::Superseded), [].into(), "it was not even tried to its end");
    for kind in [RolloutKind::Deploy, RolloutKind::Rollback] {
        assert_eq!(in_vain(kind, failed()), [].into(), "{kind:?}");
    }
}
