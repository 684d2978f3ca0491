//! Nodes that have to go: named nowhere, drained, destroyed. And the routes that see to the first.

use crate::effect::{Effect, EffectKind};
use crate::node::{GroupId, NodeId};
use crate::notice::Notice;
use crate::observation::{Condition, NodeSeen};
use crate::pass::Pass;
use crate::rollout::Round;
use crate::route::{Generation, Route};
use crate::service::{Draining, Rollout, Stage};
use crate::sorted::{Sorted, unwanted};
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

impl Round<'_> {
    /// What is not seen any more needs no memory.
    pub fn forget_nodes(&mut self) {
        let seen = || Sorted::new(self.seen.nodes.keys().copied());
        let (state, now) = (&mut self.pass.state, self.pass.now);
        let mut there = seen();
        state.draining.retain(|node, _| there.has(*node));
        let mut there = seen();
        state.lost.retain(|node| there.has(*node));
        let mut there = seen();
        state.destroyed.retain(|node, again| there.has(*node) && now < *again);
    }

    /// Groups that have to go and of which nothing is left.
    pub fn forget_groups(&mut self) {
        let state = &self.pass.state;
        let named = state.rollout.iter().flat_map(|rollout| rollout.from.into_iter().chain([rollout.to])).chain(state.live);
        let named: BTreeSet<GroupId> = named.collect();
        let idle = state.groups.iter().filter(|(group, known)| known.nodes.is_empty() && !named.contains(group)).map(|(group, _)| *group);
        let gone: Vec<GroupId> = idle.filter(|group| self.is_gone(*group)).collect();
        for group in gone {
            self.pass.state.groups.remove(&group);
        }
    }

    /// The route as wanted, to every proxy, until every proxy has acknowledged it. A proxy that is ahead refuses the present generation, so the same members go out with
    /// one above its own.
    pub fn send_route(&mut self) {
        if !self.pass.state.has_routes() {
            return self.keep_route();
        }
        let refused = self.ahead && self.pass.state.route.generation > Generation::default();
        if refused || self.must_begin() || self.members != self.pass.state.route.members {
            let generation = self.next_generation();
            self.pass.state.route = Route { generation, members: self.members.clone() };
            self.pass.state.retries.remove(&EffectKind::Route);
            if self.ahead {
                self.mistrust_what_was_acknowledged(generation);
            }
            return self.pass.send(Effect::Route(self.pass.state.route.clone()));
        }
        let generation = self.pass.state.route.generation;
        let under_way = |effect: &Effect| matches!(effect, Effect::Route(route) if route.generation == generation);
        let needed = generation > Generation::default() && !self.acknowledged && !self.pass.state.pending.values().any(under_way);
        if needed && self.pass.may_try(EffectKind::Route) {
            self.pass.try_again_later(EffectKind::Route);
            self.pass.send(Effect::Route(self.pass.state.route.clone()));
        }
    }

    /// Nodes of an unknown past stand in the way, and can only be cleared away once there is a route that does not name them.
    fn must_begin(&self) -> bool {
        let begun = self.pass.state.route.generation > Generation::default();
        !begun && matches!(self.rollout(), Some(Rollout { stage: Stage::Vacate, .. })) && !self.seen.nodes.is_empty()
    }

    /// A proxy holds a route that nobody here decided: it may name nodes that run out, until it has acknowledged this one.
    fn mistrust_what_was_acknowledged(&mut self, generation: Generation) {
        for drain in self.pass.state.draining.values_mut() {
            drain.unnamed_since = generation;
        }
    }

    /// The route of a service whose nodes answer no requests is the core's own account of which of them are at work.
    fn keep_route(&mut self) {
        if self.must_begin() || self.members != self.pass.state.route.members {
            self.pass.state.route = Route { generation: self.pass.state.route.generation.next(), members: self.members.clone() };
        }
    }

    /// Nodes that are wanted no more and that no proxy names any more: their requests run out.
    pub fn drain(&mut self) {
        self.begin_drains();
        self.tell_drains();
        self.end_drains();
    }

    fn begin_drains(&mut self) {
        let generation = self.pass.state.route.generation;
        let begun = generation > Generation::default() || !self.pass.state.has_routes();
        if !begun || !self.is_acknowledged(generation) {
            return;
        }
        let began: Vec<NodeId> =
            unwanted(&self.pass.state, self.seen).filter(|(node, seen)| self.must_drain(*node, seen)).map(|(node, _)| node).collect();
        let deadline = |group| self.pass.now.after(self.pass.state.drain_deadline(group));
        let drain =
            |node: &NodeId| Draining { unnamed_since: generation, deadline: deadline(node.group), ends: None, cut: None, over: false };
        let mut drains: BTreeMap<NodeId, Draining> = began.iter().map(|node| (*node, drain(node))).collect();
        self.pass.state.draining.append(&mut drains);
        let Some((rollout, group)) = self.leaving_group() else { return };
        let nodes: BTreeSet<NodeId> = began.into_iter().filter(|node| node.group == group).collect();
        if !nodes.is_empty() {
            let deadline = self.pass.now.after(self.pass.state.drain_deadline(group));
            self.pass.notify(Notice::DrainBegan { rollout, nodes, deadline });
        }
    }

    /// A node that had or may have had traffic, runs, and is not draining yet.
    fn must_drain(&self, node: NodeId, seen: &NodeSeen) -> bool {
        let state = &self.pass.state;
        // A worker is at work as soon as it runs.
        let exposed = !state.has_routes() || state.groups.get(&node.group).is_none_or(|group| group.exposed);
        let ended = matches!(seen.condition, Condition::Exited { .. });
        exposed && !ended && !state.is_wanted(node) && !state.draining.contains_key(&node)
    }

    /// The group that leaves with the present rollout.
    fn leaving_group(&self) -> Option<(crate::notice::RolloutNumber, GroupId)> {
        match self.rollout()? {
            Rollout { number, from: Some(from), stage: Stage::Retire | Stage::Roll { .. } | Stage::Vacate, .. } => Some((*number, *from)),
            Rollout { number, to, stage: Stage::Undo { .. } | Stage::Unroll { .. }, .. } => Some((*number, *to)),
            _ => None,
        }
    }

    fn tell_drains(&mut self) {
        let under_way: BTreeSet<NodeId> = self.pass.state.pending.values().filter_map(drained_by).flatten().copied().collect();
        let untold =
            self.pass.state.draining.iter().filter(|(node, drain)| drain.ends.is_none() && !drain.over && !under_way.contains(node));
        let mut by_deadline: BTreeMap<Instant, Vec<NodeId>> = BTreeMap::new();
        for (node, drain) in untold {
            by_deadline.entry(drain.deadline).or_default().push(*node);
        }
        if self.pass.may_try(EffectKind::Drain) {
            for (deadline, nodes) in by_deadline {
                let nodes = nodes.into_iter().collect();
                self.pass.send(Effect::Drain { nodes, deadline: deadline.since(self.pass.now) });
            }
        }
    }

    fn end_drains(&mut self) {
        let leaving = self.leaving_group();
        let open = |round: &Self| {
            leaving.is_some_and(|(_, group)| round.pass.state.draining.iter().any(|(node, drain)| node.group == group && !drain.over))
        };
        let was_open = open(self);
        let (now, worker) = (self.pass.now, !self.pass.state.has_routes());
        for (node, drain) in self.pass.state.draining.iter_mut().filter(|(_, drain)| !drain.over) {
            let in_flight = self.seen.nodes.get(node).map_or(0, |seen| seen.requests_in_flight);
            if drain.ends.is_some() && now >= drain.deadline {
                drain.cut.get_or_insert(in_flight);
            }
            let counted = worker || (!self.ahead && self.seen.is_acknowledged(drain.unnamed_since));
            drain.over = has_run_out(drain, if counted { in_flight } else { u32::MAX }, now);
        }
        if let Some((rollout, group)) = leaving.filter(|_| was_open && !open(self)) {
            let cut = self.pass.state.draining.iter().filter(|(node, _)| node.group == group).filter_map(|(_, drain)| drain.cut).sum();
            self.pass.notify(Notice::Drained { rollout, cut });
        }
    }

    /// Nodes that have to go and that nothing can reach any more (I2).
    pub fn destroy(&mut self) {
        let under_way: BTreeSet<NodeId> = self.pass.state.pending.values().filter_map(destroyed_by).flatten().copied().collect();
        let nodes: BTreeSet<NodeId> = unwanted(&self.pass.state, self.seen)
            .filter(|(node, seen)| !under_way.contains(node) && self.may_be_destroyed(*node, seen))
            .map(|(node, _)| node)
            .chain(self.never_to_be_made().into_iter().filter(|node| !under_way.contains(node) && self.is_named_nowhere(*node)))
            .collect();
        if nodes.is_empty() || !self.pass.may_try(EffectKind::DestroyNodes) {
            return;
        }
        self.pass.send(Effect::DestroyNodes { nodes });
    }

    fn may_be_destroyed(&self, node: NodeId, seen: &NodeSeen) -> bool {
        let state = &self.pass.state;
        if state.is_wanted(node) || state.destroyed.contains_key(&node) {
            return false;
        }
        match state.draining.get(&node) {
            // Looked at again: a proxy that came back with an old route may have sent something meanwhile.
            Some(drain) => self.is_acknowledged(drain.unnamed_since) && has_run_out(drain, seen.requests_in_flight, self.pass.now),
            None => !self.must_drain(node, seen) && self.is_named_nowhere(node),
        }
    }

    /// No proxy can know this node, which the present route does not name.
    fn is_named_nowhere(&self, node: NodeId) -> bool {
        match self.pass.state.route.generation {
            // Nothing of ours was ever named; a node of somebody else may be.
            Generation(0) => !self.ahead && self.pass.state.groups.contains_key(&node.group),
            generation => self.is_acknowledged(generation),
        }
    }

    /// Two groups of this rollout must never run beside each other.
    pub fn runs_alone(&self) -> bool {
        self.rollout().is_some_and(|rollout| rollout.vacated || self.pass.state.is_single(rollout.to.release))
    }

    /// Nodes of this group are on their way.
    pub fn is_being_made(&self, group: GroupId) -> bool {
        self.pass.state.pending.values().any(|effect| matches!(effect, Effect::EnsureGroup { group: made, .. } if *made == group))
    }

    /// Nodes of a group may come to run whose making nobody reported and that were not destroyed since.
    pub fn may_still_come(&self, group: GroupId) -> bool {
        self.unsettled(group).next().is_some()
    }

    /// A task of the group is on its way, or has begun and nobody reported its end.
    pub fn runs_a_task(&self, group: GroupId) -> bool {
        let running = |effect: &Effect| matches!(effect, Effect::RunTask { group: run, .. } if *run == group);
        let begun = self.pass.state.groups.get(&group).is_some_and(|known| known.runs_task);
        begun || self.pass.state.pending.values().any(running)
    }

    /// Nodes of a group that has to go which were asked for and may still be made, as when an engine died and left the order behind. Of a group that runs a task the first one is
    /// among them, also when all of them were made and are gone: its destruction ends the task.
    fn unsettled(&self, group: GroupId) -> impl Iterator<Item = NodeId> + use<> {
        let left = self.pass.state.groups.get(&group).filter(|known| known.nodes.is_empty());
        let least = u32::from(self.runs_a_task(group));
        let ordinals = left.map_or(0..0, |known| if known.runs_task { 0 } else { known.made }..known.size.max(least));
        ordinals.map(move |ordinal| group.node(ordinal))
    }

    /// Nodes that nobody sees and that are destroyed all the same, so that they are never made: of groups that must not meet the next one, or whose task nobody wants any more.
    fn never_to_be_made(&self) -> Vec<NodeId> {
        let stays = |group: &GroupId| self.rollout().is_some_and(|rollout| rollout.to == *group && !rollout.is_given_up());
        let comes = |group: &GroupId| self.is_being_made(*group) || self.seen.nodes_of(*group).next().is_some();
        let matters = |group: &GroupId| self.runs_alone() || self.runs_a_task(*group);
        let left = self.pass.state.groups.keys().filter(|group| !stays(group) && matters(group) && !comes(group));
        left.flat_map(|group| self.unsettled(*group)).collect()
    }

    /// A retry whose time has come and that found nothing to do is forgotten.
    pub fn forget_retries(&mut self) {
        let now = self.pass.now;
        let pending: BTreeSet<EffectKind> = self.pass.state.pending.values().map(Effect::kind).collect();
        self.pass.state.retries.retain(|kind, retry| {
            retry.at = retry.at.filter(|at| *at > now);
            retry.at.is_some() || pending.contains(kind)
        });
    }
}

impl Pass {
    /// What runs out is told again, and has its whole time again: the clock may have been set while nobody counted on by it. The proxies keep the deadline that they were told
    /// first.
    pub fn drain_anew(&mut self) {
        let now = self.now;
        let running: Vec<NodeId> = self.state.draining.iter().filter(|(_, drain)| !drain.over).map(|(node, _)| *node).collect();
        for node in running {
            let deadline = now.after(self.state.drain_deadline(node.group));
            if let Some(drain) = self.state.draining.get_mut(&node) {
                (drain.ends, drain.deadline) = (None, deadline);
            }
        }
    }
}

/// The proxies know that the node leaves, and nothing runs on it any more or what does had its time and was cut.
fn has_run_out(drain: &Draining, in_flight: u32, now: Instant) -> bool {
    drain.ends.is_some_and(|ends| in_flight == 0 || now >= ends)
}

fn drained_by(effect: &Effect) -> Option<&BTreeSet<NodeId>> {
    if let Effect::Drain { nodes, .. } = effect { Some(nodes) } else { None }
}

fn destroyed_by(effect: &Effect) -> Option<&BTreeSet<NodeId>> {
    if let Effect::DestroyNodes { nodes } = effect { Some(nodes) } else { None }
}
