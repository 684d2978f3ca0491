//! What takes a lost node's place, and what nodes may be made beside.

use crate::states::{NODES, NOW, effects, group, live, release, running, seen, whole};
use gapless_core::event::Event;
use gapless_core::notice::{RolloutKind, RolloutNumber};
use gapless_core::observation::Observation;
use gapless_core::policy::Strategy;
use gapless_core::rollout::step;
use gapless_core::route::{Generation, Weight};
use gapless_core::service::{Group, Rollout, ServiceState, Stage};
use gapless_core::time::Instant;

/// A replacement for a lost node is probed, and its time is over.
fn replacing() -> (ServiceState, Observation) {
    let mut state = live(1);
    let fourth = group(1).node(NODES);
    state.groups.insert(group(1), Group { size: NODES + 1, made: NODES + 1, nodes: [0, 1, NODES].into(), ..whole() });
    state.joining.insert(fourth, NOW);
    state.route.members.remove(&group(1).node(2));
    state.route.members.insert(fourth, Weight::PROBED);
    let mut seen = seen(&[1]);
    seen.nodes.remove(&group(1).node(2));
    seen.nodes.insert(fourth, running(1, 1));
    (state, seen)
}

#[test]
fn a_replacement_that_does_not_pass_in_time_is_given_up() {
    let (state, seen) = replacing();
    let after = step(&state, &Event::Observed(seen), NOW).state;
    assert!(!after.joining.contains_key(&group(1).node(NODES)), "every proxy knows it, and it did not pass");
    assert!(after.joining.contains_key(&group(1).node(NODES + 1)), "another one is asked for");
}

#[test]
fn a_replacement_that_some_proxy_has_not_heard_of_is_waited_for() {
    let (state, mut seen) = replacing();
    seen.proxies.insert("b".into(), Some(Generation(2)));
    let waits = |seen: Observation| step(&state, &Event::Observed(seen), NOW).state.joining.get(&group(1).node(NODES)).copied();
    assert_eq!(waits(seen.clone()), Some(Instant(NOW.0 + 60_000)));
    seen.nodes.get_mut(&group(1).node(NODES)).expect("a node").health.failures = 1;
    assert_eq!(waits(seen), None, "one proxy knows it, and says that it fails");
}

/// The second release is tried, its nodes are not made, and nothing of the first one is wanted any more.
fn making(single: &[u32]) -> ServiceState {
    let mut state = live(1);
    for number in single {
        state.releases.get_mut(&release(*number)).expect("a release").policy.strategy = Strategy::Recreate;
    }
    state.live = None;
    state.declared = Some(release(2));
    state.route.members.clear();
    state.groups.get_mut(&group(1)).expect("a group").nodes.clear();
    state.groups.insert(group(2), Group { made: 0, exposed: false, ..whole() });
    let mut rollout = Rollout::new(
        RolloutNumber(2),
        RolloutKind::Deploy,
        Some(group(1)),
        group(2),
        Stage::Prepare { deadline: Instant(90_000), booted: false },
    );
    rollout.vacated = true;
    state.rollout = Some(rollout);
    state
}

fn is_made(state: &ServiceState, seen: Observation) -> bool {
    effects(&step(state, &Event::Observed(seen), NOW)).contains(&"EnsureGroup")
}

#[test]
fn nodes_that_run_alone_are_made_beside_nothing_else() {
    for single in [&[1][..], &[2], &[1, 2], &[1, 2, 3], &[1, 2, 3, 4]] {
        assert!(is_made(&making(single), seen(&[])), "{single:?}");
        assert!(!is_made(&making(single), seen(&[1])), "{single:?}: old nodes are there");
    }
    for single in [&[][..], &[3]] {
        assert!(is_made(&making(single), seen(&[1])), "{single:?}: none of the two runs alone");
    }
}

#[test]
fn a_node_that_runs_alone_is_made_beside_those_of_its_own_group_that_are_wanted() {
    let mut own = seen(&[]);
    own.nodes.insert(group(2).node(0), running(2, 9));
    assert!(is_made(&making(&[2]), own.clone()));
    own.nodes.insert(group(2).node(NODES), running(2, 9));
    assert!(!is_made(&making(&[2]), own.clone()), "one too many has to go first");
    assert!(is_made(&making(&[1]), own), "it does not run alone itself");
}
