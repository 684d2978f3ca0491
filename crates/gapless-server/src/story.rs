//! The story of a rollout in plain words: each decision with its evidence and the rule behind it.

use gapless_core::effect::Effect;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::notice::{Notice, Outcome, Rejection, RolloutKind};
use gapless_core::observation::Evidence;
use gapless_core::release::ReleaseNumber;
use gapless_core::time::Instant;
use gapless_wire::rollout::{self as wire, Fact, Reason, Step};

/// A release's name: `web-r7`.
#[must_use]
pub fn release_name(service: &ServiceName, release: ReleaseNumber) -> String {
    format!("{}-{release}", service.service())
}

/// A notice as the wire tells it.
#[must_use]
pub fn step(service: &ServiceName, at: Instant, notice: &Notice) -> Step {
    let fact = fact(service, notice);
    Step { at_ms: at.0, rollout: notice.rollout().map(|rollout| rollout.0), text: text(&fact, notice), rule: rule(&fact).to_string(), fact }
}

/// How a rollout ended.
#[must_use]
pub fn outcome(outcome: &Outcome) -> wire::Outcome {
    match outcome {
        Outcome::Live => wire::Outcome::Live,
        Outcome::Rejected(_) => wire::Outcome::Rejected,
    }
}

/// Why a rollout was begun.
#[must_use]
pub fn kind(kind: RolloutKind) -> wire::RolloutKind {
    match kind {
        RolloutKind::Deploy => wire::RolloutKind::Deploy,
        RolloutKind::Rollback => wire::RolloutKind::Rollback,
        RolloutKind::Eviction => wire::RolloutKind::Eviction,
    }
}

fn fact(service: &ServiceName, notice: &Notice) -> Fact {
    match notice {
        Notice::RolloutStarted { kind: why, from, to, .. } => {
            Fact::RolloutStarted { kind: kind(*why), from: from.map(|from| release_name(service, from)), to: release_name(service, *to) }
        }
        Notice::NodesBooted { group, .. } => Fact::NodesBooted { group: group.to_string() },
        Notice::GatePassed { group, .. } => Fact::GatePassed { group: group.to_string() },
        Notice::ShiftBegan { generation, way_back, .. } => Fact::ShiftBegan { generation: generation.0, way_back: *way_back },
        Notice::Shifted { generation, .. } => Fact::Shifted { generation: generation.0 },
        Notice::BakeBegan { until, .. } => Fact::BakeBegan { until_ms: until.0 },
        Notice::DrainBegan { nodes, deadline, .. } => {
            Fact::DrainBegan { nodes: nodes.iter().map(ToString::to_string).collect(), deadline_ms: deadline.0 }
        }
        Notice::Drained { cut, .. } => Fact::Drained { cut: *cut },
        Notice::Rejecting { reason: why, .. } => Fact::Rejecting { reason: reason(why) },
        Notice::RolloutEnded { outcome: how, .. } => Fact::RolloutEnded { outcome: outcome(how) },
        Notice::NodeLost { node, why } => Fact::NodeLost { node: node.to_string(), why: why.clone() },
        Notice::NodeReplaced { node } => Fact::NodeReplaced { node: node.to_string() },
        Notice::EffectFailed { effect, reason } => Fact::EffectFailed { effect: effect.clone(), why: reason.clone() },
        _ => Fact::Other,
    }
}

/// Why a rollout was rejected, with its evidence.
#[must_use]
pub fn reason(rejection: &Rejection) -> Reason {
    let plain = |kind: &str, text: String, node: Option<NodeId>| Reason {
        kind: kind.into(),
        text,
        node: node.map(|node| node.to_string()),
        check: None,
        result: None,
        times: None,
        output: None,
    };
    match rejection {
        Rejection::GateFailed { node, evidence: Evidence { check, result, times } } => Reason {
            check: Some(check.clone()),
            result: Some(result.clone()),
            times: Some(*times),
            ..plain("gate-failed", format!("{check} on node {node} failed {times} times in a row: {result}"), Some(*node))
        },
        Rejection::NodeExited { node, code, output } => {
            let code = code.map_or("for an unknown reason".to_string(), |code| format!("with status {code}"));
            let text = match output.trim() {
                "" => format!("the command of node {node} ended by itself {code} and wrote nothing"),
                output => format!("the command of node {node} ended by itself {code}: {output}"),
            };
            Reason { output: Some(output.clone()), ..plain("node-exited", text, Some(*node)) }
        }
        Rejection::ProgressDeadline { waiting_for } => {
            plain("progress-deadline", format!("the new nodes were not ready at the progress deadline: {waiting_for}"), None)
        }
        Rejection::WrongImage { node } => {
            plain("wrong-image", format!("node {node} was made from another image than the release names"), Some(*node))
        }
        Rejection::EffectFailed { effect, reason } => plain("effect-failed", format!("{effect} could not be carried out: {reason}"), None),
        Rejection::TakenBack => {
            plain("taken-back", "somebody wanted the old release back before every proxy had acknowledged the new one".into(), None)
        }
        other => plain("other", format!("{other:?}"), None),
    }
}

fn text(fact: &Fact, notice: &Notice) -> String {
    match fact {
        Fact::RolloutStarted { kind, from, to } => {
            let verb = if *kind == wire::RolloutKind::Rollback { "go back to" } else { "roll out" };
            match from {
                Some(from) => format!("{verb} {to}; {from} is live and is not touched yet"),
                None => format!("{verb} {to}; nothing was live before"),
            }
        }
        Fact::NodesBooted { group } => format!("all nodes of {group} run; the proxies check them, with no traffic"),
        Fact::GatePassed { group } => format!("every node of {group} passed its checks: the gate is open"),
        Fact::ShiftBegan { generation, way_back } => {
            let back =
                if *way_back { "the way back is there: the old nodes are healthy" } else { "there is no way back: no healthy old nodes" };
            format!("the traffic goes over with route g{generation}; {back}")
        }
        Fact::Shifted { generation } => format!("every proxy acknowledged route g{generation}: all traffic is on the new nodes"),
        Fact::BakeBegan { .. } => "the old nodes are kept warm: until the bake window ends, going back is one route".into(),
        Fact::DrainBegan { nodes, .. } => format!("no route names the {} old nodes any more; their last requests run out", nodes.len()),
        Fact::Drained { cut: 0 } => "the old nodes have no request in flight".into(),
        Fact::Drained { cut } => format!("the drain deadline passed; {cut} requests were cut"),
        Fact::Rejecting { reason } => format!("given up: {}", reason.text),
        Fact::RolloutEnded { .. } if matches!(notice, Notice::RolloutEnded { settled: false, .. }) => {
            format!("{}; it gave way to the next rollout, and the nodes that are not wanted are still draining", ended_early(fact))
        }
        Fact::RolloutEnded { outcome: wire::Outcome::Live } => "the wanted release is live, and nothing else is left".into(),
        Fact::RolloutEnded { outcome: wire::Outcome::Rejected } => "rejected: what was live before is live, the new nodes are gone".into(),
        Fact::NodeLost { node, why } => format!("node {node} was lost ({why}); it leaves the routes and a new one is made"),
        Fact::NodeReplaced { node } => format!("node {node} passed its checks and took a lost one's place"),
        Fact::EffectFailed { effect, why } => format!("{effect} could not be carried out and is tried again: {why}"),
        Fact::Other => format!("{notice:?}"),
    }
}

fn ended_early(fact: &Fact) -> &'static str {
    match fact {
        Fact::RolloutEnded { outcome: wire::Outcome::Rejected } => "rejected",
        _ => "the wanted release went live",
    }
}

/// The rule that a fact follows from.
fn rule(fact: &Fact) -> &'static str {
    match fact {
        Fact::RolloutStarted { kind: wire::RolloutKind::Deploy, .. } => {
            "a declaration whose content is new is a new release (I6: the same again would do nothing)"
        }
        Fact::RolloutStarted { .. } => {
            "a rollback is an ordinary rollout to an earlier release, and pins the service until its declaration changes"
        }
        Fact::NodesBooted { .. } => "new nodes are made beside the old ones: nothing live is ever changed",
        Fact::GatePassed { .. } => "I3: a node gets traffic only after its image was verified by digest and it passed the health gate",
        Fact::ShiftBegan { .. } => {
            "I1: ready capacity in the routes never falls below the floor; the way back is looked at before every shift"
        }
        Fact::Shifted { .. } => "I5: a proxy applies a route whole, keeps it on disk, and acknowledges it; older ones it refuses",
        Fact::BakeBegan { .. } => "the bake window: what is warm can be gone back to in one step",
        Fact::DrainBegan { .. } => "I2: first every proxy acknowledges a route without the old nodes, then they are drained",
        Fact::Drained { .. } => "I2: a node is destroyed only with no request in flight, or when its drain deadline has passed",
        Fact::Rejecting { .. } => "a failed gate ends in the old release, untouched",
        Fact::RolloutEnded { .. } => "a rollout ends when the groups that are not wanted are gone, or when the next one takes its place",
        Fact::NodeLost { .. } | Fact::NodeReplaced { .. } => "a node is replaced, never repaired",
        Fact::EffectFailed { .. } => "I4: every effect may be done twice with the same end, so it is simply tried again",
        Fact::Other => "",
    }
}

/// An effect in plain words.
#[must_use]
pub fn effect(effect: &Effect) -> String {
    let list = |nodes: &std::collections::BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match effect {
        Effect::EnsureGroup { group, size } => format!("EnsureGroup {group} up to {size} nodes"),
        Effect::Route(route) => {
            let members: Vec<String> = route.members.iter().map(|(node, weight)| format!("{node} × {}", weight.0)).collect();
            format!("Route {} with {}", route.generation, if members.is_empty() { "nobody".to_string() } else { members.join(", ") })
        }
        Effect::Drain { nodes, deadline } => format!("Drain {} within {deadline:?}", list(nodes)),
        Effect::DestroyNodes { nodes } => format!("DestroyNodes {}", list(nodes)),
        Effect::RunTask { group, task, deadline } => format!("RunTask {task} of {group} within {deadline:?}"),
        Effect::Analyse { old, new, .. } => format!("Analyse {new} against {old}"),
        Effect::Notify(_) => "Notify".to_string(),
    }
}
