//! New nodes pass by what is seen of them as members of a route that every proxy acknowledged.

use crate::states::{NOW, group, live, release, running, seen, whole};
use gapless_core::event::Event;
use gapless_core::notice::{RolloutKind, RolloutNumber};
use gapless_core::observation::Observation;
use gapless_core::rollout::step;
use gapless_core::route::Weight;
use gapless_core::service::{Group, Rollout, ServiceState, Stage};
use gapless_core::time::Instant;

/// The second release is tried; its nodes run.
fn trying() -> ServiceState {
    let mut state = live(1);
    state.declared = Some(release(2));
    state.groups.insert(group(2), Group { exposed: false, ..whole() });
    let stage = Stage::Prepare { deadline: Instant(90_000), booted: true };
    state.rollout = Some(Rollout::new(RolloutNumber(2), RolloutKind::Deploy, state.live, group(2), stage));
    state
}

fn passes(state: &ServiceState, seen: &Observation) -> bool {
    let step = step(state, &Event::Observed(seen.clone()), NOW);
    step.state.rollout.is_some_and(|rollout| rollout.gate_passed)
}

#[test]
fn what_was_seen_of_nodes_that_no_route_names_is_no_trial() {
    let mut state = trying();
    assert!(!passes(&state, &seen(&[1, 2])), "no route names them");
    state.route.members.extend((0..3).map(|ordinal| (group(2).node(ordinal), Weight::PROBED)));
    assert!(passes(&state, &seen(&[1, 2])));
    let mut fewer = seen(&[1, 2]);
    fewer.nodes.insert(group(2).node(1), running(2, 1));
    assert!(!passes(&state, &fewer), "each has to pass twice");
}
