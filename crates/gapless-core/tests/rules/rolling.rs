//! How long a batch of a rolling rollout may take.

use crate::states::{NODES, NOW, group, live, release, running, seen, whole};
use gapless_core::event::Event;
use gapless_core::notice::{RolloutKind, RolloutNumber};
use gapless_core::observation::Observation;
use gapless_core::policy::Strategy;
use gapless_core::rollout::step;
use gapless_core::route::Weight;
use gapless_core::service::{Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use std::time::Duration;

/// From 3 old nodes to 5 new ones: 3 of these exist, and so many have passed so far. The batch must have passed one millisecond from now.
fn rolling(passed: u32) -> (ServiceState, Observation) {
    let mut state = live(1);
    state.declared = Some(release(2));
    let new = state.releases.get_mut(&release(2)).expect("a release");
    new.nodes = 5;
    new.policy.strategy = Strategy::Rolling { surge: 1 };
    new.policy.bake = Duration::ZERO;
    state.groups.insert(group(2), whole());
    state.rollout =
        Some(Rollout::new(RolloutNumber(2), RolloutKind::Deploy, state.live, group(2), Stage::Roll { deadline: Instant(NOW.0 + 1) }));
    state.route.members.extend((0..NODES).map(|ordinal| (group(2).node(ordinal), Weight::PROBED)));
    let mut seen = seen(&[1, 2]);
    seen.nodes.extend((passed..NODES).map(|ordinal| (group(2).node(ordinal), running(2, 0))));
    (state, seen)
}

fn deadline(state: &ServiceState) -> Instant {
    match state.rollout.as_ref().map(|rollout| rollout.stage.clone()) {
        Some(Stage::Roll { deadline }) => deadline,
        other => panic!("it does not roll: {other:?}"),
    }
}

fn after((state, seen): (ServiceState, Observation)) -> ServiceState {
    step(&state, &Event::Observed(seen), NOW).state
}

#[test]
fn who_joins_gives_the_others_their_whole_time_also_when_nobody_leaves_for_it() {
    assert_eq!(deadline(&after(rolling(0))), Instant(NOW.0 + 1));
    let joined = after(rolling(1));
    assert_eq!(joined.wanted_nodes(group(1)).count(), 3, "5 are to serve, and 4 do");
    assert_eq!(deadline(&joined), NOW.after(Duration::from_secs(90)));
}

#[test]
fn who_leaves_gives_the_others_their_whole_time_also_when_nobody_joins() {
    let (mut state, seen) = rolling(3);
    state.route.members.values_mut().for_each(|weight| *weight = Weight::EQUAL);
    let left = after((state, seen));
    assert_eq!((left.wanted_nodes(group(1)).count(), left.wanted_nodes(group(2)).count()), (2, 3), "one makes room that is not free yet");
    assert_eq!(deadline(&left), NOW.after(Duration::from_secs(90)));
}
