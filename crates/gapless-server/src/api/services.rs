//! Services: how they are, their releases, their nodes' logs.

use super::Call;
use super::answer::{Answer, json};
use crate::problem::{Refused, problem};
use crate::receipt::Account;
use crate::receipts::ran;
use crate::server::Server;
use crate::stories::Story;
use crate::story::{self, release_name};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::notice::{Notice, Rejection};
use gapless_core::observation::{Condition, NodeSeen, Observation};
use gapless_core::policy::{CanaryPause, Strategy};
use gapless_core::release::ReleaseNumber;
use gapless_core::service::{self as core, ServiceState};
use gapless_core::time::Instant;
use gapless_engine::error::Error;
use gapless_wire::api::Problem;
use gapless_wire::release::Release;
use gapless_wire::rollout::{NodeCounts, Outcome, Waiting};
use gapless_wire::service::{CanaryStatus, NodeStatus, Queued, RolloutStatus, Scaled, ServiceStatus, Stage};
use hyper::Response;
use std::collections::BTreeMap;

pub(super) async fn list(call: &Call) -> Result<Response<Answer>, Refused> {
    let mut found = Vec::new();
    for service in call.server.parts.engine.services() {
        // What cannot be told of one service holds up no other.
        found.push(status(&call.server, &service).await.unwrap_or_else(|error| lost(&service, &error)));
    }
    found.extend(call.server.parts.engine.lost_services().iter().map(|(service, error)| lost(service, error)));
    json(&found)
}

pub(super) async fn show(call: &Call, service: &str) -> Result<Response<Answer>, Refused> {
    if let Some((lost_service, error)) = call.server.lost(service) {
        return json(&lost(&lost_service, &error));
    }
    let service = call.server.service(service)?;
    json(&status(&call.server, &service).await?)
}

/// A service whose journal cannot be used: nothing is known of it but that.
fn lost(service: &ServiceName, error: &Error) -> ServiceStatus {
    ServiceStatus {
        service: service.to_string(),
        host: String::new(),
        live: None,
        declared: None,
        previous: None,
        pinned: false,
        undo_until_ms: None,
        rollout: None,
        generation: 0,
        proxies: BTreeMap::new(),
        nodes: Vec::new(),
        strategy: String::new(),
        scaled: None,
        queued: None,
        crash_loop: false,
        revoked: false,
        trouble: Some(problem(error)),
        damage: None,
    }
}

pub(super) async fn logs(call: &Call, service: &str) -> Result<Response<Answer>, Refused> {
    let service = call.server.service(service)?;
    let node = call.query.get("node").map(String::as_str);
    if let Some(name) = node.filter(|name| name.parse::<NodeId>().is_err()) {
        return Err(Refused::bad_request(format!("\"{name}\" is no node"), "nodes are named like r7-i12-n0; `gapless status` lists them"));
    }
    json(&call.server.parts.host.logs(&service, node).await?)
}

pub(super) async fn releases(call: &Call, service: &str) -> Result<Response<Answer>, Refused> {
    let server = &call.server;
    let service = server.service(service)?;
    let Some(state) = server.parts.engine.state(&service) else { return json(&Vec::<Release>::new()) };
    let accounts = Account::told(&server.stories.of(&service).await?.facts);
    let mut found = Vec::new();
    for number in state.releases.keys() {
        found.push(release(server, &service, &state, *number, &accounts).await?);
    }
    json(&found)
}

async fn release(
    server: &Server,
    service: &ServiceName,
    state: &ServiceState,
    number: ReleaseNumber,
    accounts: &[Account],
) -> Result<Release, Error> {
    let ran = ran(server, service, number).await?;
    let last = accounts.iter().rfind(|account| account.to == number);
    let name_of = |outcome: Outcome| match outcome {
        Outcome::Live => "live".to_string(),
        Outcome::Rejected => "rejected".to_string(),
    };
    Ok(Release {
        name: ran.release,
        number: number.0,
        artifact: ran.artifact,
        version: ran.version,
        image: ran.image,
        declaration: ran.declaration,
        commit: ran.commit,
        layers: ran.layers,
        nodes: state.releases.get(&number).map_or(0, |declaration| declaration.nodes),
        live: state.live.is_some_and(|group| group.release == number),
        revoked: state.is_revoked(number),
        declared: state.declared == Some(number),
        rolled_out_ms: last.map(|account| account.started.0),
        outcome: last.and_then(|account| account.ended.as_ref()).map(|(_, outcome)| name_of(story::outcome(outcome))),
    })
}

/// How a service is, from the engine's state and a look at the world.
pub(crate) async fn status(server: &Server, service: &ServiceName) -> Result<ServiceStatus, Error> {
    let engine = &server.parts.engine;
    let state = engine.state(service).map(|state| (*state).clone()).unwrap_or_default();
    let (seen, unseen) = match server.parts.platform.peek(service).await {
        Ok(seen) => (seen, None),
        Err(error) => (Observation::default(), Some(error)),
    };
    let Story { facts: story, damage } = server.stories.of(service).await?;
    let accounts = Account::told(&story);
    let failing = || failing(&state, &story).or_else(|| unseen.map(|error| problem(&error)));
    let live = match state.live {
        Some(group) => Some(release(server, service, &state, group.release, &accounts).await?),
        None => None,
    };
    let host = match state.live.map(|group| group.release).or(state.declared) {
        Some(release) => engine.declaration(service, release).await?.host,
        None => String::new(),
    };
    Ok(ServiceStatus {
        service: service.to_string(),
        host,
        live,
        declared: state.declared.map(|release| release_name(service, release)),
        previous: state.previous.map(|release| release_name(service, release)),
        pinned: state.pinned,
        undo_until_ms: undo_until(&state),
        rollout: state.rollout.as_ref().map(|rollout| rollout_status(service, &state, rollout, &story)),
        generation: state.route.generation.0,
        proxies: seen.proxies.iter().map(|(proxy, generation)| (proxy.clone(), generation.map(|generation| generation.0))).collect(),
        nodes: nodes(service, &state, &seen),
        strategy: strategy(&state).to_string(),
        scaled: scaled(&state),
        queued: state.queued.as_ref().map(|queued| waiting(service, &state, queued)),
        crash_loop: state.healing.stopped,
        revoked: state.live_release().is_some_and(|live| state.is_revoked(live)),
        trouble: engine.trouble(service).map(|error| problem(&error)).or_else(failing),
        damage: damage.map(|error| problem(&error)),
    })
}

/// What is tried again just now, and why it failed last.
fn failing(state: &ServiceState, story: &[(Instant, Notice)]) -> Option<Problem> {
    let mut failed = story.iter().rev().filter_map(|(_, notice)| match notice {
        Notice::EffectFailed { effect, reason } => Some((effect, reason)),
        _ => None,
    });
    let is_tried_again = |effect: &str| state.retries.keys().any(|kind| kind.name() == effect);
    let (effect, reason) = failed.find(|(effect, _)| is_tried_again(effect))?;
    Some(Problem { what: format!("{effect} could not be carried out: {reason}"), place: None, hint: None })
}

fn undo_until(state: &ServiceState) -> Option<u64> {
    match state.rollout.as_ref().map(|rollout| &rollout.stage) {
        Some(core::Stage::Bake { until }) if state.is_one_route_from_the_old() => Some(until.0),
        _ => None,
    }
}

fn strategy(state: &ServiceState) -> &'static str {
    let release = state.live_release().or(state.declared);
    match release.and_then(|release| state.declaration(release)).map(|declaration| &declaration.policy.strategy) {
        Some(Strategy::BlueGreen) => "blue-green",
        Some(Strategy::Rolling { .. }) => "rolling",
        Some(Strategy::Canary { .. }) => "canary",
        Some(Strategy::Recreate) => "recreate",
        None => "",
    }
}

fn scaled(state: &ServiceState) -> Option<Scaled> {
    let core::Scaled { declared, nodes } = state.scaled?;
    let live = state.live_release().or(state.declared).and_then(|release| state.declaration(release))?;
    (live.nodes == declared).then_some(Scaled { declared, nodes })
}

fn waiting(service: &ServiceName, state: &ServiceState, queued: &core::Queued) -> Queued {
    let rollout = state.rollout.as_ref().map(|rollout| rollout.number.0);
    Queued {
        release: release_name(service, queued.release),
        waiting: Waiting { rollout, frozen_until_ms: queued.not_before.map(|until| until.0) },
    }
}

fn rollout_status(service: &ServiceName, state: &ServiceState, rollout: &core::Rollout, story: &[(Instant, Notice)]) -> RolloutStatus {
    let canary = match &rollout.stage {
        core::Stage::Canary(canary) => canary_status(state, rollout, canary, story),
        _ => None,
    };
    RolloutStatus {
        number: rollout.number.0,
        kind: story::kind(rollout.kind),
        from: rollout.from.map(|group| release_name(service, group.release)),
        to: release_name(service, rollout.to.release),
        stage: stage(&rollout.stage),
        paused_since_ms: rollout.paused.map(|since| since.0),
        deadline_ms: deadline(&rollout.stage).map(|at| at.0),
        canary,
        together: rollout.together.iter().flat_map(|together| &together.with).map(ToString::to_string).collect(),
        given_up: given_up(&rollout.stage).map(|reason| story::reason(reason).text),
    }
}

fn stage(stage: &core::Stage) -> Stage {
    match stage {
        core::Stage::Vacate => Stage::Vacate,
        core::Stage::Command => Stage::Command,
        core::Stage::Prepare { .. } => Stage::Prepare,
        core::Stage::Await { .. } => Stage::Await,
        core::Stage::Canary(_) => Stage::Canary,
        core::Stage::Roll { .. } => Stage::Roll,
        core::Stage::Confirm => Stage::Confirm,
        core::Stage::Unroll { .. } => Stage::Unroll,
        core::Stage::Restore { .. } => Stage::Restore,
        core::Stage::Shift => Stage::Shift,
        core::Stage::Bake { .. } => Stage::Bake,
        core::Stage::Retire => Stage::Retire,
        core::Stage::Undo { .. } => Stage::Undo,
    }
}

fn deadline(stage: &core::Stage) -> Option<Instant> {
    match stage {
        core::Stage::Prepare { deadline, .. }
        | core::Stage::Await { deadline }
        | core::Stage::Roll { deadline }
        | core::Stage::Restore { deadline, .. } => Some(*deadline),
        core::Stage::Bake { until } => Some(*until),
        _ => None,
    }
}

fn given_up(stage: &core::Stage) -> Option<&Rejection> {
    match stage {
        core::Stage::Undo { reason } | core::Stage::Unroll { reason } | core::Stage::Restore { reason, .. } => Some(reason),
        _ => None,
    }
}

fn canary_status(
    state: &ServiceState,
    rollout: &core::Rollout,
    canary: &core::Canary,
    story: &[(Instant, Notice)],
) -> Option<CanaryStatus> {
    let Strategy::Canary { steps, analysis } = &state.declaration(rollout.to.release)?.policy.strategy else { return None };
    let step = steps.get(canary.step as usize)?;
    let of_step = story.iter().rev().take_while(|(_, notice)| !matches!(notice, Notice::CanaryStepBegan { .. }));
    let judgement = of_step.into_iter().find_map(|(_, notice)| match notice {
        Notice::Analysed { judgement, .. } => Some(story::analysed(judgement)),
        _ => None,
    });
    Some(CanaryStatus {
        step: canary.step + 1,
        steps: u32::try_from(steps.len()).unwrap_or(u32::MAX),
        percent: step.percent,
        since_ms: canary.since.map(|since| since.0),
        until_ms: canary.until.map(|until| until.0),
        person: step.pause == CanaryPause::Person,
        compared: analysis.is_some(),
        analysis: judgement,
    })
}

fn nodes(service: &ServiceName, state: &ServiceState, seen: &Observation) -> Vec<NodeStatus> {
    seen.nodes.iter().map(|(node, seen)| node_status(service, state, *node, seen)).collect()
}

fn node_status(service: &ServiceName, state: &ServiceState, node: NodeId, seen: &NodeSeen) -> NodeStatus {
    let condition = match seen.condition {
        Condition::Starting => "starting",
        Condition::Running => "running",
        Condition::Exited { .. } => "exited",
    };
    NodeStatus {
        name: node.to_string(),
        release: release_name(service, node.group.release),
        condition: condition.to_string(),
        weight: state.route.members.get(&node).map(|weight| weight.0),
        passes: seen.health.passes,
        failures: seen.health.failures,
        failure: seen.health.evidence.as_ref().map(|evidence| format!("{}: {}", evidence.check, evidence.result)),
        requests_in_flight: seen.requests_in_flight,
        image: seen.image.to_string(),
    }
}

/// How far the nodes of a group are.
pub(super) fn count_nodes(seen: &Observation, group: GroupId, wanted: u32) -> NodeCounts {
    let count = |is_it: &dyn Fn(&NodeSeen) -> bool| {
        let nodes = seen.nodes.iter().filter(|(node, _)| node.group == group);
        u32::try_from(nodes.filter(|(_, seen)| is_it(seen)).count()).unwrap_or(u32::MAX)
    };
    NodeCounts { wanted, running: count(&|seen| seen.condition == Condition::Running), passing: count(&|seen| seen.health.passes > 0) }
}
