//! Each invariant's checker faults a step that breaks it, and only that one.

use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::Event;
use gapless_core::invariant::{Invariant, Monitor, check};
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::notice::{RolloutKind, RolloutNumber};
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::policy::{Policy, Strategy};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::rollout::Step;
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::service::{Draining, Group, Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

const NOW: Instant = Instant(1_000_000);
const LIVE: GroupId = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) };
const OLD: GroupId = GroupId { release: ReleaseNumber(1), instance: InstanceId(0) };

fn declaration() -> Declaration {
    let second = Duration::from_secs(1);
    let policy = Policy {
        floor: 2,
        gate_passes: 2,
        gate_failures: 3,
        progress_deadline: second * 60,
        drain_deadline: second * 30,
        bake: Duration::ZERO,
        ..Policy::default()
    };
    Declaration {
        content: Digest([1; 32]),
        artifact: ArtifactVersion(1),
        image: Digest([1; 32]),
        nodes: 2,
        policy,
        serves: true,
        tasks: BTreeSet::new(),
    }
}

/// Two live nodes with all traffic at generation 3, and two of an earlier group that no route names.
fn world() -> (ServiceState, Observation) {
    let mut state = ServiceState { declared: Some(LIVE.release), live: Some(LIVE), ..ServiceState::default() };
    state.releases.insert(LIVE.release, declaration());
    state.groups.insert(LIVE, Group { size: 2, made: 2, nodes: BTreeSet::from([0, 1]), exposed: true, runs_task: false });
    state.groups.insert(OLD, Group { size: 2, made: 2, nodes: BTreeSet::new(), exposed: true, runs_task: false });
    state.route = Route { generation: Generation(3), members: (0..2).map(|ordinal| (LIVE.node(ordinal), Weight::EQUAL)).collect() };
    let mut seen = Observation::default();
    seen.proxies.insert("a".into(), Some(Generation(3)));
    for group in [LIVE, OLD] {
        let health = Health { passes: 5, ..Health::default() };
        let node = NodeSeen { condition: Condition::Running, image: Digest([1; 32]), health, requests_in_flight: 0 };
        seen.nodes.extend((0..2).map(|ordinal| (group.node(ordinal), node.clone())));
    }
    (state, seen)
}

/// A step that sends this effect, with its intent in the state.
fn sends(state: &ServiceState, effect: Effect) -> Step {
    let mut next = state.clone();
    next.next.effects.0 += 1;
    next.pending.insert(next.next.effects, effect.clone());
    if let Effect::Route(route) = &effect {
        next.route = route.clone();
    }
    let id = next.next.effects;
    Step { state: next, effects: vec![(id, effect)], refusal: None }
}

fn route(state: &ServiceState, change: impl FnOnce(&mut Route)) -> Effect {
    let mut route = Route { generation: state.route.generation.next(), members: state.route.members.clone() };
    change(&mut route);
    Effect::Route(route)
}

fn destroys(group: GroupId) -> Effect {
    Effect::DestroyNodes { nodes: BTreeSet::from([group.node(0)]) }
}

fn broken(state: &ServiceState, seen: &Observation, step: &Step) -> Option<Invariant> {
    check(state, &Event::Observed(seen.clone()), NOW, step).err().map(|violation| violation.invariant)
}

#[test]
fn a_route_that_drops_ready_nodes_below_the_floor_breaks_the_first() {
    let (state, seen) = world();
    let drops = route(&state, |route| {
        route.members.remove(&LIVE.node(0));
    });
    assert_eq!(broken(&state, &seen, &sends(&state, drops.clone())), Some(Invariant::I1));
    let mut died = seen;
    died.nodes.remove(&LIVE.node(0));
    assert_eq!(broken(&state, &died, &sends(&state, drops)), None, "a node that died by itself may leave");
}

#[test]
fn destroying_breaks_the_second_while_a_proxy_lags_or_requests_run() {
    let (mut state, seen) = world();
    assert_eq!(broken(&state, &seen, &sends(&state, destroys(OLD))), None);
    assert_eq!(broken(&state, &seen, &sends(&state, destroys(LIVE))), Some(Invariant::I2), "the route names it");
    for lagging in [None, Some(Generation(2))] {
        let mut seen = seen.clone();
        seen.proxies.insert("b".into(), lagging);
        assert_eq!(broken(&state, &seen, &sends(&state, destroys(OLD))), Some(Invariant::I2), "proxy b knows {lagging:?}");
    }
    let mut dropped = sends(&state, destroys(LIVE));
    dropped.state.route.members.clear();
    assert_eq!(broken(&state, &seen, &dropped), Some(Invariant::I2), "the same step drops it: no proxy can know");
    let mut busy = seen;
    busy.nodes.get_mut(&OLD.node(0)).unwrap().requests_in_flight = 1;
    assert_eq!(broken(&state, &busy, &sends(&state, destroys(OLD))), Some(Invariant::I2), "a request runs");
    let drain = Draining { unnamed_since: Generation(3), deadline: NOW, ends: Some(NOW), cut: Some(1), over: true };
    state.draining.insert(OLD.node(0), drain);
    assert_eq!(broken(&state, &busy, &sends(&state, destroys(OLD))), None, "its deadline has passed");
}

#[test]
fn traffic_before_the_gate_breaks_the_third() {
    let (mut state, mut seen) = world();
    let new = GroupId { release: ReleaseNumber(1), instance: InstanceId(2) };
    state.groups.insert(new, Group { size: 1, made: 1, nodes: BTreeSet::from([0]), exposed: false, runs_task: false });
    let joins = route(&state, |route| {
        route.members.insert(new.node(0), Weight::EQUAL);
    });
    let good = seen.nodes[&LIVE.node(0)].clone();
    seen.nodes.insert(new.node(0), good.clone());
    assert_eq!(broken(&state, &seen, &sends(&state, joins.clone())), None);
    let one_pass = NodeSeen { health: Health { passes: 1, ..Health::default() }, ..good.clone() };
    let other_image = NodeSeen { image: Digest([9; 32]), ..good };
    for bad in [one_pass, other_image] {
        seen.nodes.insert(new.node(0), bad);
        assert_eq!(broken(&state, &seen, &sends(&state, joins.clone())), Some(Invariant::I3));
    }
    state.route.members.insert(new.node(0), Weight::PROBED);
    assert_eq!(broken(&state, &seen, &sends(&state, joins.clone())), Some(Invariant::I3), "that it is probed says nothing");
    state.route.members.insert(new.node(0), Weight::EQUAL);
    assert_eq!(broken(&state, &seen, &sends(&state, joins)), None, "it has passed before, and keeps its traffic");
}

#[test]
fn an_effect_without_an_intent_or_with_a_used_number_breaks_the_fourth() {
    let (state, seen) = world();
    let mut forgotten = sends(&state, destroys(OLD));
    forgotten.state.pending.clear();
    assert_eq!(broken(&state, &seen, &forgotten), Some(Invariant::I4));
    let mut used = sends(&state, destroys(OLD));
    used.effects[0].0 = EffectId(0);
    assert_eq!(broken(&state, &seen, &used), Some(Invariant::I4));
    for number in [EffectId(0), EffectId(9)] {
        let mut step = sends(&state, destroys(OLD));
        step.effects[0].0 = number;
        step.state.pending.insert(number, step.effects[0].1.clone());
        assert_eq!(broken(&state, &seen, &step), Some(Invariant::I4), "{number} was used, or will be");
    }
}

#[test]
fn an_older_generation_or_another_route_of_the_same_breaks_the_fifth() {
    let (state, seen) = world();
    assert_eq!(broken(&state, &seen, &sends(&state, Effect::Route(state.route.clone()))), None, "the same again");
    for generation in [Generation(2), Generation(3)] {
        let step = sends(
            &state,
            route(&state, |route| {
                route.generation = generation;
                route.members.insert(OLD.node(0), Weight::PROBED);
            }),
        );
        assert_eq!(broken(&state, &seen, &step), Some(Invariant::I5), "{generation}");
    }
    let none = ServiceState { route: Route::default(), ..state };
    assert_eq!(broken(&none, &seen, &sends(&none, Effect::Route(none.route.clone()))), Some(Invariant::I5), "nobody has decided it");
}

#[test]
fn doing_what_is_so_already_breaks_the_sixth() {
    let (state, _) = world();
    let step = sends(&state, destroys(OLD));
    let violation = check(&state, &Event::declared(declaration()), NOW, &step).expect_err("it must be faulted");
    assert_eq!(violation.invariant, Invariant::I6);
    assert!(violation.to_string().starts_with("I6 is broken: "));
    let wish = Event::declared(declaration());
    let silent = Step { state: ServiceState { pinned: true, ..state.clone() }, effects: Vec::new(), refusal: None };
    let unwritten = Step { state: state.clone(), ..step };
    for either in [silent, unwritten] {
        assert_eq!(check(&state, &wish, NOW, &either).map_err(|violation| violation.invariant), Err(Invariant::I6), "{:?}", either.effects);
    }
    let goes_back = Rollout::new(RolloutNumber(2), RolloutKind::Rollback, Some(LIVE), OLD, Stage::Shift);
    let leaving = ServiceState { rollout: Some(goes_back), ..state.clone() };
    let other = ServiceState { declared: Some(ReleaseNumber(7)), ..state };
    for begins in [leaving, other] {
        let mut changed = sends(&begins, destroys(OLD));
        changed.effects.clear();
        assert_eq!(check(&begins, &wish, NOW, &changed), Ok(()), "it is not so, or does not stay so");
    }
}

#[test]
fn making_nodes_beside_one_that_runs_alone_breaks_the_seventh() {
    let (mut state, mut seen) = world();
    let new = GroupId { release: ReleaseNumber(2), instance: InstanceId(2) };
    let ensure = Effect::EnsureGroup { group: new, size: 1 };
    state.releases.insert(new.release, declaration());
    state.groups.insert(new, Group { size: 1, made: 0, nodes: BTreeSet::from([0]), exposed: false, runs_task: false });
    assert_eq!(broken(&state, &seen, &sends(&state, ensure.clone())), None, "nobody asks to be alone");
    for alone in [LIVE.release, new.release] {
        let mut state = state.clone();
        state.releases.entry(alone).and_modify(|known| known.policy.strategy = Strategy::Recreate);
        let step = sends(&state, ensure.clone());
        assert_eq!(broken(&state, &seen, &step), Some(Invariant::I7), "{alone} runs alone");
        let blind = check(&state, &Event::Restarted, NOW, &step).expect_err("nobody has looked");
        assert_eq!(blind.invariant, Invariant::I7);
    }
    state.releases.entry(new.release).and_modify(|known| known.policy.strategy = Strategy::Recreate);
    seen.nodes.clear();
    assert_eq!(broken(&state, &seen, &sends(&state, ensure.clone())), None, "nothing else is there");
    seen.nodes.insert(
        new.node(7),
        NodeSeen { condition: Condition::Running, image: Digest([1; 32]), health: Health::default(), requests_in_flight: 0 },
    );
    assert_eq!(broken(&state, &seen, &sends(&state, ensure)), Some(Invariant::I7), "a node of its own group that has to go is there");
}

#[test]
fn the_monitor_knows_what_a_proxy_names_even_if_the_state_does_not() {
    let (mut state, mut seen) = world();
    let mut monitor = Monitor::default();
    let names_old = route(&state, |route| {
        route.members.insert(OLD.node(0), Weight::PROBED);
    });
    let step = sends(&state, names_old);
    monitor.watch(&state, &Event::Observed(seen.clone()), NOW, &step).expect("probing is no fault");
    state = step.state;
    // The state is made to believe that generation 3 is current: then only the history tells that 4 names the node.
    state.route.members.remove(&OLD.node(0));
    seen.proxies.insert("a".into(), Some(Generation(4)));
    let destroy = sends(&state, destroys(OLD));
    check(&state, &Event::Observed(seen.clone()), NOW, &destroy).expect("the step alone looks sound");
    let violation = monitor.watch(&state, &Event::Observed(seen), NOW, &destroy).expect_err("the monitor knows better");
    assert_eq!(violation.invariant, Invariant::I2);
}
