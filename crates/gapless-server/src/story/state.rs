//! A service's state in plain words: what would go on, and the line that a replay shows after each record.

use super::{count, list, reason, release_name, time};
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_core::policy::Strategy;
use gapless_core::service::{Canary, Rollout, ServiceState, Stage};
use std::collections::BTreeSet;

/// What the engine is at with this service, and would go on with after a restart.
#[must_use]
pub fn going_on(service: &ServiceName, state: &ServiceState) -> String {
    let mut parts = vec![match (&state.rollout, state.live_release()) {
        (Some(rollout), _) => {
            format!("rollout {} to {}: {}", rollout.number, release_name(service, rollout.to.release), stage(state, rollout))
        }
        (None, Some(live)) => format!("{} stays live", release_name(service, live)),
        (None, None) => "nothing is live".to_string(),
    }];
    if let Some(paused) = state.rollout.as_ref().and_then(|rollout| rollout.paused) {
        parts.push(format!("paused since {}, until `gapless resume`", time::of_week(paused)));
    }
    if let Some(queued) = &state.queued {
        let after = queued.not_before.map_or("the rollout in progress".to_string(), time::of_week);
        parts.push(format!("{} is next, after {after}", release_name(service, queued.release)));
    }
    if state.healing.stopped {
        parts.push("no more nodes are made after a crash loop, until `gapless retry`".to_string());
    }
    if state.live_release().is_some_and(|live| state.is_revoked(live)) {
        parts.push("the live release is revoked".to_string());
    }
    parts.join("; ")
}

/// How far a rollout has come.
fn stage(state: &ServiceState, rollout: &Rollout) -> String {
    match &rollout.stage {
        Stage::Vacate => "the old nodes leave; new ones are made when they are gone".into(),
        Stage::Command => "its release command runs".into(),
        Stage::Prepare { deadline, booted: false } => {
            format!("its nodes are made, and must pass their checks by {}", time::of_week(*deadline))
        }
        Stage::Prepare { deadline, booted: true } => format!("its nodes are checked, and must pass by {}", time::of_week(*deadline)),
        Stage::Await { deadline } => {
            let with = rollout.together.as_ref().map_or(String::new(), |together| list(&together.with));
            format!("it waits for {with}, at most until {}", time::of_week(*deadline))
        }
        Stage::Canary(canary) => step(state, rollout.to, canary),
        Stage::Roll { deadline } => format!("new nodes take old ones' place; the present batch must pass by {}", time::of_week(*deadline)),
        Stage::Shift => "the traffic goes over; not every proxy has acknowledged it".into(),
        Stage::Confirm => "it has the traffic; the hook after the shift runs".into(),
        Stage::Bake { until } => format!("it has the traffic; the old nodes are kept warm until {}", time::of_week(*until)),
        Stage::Retire => "it has the traffic; the old nodes leave".into(),
        Stage::Undo { reason: why } => format!("given up ({}); its nodes leave", reason(why).text),
        Stage::Unroll { reason: why } => format!("given up ({}); old nodes take its nodes' place again", reason(why).text),
        Stage::Restore { reason: why, .. } => format!("given up ({}); nodes of the old release are made again", reason(why).text),
    }
}

fn step(state: &ServiceState, to: GroupId, canary: &Canary) -> String {
    let steps = match state.declaration(to.release).map(|declaration| &declaration.policy.strategy) {
        Some(Strategy::Canary { steps, .. }) => steps.as_slice(),
        _ => &[],
    };
    let share = steps.get(canary.step as usize).map_or(0, |step| step.percent);
    let until = match (canary.since, canary.until) {
        (None, _) => "not every proxy has acknowledged it".to_string(),
        (Some(_), Some(until)) => format!("until {}", time::of_week(until)),
        (Some(_), None) => "until somebody promotes it".to_string(),
    };
    format!("it has {share} % of the traffic, step {} of {}, {until}", canary.step + 1, steps.len())
}

/// A state in one line: stage, route, the nodes that are wanted and those that leave, what is under way.
#[must_use]
pub fn state_line(service: &ServiceName, state: &ServiceState) -> String {
    let stage = state.rollout.as_ref().map_or_else(|| "at rest".to_string(), |rollout| name(&rollout.stage).to_string());
    let live = state.live_release().map_or("nothing live".to_string(), |live| format!("{} live", release_name(service, live)));
    let wanted = state.groups.iter().filter(|(_, group)| !group.nodes.is_empty());
    let wanted = list(wanted.map(|(name, group)| format!("{name} × {}", group.nodes.len())));
    let draining = state.draining.values().filter(|drain| !drain.over).count();
    let pending: Vec<&str> = state.pending.values().map(gapless_core::effect::Effect::name).collect();
    let route = format!("route {} {}", state.route.generation, weights(state));
    let mut parts = vec![stage, live, route, format!("wanted {wanted}")];
    if draining > 0 {
        parts.push(format!("{} draining", count(draining, "node")));
    }
    if !pending.is_empty() {
        parts.push(format!("under way: {}", list(pending)));
    }
    if let Some(queued) = &state.queued {
        parts.push(format!("{} is next", release_name(service, queued.release)));
    }
    parts.join(" · ")
}

/// `(r1-i1 2 × 1; r2-i2 2 × 0)`.
fn weights(state: &ServiceState) -> String {
    let kinds: BTreeSet<_> = state.route.members.iter().map(|(node, weight)| (node.group, *weight)).collect();
    let of = |(group, weight): &(GroupId, gapless_core::route::Weight)| {
        let count = state.route.members.iter().filter(|(node, its)| node.group == *group && *its == weight).count();
        format!("{group} {count} × {}", weight.0)
    };
    format!("({})", kinds.iter().map(of).collect::<Vec<_>>().join("; "))
}

/// A stage in one word.
fn name(stage: &Stage) -> &'static str {
    match stage {
        Stage::Vacate => "vacate",
        Stage::Command => "command",
        Stage::Prepare { .. } => "prepare",
        Stage::Await { .. } => "await",
        Stage::Canary(_) => "canary",
        Stage::Roll { .. } => "roll",
        Stage::Shift => "shift",
        Stage::Confirm => "confirm",
        Stage::Bake { .. } => "bake",
        Stage::Retire => "retire",
        Stage::Undo { .. } => "undo",
        Stage::Unroll { .. } => "unroll",
        Stage::Restore { .. } => "restore",
    }
}
