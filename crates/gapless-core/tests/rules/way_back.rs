//! When a group that had the traffic before takes it again, and what is told of the one that could not keep it.

use crate::states::{NODES, NOW, group, live, release, running, seen, whole};
use gapless_core::event::Event;
use gapless_core::node::NodeId;
use gapless_core::notice::{Rejection, RolloutKind, RolloutNumber};
use gapless_core::observation::{Health, NodeSeen, Observation};
use gapless_core::rollout::step;
use gapless_core::route::Weight;
use gapless_core::service::{Group, Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a node of the old group stands that is to take the traffic again.
#[derive(Clone, Copy)]
enum Old {
    Well,
    Unchecked,
    Failing,
}

/// What comes of the way back in one look.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Shifts,
    Waits,
    Fails,
}

fn failing(number: u32, times: u32) -> NodeSeen {
    let health = Health { passes: 0, failures: times, failures_after_answer: times, evidence: None };
    NodeSeen { health, ..running(number, 0) }
}

/// The second release is live, and its first one is on the way back, with two nodes at least: its nodes are probed, every proxy knows that, and it must have passed by the given time.
fn going_back(deadline: Instant, serves: bool, old: &[Old]) -> (ServiceState, Observation) {
    let mut state = live(2);
    state.declared = Some(release(1));
    state.groups.insert(group(1), Group { nodes: (0..old.len() as u32).collect(), ..whole() });
    let stage = Stage::Prepare { deadline, booted: true };
    state.rollout = Some(Rollout::new(RolloutNumber(3), RolloutKind::Rollback, state.live, group(1), stage));
    state.route.members.extend((0..old.len() as u32).map(|ordinal| (group(1).node(ordinal), Weight::PROBED)));
    let mut seen = seen(&[2]);
    if !serves {
        seen.nodes.extend((0..NODES).map(|ordinal| (group(2).node(ordinal), failing(2, 3))));
    }
    let stands = |old: &Old| match old {
        Old::Well => running(1, 2),
        Old::Unchecked => running(1, 0),
        Old::Failing => failing(1, 3),
    };
    seen.nodes.extend(old.iter().enumerate().map(|(ordinal, old)| (group(1).node(ordinal as u32), stands(old))));
    (state, seen)
}

fn end((state, seen): &(ServiceState, Observation)) -> End {
    match step(state, &Event::Observed(seen.clone()), NOW).state.rollout.map(|rollout| rollout.stage) {
        Some(Stage::Shift) => End::Shifts,
        Some(Stage::Prepare { .. }) => End::Waits,
        // Where nothing is left of it, it is over at once.
        Some(Stage::Undo { .. }) | None => End::Fails,
        other => panic!("the way back ends in {other:?}"),
    }
}

#[test]
fn the_way_back_is_taken_when_enough_have_passed_and_nothing_more_is_to_come() {
    use Old::{Failing, Unchecked, Well};
    let (early, late) = (Instant(NOW.0 + 1), NOW);
    let rows: [(&[Old], bool, End, End); 11] = [
        // The old nodes; whether what is live serves; what comes of it before the time is over, and after it.
        (&[Well, Well, Well], true, End::Shifts, End::Shifts),
        (&[Well, Well, Unchecked], true, End::Waits, End::Shifts),
        (&[Well, Well, Failing], true, End::Shifts, End::Shifts),
        (&[Well, Unchecked, Unchecked], true, End::Waits, End::Fails),
        (&[Well, Unchecked, Failing], true, End::Waits, End::Fails),
        (&[Well, Failing, Failing], true, End::Fails, End::Fails),
        (&[Well], true, End::Fails, End::Fails),
        (&[], true, End::Fails, End::Fails),
        // One node is more than none.
        (&[Well, Unchecked, Unchecked], false, End::Waits, End::Shifts),
        (&[Well, Failing, Failing], false, End::Shifts, End::Shifts),
        (&[Unchecked, Unchecked, Unchecked], false, End::Waits, End::Fails),
    ];
    for (number, (old, serves, before, after)) in rows.into_iter().enumerate() {
        assert_eq!(end(&going_back(early, serves, old)), before, "row {number}, in time");
        assert_eq!(end(&going_back(late, serves, old)), after, "row {number}, at its end");
    }
    assert_eq!(end(&going_back(early, false, &[])), End::Fails, "nothing is left to go back to");
}

/// The traffic is on its way to the second release; nothing of the first one is in the route any more, and all of it runs.
fn shifting() -> (ServiceState, Observation) {
    let mut state = live(2);
    state.live = Some(group(1));
    state.groups.insert(group(1), whole());
    let mut rollout = Rollout::new(RolloutNumber(2), RolloutKind::Deploy, state.live, group(2), Stage::Shift);
    rollout.gate_passed = true;
    state.rollout = Some(rollout);
    (state, seen(&[1, 2]))
}

fn with_traffic(state: &ServiceState) -> BTreeSet<NodeId> {
    state.route.members.iter().filter(|(_, weight)| weight.has_traffic()).map(|(node, _)| *node).collect()
}

#[test]
fn nodes_that_no_route_names_any_more_get_the_traffic_back() {
    let (state, mut seen) = shifting();
    seen.nodes.retain(|node, _| node.group != group(2));
    let after = step(&state, &Event::Observed(seen), NOW).state;
    assert_eq!(with_traffic(&after), (0..NODES).map(|ordinal| group(1).node(ordinal)).collect());
}

#[test]
fn a_node_that_runs_and_fails_no_check_is_not_what_a_group_failed_by() {
    // On the way back to the first release only its first node had traffic; that was lost when the second one could not take it back yet.
    let mut state = live(1);
    state.groups.insert(group(1), Group { nodes: [1, 2].into(), ..whole() });
    state.route.members.clear();
    state.live = Some(group(2));
    state.groups.insert(group(2), whole());
    state.rollout = Some(Rollout::new(RolloutNumber(3), RolloutKind::Rollback, state.live, group(1), Stage::Shift));
    state.joining.extend([1, 2].map(|ordinal| (group(1).node(ordinal), NOW.after(Duration::from_secs(60)))));
    state.route.members.extend([1, 2].map(|ordinal| (group(1).node(ordinal), Weight::PROBED)));
    let reason = |failures: u32| {
        let mut seen = seen(&[2]);
        seen.nodes.extend([1, 2].map(|ordinal| (group(1).node(ordinal), failing(1, failures))));
        match step(&state, &Event::Observed(seen), NOW).state.rollout.map(|rollout| rollout.stage) {
            Some(Stage::Undo { reason }) => reason,
            other => panic!("it does not give back: {other:?}"),
        }
    };
    assert!(matches!(reason(0), Rejection::NodeExited { .. }), "{:?}", reason(0));
    assert!(matches!(reason(1), Rejection::GateFailed { .. }), "{:?}", reason(1));
}

#[test]
fn a_replacement_that_has_not_joined_stays_behind_when_the_traffic_leaves_its_group() {
    let (mut state, mut seen) = (live(1), seen(&[1, 2]));
    state.declared = Some(release(2));
    // The same image, with other settings: nothing tells the replacement from a new node but its group.
    let image = state.releases[&release(1)].image;
    state.releases.get_mut(&release(2)).expect("a release").image = image;
    seen.nodes.values_mut().for_each(|seen| seen.image = image);
    let replacement = group(1).node(NODES);
    state.groups.insert(group(1), Group { size: NODES + 1, made: NODES + 1, nodes: [0, 1, NODES].into(), ..whole() });
    state.groups.insert(group(2), Group { exposed: false, ..whole() });
    state.joining.insert(replacement, NOW.after(Duration::from_secs(60)));
    state.route.members.remove(&group(1).node(2));
    state.route.members.insert(replacement, Weight::PROBED);
    state.route.members.extend((0..NODES).map(|ordinal| (group(2).node(ordinal), Weight::PROBED)));
    seen.nodes.remove(&group(1).node(2));
    seen.nodes.insert(replacement, NodeSeen { image, ..running(1, 9) });
    let stage = Stage::Prepare { deadline: NOW.after(Duration::from_secs(60)), booted: true };
    state.rollout = Some(Rollout::new(RolloutNumber(2), RolloutKind::Deploy, state.live, group(2), stage));
    let shifts = step(&state, &Event::Observed(seen), NOW).state;
    assert_eq!(shifts.rollout.as_ref().map(|rollout| rollout.stage.clone()), Some(Stage::Shift));
    assert_eq!(with_traffic(&shifts), (0..NODES).map(|ordinal| group(2).node(ordinal)).collect());
    assert!(shifts.joining.is_empty(), "{:?}", shifts.joining);
    assert!(!shifts.is_wanted(replacement));
}
