//! The plan says what a declaration would do, and the step then does just that.

use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::plan::{Planned, plan};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::rollout::step;
use gapless_core::service::{Group, Queued, ServiceState};
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
    plan(state, declaration, false, Instant(1000)).iter().map(ToString::to_string).collect()
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
    let planned = plan(&state, &wanted, false, Instant(1000))
        .into_iter()
        .find_map(|line| if let Planned::Create { group, .. } = line { Some(group) } else { None });
    let step = step(&state, &Event::declared(wanted), Instant(5));
    let created =
        step.effects.iter().find_map(|(_, effect)| if let Effect::EnsureGroup { group, .. } = effect { Some(*group) } else { None });
    assert!(created.is_some());
    assert_eq!(planned, created);
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
    let urgent = plan(&frozen, &declaration(2), true, Instant(1000));
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
