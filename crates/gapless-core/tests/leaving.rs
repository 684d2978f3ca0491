//! What is destroyed, and when again.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::rollout::{Step, step};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::{Group, ServiceState};
use gapless_core::time::Instant;
use std::collections::BTreeSet;

const LIVE: GroupId = GroupId { release: ReleaseNumber(1), instance: InstanceId(2) };
const OLD: GroupId = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) };
/// From then on what was destroyed is destroyed again.
const AGAIN: Instant = Instant(2000);

fn node(condition: Condition) -> NodeSeen {
    NodeSeen { condition, image: Digest([1; 32]), health: Health { passes: 5, ..Health::default() }, requests_in_flight: 0 }
}

/// One live node, and one of an earlier group that has ended and whose destruction was reported.
fn destroyed() -> (ServiceState, Observation) {
    let mut state = ServiceState { declared: Some(LIVE.release), live: Some(LIVE), ..ServiceState::default() };
    let declaration = Declaration {
        content: Digest([1; 32]),
        artifact: ArtifactVersion(1),
        image: Digest([1; 32]),
        nodes: 1,
        policy: Policy { floor: 1, ..Policy::default() },
        serves: true,
        tasks: BTreeSet::new(),
    };
    state.releases.insert(LIVE.release, declaration);
    state.groups.insert(LIVE, Group { size: 1, made: 1, nodes: BTreeSet::from([0]), exposed: true, runs_task: false });
    state.groups.insert(OLD, Group { size: 1, made: 1, nodes: BTreeSet::new(), exposed: true, runs_task: false });
    state.route = Route { generation: Generation(3), members: [(LIVE.node(0), Weight::EQUAL)].into() };
    state.destroyed.insert(OLD.node(0), AGAIN);
    let mut seen = Observation::default();
    seen.proxies.insert("a".into(), Some(Generation(3)));
    seen.nodes.insert(LIVE.node(0), node(Condition::Running));
    seen.nodes.insert(OLD.node(0), node(Condition::Exited { code: Some(0), output: String::new() }));
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
    assert_eq!(destroys(&after), [OLD.node(0)]);
}

#[test]
fn what_is_not_seen_any_more_needs_no_memory() {
    let (state, mut seen) = destroyed();
    seen.nodes.remove(&OLD.node(0));
    let step = step(&state, &Event::Observed(seen), Instant(AGAIN.0 - 1));
    assert_eq!(destroys(&step), []);
    assert!(step.state.destroyed.is_empty());
}
