//! What is destroyed, and when again.

use crate::states::{NODES, NOW, effects, group, live, running, seen, whole};
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::node::NodeId;
use gapless_core::observation::{Condition, NodeSeen, Observation};
use gapless_core::rollout::{Step, step};
use gapless_core::route::{Generation, Weight};
use gapless_core::service::{Group, ServiceState};
use gapless_core::time::Instant;
use std::collections::BTreeSet;

/// From then on what was destroyed is destroyed again.
const AGAIN: Instant = Instant(NOW.0 + 2000);

/// The second release is live, and one node of the first has ended whose destruction was reported.
fn destroyed() -> (ServiceState, Observation) {
    let mut state = live(2);
    state.groups.insert(group(1), Group { nodes: BTreeSet::new(), ..whole() });
    state.destroyed.insert(group(1).node(0), AGAIN);
    let mut seen = seen(&[2]);
    let ended = NodeSeen { condition: Condition::Exited { code: Some(0), output: String::new() }, ..running(1, 9) };
    seen.nodes.insert(group(1).node(0), ended);
    (state, seen)
}

fn destroys(step: &Step) -> Vec<NodeId> {
    let of = |effect: &Effect| if let Effect::DestroyNodes { nodes } = effect { nodes.iter().copied().collect() } else { Vec::new() };
    step.effects.iter().flat_map(|(_, effect)| of(effect)).collect()
}

#[test]
fn what_is_still_seen_after_its_destruction_is_destroyed_again_only_after_a_while() {
    let (state, seen) = destroyed();
    let before = step(&state, &Event::Observed(seen.clone()), Instant(AGAIN.0 - 1));
    assert_eq!(destroys(&before), []);
    let after = step(&before.state, &Event::Observed(seen), AGAIN);
    assert_eq!(destroys(&after), [group(1).node(0)]);
}

#[test]
fn what_is_not_seen_any_more_needs_no_memory() {
    let (state, mut seen) = destroyed();
    seen.nodes.remove(&group(1).node(0));
    let step = step(&state, &Event::Observed(seen), Instant(AGAIN.0 - 1));
    assert_eq!(destroys(&step), []);
    assert!(step.state.destroyed.is_empty());
}

#[test]
fn a_group_is_known_as_long_as_nodes_of_it_are_there() {
    let mut state = live(2);
    state.groups.insert(group(1), Group { nodes: BTreeSet::new(), exposed: false, ..whole() });
    let leaves = step(&state, &Event::Observed(seen(&[1, 2])), NOW);
    assert_eq!(effects(&leaves), ["DestroyNodes"], "it never had traffic: there is nothing that could run out");
    assert!(leaves.state.groups.contains_key(&group(1)));
    let gone = step(&state, &Event::Observed(seen(&[2])), NOW);
    assert_eq!(effects(&gone), [""; 0]);
    assert!(!gone.state.groups.contains_key(&group(1)));
}

#[test]
fn nodes_of_somebody_else_are_let_be_until_a_route_was_sent() {
    for acknowledged in [None, Some(Generation(0)), Some(Generation(5))] {
        let mut seen = seen(&[1]);
        seen.proxies.insert("a".into(), acknowledged);
        let step = step(&ServiceState::default(), &Event::Observed(seen), NOW);
        assert_eq!(effects(&step), [""; 0], "{acknowledged:?}");
    }
}

#[test]
fn what_helps_out_leaves_when_what_is_live_is_whole_again() {
    let helped = |nodes: BTreeSet<u32>| {
        let mut state = live(2);
        state.groups.get_mut(&group(2)).expect("a group").nodes = nodes;
        // Nothing is made in the place of the one that is missing.
        state.healing.stopped = true;
        state.groups.insert(group(1), whole());
        state.route.members.extend((0..NODES).map(|ordinal| (group(1).node(ordinal), Weight::EQUAL)));
        let after = step(&state, &Event::Observed(seen(&[1, 2])), NOW).state;
        after.groups[&group(1)].nodes.len()
    };
    assert_eq!(helped([0, 1].into()), 3);
    assert_eq!(helped([0, 1, 2].into()), 0);
}
