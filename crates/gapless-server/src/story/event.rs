//! Events in plain words: what the core was told.

use super::text::verdict_words;
use super::{count, list, release_name};
use gapless_core::effect::EffectId;
use gapless_core::event::{Event, Failure};
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_core::observation::{Condition, NodeSeen, Observation};
use gapless_core::release::Declaration;
use gapless_core::service::ServiceState;
use std::collections::BTreeSet;

/// An event in plain words. `state`: before it, where the names of its effects are.
#[must_use]
pub fn event(service: &ServiceName, state: &ServiceState, event: &Event) -> String {
    match event {
        Event::Declared { declaration, urgent, together } => {
            let with = together.as_ref().map_or(String::new(), |together| format!(", together with {}", list(&together.with)));
            format!("declared{}: {}{with}", if *urgent { " urgently" } else { "" }, declared(declaration))
        }
        Event::RollbackRequested { to, forced } => {
            let to = to.map_or("the release that was live before".to_string(), |to| release_name(service, to));
            format!("somebody wants {to} back{}", if *forced { ", whatever speaks against it" } else { "" })
        }
        Event::Paused => "somebody pauses the rollout".into(),
        Event::Resumed => "somebody resumes the rollout".into(),
        Event::Cancelled => "somebody cancels the rollout".into(),
        Event::Promoted => "somebody promotes the canary's step".into(),
        Event::RetryRequested => "somebody wants another try".into(),
        Event::RetriedTogether { together } if together.with.is_empty() => "somebody wants another try, of this service alone".into(),
        Event::RetriedTogether { together } => format!("somebody wants another try, together with {}", list(&together.with)),
        Event::Scaled { nodes } => format!("somebody wants {}", count(*nodes as usize, "node")),
        Event::Revoked { artifacts } if artifacts.is_empty() => "no version of the artifact is revoked".into(),
        Event::Revoked { artifacts } => format!("these versions of the artifact are revoked: {}", list(artifacts)),
        Event::PartnersReady => "the services that move together with this one are ready".into(),
        Event::PartnersTakenBack { reason } => format!("a service that moves together with this one went back: {reason}"),
        Event::PartnersFailed { reason } => format!("a service that moves together with this one cannot: {reason}"),
        Event::Analysed { effect, judgement } => {
            format!("{} has its verdict: {} ({})", named(state, *effect), verdict_words(judgement.verdict), judgement.evidence)
        }
        Event::Observed(seen) => observed(seen),
        Event::EffectEnded { effect, result: Ok(()) } => format!("{} was carried out", named(state, *effect)),
        Event::EffectEnded { effect, result: Err(Failure { reason, is_final }) } => {
            let again = if *is_final { ", and trying again cannot help" } else { "" };
            format!("{} could not be carried out{again}: {reason}", named(state, *effect))
        }
        Event::Restarted => "the engine was started again: what was under way may have been done or not".into(),
    }
}

fn declared(declaration: &Declaration) -> String {
    format!("artifact {}, {}", declaration.artifact, count(declaration.nodes as usize, "node"))
}

fn named(state: &ServiceState, effect: EffectId) -> String {
    state.pending.get(&effect).map_or_else(|| effect.to_string(), |known| format!("{effect} ({})", known.name()))
}

fn observed(seen: &Observation) -> String {
    let groups: BTreeSet<_> = seen.nodes.keys().map(|node| node.group).collect();
    let of_group = |group: &GroupId| {
        let nodes = || seen.nodes.iter().filter(|(node, _)| node.group == *group).map(|(_, seen)| seen);
        let is = |is: fn(&NodeSeen) -> bool| nodes().filter(|node| is(node)).count();
        let (running, passing) = (is(|node| node.condition == Condition::Running), is(|node| node.health.passes > 0));
        let flight: u64 = nodes().map(|node| u64::from(node.requests_in_flight)).sum();
        format!("{} of {group} ({running} running, {passing} passing, {flight} in flight)", count(nodes().count(), "node"))
    };
    let proxies = seen.proxies.iter().map(|(proxy, generation)| match generation {
        Some(generation) => format!("{proxy} has {generation}"),
        None => format!("{proxy} does not answer"),
    });
    format!("a look at the world: {}; proxies: {}", list(groups.iter().map(of_group)), list(proxies))
}
