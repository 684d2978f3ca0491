//! The invariants I1 to I7, as functions over what was decided and what was seen.
//!
//! [`check`] looks at one step alone and is cheap enough for production: an effect of a step that it faults must not be sent. [`Monitor`] also remembers
//! what was decided before, which the state does not, and is for tests and simulations. Neither shares a line of its judgement with the policy.

use crate::effect::{Effect, EffectId};
use crate::event::Event;
use crate::node::{GroupId, NodeId};
use crate::observation::{Condition, NodeSeen, Observation};
use crate::release::Declaration;
use crate::rollout::Step;
use crate::route::{Generation, Route, Weight};
use crate::service::ServiceState;
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// The invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Ready capacity in the routes never falls below the floor, unless nodes died by themselves.
    I1,
    /// A node is destroyed only when every proxy has acknowledged a generation that does not name it, and it has run out.
    I2,
    /// A node gets traffic only after its image was verified and it passed the health gate.
    I3,
    /// No effect leaves before its intent is durable: each stands in the state that is written down.
    I4,
    /// Generations only grow, and one generation is one route.
    I5,
    /// What is so already is not done again; what is refused changes nothing.
    I6,
    /// Nodes of a release whose state only one may use are made when no other node of the service exists.
    I7,
}

/// A step that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// What was decided, against what.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken: {}", self.invariant, self.evidence)
    }
}

impl core::error::Error for Violation {}

/// Checks one step against every invariant, as far as the step and the state show it.
///
/// # Errors
/// The first violation, with its evidence.
pub fn check(before: &ServiceState, event: &Event, now: Instant, step: &Step) -> Result<(), Violation> {
    declared_again_does_nothing(before, event, step)?;
    intents_are_in_the_state(before, step)?;
    for (_, effect) in &step.effects {
        match effect {
            Effect::Route(route) => {
                generations_grow(before, route)?;
                traffic_only_after_the_gate(before, event, step, route)?;
                capacity_stays(before, event, step, route)?;
            }
            Effect::DestroyNodes { nodes } => destroyed_only_when_unreachable(before, event, now, step, nodes)?,
            Effect::EnsureGroup { group, .. } => made_alone(event, step, *group)?,
            Effect::Drain { .. } | Effect::RunTask { .. } | Effect::Analyse { .. } | Effect::Notify(_) => {}
        }
    }
    Ok(())
}

fn broken(invariant: Invariant, evidence: String) -> Result<(), Violation> {
    Err(Violation { invariant, evidence })
}

/// I6.
fn declared_again_does_nothing(before: &ServiceState, event: &Event, step: &Step) -> Result<(), Violation> {
    let unchanged = step.effects.is_empty() && step.state == *before;
    let live = before.live_release().filter(|live| before.declared == Some(*live) && before.rollout.is_none());
    let is_so_already = matches!((event, live.and_then(|live| before.declaration(live))), (Event::Declared { declaration: wanted, .. }, Some(known)) if known.content == wanted.content);
    if (step.refusal.is_some() || is_so_already) && !unchanged {
        return broken(
            Invariant::I6,
            format!("a wish that was refused or is fulfilled already had {} effects or changed the state", step.effects.len()),
        );
    }
    Ok(())
}

/// I4.
fn intents_are_in_the_state(before: &ServiceState, step: &Step) -> Result<(), Violation> {
    let mut last = before.next.effects;
    for (id, effect) in &step.effects {
        if *id <= last || *id > step.state.next.effects {
            return broken(Invariant::I4, format!("effect {id} does not come after {last}: its number may have been used before"));
        }
        last = *id;
        if !matches!(effect, Effect::Notify(_)) && step.state.pending.get(id) != Some(effect) {
            return broken(Invariant::I4, format!("effect {id} ({}) leaves without an intent in the state", effect.name()));
        }
    }
    Ok(())
}

/// I5, at the sender.
fn generations_grow(before: &ServiceState, route: &Route) -> Result<(), Violation> {
    let again = *route == before.route && route.generation > Generation::default();
    if again || route.generation > before.route.generation {
        return Ok(());
    }
    broken(Invariant::I5, format!("route {} is sent after {}", route.generation, before.route.generation))
}

/// I7.
fn made_alone(event: &Event, step: &Step, group: GroupId) -> Result<(), Violation> {
    let single = |group: GroupId| step.state.is_single(group.release);
    let Event::Observed(seen) = event else {
        let known = step.state.groups.keys().any(|other| *other != group && single(*other));
        let blind = single(group) || known;
        return if blind { broken(Invariant::I7, format!("nodes of {group} are made without a look at the world")) } else { Ok(()) };
    };
    let stranger =
        |node: &&NodeId| (node.group != group && (single(group) || single(node.group))) || (single(group) && !step.state.is_wanted(**node));
    match seen.nodes.keys().find(stranger) {
        Some(node) => broken(Invariant::I7, format!("nodes of {group} are made while {node} is there")),
        None => Ok(()),
    }
}

/// I3.
fn traffic_only_after_the_gate(before: &ServiceState, event: &Event, step: &Step, route: &Route) -> Result<(), Violation> {
    for node in weighted(route) {
        let had_traffic = before.groups.get(&node.group).is_some_and(|group| group.exposed);
        let joins = before.joining.contains_key(&node) || !had_traffic;
        if joins && !passed_now(event, node, step.state.declaration(node.group.release)) && !has_weight(&before.route, node) {
            return broken(Invariant::I3, format!("{node} gets traffic in {} without having passed the gate", route.generation));
        }
    }
    Ok(())
}

fn passed_now(event: &Event, node: NodeId, declaration: Option<&Declaration>) -> bool {
    let (Event::Observed(seen), Some(declaration)) = (event, declaration) else { return false };
    seen.nodes.get(&node).is_some_and(|seen| passed(seen, declaration))
}

fn passed(seen: &NodeSeen, declaration: &Declaration) -> bool {
    let checked = seen.health.failures == 0 && seen.health.passes >= declaration.policy.gate_passes;
    checked && seen.condition == Condition::Running && seen.image == declaration.image
}

fn weighted(route: &Route) -> impl Iterator<Item = NodeId> + '_ {
    route.members.iter().filter(|(_, weight)| **weight > Weight::PROBED).map(|(node, _)| *node)
}

fn has_weight(route: &Route, node: NodeId) -> bool {
    route.members.get(&node).is_some_and(|weight| *weight > Weight::PROBED)
}

/// I1: a new route takes no ready capacity away below the floor. Nodes that died are ready in neither; one of which no proxy can tell how it is got its traffic when it was ready.
fn capacity_stays(before: &ServiceState, event: &Event, step: &Step, route: &Route) -> Result<(), Violation> {
    let Event::Observed(seen) = event else { return Ok(()) };
    let floor = floor(&step.state);
    let (was, is) = (ready(seen, &before.route), ready(seen, route));
    if is < floor.min(was) {
        return broken(Invariant::I1, format!("{} leaves {is} ready nodes of {was}, below the floor of {floor}", route.generation));
    }
    Ok(())
}

fn ready(seen: &Observation, route: &Route) -> usize {
    weighted(route).filter(|node| seen.nodes.get(node).is_some_and(NodeSeen::may_serve)).count()
}

/// The floor that holds now: the smaller one, while two releases meet.
#[must_use]
pub fn floor(state: &ServiceState) -> usize {
    let groups = state.live.into_iter().chain(state.rollout.as_ref().filter(|_| state.live.is_some()).map(|rollout| rollout.to));
    groups.filter_map(|group| state.declaration(group.release)).map(|declaration| declaration.policy.floor as usize).min().unwrap_or(0)
}

/// I2, as far as the state remembers which generations do not name a node.
fn destroyed_only_when_unreachable(
    before: &ServiceState,
    event: &Event,
    now: Instant,
    step: &Step,
    nodes: &BTreeSet<NodeId>,
) -> Result<(), Violation> {
    let Event::Observed(seen) = event else { return broken(Invariant::I2, "nodes are destroyed without a look at the world".into()) };
    for node in nodes {
        if step.state.route.members.contains_key(node) || before.route.members.contains_key(node) {
            return broken(Invariant::I2, format!("{node} is destroyed while the route names it or has just dropped it"));
        }
        let unnamed_since = step.state.draining.get(node).map_or(before.route.generation, |drain| drain.unnamed_since);
        if unnamed_since > Generation::default() && !seen.proxies.values().all(|known| *known >= Some(unnamed_since)) {
            return broken(
                Invariant::I2,
                format!("{node} is destroyed before every proxy acknowledged {unnamed_since}: {:?}", seen.proxies),
            );
        }
        ran_out(step, seen, *node, now)?;
    }
    Ok(())
}

fn ran_out(step: &Step, seen: &Observation, node: NodeId, now: Instant) -> Result<(), Violation> {
    let Some(seen) = seen.nodes.get(&node) else { return Ok(()) };
    let ended = matches!(seen.condition, Condition::Exited { .. });
    let overdue = step.state.draining.get(&node).is_some_and(|drain| now >= drain.deadline);
    if seen.requests_in_flight == 0 || ended || overdue {
        return Ok(());
    }
    broken(Invariant::I2, format!("{node} is destroyed with {} requests in flight before its drain deadline", seen.requests_in_flight))
}

/// Watches a whole life of a service: every step, with the memory that the state does not keep. Its memory grows with the life it watches.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    routes: BTreeMap<Generation, Route>,
    passed: BTreeSet<NodeId>,
    last_effect: EffectId,
}

impl Monitor {
    /// Watches one step.
    ///
    /// # Errors
    /// The first violation, with its evidence.
    pub fn watch(&mut self, before: &ServiceState, event: &Event, now: Instant, step: &Step) -> Result<(), Violation> {
        check(before, event, now, step)?;
        if let Event::Observed(seen) = event {
            let able = seen
                .nodes
                .iter()
                .filter(|(node, seen)| step.state.declaration(node.group.release).is_some_and(|known| passed(seen, known)));
            self.passed.extend(able.map(|(node, _)| *node));
        }
        for (id, effect) in &step.effects {
            self.effect(*id, effect, event)?;
        }
        Ok(())
    }

    fn effect(&mut self, id: EffectId, effect: &Effect, event: &Event) -> Result<(), Violation> {
        if id <= self.last_effect {
            return broken(Invariant::I4, format!("effect {id} was given out before"));
        }
        self.last_effect = id;
        match effect {
            Effect::Route(route) => self.route(route),
            Effect::DestroyNodes { nodes } => nodes.iter().try_for_each(|node| self.destroyed(*node, event)),
            _ => Ok(()),
        }
    }

    fn route(&mut self, route: &Route) -> Result<(), Violation> {
        if self.routes.get(&route.generation).is_some_and(|known| known != route) {
            return broken(Invariant::I5, format!("{} was another route before", route.generation));
        }
        if self.routes.last_key_value().is_some_and(|(last, _)| *last > route.generation) {
            return broken(Invariant::I5, format!("{} is sent after a later one", route.generation));
        }
        if let Some(node) = weighted(route).find(|node| !self.passed.contains(node)) {
            return broken(Invariant::I3, format!("{node} gets traffic in {} and never passed the gate", route.generation));
        }
        self.routes.insert(route.generation, route.clone());
        Ok(())
    }

    /// I2 by the routes themselves: what each proxy acknowledged does not name the node.
    fn destroyed(&self, node: NodeId, event: &Event) -> Result<(), Violation> {
        let Event::Observed(seen) = event else { return Ok(()) };
        let names = |generation: &Generation| self.routes.get(generation).is_some_and(|route| route.members.contains_key(&node));
        match seen.proxies.iter().find(|(_, known)| known.is_some_and(|generation| names(&generation))) {
            Some((proxy, _)) => broken(Invariant::I2, format!("{node} is destroyed while proxy {proxy} applies a route that names it")),
            None => Ok(()),
        }
    }
}
