//! Facts for people: what happened, with its evidence.

use super::{count, list, reason, release_name, time};
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::notice::{Notice, Outcome, RolloutKind};
use gapless_core::policy::{CanaryPause, Strategy};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) fn text(service: &ServiceName, notice: &Notice, release: Option<&Declaration>) -> String {
    let of_worker = release.filter(|release| !release.serves).and_then(|_| of_worker(service, notice));
    of_worker.unwrap_or_else(|| of_any(service, notice, release.map(|release| &release.policy.strategy)))
}

fn of_any(service: &ServiceName, notice: &Notice, strategy: Option<&Strategy>) -> String {
    let name = |release: &ReleaseNumber| release_name(service, *release);
    match notice {
        Notice::RolloutStarted { kind, from, to, .. } => started(*kind, from.as_ref().map(name), &name(to)),
        Notice::NodesBooted { group, .. } => format!("all nodes of {group} run; they are checked, with no traffic"),
        Notice::GatePassed { group, .. } => format!("every node of {group} passed its checks: the gate is open"),
        Notice::ShiftBegan { generation, way_back, .. } => format!("the traffic goes over with route {generation}; {}", back(*way_back)),
        Notice::Shifted { generation, .. } => {
            format!("every proxy acknowledged route {generation}: all traffic is on the new nodes")
        }
        Notice::BakeBegan { .. } => "the old nodes are kept warm: until the bake window ends, going back is one route".into(),
        Notice::DrainBegan { nodes, .. } => {
            format!("no route names {} any more; their last requests run out", of_releases(service, nodes))
        }
        Notice::Drained { cut: 0, .. } => "the nodes that left have no request in flight".into(),
        Notice::Drained { cut, .. } => format!("the drain deadline passed; {} cut", were(*cut as usize, "request")),
        Notice::Rejecting { reason: why, .. } => format!("given up: {}", reason(why).text),
        Notice::RolloutEnded { outcome, settled, .. } => ended(outcome, *settled).into(),
        Notice::TaskBegan { task, .. } => begun(*task).into(),
        Notice::TaskEnded { task, .. } => format!("{} ended well", task_words(*task)),
        Notice::CanaryStepBegan { step, percent, generation, .. } => {
            let until = if waits_for_a_person(strategy, *step) { ", until somebody runs `gapless promote`" } else { "" };
            format!("step {step} of the canary: the new nodes get {percent} % of the traffic with route {generation}{until}")
        }
        Notice::Analysed { judgement, .. } => analysed(judgement),
        Notice::Promoted { .. } => "somebody promoted the canary's step".into(),
        Notice::Paused { .. } => "somebody paused it: nothing new begins; nodes that die still leave the routes".into(),
        Notice::Resumed { after, .. } => {
            format!("somebody resumed it after {}: its deadlines are later by so much", time::span(Duration::from_millis(*after)))
        }
        Notice::BatchJoined { new, old, .. } => format!("more new nodes have traffic: {new} new and {old} old ones now"),
        Notice::OutageBegan { .. } => "the old nodes leave before there are new ones: from now on nothing answers".into(),
        Notice::Restoring { group, .. } => format!("the new nodes are gone; nodes of the old release are made again, as {group}"),
        Notice::PartnersAwaited { .. } => {
            "the new nodes passed their checks and wait for the services that move together with this one".into()
        }
        Notice::FollowsBack { from, to: Some(to), reason } => format!("{} goes back to {}: {reason}", name(from), name(to)),
        Notice::FollowsBack { from, to: None, reason } => {
            format!("{reason}; {} stays, as no release that was live before may take its place", name(from))
        }
        Notice::Queued { release, frozen_until } => queued(&name(release), *frozen_until),
        Notice::Dequeued { release } => {
            format!("{} will not be tried: a later wish took its place, what is live was declared again, or it was revoked", name(release))
        }
        Notice::Scaled { from, to } => format!("somebody wants {} instead of {from}", count(*to as usize, "node")),
        Notice::RevocationsChanged { artifacts } => revocations(artifacts),
        Notice::NothingToEvictTo { live } => {
            format!(
                "{} is revoked, and no release that was live before may take its place: its nodes go on until one is declared",
                name(live)
            )
        }
        Notice::CrashLoop { group, tries } => {
            format!("nodes of {group} die again and again: after {tries} replacements in a row no more are made until `gapless retry`")
        }
        Notice::NodeLost { node, why } => format!("node {node} was lost ({why}); it leaves the routes and a new one is made"),
        Notice::NodeReplaced { node } => format!("node {node} passed its checks and took a lost one's place"),
        Notice::EffectFailed { effect, reason } => format!("{effect} could not be carried out and is tried again: {reason}"),
    }
}

fn started(kind: RolloutKind, from: Option<String>, to: &str) -> String {
    match (kind, from) {
        (RolloutKind::Eviction, Some(from)) => format!("leave {from}, whose artifact was revoked, for {to}"),
        (RolloutKind::Rollback, Some(from)) => format!("go back to {to}; {from} is live and is not touched yet"),
        (_, Some(from)) => format!("roll out {to}; {from} is live and is not touched yet"),
        (RolloutKind::Rollback, None) => format!("go back to {to}; nothing is live"),
        (_, None) => format!("roll out {to}; nothing was live before"),
    }
}

/// Whether this step of a canary, from 1, ends with a person's word.
fn waits_for_a_person(strategy: Option<&Strategy>, step: u32) -> bool {
    let Some(Strategy::Canary { steps, .. }) = strategy else { return false };
    let place = usize::try_from(step).ok().and_then(|step| step.checked_sub(1));
    place.and_then(|place| steps.get(place)).is_some_and(|step| step.pause == CanaryPause::Person)
}

fn back(way_back: bool) -> &'static str {
    if way_back { "the way back is there: the old nodes are healthy" } else { "there is no way back: no healthy old nodes" }
}

/// `2 nodes of web-r7`
fn of_releases(service: &ServiceName, nodes: &BTreeSet<NodeId>) -> String {
    let releases: BTreeSet<ReleaseNumber> = nodes.iter().map(|node| node.group.release).collect();
    format!("{} of {}", count(nodes.len(), "node"), list(releases.into_iter().map(|release| release_name(service, release))))
}

/// What is told in other words of a worker, which has no traffic and is in no route.
fn of_worker(service: &ServiceName, notice: &Notice) -> Option<String> {
    Some(match notice {
        Notice::NodesBooted { group, .. } => format!("all nodes of {group} run and do their work; they are checked"),
        Notice::ShiftBegan { way_back, .. } => format!("the new nodes take the old ones' place; {}", back(*way_back)),
        Notice::Shifted { .. } => "the new nodes have the old ones' place".into(),
        Notice::DrainBegan { nodes, .. } => {
            format!("{} {} asked to stop", of_releases(service, nodes), if nodes.len() == 1 { "was" } else { "were" })
        }
        Notice::Drained { cut: 0, .. } => "the nodes that left have stopped".into(),
        Notice::Drained { .. } => "the drain deadline passed; what had not stopped was ended".into(),
        Notice::BatchJoined { new, old, .. } => format!("more new nodes count: {new} new and {old} old ones now"),
        _ => return None,
    })
}

fn ended(outcome: &Outcome, settled: bool) -> &'static str {
    match (outcome, settled) {
        (Outcome::Live, true) => "the wanted release is live, and nothing else is left",
        (Outcome::Rejected(_), true) => "rejected: the new nodes are gone, and all is as it was before the rollout",
        (Outcome::Live, false) => {
            "the wanted release went live; it gave way to the next rollout, and the nodes that are not wanted are still draining"
        }
        (Outcome::Rejected(_), false) => "rejected; it gave way to the next rollout, and the nodes that are not wanted are still draining",
    }
}

/// A task in words.
pub(super) fn task_words(task: Task) -> &'static str {
    match task {
        Task::ReleaseCommand => "the release command",
        Task::BeforeShift => "the hook before the shift",
        Task::AfterShift => "the hook after the shift",
    }
}

fn begun(task: Task) -> &'static str {
    match task {
        Task::ReleaseCommand => {
            "the release command runs, in a one-off node of the new image; none of the nodes that shall serve exists yet"
        }
        Task::BeforeShift => "the hook before the shift runs; the new nodes passed their checks and have no traffic",
        Task::AfterShift => "the hook after the shift runs; the new nodes have the traffic, and the old ones are kept",
    }
}

/// A verdict in words.
pub(super) fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Promote => "good enough",
        Verdict::Hold => "not decided yet",
        Verdict::Abort => "worse",
    }
}

/// A comparison in words.
pub fn analysed(judgement: &Judgement) -> String {
    let verdict = verdict_words(judgement.verdict);
    format!("the new nodes' answers compared with the old ones' of the same time: {verdict} ({})", judgement.evidence)
}

/// What a release waits for, in words.
pub fn queued(release: &str, frozen_until: Option<Instant>) -> String {
    match frozen_until {
        Some(until) => format!("{release} waits for the end of the freeze window, {}", time::of_week(until)),
        None => format!("{release} waits for the end of the rollout in progress"),
    }
}

fn revocations(artifacts: &BTreeSet<ArtifactVersion>) -> String {
    if artifacts.is_empty() {
        return "no version of the artifact is revoked any more".into();
    }
    format!("revoked now: {}; none of these may run", list(artifacts))
}

/// `1 request was`, `3 requests were`.
fn were(number: usize, noun: &str) -> String {
    let verb = if number == 1 { "was" } else { "were" };
    format!("{} {verb}", count(number, noun))
}
