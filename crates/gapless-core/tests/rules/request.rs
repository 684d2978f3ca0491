//! Whether something else may begin now, where a wish to go back leads, and what is kept for it.

use crate::states::{self, NODES, NOW, group, release, seen, whole};
use gapless_core::digest::Digest;
use gapless_core::effect::EffectKind;
use gapless_core::event::Event;
use gapless_core::notice::{Rejection, RolloutKind, RolloutNumber};
use gapless_core::policy::Strategy;
use gapless_core::rollout::step;
use gapless_core::route::Weight;
use gapless_core::service::{Group, Retry, Rollout, ServiceState, Stage, TogetherEnd, TogetherOutcome};
use gapless_core::time::Instant;
use std::collections::BTreeSet;

/// The second release is live, after the first. The others were never live.
fn live() -> ServiceState {
    let mut state = ServiceState { previous: Some(release(1)), ..states::live(2) };
    state.served.extend([release(1), release(2)]);
    state.next.rollouts = 2;
    state
}

/// On the way from the second release to the third.
fn moving(kind: RolloutKind, stage: Stage) -> ServiceState {
    let mut state = live();
    state.declared = Some(release(3));
    state.rollout = Some(Rollout::new(RolloutNumber(3), kind, state.live, group(3), stage));
    state
}

fn vacated(mut state: ServiceState) -> ServiceState {
    state.rollout.iter_mut().for_each(|rollout| rollout.vacated = true);
    state
}

fn unroll() -> Stage {
    Stage::Unroll { reason: Rejection::Cancelled }
}

/// Why a retry is refused, with what to do; empty: something may begin.
fn refused(state: &ServiceState) -> (String, String) {
    let step = step(state, &Event::RetryRequested, NOW);
    step.refusal.map_or_else(Default::default, |refusal| (refusal.reason, refusal.hint))
}

fn is_busy(state: &ServiceState) -> bool {
    let (reason, _) = refused(state);
    reason.starts_with("rollout 3 is ")
}

#[test]
fn what_gives_up_half_way_is_busy_until_the_old_nodes_are_whole_or_cannot_be() {
    let mut state = moving(RolloutKind::Deploy, unroll());
    state.groups.get_mut(&group(2)).expect("a group").nodes.remove(&1);
    state.groups.insert(group(3), whole());
    assert!(is_busy(&state));
    let mut looping = state.clone();
    looping.healing.stopped = true;
    assert!(!is_busy(&looping), "the old release does not start any more");
    let mut cramped = state.clone();
    cramped.groups.get_mut(&group(2)).expect("a group").made = 1;
    cramped.joining.insert(group(2).node(1), Instant(9000));
    assert!(is_busy(&cramped));
    cramped.retries.insert(EffectKind::EnsureGroup, Retry { tries: 100, at: None });
    assert!(!is_busy(&cramped), "no room, try after try");
    cramped.groups.get_mut(&group(2)).expect("a group").made = NODES;
    assert!(is_busy(&cramped), "all that are asked for were made");
    let mut smaller = state.clone();
    smaller.groups.remove(&group(3));
    assert!(is_busy(&smaller), "not all old nodes are wanted again");
    let mut again = moving(RolloutKind::Deploy, unroll());
    assert!(!is_busy(&again), "all that is left only leaves");
    let mut joining = again.clone();
    joining.joining.insert(group(2).node(0), Instant(90_000));
    assert!(is_busy(&joining), "one of them has not joined");
    again.groups.insert(group(3), whole());
    assert!(is_busy(&again), "new nodes have traffic yet");
}

#[test]
fn what_is_left_of_a_decided_rollout_holds_nothing_up_unless_it_made_room_first() {
    for stage in [Stage::Bake { until: Instant(9000) }, Stage::Retire, Stage::Undo { reason: Rejection::Cancelled }] {
        let state = moving(RolloutKind::Deploy, stage);
        assert!(!is_busy(&state), "{state:?}");
        assert!(is_busy(&vacated(state)));
    }
    let mut single = moving(RolloutKind::Deploy, Stage::Undo { reason: Rejection::Cancelled });
    single.releases.get_mut(&release(3)).expect("a release").policy.strategy = Strategy::Recreate;
    assert!(is_busy(&single), "it may use the state yet");
    assert!(is_busy(&moving(RolloutKind::Deploy, Stage::Prepare { deadline: Instant(9000), booted: false })));
}

#[test]
fn who_shifts_says_how_the_traffic_comes_back() {
    let hint = |kind, old: Group| {
        let mut state = moving(kind, Stage::Shift);
        state.groups.insert(group(2), old);
        let (reason, hint) = refused(&state);
        assert_eq!(reason, "rollout 3 is shifting the traffic to r3, and not every proxy has acknowledged it");
        hint
    };
    assert!(hint(RolloutKind::Deploy, whole()).ends_with("or give the traffic back with `gapless rollback`"));
    assert!(hint(RolloutKind::Rollback, whole()).ends_with("or name the release to go to, such as `gapless rollback r3`"));
    let gone = hint(RolloutKind::Deploy, Group { nodes: BTreeSet::from([0]), ..whole() });
    assert!(gone.ends_with("`gapless explain` tells what it answers") && !gone.contains("rollback"), "{gone}");
}

#[test]
fn the_old_are_one_route_away_while_all_of_them_are_warm() {
    let mut bakes = moving(RolloutKind::Deploy, Stage::Bake { until: Instant(90_000) });
    bakes.route.members.values_mut().for_each(|weight| *weight = Weight::PROBED);
    assert!(bakes.is_one_route_from_the_old());
    let mut fewer = bakes.clone();
    fewer.groups.get_mut(&group(2)).expect("a group").nodes.remove(&1);
    assert!(!fewer.is_one_route_from_the_old());
    bakes.rollout.iter_mut().for_each(|rollout| rollout.stage = Stage::Retire);
    assert!(!bakes.is_one_route_from_the_old());
    assert!(!live().is_one_route_from_the_old());
}

#[test]
fn a_wish_to_go_back_leads_to_what_was_live() {
    assert_eq!(live().way_back(None), Some(release(1)));
    assert_eq!(live().way_back(Some(release(1))), Some(release(1)));
    assert_eq!(live().way_back(Some(release(2))), None, "it is live already");
    assert_eq!(live().way_back(Some(release(4))), None, "it never was");
    let preparing = moving(RolloutKind::Deploy, Stage::Prepare { deadline: Instant(9000), booted: false });
    assert_eq!(preparing.way_back(None), None, "it is busy");
    let bakes = ServiceState { live: Some(group(3)), ..moving(RolloutKind::Deploy, Stage::Bake { until: Instant(9000) }) };
    assert_eq!(bakes.way_back(None), Some(release(2)));
    assert_eq!(moving(RolloutKind::Deploy, Stage::Shift).way_back(None), Some(release(2)), "the traffic is given back");
    assert_eq!(moving(RolloutKind::Rollback, Stage::Shift).way_back(None), None, "asking twice must not go forward");
    let mut by_hand = live();
    by_hand.pinned = true;
    assert_eq!(by_hand.way_back(None), None, "it was gone back to already");
}

#[test]
fn what_took_something_away_closes_the_way_back_past_it() {
    // The third release took it away and was given up; from the second, the fourth is on its way by now.
    let mut state = live();
    state.releases.get_mut(&release(3)).expect("a release").policy.breaks_the_way_back = true;
    state.tried = Some(release(3));
    state.declared = Some(release(4));
    state.rollout = Some(Rollout::new(RolloutNumber(4), RolloutKind::Deploy, state.live, group(4), Stage::Bake { until: Instant(9000) }));
    state.live = Some(group(4));
    let back = |to: u32| step(&state, &Event::RollbackRequested { to: Some(release(to)), forced: false }, NOW).refusal;
    let reason = back(1).expect("what the first one needs is gone").reason;
    assert_eq!(reason, "r3 declares that no release before it can run any more, so r1 cannot be gone back to");
    assert_eq!(back(2), None, "the second one ran after that");
}

#[test]
fn ties_are_kept_with_their_releases_and_the_last_one_always() {
    let mut state = moving(RolloutKind::Deploy, Stage::Retire);
    state.live = Some(group(3));
    state.groups = [(group(3), whole())].into();
    state.releases.get_mut(&release(3)).expect("a release").policy.keep = 1;
    state.route = states::live(3).route;
    let end = |number: u8| TogetherEnd { id: Digest([number; 32]), with: BTreeSet::new(), from: None, outcome: TogetherOutcome::Failed };
    state.together.0.extend([(release(0), end(9)), (release(2), end(2)), (release(4), end(4))]);
    let seen = Event::Observed(seen(&[3]));
    let after = step(&step(&state, &seen, NOW).state, &seen, NOW).state;
    assert_eq!(after.rollout, None);
    assert_eq!(after.releases.keys().copied().collect::<Vec<_>>(), [release(2), release(3)]);
    assert_eq!(
        after.together.0.keys().copied().collect::<Vec<_>>(),
        [release(2), release(4)],
        "the others may not have heard of the last one"
    );
}
