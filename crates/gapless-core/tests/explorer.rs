//! The model checker in its short form, and whether it finds what is broken. The long form is `cargo bench -p gapless-core --bench explore`.

mod model;

use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::Event;
use gapless_core::observation::Observation;
use gapless_core::rollout::{Step, step};
use gapless_core::route::Generation;
use gapless_core::service::{Rollout, ServiceState, Stage};
use gapless_core::time::Instant;
use model::configuration::{self, Budget, Configuration, policy, script};
use model::explore::{Limits, Report, explore, explore_with};
use model::normal;
use model::world::GATE_PASSES;
use std::time::Duration;

/// How many states each configuration is explored to: a few seconds for all of them.
const STATES: usize = 6_000;

/// No time is asserted: the count of states ends an exploration.
const LIMITS: Limits = Limits { states: STATES, time: Duration::from_secs(3600), memory: u64::MAX };

fn assert_sound(report: &Report) {
    println!("{}: {} states, {} transitions, depth {}", report.name, report.states, report.transitions, report.depth);
    for (fault, trace) in &report.traces {
        println!("{} is broken: {}", fault.rule, fault.evidence);
        trace.iter().enumerate().for_each(|(number, line)| println!("{number:>4}. {line}"));
    }
    assert_eq!(report.violations, 0, "{}: {:?}", report.name, report.traces.first().map(|(fault, _)| fault));
}

fn assert_reached(reports: &[Report], required: &[&str]) {
    let missed: Vec<&&str> = required.iter().filter(|mark| !reports.iter().any(|report| report.marks.contains(**mark))).collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
}

fn explore_all(list: &[Configuration]) -> Vec<Report> {
    let reports: Vec<Report> = list.iter().map(|configuration| explore(configuration, LIMITS)).collect();
    reports.iter().for_each(assert_sound);
    reports
}

#[test]
fn a_whole_rollout_is_explored_to_the_last_state() {
    let budget = Budget { slow: 1, ..Budget::default() };
    let configuration = Configuration::new("1 + 1 nodes", script(2, 1, &policy(1, 0))).with(budget).beginning_with_nothing();
    let report = explore(&configuration, Limits { states: usize::MAX, ..LIMITS });
    assert_sound(&report);
    assert!(report.complete && report.states > 5_000, "{} states", report.states);
    let required = [
        "prepare",
        "gate",
        "shift",
        "retire",
        "undo",
        "no rollout",
        "EnsureGroup",
        "Route",
        "Drain",
        "drain with a request in flight",
        "cut",
        "destroy",
        "doubled EnsureGroup",
        "doubled Route",
        "doubled Drain",
        "doubled DestroyNodes",
        "ended live",
        "ended rejected",
        "progress deadline",
        "shift with a way back",
    ];
    assert_reached(&[report], &required);
}

#[test]
fn no_state_of_blue_green_breaks_anything() {
    let reports = explore_all(&[configuration::large(), configuration::blue_green()].concat());
    let required = [
        "crash between the intent and the effect",
        "crash between the effect and its outcome",
        "nodes that nobody waits for",
        "gate failed",
        "node exited",
        "effect failed for good",
    ];
    assert_reached(&reports, &required);
}

#[test]
fn no_state_of_the_other_strategies_breaks_anything() {
    let reports = explore_all(&configuration::strategies());
    assert_reached(&reports, &["roll", "a batch joined", "unroll", "canary", "command", "vacate", "task failed", "doubled RunTask"]);
}

#[test]
fn no_operation_breaks_anything() {
    let reports = explore_all(&configuration::operations());
    assert_reached(&reports, &["paused", "resumed", "cancelled", "queued", "superseded", "revoked", "scaled"]);
}

/// A small world in which every deliberate fault below can show itself.
fn world(budget: Budget) -> Configuration {
    Configuration::new("broken on purpose", script(2, 2, &policy(2, 0))).with(budget)
}

fn find(configuration: &Configuration, transition: model::cores::Transition, judge: bool, rule: &str) -> Vec<String> {
    let limits = Limits { states: 40_000, ..LIMITS };
    let report = explore_with(configuration, limits, transition, judge);
    let found = report.traces.iter().find(|(fault, _)| fault.rule == rule);
    let others: Vec<_> = report.traces.iter().map(|(fault, _)| fault).collect();
    let (_, trace) = found.unwrap_or_else(|| panic!("{rule} was not found broken in {} states, but {others:?}", report.states));
    trace.clone()
}

fn doctored(state: &ServiceState, event: &Event, now: Instant, change: impl FnOnce(&mut Observation)) -> Step {
    let Event::Observed(seen) = event else { return step(state, event, now) };
    let mut seen = seen.clone();
    change(&mut seen);
    step(state, &Event::Observed(seen), now)
}

fn does_not_wait_for_acknowledgements(state: &ServiceState, event: &Event, now: Instant) -> Step {
    let present = Some(state.route.generation).filter(|generation| *generation > Generation(0));
    doctored(state, event, now, |seen| seen.proxies.values_mut().for_each(|known| *known = present))
}

#[test]
fn a_destruction_before_the_acknowledgement_is_found_by_the_invariants_and_in_the_world() {
    let slow = Configuration::new("a slow proxy", script(2, 1, &policy(1, 0))).with(Budget { slow: 4, ..Budget::default() });
    find(&slow, does_not_wait_for_acknowledgements, true, "I2");
    let trace = find(&slow, does_not_wait_for_acknowledgements, false, "I2");
    let last = trace.last().expect("a trace has an end");
    assert!(last.contains("is destroyed while proxy 0 names it"), "{last}");
    assert!(trace.len() > 10 && trace[1].starts_with("the next release is declared"), "{trace:?}");
}

fn skips_the_gate(state: &ServiceState, event: &Event, now: Instant) -> Step {
    doctored(state, event, now, |seen| seen.nodes.values_mut().for_each(|node| node.health.passes = GATE_PASSES))
}

#[test]
fn traffic_before_the_gate_is_found() {
    // With a floor, too early traffic is capacity that is not there, and found as that first.
    let world = Configuration::new("no floor", script(2, 2, &policy(0, 0)));
    find(&world, skips_the_gate, true, "I3");
    let trace = find(&world, skips_the_gate, false, "I3");
    assert!(trace.last().is_some_and(|last| last.contains("never passed the gate")), "{trace:?}");
}

fn does_not_count_requests(state: &ServiceState, event: &Event, now: Instant) -> Step {
    doctored(state, event, now, |seen| seen.nodes.values_mut().for_each(|node| node.requests_in_flight = 0))
}

#[test]
fn a_destruction_under_a_request_is_found() {
    let trace = find(&world(Budget::default()), does_not_count_requests, false, "I2");
    assert!(trace.last().is_some_and(|last| last.contains("under a request in flight")), "{trace:?}");
}

fn forgets_its_intents(state: &ServiceState, event: &Event, now: Instant) -> Step {
    let mut decided = step(state, event, now);
    decided.state.pending.retain(|_, effect| !matches!(effect, Effect::DestroyNodes { .. }));
    decided
}

#[test]
fn an_effect_without_an_intent_is_found() {
    find(&world(Budget::default()), forgets_its_intents, true, "I4");
}

fn drops_a_node_from_each_route(state: &ServiceState, event: &Event, now: Instant) -> Step {
    let mut decided = step(state, event, now);
    for (id, effect) in &mut decided.effects {
        if let Effect::Route(route) = effect
            && route.members.values().filter(|weight| weight.has_traffic()).count() > 1
            && decided.state.releases.len() > 1
        {
            route.members.pop_first();
            decided.state.route.members.pop_first();
            decided.state.pending.insert(*id, effect.clone());
        }
    }
    decided
}

#[test]
fn a_route_that_leaves_too_few_nodes_is_found_by_the_invariants_and_in_the_world() {
    find(&world(Budget::default()), drops_a_node_from_each_route, true, "I1");
    find(&world(Budget::default()), drops_a_node_from_each_route, false, "I1");
}

fn never_rests(state: &ServiceState, event: &Event, now: Instant) -> Step {
    let mut decided = step(state, event, now);
    if matches!(event, Event::Observed(_)) && state.releases.len() > 1 {
        decided.state.pinned = !state.pinned;
    }
    decided
}

#[test]
fn a_core_that_never_rests_is_found() {
    find(&world(Budget::default()), never_rests, true, "rest");
}

fn does_not_hear_of_failures(state: &ServiceState, event: &Event, now: Instant) -> Step {
    if matches!(event, Event::EffectEnded { result: Err(_), .. }) {
        return Step { state: state.clone(), effects: Vec::new(), refusal: None };
    }
    step(state, event, now)
}

#[test]
fn a_rollout_that_waits_for_ever_for_a_lost_effect_is_found() {
    find(&world(Budget { faults: 1, ..Budget::default() }), does_not_hear_of_failures, true, "end");
}

fn believes_in_effects_after_a_crash(state: &ServiceState, event: &Event, now: Instant) -> Step {
    if matches!(event, Event::Restarted) {
        return Step { state: state.clone(), effects: Vec::new(), refusal: None };
    }
    step(state, event, now)
}

#[test]
fn a_rollout_that_a_crash_stops_is_found() {
    let trace = find(&world(Budget { crashes: 1, ..Budget::default() }), believes_in_effects_after_a_crash, true, "end");
    assert!(trace.iter().any(|line| line.starts_with("the engine dies")), "{trace:?}");
}

fn gives_up_at_the_gate(state: &ServiceState, event: &Event, now: Instant) -> Step {
    let at_the_gate = matches!(&state.rollout, Some(Rollout { stage: Stage::Prepare { booted: true, .. }, .. })) && state.live.is_some();
    let instead = if at_the_gate && matches!(event, Event::Observed(_)) { &Event::Cancelled } else { event };
    step(state, instead, now)
}

#[test]
fn a_rollout_that_ends_in_another_release_than_it_should_is_found() {
    let trace = find(&world(Budget::default()), gives_up_at_the_gate, false, "end");
    assert!(trace.last().is_some_and(|last| last.contains("r1 is live in the end instead of r2")), "{trace:?}");
}

fn prefers_a_node(state: &ServiceState, event: &Event, now: Instant) -> Step {
    doctored(state, event, now, |seen| {
        for (node, seen) in &mut seen.nodes {
            seen.requests_in_flight *= u32::from(node.ordinal > 0);
        }
    })
}

#[test]
fn a_policy_that_tells_nodes_apart_is_found_where_they_are_taken_for_alike() {
    find(&world(Budget::default()), prefers_a_node, false, "symmetry");
}

/// Other numbers, other texts, longer ago: what [`normal`] says does not matter.
const OTHER: u64 = 7_654_321;

fn disguise(state: &ServiceState) -> ServiceState {
    let mut state = state.clone();
    let long_ago = |instant: &mut Instant| instant.0 -= if *instant <= normal::NOW { 5_000 } else { 0 };
    let paused = state.rollout.as_ref().is_some_and(|rollout| rollout.paused.is_some());
    if !paused {
        normal::each_instant(&mut state, &mut { long_ago });
    }
    normal::each_instant(&mut state, &mut |instant| instant.0 += OTHER);
    state.healing.not_before.0 += OTHER;
    normal::each_generation(&mut state, &mut |generation| *generation = normal::shifted(*generation, 5));
    state.pending = state.pending.into_iter().map(|(id, effect)| (EffectId(id.0 * 3 + 5), effect)).collect();
    state.next.effects = EffectId(state.next.effects.0 * 3 + 50);
    state
}

fn disguise_event(event: &Event) -> Event {
    let other = |id: &EffectId| EffectId(id.0 * 3 + 5);
    match event {
        Event::Observed(seen) => {
            let mut seen = seen.clone();
            seen.proxies.values_mut().flatten().for_each(|generation| *generation = normal::shifted(*generation, 5));
            Event::Observed(seen)
        }
        Event::EffectEnded { effect, result } => Event::EffectEnded { effect: other(effect), result: result.clone() },
        Event::Analysed { effect, judgement } => Event::Analysed { effect: other(effect), judgement: judgement.clone() },
        other => other.clone(),
    }
}

/// The production function, which must decide the same in disguise.
fn in_disguise_too(state: &ServiceState, event: &Event, now: Instant) -> Step {
    let plain = step(state, event, now);
    let other = step(&disguise(state), &disguise_event(event), Instant(now.0 + OTHER));
    let (mut expected, mut found) = (plain.state.clone(), other.state);
    normal::each_instant(&mut found, &mut |instant| instant.0 = instant.0.saturating_sub(OTHER));
    found.healing.not_before.0 = found.healing.not_before.0.saturating_sub(OTHER);
    normal::normalise(&mut expected);
    normal::normalise(&mut found);
    assert_eq!(found, expected, "the core decides otherwise when only numbers differ, on {event:?} in {state:?}");
    assert_eq!(other.effects.len(), plain.effects.len(), "other effects when only numbers differ");
    plain
}

#[test]
fn the_core_decides_alike_on_a_state_and_on_its_normal_form() {
    let budget = Budget { crashes: 1, faults: 1, bad: 1, rollbacks: 1, slow: 1, ..Budget::default() };
    let mut list = vec![Configuration::new("in disguise", script(2, 2, &policy(2, 120))).with(budget)];
    list.extend(configuration::strategies());
    list.extend(configuration::operations());
    for configuration in list {
        let report = explore_with(&configuration, Limits { states: 3_000, ..LIMITS }, in_disguise_too, true);
        assert_sound(&report);
    }
}
