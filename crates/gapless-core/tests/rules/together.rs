//! How services that move together stand: what the engine, the plan and the answers ask of their states.

use crate::states::{self, NOW, group, release, whole};
use gapless_core::digest::Digest;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::{Rejection, RolloutKind, RolloutNumber};
use gapless_core::policy::Strategy;
use gapless_core::release::ArtifactVersion;
use gapless_core::rollout::step;
use gapless_core::service::{Queued, Rollout, ServiceState, Stage, Together, TogetherEnd, TogetherOutcome};
use gapless_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

const ID: Digest = Digest([7; 32]);
const OTHER: Digest = Digest([8; 32]);

fn together(id: Digest) -> Together {
    Together { id, with: BTreeSet::from([ServiceName::new("app", "worker").expect("a name")]) }
}

fn end(id: Digest, from: Option<u32>, outcome: TogetherOutcome) -> TogetherEnd {
    TogetherEnd { id, with: together(id).with, from: from.map(release), outcome }
}

fn prepare() -> Stage {
    Stage::Prepare { deadline: Instant(9), booted: false }
}

fn bake() -> Stage {
    Stage::Bake { until: Instant(9) }
}

fn undo() -> Stage {
    Stage::Undo { reason: Rejection::Cancelled }
}

fn restore() -> Stage {
    Stage::Restore { reason: Rejection::Cancelled, deadline: Instant(9) }
}

fn unroll() -> Stage {
    Stage::Unroll { reason: Rejection::Cancelled }
}

/// Three releases, all of which served; the given one is live and declared, and nothing is known of its nodes.
fn live(number: u32) -> ServiceState {
    let mut state = ServiceState { groups: BTreeMap::new(), ..states::live(number) };
    state.served.extend((1..=3).map(release));
    state
}

/// The given release is live and came with others, from the first one.
fn came(number: u32) -> ServiceState {
    tied(live(number), number, TogetherOutcome::Live)
}

fn tied(mut state: ServiceState, number: u32, outcome: TogetherOutcome) -> ServiceState {
    state.together.0.insert(release(number), end(ID, Some(1), outcome));
    state
}

fn in_rollout(mut state: ServiceState, kind: RolloutKind, to: u32, stage: Stage) -> ServiceState {
    state.rollout = Some(Rollout::new(RolloutNumber(5), kind, state.live, group(to), stage));
    state
}

/// The second release is declared, on its way from the first, together with others.
fn moves(stage: Stage) -> ServiceState {
    let mut state = in_rollout(live(1), RolloutKind::Deploy, 2, stage);
    state.declared = Some(release(2));
    state.rollout.as_mut().expect("a rollout").together = Some(together(ID));
    state
}

fn waits(id: Digest) -> ServiceState {
    let mut state = live(1);
    state.queued = Some(Queued { release: release(2), urgent: false, not_before: None, together: Some(together(id)) });
    state
}

/// The old group of the rollout is whole and warm.
fn warm(mut state: ServiceState) -> ServiceState {
    let kept = whole();
    state.groups.insert(group(1), kept.clone());
    state.groups.insert(group(2), kept);
    state
}

#[test]
fn what_is_live_came_together_while_it_is_not_known_to_have_gone_back() {
    assert_eq!(live(2).came_together(), None);
    let tie = end(ID, Some(1), TogetherOutcome::Live);
    assert_eq!(came(2).came_together(), Some((release(2), &tie)));
    assert_eq!(tied(live(3), 2, TogetherOutcome::Live).came_together(), None, "something else is live");
    assert_eq!(tied(live(2), 2, TogetherOutcome::Failed).came_together(), None);
    assert_eq!(tied(live(2), 2, TogetherOutcome::TakenBack).came_together(), None);
}

#[test]
fn what_is_declared_and_came_to_nothing_was_left_together() {
    let left = |outcome: TogetherOutcome, at: u32| {
        let mut state = tied(live(at), 2, outcome);
        state.declared = Some(release(2));
        state.left_together().map(|(release, end)| (release, end.outcome))
    };
    assert_eq!(left(TogetherOutcome::Failed, 1), Some((release(2), TogetherOutcome::Failed)));
    assert_eq!(left(TogetherOutcome::TakenBack, 1), Some((release(2), TogetherOutcome::TakenBack)));
    assert_eq!(left(TogetherOutcome::Live, 1), None, "it went live, and was rolled back alone");
    assert_eq!(left(TogetherOutcome::Failed, 2), None, "it is live");
    assert_eq!(live(1).left_together(), None);
}

#[test]
fn whom_it_moves_with_and_is_next_with_are_told_apart() {
    assert_eq!(live(1).moves_with(), None);
    assert_eq!(live(1).is_next_with(), None);
    assert_eq!(moves(prepare()).moves_with(), Some(&together(ID)));
    assert_eq!(moves(prepare()).is_next_with(), None);
    assert_eq!(waits(ID).moves_with(), None);
    assert_eq!(waits(ID).is_next_with(), Some(&together(ID)));
    assert_eq!(in_rollout(live(1), RolloutKind::Deploy, 2, prepare()).moves_with(), None);
}

#[test]
fn it_is_about_to_move_until_it_has_shifted_or_given_up() {
    assert_eq!(moves(prepare()).is_about_to_move_with(), Some(&together(ID)));
    assert_eq!(moves(bake()).is_about_to_move_with(), None);
    assert_eq!(moves(undo()).is_about_to_move_with(), None);
    assert_eq!(live(1).is_about_to_move_with(), None);
    let mut next = moves(bake());
    next.queued = waits(OTHER).queued;
    assert_eq!(next.is_about_to_move_with(), Some(&together(OTHER)), "what is next moves yet");
}

#[test]
fn a_part_is_one_that_waits_moves_or_is_over() {
    let parts =
        |state: &ServiceState| (state.has_part_in(ID), state.is_part_begun(ID), state.has_part_in(OTHER), state.is_part_begun(OTHER));
    assert_eq!(parts(&live(1)), (false, false, false, false));
    assert_eq!(parts(&waits(ID)), (true, false, false, false));
    assert_eq!(parts(&moves(prepare())), (true, true, false, false));
    assert_eq!(parts(&came(2)), (true, true, false, false));
    assert_eq!(parts(&tied(live(1), 2, TogetherOutcome::Failed)), (true, true, false, false));
}

#[test]
fn it_leaves_while_it_gives_up_or_goes_back() {
    assert!(!moves(prepare()).is_leaving(ID));
    assert!(!moves(bake()).is_leaving(ID));
    assert!(moves(undo()).is_leaving(ID));
    assert!(moves(restore()).is_leaving(ID));
    assert!(moves(unroll()).is_leaving(ID));
    assert!(!moves(undo()).is_leaving(OTHER));
    assert!(!came(2).is_leaving(ID), "no rollout");
    assert!(in_rollout(came(2), RolloutKind::Rollback, 1, prepare()).is_leaving(ID));
    assert!(!in_rollout(came(2), RolloutKind::Rollback, 1, prepare()).is_leaving(OTHER));
    assert!(!in_rollout(came(2), RolloutKind::Deploy, 3, prepare()).is_leaving(ID), "it goes on");
    assert!(
        !in_rollout(tied(live(3), 2, TogetherOutcome::Live), RolloutKind::Rollback, 1, prepare()).is_leaving(ID),
        "it left that long ago"
    );
}

#[test]
fn it_is_leaving_together_what_is_declared() {
    assert!(moves(undo()).is_leaving_together());
    assert!(!moves(prepare()).is_leaving_together());
    assert!(in_rollout(came(2), RolloutKind::Rollback, 1, prepare()).is_leaving_together());
    assert!(!came(2).is_leaving_together());
    assert!(!in_rollout(live(2), RolloutKind::Rollback, 1, prepare()).is_leaving_together(), "it came alone");
    let mut another = moves(undo());
    another.declared = Some(release(3));
    assert!(!another.is_leaving_together(), "what is given up is not what is declared");
}

#[test]
fn it_has_gone_on_when_it_is_not_where_it_was_to_go_back_to() {
    let at = |number: u32, outcome: TogetherOutcome| tied(live(number), 2, outcome).has_gone_on_from(ID);
    assert!(!at(1, TogetherOutcome::Failed), "it is back");
    assert!(at(3, TogetherOutcome::Failed));
    assert!(at(3, TogetherOutcome::TakenBack));
    assert!(at(2, TogetherOutcome::Failed), "it could not go back");
    assert!(!at(3, TogetherOutcome::Live), "it left nothing");
    assert!(!live(3).has_gone_on_from(ID));
    let mut vacated = tied(in_rollout(live(3), RolloutKind::Deploy, 2, prepare()), 2, TogetherOutcome::Failed);
    vacated.live = None;
    assert!(vacated.has_gone_on_from(ID), "what was live has made room");
    vacated.rollout = None;
    assert!(!vacated.has_gone_on_from(ID), "nothing was ever live");
}

#[test]
fn it_has_left_when_it_went_back_and_does_not_move_again() {
    assert!(tied(live(1), 2, TogetherOutcome::Failed).has_left(ID));
    assert!(!tied(live(1), 2, TogetherOutcome::Failed).has_left(OTHER));
    assert!(!came(2).has_left(ID));
    assert!(!live(1).has_left(ID));
    assert!(moves(undo()).has_left(ID));
    assert!(!tied(moves(prepare()), 2, TogetherOutcome::Failed).has_left(ID), "it moves in it again");
    assert!(tied(moves(undo()), 2, TogetherOutcome::Failed).has_left(ID), "and leaves it again");
}

#[test]
fn it_is_left_by_whoever_leaves_what_it_moves_in_waits_for_or_came_with() {
    let going_back = |to: u32| in_rollout(came(2), RolloutKind::Rollback, to, prepare());
    assert!(came(2).is_left_by(&going_back(1)), "it is on its way back");
    assert!(!came(2).is_left_by(&going_back(3)), "it goes on to something else");
    assert!(!came(2).is_left_by(&came(2)), "all is well");
    assert!(came(2).is_left_by(&moves(undo())), "it was given up");
    assert!(moves(bake()).is_left_by(&moves(undo())), "both still moved");
    assert!(!moves(bake()).is_left_by(&moves(bake())));
    let back = tied(live(1), 2, TogetherOutcome::Failed);
    assert!(came(2).is_left_by(&back), "it is back, and this one was not told yet");
    assert!(waits(ID).is_left_by(&back), "its turn comes yet, and then it is told");
    assert!(!waits(OTHER).is_left_by(&back));
    let gone_on = tied(live(3), 2, TogetherOutcome::Failed);
    assert!(!came(2).is_left_by(&gone_on), "it has gone on since, and tells nobody any more");
    assert!(moves(bake()).is_left_by(&gone_on), "what still moves is told all the same");
    let mut others = live(2);
    others.together.0.insert(release(2), end(OTHER, Some(1), TogetherOutcome::Live));
    assert!(!others.is_left_by(&back), "it came with others");
}

#[test]
fn it_follows_back_to_where_it_came_from() {
    assert_eq!(came(2).follows_back_to(ID), Some(release(1)));
    assert_eq!(came(2).follows_back_to(OTHER), None);
    assert_eq!(live(2).follows_back_to(ID), None);
    let mut first = live(2);
    first.together.0.insert(release(2), end(ID, None, TogetherOutcome::Live));
    assert_eq!(first.follows_back_to(ID), None, "nothing was live before");
    let mut never = came(2);
    never.served.remove(&release(1));
    assert_eq!(never.follows_back_to(ID), None, "it never went live itself");
    let mut revoked = came(2);
    revoked.revoked.insert(ArtifactVersion(1));
    assert_eq!(revoked.follows_back_to(ID), None, "it may not run");
    let mut breaks = came(2);
    breaks.releases.get_mut(&release(2)).expect("a release").policy.breaks_the_way_back = true;
    assert_eq!(breaks.follows_back_to(ID), None, "what it needs was taken away");
}

#[test]
fn in_a_rollout_it_gives_the_traffic_back_or_goes_by_another_one() {
    assert_eq!(warm(moves(bake())).follows_back_to(ID), Some(release(1)), "the old nodes are warm");
    assert_eq!(moves(bake()).follows_back_to(ID), Some(release(1)), "they are gone: by a rollout");
    assert_eq!(moves(Stage::Retire).follows_back_to(ID), Some(release(1)));
    assert_eq!(moves(Stage::Confirm).follows_back_to(ID), None, "it has not come so far");
    assert_eq!(warm(moves(bake())).follows_back_to(OTHER), None);
    let alone = in_rollout(came(2), RolloutKind::Deploy, 3, bake());
    assert_eq!(alone.follows_back_to(ID), None, "in a rollout of its own it follows nobody");
    let mut never = moves(bake());
    never.served.remove(&release(1));
    assert_eq!(never.follows_back_to(ID), None);
    let mut alone_on_its_state = moves(bake());
    alone_on_its_state.releases.get_mut(&release(2)).expect("a release").policy.strategy = Strategy::Recreate;
    alone_on_its_state.rollout.as_mut().expect("a rollout").vacated = true;
    assert_eq!(alone_on_its_state.follows_back_to(ID), None, "what made room for it is not asked to come back in between");
}

/// What its partners' going back is told as: they failed, or a person took them back.
fn partners_go_back() -> [Event; 2] {
    let reason = || "the worker went back".to_string();
    [Event::PartnersFailed { reason: reason() }, Event::PartnersTakenBack { reason: reason() }]
}

#[test]
fn a_rollout_of_its_own_is_let_be_when_others_go_back() {
    for stage in [prepare(), Stage::Shift, bake(), Stage::Retire] {
        let alone = warm(in_rollout(came(2), RolloutKind::Deploy, 3, stage));
        for told in partners_go_back() {
            let step = step(&alone, &told, NOW);
            assert_eq!((step.state, step.effects.len()), (alone.clone(), 0), "{told:?}");
        }
    }
}

#[test]
fn what_follows_a_person_back_goes_back_by_hand_too() {
    let [failed, taken_back] = partners_go_back();
    let follows = |told: &Event| step(&came(2), told, NOW).state.rollout.map(|rollout| (rollout.to.release, rollout.kind, rollout.by_hand));
    assert_eq!(follows(&failed), Some((release(1), RolloutKind::Rollback, false)));
    assert_eq!(follows(&taken_back), Some((release(1), RolloutKind::Rollback, true)));
}
