//! The `rollout` block of a service: how it moves from one release to the next. A policy that no rollout could follow is refused here.

use super::health::Health;
use super::service::NODES_LIMIT;
use super::window;
use crate::hcl::{Complaint, Section, hundredths, number, one_of, percent, show_time, span_of, time, truth, whole};
use gapless_core::analysis::AnalysisPolicy;
use gapless_core::policy::{CanaryPause, CanaryStep, KEEP_DEFAULT, Policy, Strategy, Supersede};
use gapless_engine::declaration::Tasks;
use hcl_edit::expr::Expression;
use std::time::Duration;

/// The longest time that a policy may wait for people or nodes.
const WAIT_HIGHEST: Duration = Duration::from_secs(24 * 3600);

/// The shortest step of a canary: in less, no proxy has told what it counted.
const STEP_LOWEST: Duration = Duration::from_millis(100);

/// The most releases that are kept to go back to: their images take room.
const KEEP_LIMIT: u64 = 1000;

/// The most requests that a comparison may wait for: a bound against slips of the zeros.
const REQUESTS_LIMIT: u64 = 1_000_000_000;

/// What a blue/green or canary rollout keeps warm unless its file says otherwise.
const BAKE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    BlueGreen,
    Rolling,
    Canary,
    Recreate,
}

const STRATEGIES: &[(&str, Kind)] =
    &[("blue-green", Kind::BlueGreen), ("rolling", Kind::Rolling), ("canary", Kind::Canary), ("recreate", Kind::Recreate)];

const SUPERSEDE: &[(&str, Supersede)] = &[("queue", Supersede::Queue), ("replace", Supersede::Replace)];

/// Whether the service is written to be recreated. What is wrong with its strategy is told where it is read.
pub(super) fn is_recreated(service: &Section<'_>) -> bool {
    let rollouts = service.blocks("rollout");
    let strategy = rollouts.first().and_then(|rollout| rollout.body.get_attribute("strategy"));
    strategy.and_then(|strategy| strategy.value.as_str()) == Some("recreate")
}

/// What the other parts of a service ask for and its strategy cannot give.
pub(super) fn check_strategy(service: &Section<'_>, strategy: &Strategy, nodes: u32, tasks: &Tasks) {
    if *strategy == Strategy::Recreate && nodes > 1 {
        let what = format!("`nodes` is {nodes}, but with `recreate` only one may use the state");
        service.fault_at("nodes", what, "declare 1 node, or choose `rolling`");
    }
    let keeps_nothing = match strategy {
        Strategy::Rolling { .. } => Some("a rolling rollout destroys old nodes as it goes"),
        Strategy::Recreate => Some("`recreate` destroys the old node first"),
        Strategy::BlueGreen | Strategy::Canary { .. } => None,
    };
    if let (Some(why), true) = (keeps_nothing, tasks.after_shift.is_some()) {
        let what = format!("`after_shift` sends the traffic back when it fails, but {why}: there is nothing to go back to");
        service.fault_inside("hooks", "after_shift", what, "use `before_shift`, or choose `blue-green` or `canary`");
    }
    let in_parts = match strategy {
        Strategy::Rolling { .. } => Some("a rolling rollout"),
        Strategy::Canary { .. } => Some("a canary"),
        Strategy::BlueGreen | Strategy::Recreate => None,
    };
    if let (Some(who), true) = (in_parts, service.has("together")) {
        let what =
            format!("what moves `together` shifts at one moment, but {who} shifts in parts, which could not go back with the others");
        service.fault_at("together", what, "leave it out, or choose `blue-green` or `recreate`");
    }
}

/// `serves`: the service has a port.
pub(super) fn read(service: &Section<'_>, nodes: u32, health: &Health, serves: bool) -> Policy {
    let default = || Policy { floor: nodes, bake: usual_bake(serves), ..Policy::default() };
    let written = service.block("rollout", |rollout| settings(rollout, nodes, serves)).unwrap_or_else(default);
    let policy = Policy { gate_passes: health.passes, gate_failures: health.failures, ..written };
    check_progress(service, policy.progress_deadline, health);
    policy
}

fn settings(rollout: &Section<'_>, nodes: u32, serves: bool) -> Policy {
    let wait = |lowest: u64| time(Duration::from_secs(lowest), WAIT_HIGHEST);
    let default = Policy::default();
    let strategy = strategy(rollout, serves);
    Policy {
        floor: floor(rollout, nodes, &strategy),
        drain_deadline: rollout.or("drain", default.drain_deadline, wait(0)),
        progress_deadline: rollout.or("progress", default.progress_deadline, wait(1)),
        bake: bake(rollout, &strategy, serves),
        task_deadline: rollout.or("task_deadline", default.task_deadline, wait(1)),
        supersede: rollout.or("supersede", default.supersede, one_of("ways to supersede", SUPERSEDE)),
        breaks_the_way_back: !rollout.or("backward_compatible", true, truth),
        freeze: rollout.or("freeze", Vec::new(), window::read),
        keep: number(rollout.or("keep", u64::from(KEEP_DEFAULT), whole(1, KEEP_LIMIT))),
        strategy,
        ..default
    }
}

fn strategy(rollout: &Section<'_>, serves: bool) -> Strategy {
    let kind = rollout.or("strategy", Kind::BlueGreen, one_of("strategies", STRATEGIES));
    let surge = number(rollout.or("surge", 1, whole(0, NODES_LIMIT)));
    let steps = steps(rollout);
    let analysis = rollout.block("analysis", analysis);
    // What a word means that nobody knows cannot contradict the rest.
    if rollout.is_read("strategy") {
        misplaced(rollout, kind);
    }
    match kind {
        Kind::BlueGreen => Strategy::BlueGreen,
        Kind::Rolling => Strategy::Rolling { surge },
        Kind::Recreate => Strategy::Recreate,
        Kind::Canary => {
            if !serves {
                let what = "a canary divides the traffic, but this service has no `port`";
                rollout.fault_at("strategy", what, "a worker can be `blue-green`, `rolling` or `recreate`");
            } else if rollout.blocks("step").is_empty() {
                let hint = "add at least one, such as `step { percent = 5  pause = \"2m\" }` with each attribute on a line of its own";
                rollout.fault_at("strategy", "a canary without a `step`", hint);
            }
            Strategy::Canary { steps, analysis }
        }
    }
}

/// What belongs to another strategy would do nothing, and whoever wrote it believes otherwise.
fn misplaced(rollout: &Section<'_>, kind: Kind) {
    if kind != Kind::Rolling && rollout.has("surge") {
        rollout.fault_at("surge", "`surge` belongs to `strategy = \"rolling\"`", "set the strategy, or leave `surge` out");
    }
    if kind == Kind::Canary {
        return;
    }
    for block in ["step", "analysis"] {
        if let Some(first) = rollout.blocks(block).first() {
            let what = format!("`{block}` belongs to `strategy = \"canary\"`");
            rollout.fault(span_of(&first.ident), what, "set the strategy, or leave the block out");
        }
    }
}

fn steps(rollout: &Section<'_>) -> Vec<CanaryStep> {
    let mut steps: Vec<CanaryStep> = Vec::new();
    for block in rollout.blocks("step") {
        let section = Section::of_block(rollout.source(), block, "`step` of `rollout`".into());
        let percent = section.required("percent", "add `percent = 5`: the new nodes' share of the traffic", whole(1, 99));
        let pause = section.optional("pause", pause);
        if !section.has("pause") {
            let hint = "add `pause = \"2m\"`, or `pause = \"person\"` for a step that ends with `gapless promote`";
            section.fault_at("pause", "`step` of `rollout` has no `pause`", hint);
        }
        section.close();
        let percent = u8::try_from(percent).unwrap_or_default();
        if let Some(last) = steps.last().filter(|last| percent > 0 && percent <= last.percent) {
            let what = format!("`percent` is {percent}, after a step of {}", last.percent);
            section.fault_at("percent", what, "each step gives the new nodes more than the one before");
        }
        steps.push(CanaryStep { percent, pause: pause.unwrap_or(CanaryPause::Person) });
    }
    steps
}

fn pause(value: &Expression) -> Result<CanaryPause, Complaint> {
    if value.as_str() == Some("person") {
        return Ok(CanaryPause::Person);
    }
    time(STEP_LOWEST, WAIT_HIGHEST)(value).map(CanaryPause::For).map_err(|complaint| complaint.or("\"person\""))
}

fn analysis(section: &Section<'_>) -> AnalysisPolicy {
    AnalysisPolicy {
        minimum_requests: number(section.or("minimum_requests", 500, whole(1, REQUESTS_LIMIT))),
        error_margin: section.or("error_margin", 50, margin(hundredths(1, 10_000))),
        latency_margin: section.or("latency_margin", 20, margin(percent(1, 1_000))),
    }
}

/// A margin of nothing could never be shown to hold: its canary would never end.
fn margin(read: impl Fn(&Expression) -> Result<u32, Complaint>) -> impl Fn(&Expression) -> Result<u32, Complaint> {
    move |value| {
        let is_nothing = value.as_str().is_some_and(|shown| shown.trim_matches(['0', '.', '%']).is_empty());
        let reason = "that two equal releases differ by nothing, no number of requests shows";
        read(value).map_err(|complaint| if is_nothing { complaint.because(reason) } else { complaint })
    }
}

fn floor(rollout: &Section<'_>, nodes: u32, strategy: &Strategy) -> u32 {
    let written = rollout.optional("floor", whole(0, NODES_LIMIT)).map(number);
    let default = match strategy {
        Strategy::Recreate => 0,
        Strategy::Rolling { surge: 0 } => nodes.saturating_sub(1),
        _ => nodes,
    };
    let floor = written.unwrap_or(default);
    match strategy {
        _ if floor > nodes => {
            let what = format!("`floor` is {floor}, but the service has {nodes} nodes");
            rollout.fault_at("floor", what, format!("the fewest ready nodes during a rollout: from 0 to {nodes}"));
        }
        Strategy::Recreate if floor > 0 => {
            let what = format!("`floor` is {floor}, but `recreate` destroys every old node before there is a new one");
            rollout.fault_at("floor", what, "leave it out, or choose another strategy");
        }
        Strategy::Rolling { surge: 0 } if floor == 0 => {
            let what = format!("`surge` is 0 and `floor` is 0 of {nodes} nodes: all old nodes would leave before there is a new one");
            let hint = "let `surge` be at least 1, or choose `recreate`, which counts and shows the outage";
            rollout.fault_at(if written.is_some() { "floor" } else { "surge" }, what, hint);
        }
        Strategy::Rolling { surge: 0 } if floor == nodes => {
            let what = format!(
                "`floor` is {floor} of {nodes} nodes and `surge` is 0: no old node may leave before there is a new one, and no new one may come before an old one has left"
            );
            let hint = match nodes {
                0 | 1 => "let `surge` be at least 1".to_string(),
                _ => format!("let `surge` be at least 1, or `floor` at most {}", nodes - 1),
            };
            rollout.fault_at("floor", what, hint);
        }
        _ => {}
    }
    floor
}

fn usual_bake(serves: bool) -> Duration {
    if serves { BAKE } else { Duration::ZERO }
}

fn bake(rollout: &Section<'_>, strategy: &Strategy, serves: bool) -> Duration {
    let written = rollout.optional("bake", time(Duration::ZERO, WAIT_HIGHEST));
    let (why, hint) = match strategy {
        Strategy::Rolling { .. } => ("a rolling rollout destroys old nodes as it goes: there is nothing to keep warm", KEEPS_WARM),
        Strategy::Recreate => ("`recreate` destroys the old nodes first: there is nothing to keep warm", KEEPS_WARM),
        _ if !serves => ("the old nodes of a worker would work on beside the new ones", "leave it out: going back is an ordinary rollout"),
        Strategy::BlueGreen | Strategy::Canary { .. } => return written.unwrap_or(BAKE),
    };
    if let Some(bake) = written.filter(|bake| !bake.is_zero()) {
        rollout.fault_at("bake", format!("`bake` is {}, but {why}", show_time(bake)), hint);
    }
    Duration::ZERO
}

const KEEPS_WARM: &str = "leave it out, or choose `blue-green` or `canary`";

/// A gate that no node can pass in time rejects every release.
fn check_progress(service: &Section<'_>, progress: Duration, health: &Health) {
    let least = health.least();
    if progress > least {
        return;
    }
    let what = format!(
        "the new nodes may take {}, but no node can pass its gate so soon: {}, and it has to start before",
        show_time(progress),
        health.least_in_words(),
    );
    service.fault_inside(
        "rollout",
        "progress",
        what,
        format!("set `progress` of `rollout` above {}, or ask for less in `health`", show_time(least)),
    );
}
