//! The plan says what a declaration would do, and the step then does just that.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::plan::{Planned, plan};
use gapless_core::policy::{Policy, Strategy, Supersede};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::rollout::step;
use gapless_core::service::{Group, Queued, Scaled, ServiceState, Stage, Together};
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

fn declaration(version: u8) -> Declaration {
    let policy = Policy {
        floor: 1,
        gate_passes: 2,
        gate_failures: 3,
        progress_deadline: Duration::from_secs(60),
        drain_deadline: Duration::from_secs(30),
        bake: Duration::from_secs(300),
        ..Policy::default()
    };
    Declaration {
        content: Digest([version; 32]),
        artifact: ArtifactVersion(version.into()),
        image: Digest([version; 32]),
        nodes: 3,
        policy,
        serves: true,
        tasks: BTreeSet::new(),
    }
}

/// A service whose first release is live.
fn live() -> ServiceState {
    let group = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) };
    let mut state = ServiceState { declared: Some(ReleaseNumber(1)), live: Some(group), ..ServiceState::default() };
    state.releases.insert(ReleaseNumber(1), declaration(1));
    state.groups.insert(group, Group { size: 3, made: 3, nodes: (0..3).collect(), exposed: true, runs_task: false });
    state.next.releases = 1;
    state.next.instances = InstanceId(1);
    state
}

fn lines(state: &ServiceState, declaration: &Declaration) -> Vec<String> {
    plan(state, declaration, false, None, Instant(1000)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_changed_declaration_is_told_in_the_order_of_its_effects() {
    assert_eq!(
        lines(&live(), &declaration(2)),
        [
            "new release r2 after r1",
            "EnsureGroup: 3 nodes of r2-i2 beside the old ones",
            "Route: probed without traffic; gate: 2 passed checks in a row each, within 60s",
            "Route: all traffic to the new nodes, the old ones kept as members without traffic",
            "bake for 300s: the way back is one Route",
            "Route without r1-i1; Drain: its requests run out, at most 30s",
            "DestroyNodes: r1-i1",
        ]
    );
}

#[test]
fn the_plan_names_the_group_that_the_step_then_creates() {
    let (state, wanted) = (live(), declaration(2));
    let planned = plan(&state, &wanted, false, None, Instant(1000))
        .into_iter()
        .find_map(|line| if let Planned::Create { group, .. } = line { Some(group) } else { None });
    let step = step(&state, &Event::declared(wanted), Instant(5));
    let created =
        step.effects.iter().find_map(|(_, effect)| if let Effect::EnsureGroup { group, .. } = effect { Some(*group) } else { None });
    assert!(created.is_some());
    assert_eq!(planned, created);
}

#[test]
fn what_moves_together_is_planned_to_be_replaced_only_by_what_takes_all_of_it_along() {
    let together = |id: u8| Together { id: Digest([id; 32]), with: BTreeSet::from(["hello/worker".parse().unwrap()]) };
    let begun = Event::Declared { declaration: declaration(2), urgent: false, together: Some(together(1)) };
    let state = step(&live(), &begun, Instant(5)).state;
    let mut wanted = declaration(3);
    wanted.policy.supersede = Supersede::Replace;
    for (next, replaces) in [(None, false), (Some(together(2)), true)] {
        let planned = plan(&state, &wanted, false, next.as_ref(), Instant(1000));
        assert_eq!(planned[0], Planned::Queued { frozen_until: None, replaces });
        assert_eq!(planned[1], Planned::Release { release: ReleaseNumber(3), from: Some(ReleaseNumber(1)) });
        let event = Event::Declared { declaration: wanted.clone(), urgent: false, together: next };
        let after = step(&state, &event, Instant(1000)).state;
        let given_up = after.rollout.is_none_or(|rollout| matches!(rollout.stage, Stage::Undo { .. }));
        assert_eq!(given_up, replaces);
    }
}

#[test]
fn what_is_queued_says_when_its_turn_comes() {
    let says = |frozen_until: Option<Instant>, replaces: bool| Planned::Queued { frozen_until, replaces }.to_string();
    assert_eq!(says(Some(Instant(9)), false), "queued: it begins when the freeze window is over");
    assert_eq!(says(Some(Instant(9)), true), says(Some(Instant(9)), false));
    assert_eq!(says(None, true), "queued: the rollout in progress is given up for it, if it has not shifted the traffic");
    assert_eq!(says(None, false), "queued: it begins when the rollout in progress is over");
}

#[test]
fn what_moves_together_is_planned_to_wait_for_the_others_before_it_shifts() {
    let together = Together { id: Digest([1; 32]), with: BTreeSet::from(["hello/worker".parse().unwrap()]) };
    let planned = |together: Option<&Together>| plan(&live(), &declaration(2), false, together, Instant(1000));
    let waits = |line: &Planned| matches!(line, Planned::Await { .. });
    assert!(!planned(None).iter().any(waits));
    let lines = planned(Some(&together));
    let at = lines.iter().position(waits).expect("it waits");
    assert_eq!(lines[at].to_string(), "wait until hello/worker can shift too: all of them do, or none");
    assert!(matches!(lines[at - 1], Planned::Gate { .. }) && matches!(lines[at + 1], Planned::Shift { .. }), "{lines:?}");
}

#[test]
fn what_waits_is_planned_to_be_tied_anew_only_to_others_than_before() {
    let together = |id: u8| Together { id: Digest([id; 32]), with: BTreeSet::from(["hello/worker".parse().unwrap()]) };
    let declared = |version: u8, id: u8| Event::Declared { declaration: declaration(version), urgent: false, together: Some(together(id)) };
    let moving = step(&live(), &declared(2, 1), Instant(5)).state;
    let waiting = step(&moving, &declared(3, 2), Instant(6)).state;
    let first = |next: Option<&Together>| plan(&waiting, &declaration(3), false, next, Instant(1000)).remove(0);
    let nothing = Planned::Nothing { live: Some(ReleaseNumber(1)), pinned: false };
    assert_eq!(first(None), nothing);
    assert_eq!(first(Some(&together(2))), nothing);
    let tied = first(Some(&together(4)));
    assert_eq!(tied, Planned::Tied { release: ReleaseNumber(3), with: together(4).with });
    assert_eq!(tied.to_string(), "r3 moves together with hello/worker when its turn comes");
    let after = step(&waiting, &declared(3, 4), Instant(1000)).state;
    assert_eq!(after.is_next_with(), Some(&together(4)));
    let hurried = plan(&waiting, &declaration(3), true, Some(&together(4)), Instant(1000));
    assert_eq!(hurried[0], Planned::Hurried { release: ReleaseNumber(3), at_once: false });
    assert_eq!(hurried[1], tied, "both are done");
    let moves_already = plan(&moving, &declaration(2), false, Some(&together(4)), Instant(1000)).remove(0);
    assert_eq!(moves_already, nothing, "nothing waits");
}

fn with(strategy: Strategy) -> Declaration {
    let mut wanted = declaration(2);
    match strategy {
        Strategy::Rolling { .. } => wanted.policy.bake = Duration::ZERO,
        Strategy::Recreate => (wanted.policy.floor, wanted.policy.bake) = (0, Duration::ZERO),
        _ => {}
    }
    wanted.policy.strategy = strategy;
    wanted
}

/// A service of which somebody wanted 5 nodes in place of 3.
fn scaled() -> ServiceState {
    ServiceState { scaled: Some(Scaled { declared: 3, nodes: 5 }), ..live() }
}

/// What is planned to be made first, and what the step then asks for.
fn made(state: &ServiceState, wanted: &Declaration) -> (Option<u32>, Option<u32>) {
    let planned = plan(state, wanted, false, None, Instant(1000));
    let planned = planned.iter().find_map(|line| if let Planned::Create { nodes, .. } = line { Some(*nodes) } else { None });
    let step = step(state, &Event::declared(wanted.clone()), Instant(1000));
    let asked = step.effects.iter().find_map(|(_, effect)| if let Effect::EnsureGroup { size, .. } = effect { Some(*size) } else { None });
    (planned, asked)
}

#[test]
fn as_many_nodes_are_planned_as_the_step_then_asks_for() {
    let cases = [
        (ServiceState::default(), Strategy::BlueGreen, Some(3)),
        (ServiceState::default(), Strategy::Rolling { surge: 2 }, Some(3)),
        (live(), Strategy::BlueGreen, Some(3)),
        (live(), Strategy::Rolling { surge: 2 }, Some(2)),
        (live(), Strategy::Rolling { surge: 9 }, Some(3)),
        (live(), Strategy::Rolling { surge: 0 }, None),
        (scaled(), Strategy::BlueGreen, Some(5)),
        (scaled(), Strategy::Rolling { surge: 4 }, Some(4)),
    ];
    for (state, strategy, nodes) in cases {
        assert_eq!(made(&state, &with(strategy.clone())), (nodes, nodes), "{strategy:?}, {:?}", state.scaled);
    }
    let other = Declaration { nodes: 4, ..declaration(2) };
    assert_eq!(made(&scaled(), &other), (Some(4), Some(4)), "what was wanted in place of 3 nodes holds for no other number");
}

#[test]
fn old_nodes_are_named_only_where_there_are_some() {
    let create = |state: &ServiceState, wanted: &Declaration| {
        lines(state, wanted).into_iter().filter(|line| line.starts_with("EnsureGroup") || line.starts_with("outage")).collect::<Vec<_>>()
    };
    assert_eq!(create(&ServiceState::default(), &declaration(2)), ["EnsureGroup: 3 nodes of r1-i1"]);
    let first = lines(&ServiceState::default(), &declaration(2));
    assert_eq!(first.last().map(String::as_str), Some("Route: all traffic to the new nodes"), "nothing is kept warm");
    let outage = "outage: r1-i1 leaves first; its requests run out, at most 30s, and it is destroyed";
    assert_eq!(create(&live(), &with(Strategy::Recreate)), [outage, "EnsureGroup: 3 nodes of r2-i2"]);
    let one = Declaration { nodes: 1, ..with(Strategy::Rolling { surge: 1 }) };
    assert_eq!(create(&live(), &one), ["EnsureGroup: 1 node of r2-i2 beside the old ones"]);
}

#[test]
fn a_rolling_rollout_tells_its_whole_size_and_the_floor_of_what_somebody_wanted() {
    let roll = |state: &ServiceState, surge: u32| {
        lines(state, &with(Strategy::Rolling { surge })).into_iter().find(|line| line.starts_with("Route after Route")).expect("it rolls")
    };
    let expected = "Route after Route: 3 new nodes in the old ones' place, at most 1 beyond the node count, never fewer than 1 ready";
    assert_eq!(roll(&live(), 1), expected);
    let expected = "Route after Route: 5 new nodes in the old ones' place, at most 0 beyond the node count, never fewer than 3 ready";
    assert_eq!(roll(&scaled(), 0), expected);
    assert!(!lines(&ServiceState::default(), &with(Strategy::Rolling { surge: 1 })).iter().any(|line| line.starts_with("Route after")));
}

#[test]
fn what_is_so_already_plans_nothing_and_a_pinned_service_says_so() {
    assert_eq!(lines(&live(), &declaration(1)), ["nothing: it is so already (r1 is live)"]);
    let mut pinned = live();
    pinned.releases.insert(ReleaseNumber(2), declaration(2));
    pinned.declared = Some(ReleaseNumber(2));
    pinned.pinned = true;
    assert_eq!(lines(&pinned, &declaration(2)), ["nothing: rolled back by hand to r1, which stays until the declaration changes"]);
}

#[test]
fn what_waits_for_the_end_of_a_freeze_window_can_be_hurried() {
    let mut frozen = live();
    frozen.releases.insert(ReleaseNumber(2), declaration(2));
    frozen.declared = Some(ReleaseNumber(2));
    frozen.next.releases = 2;
    frozen.queued = Some(Queued { release: ReleaseNumber(2), urgent: false, not_before: Some(Instant(9000)), together: None });
    assert_eq!(lines(&frozen, &declaration(2)), ["nothing: it is so already (r1 is live)"]);
    let urgent = plan(&frozen, &declaration(2), true, None, Instant(1000));
    let lines: Vec<String> = urgent.iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "r2 waits for the end of the freeze window no more: it begins at once");
    assert_eq!(lines[1..3], ["new release r2 after r1", "EnsureGroup: 3 nodes of r2-i2 beside the old ones"]);
    let declared = Event::Declared { declaration: declaration(2), urgent: true, together: None };
    let begun = step(&frozen, &declared, Instant(1000)).state;
    assert_eq!(begun.rollout.map(|rollout| rollout.to.release), Some(ReleaseNumber(2)));
}

#[test]
fn what_would_be_refused_is_planned_as_refused() {
    let mut unsound = declaration(2);
    unsound.nodes = 0;
    assert_eq!(lines(&live(), &unsound), ["refused: the declaration wants 0 nodes; declare at least 1 node"]);
}
