//! What people ask of a service: what makes no sense now says so and changes nothing.

use crate::states::{self, NOW, group, release, whole};
use gapless_core::analysis::AnalysisPolicy;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::Event;
use gapless_core::notice::{RolloutKind, RolloutNumber};
use gapless_core::policy::{CanaryPause, CanaryStep, Strategy};
use gapless_core::rollout::{Step, step};
use gapless_core::service::{Canary, Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use std::time::Duration;

fn live(strategy: Strategy) -> ServiceState {
    let mut state = states::live(1);
    state.releases.get_mut(&release(1)).expect("a release").policy.strategy = strategy;
    state
}

/// A canary in its first step, of 10 s.
fn canary(since: Option<Instant>) -> ServiceState {
    let steps = vec![CanaryStep { percent: 10, pause: CanaryPause::For(Duration::from_secs(10)) }];
    let mut state = states::live(1);
    state.releases.get_mut(&release(2)).expect("a release").policy.strategy = Strategy::Canary { steps, analysis: None };
    state.declared = Some(release(2));
    state.groups.insert(group(2), whole());
    let stage = Canary { step: 0, since, until: Some(Instant(19_000)), look: Some(Instant(13_000)), good: false, holds: 0 };
    state.rollout = Some(Rollout::new(RolloutNumber(2), RolloutKind::Deploy, state.live, group(2), Stage::Canary(stage)));
    state
}

fn paused(mut state: ServiceState) -> ServiceState {
    state.rollout.iter_mut().for_each(|rollout| rollout.paused = Some(Instant(NOW.0 - 600)));
    state
}

fn stage(step: &Step) -> Canary {
    match step.state.rollout.as_ref().map(|rollout| rollout.stage.clone()) {
        Some(Stage::Canary(canary)) => canary,
        other => panic!("no canary: {other:?}"),
    }
}

fn refusal(step: &Step) -> &str {
    step.refusal.as_ref().map_or("", |refusal| &refusal.reason)
}

#[test]
fn a_step_is_promoted_only_when_it_counts() {
    let promoted = step(&canary(Some(Instant(500))), &Event::Promoted, NOW);
    assert_eq!(refusal(&promoted), "");
    assert!(stage(&promoted).good);
    assert_eq!((stage(&promoted).until, stage(&promoted).look), (Some(NOW), None));
    let begins = step(&canary(None), &Event::Promoted, NOW);
    assert_eq!(refusal(&begins), "not every proxy sends the new nodes their share yet");
    assert!(!stage(&begins).good);
    assert_eq!(refusal(&step(&paused(canary(Some(Instant(500)))), &Event::Promoted, NOW)), "the canary is paused");
    assert_eq!(refusal(&step(&paused(canary(None)), &Event::Promoted, NOW)), "the canary is paused");
    let none = step(&live(Strategy::BlueGreen), &Event::Promoted, NOW);
    assert_eq!(refusal(&none), "there is no canary in progress that could be promoted");
}

#[test]
fn a_persons_word_ends_the_comparison_and_nothing_else_that_is_on_its_way() {
    let mut state = canary(Some(Instant(500)));
    let (new, old) = (release(2), release(1));
    let policy = AnalysisPolicy { minimum_requests: 100, error_margin: 50, latency_margin: 20 };
    state.pending.insert(EffectId(7), Effect::Analyse { since: Instant(500), new, old, policy });
    state.pending.insert(EffectId(8), Effect::EnsureGroup { group: group(2), size: 3 });
    let promoted = step(&state, &Event::Promoted, NOW);
    assert_eq!(promoted.state.pending.keys().copied().collect::<Vec<_>>(), [EffectId(8)]);
}

#[test]
fn what_was_paused_has_its_whole_time_again() {
    let resumed = step(&paused(canary(Some(Instant(300)))), &Event::Resumed, NOW);
    assert_eq!((stage(&resumed).until, stage(&resumed).look), (Some(Instant(19_600)), Some(Instant(13_600))));
}

#[test]
fn a_service_is_scaled_within_what_it_declares() {
    let scaled = |strategy: Strategy, nodes: u32| step(&live(strategy), &Event::Scaled { nodes }, NOW);
    assert_eq!(refusal(&scaled(Strategy::BlueGreen, 3)), "");
    assert_eq!(scaled(Strategy::BlueGreen, 5).state.size_of(release(1)), 5);
    assert_eq!(scaled(Strategy::BlueGreen, 2).state.size_of(release(1)), 2);
    assert_eq!(refusal(&scaled(Strategy::BlueGreen, 1)), "1 node is less than the floor of 2");
    assert_eq!(refusal(&scaled(Strategy::BlueGreen, 0)), "0 nodes serve nobody");
    assert_eq!(refusal(&scaled(Strategy::Recreate, 3)), "", "as many as are declared may use its state");
    assert_eq!(refusal(&scaled(Strategy::Recreate, 4)), "the release is recreated because no more than 3 may use its state");
}
