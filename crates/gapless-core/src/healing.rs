//! Nodes that die by themselves: out of the routes at once, and replaced.

use crate::effect::Effect;
use crate::gate;
use crate::limit::{CRASH_LOOP_TRIES, HUNG_FACTOR, REPLACE_CALM, REPLACE_FIRST, REPLACE_LONGEST, doubled};
use crate::node::{GroupId, NodeId};
use crate::notice::{Notice, Rejection};
use crate::observation::{Condition, NodeSeen};
use crate::policy::Strategy;
use crate::release::Declaration;
use crate::rollout::Round;
use crate::route::Weight;
use crate::service::Healing;
use crate::sorted::{Sorted, sighted};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

impl Round<'_> {
    /// No route names a node that shall not exist.
    pub fn take_out_what_has_to_go(&mut self) {
        let mut wanted = Sorted::new(self.pass.state.all_wanted());
        self.members.retain(|node, _| wanted.has(*node));
    }

    /// Nodes that ended by themselves leave the routes. The new nodes of a rollout on trial are the gate's business.
    pub fn take_out_the_dead(&mut self) {
        let groups: Vec<GroupId> = self.pass.state.groups.keys().copied().filter(|group| !self.is_on_trial(*group)).collect();
        for group in groups {
            let dead: Vec<(NodeId, Rejection)> =
                sighted(&self.pass.state, self.seen, group).filter_map(|(node, sight)| Some((node, self.death_of(node, sight)?))).collect();
            for (node, why) in dead {
                self.lose(node, why);
            }
        }
    }

    /// A node of the group that serves that runs and fails every check for long is lost, as if it had died: one at a time, and only while the others keep the floor up.
    pub fn take_out_the_hung(&mut self) {
        let Some(group) = self.pass.state.serving() else { return };
        if self.pass.state.is_rolling() {
            return;
        }
        let Some(declaration) = self.pass.state.declaration(group.release) else { return };
        let long = declaration.policy.gate_failures.saturating_mul(HUNG_FACTOR);
        if self.seen.nodes_of(group).all(|(_, seen)| seen.health.failures < long) {
            return;
        }
        let nodes = self.pass.state.size_of(group.release) as usize;
        let complete = self.pass.state.joining.is_empty() && self.pass.state.wanted_nodes(group).count() >= nodes;
        let with_traffic: Vec<(NodeId, &NodeSeen)> = self
            .pass
            .state
            .wanted_nodes(group)
            .filter(|node| self.has_traffic(*node))
            .filter_map(|node| Some((node, self.seen.nodes.get(&node)?)))
            .collect();
        let healthy = with_traffic.iter().filter(|(_, seen)| seen.is_healthy()).count();
        // A floor of all nodes asks for the rest: a node that answers no check holds nothing up.
        let needed = (declaration.policy.floor as usize).min(nodes.saturating_sub(1)).max(1);
        let hung = with_traffic.iter().find(|(_, seen)| seen.condition == Condition::Running && seen.health.failures >= long);
        if let Some((node, seen)) = hung.filter(|_| complete && healthy >= needed) {
            let (node, why) = (*node, Rejection::GateFailed { node: *node, evidence: gate::evidence(seen) });
            self.lose(node, why);
        }
    }

    fn death_of(&self, node: NodeId, sight: Option<&NodeSeen>) -> Option<Rejection> {
        match sight {
            Some(seen) => match &seen.condition {
                Condition::Exited { code, output } => Some(Rejection::NodeExited { node, code: *code, output: output.clone() }),
                Condition::Starting | Condition::Running => None,
            },
            // A member was seen before; another node may still be on its way.
            None => self.members.contains_key(&node).then(|| gate::vanished(node)),
        }
    }

    fn lose(&mut self, node: NodeId, why: Rejection) {
        self.drop_node(node);
        if self.seen.nodes.contains_key(&node) {
            self.pass.state.lost.insert(node);
        }
        if self.pass.state.serving() == Some(node.group) {
            self.pass.notify(Notice::NodeLost { node, why: in_words(&why) });
            self.death = Some(why);
        }
    }

    pub fn drop_node(&mut self, node: NodeId) {
        self.members.remove(&node);
        self.pass.state.joining.remove(&node);
        if let Some(group) = self.pass.state.groups.get_mut(&node.group) {
            group.nodes.remove(&node.ordinal);
        }
    }

    /// Replacements that have not joined yet are not waited for when the traffic leaves their group.
    pub fn drop_joining(&mut self) {
        for node in self.pass.state.joining.keys().copied().collect::<Vec<_>>() {
            self.drop_node(node);
        }
    }

    /// Keeps the group that serves at its declared size.
    pub fn heal(&mut self) {
        let Some(group) = self.pass.state.serving() else { return };
        let Some(declaration) = self.pass.state.declaration(group.release).cloned() else { return };
        for node in self.pass.state.joining.keys().copied().collect::<Vec<_>>() {
            self.try_to_join(node, &declaration);
        }
        if !self.pass.state.is_rolling() {
            self.let_the_surplus_go(group);
        }
        if !self.pass.state.is_rolling() || self.is_paused() {
            self.ask_for_missing(group, &declaration);
        }
    }

    /// Somebody wanted fewer nodes: what does not serve leaves first, then those that joined last, as far as the floor lets them.
    fn let_the_surplus_go(&mut self, group: GroupId) {
        let whole = self.pass.state.size_of(group.release) as usize;
        let surplus = self.pass.state.groups.get(&group).map_or(0, |known| known.nodes.len()).saturating_sub(whole);
        if surplus == 0 {
            return;
        }
        let floor = self.policy_of(group, |policy| policy.floor as usize).unwrap_or_default();
        let wanted: Vec<NodeId> = self.pass.state.wanted_nodes(group).collect();
        let mut ready = wanted.iter().filter(|node| self.is_at_work(**node)).count();
        let mut leaving: Vec<(bool, bool, Reverse<NodeId>)> =
            wanted.into_iter().map(|node| (self.is_at_work(node), self.has_traffic(node), Reverse(node))).collect();
        leaving.sort_unstable();
        for (serves, _, Reverse(node)) in leaving.into_iter().take(surplus) {
            if serves && ready <= floor {
                return;
            }
            ready -= usize::from(serves);
            self.drop_node(node);
        }
    }

    /// A replacement is probed first and gets traffic after the gate, as every new node does.
    fn try_to_join(&mut self, node: NodeId, declaration: &Declaration) {
        let deadline = self.pass.state.joining.get(&node).copied();
        let seen = self.seen.nodes.get(&node);
        let probed = self.members.contains_key(&node);
        if seen.is_some_and(|seen| gate::hopeless(node, seen, declaration).is_some()) {
            return self.drop_node(node);
        }
        if probed && self.acknowledged && seen.is_some_and(|seen| gate::passes(seen, declaration)) {
            self.members.insert(node, Weight::EQUAL);
            self.pass.state.joining.remove(&node);
            self.expose(node.group);
            return self.pass.notify(Notice::NodeReplaced { node });
        }
        if deadline.is_some_and(|deadline| self.pass.now >= deadline) {
            let only_unheard_of = probed && !self.acknowledged && seen.is_some_and(NodeSeen::may_serve);
            return if only_unheard_of { self.wait_for(node, declaration) } else { self.give_up_or_wait(node, declaration) };
        }
        if !probed && seen.is_some_and(|seen| seen.condition == Condition::Running) {
            self.members.insert(node, Weight::PROBED);
        }
    }

    /// A node that could not even be made is waited for: each further ordinal would be made as well once making works again.
    fn give_up_or_wait(&mut self, node: NodeId, declaration: &Declaration) {
        if self.pass.state.groups.get(&node.group).is_some_and(|group| node.ordinal < group.made) {
            return self.drop_node(node);
        }
        self.wait_for(node, declaration);
    }

    /// Another node would fare no better: one that cannot be made, or of which a proxy that does not answer has not heard.
    fn wait_for(&mut self, node: NodeId, declaration: &Declaration) {
        let deadline = self.pass.now.after(declaration.policy.progress_deadline);
        self.pass.state.joining.insert(node, deadline);
    }

    fn ask_for_missing(&mut self, group: GroupId, declaration: &Declaration) {
        let now = self.pass.now;
        let deadline = now.after(declaration.policy.progress_deadline);
        let missing = self.missing(group);
        let missing = self.room_for_replacements(declaration, missing);
        if missing == 0 || self.pass.state.healing.stopped || now < self.pass.state.healing.not_before {
            return;
        }
        let calm = now >= self.pass.state.healing.not_before.after(REPLACE_CALM);
        let tries = if calm { 0 } else { self.pass.state.healing.tries };
        if tries >= CRASH_LOOP_TRIES {
            self.pass.state.healing.stopped = true;
            return self.pass.notify(Notice::CrashLoop { group, tries });
        }
        let Some(known) = self.pass.state.groups.get_mut(&group) else { return };
        let ordinals = known.size..known.size.saturating_add(missing);
        known.size = ordinals.end;
        known.nodes.extend(ordinals.clone());
        self.pass.state.joining.extend(ordinals.map(|ordinal| (group.node(ordinal), deadline)));
        let not_before = now.after(doubled(REPLACE_FIRST, tries, REPLACE_LONGEST));
        self.pass.state.healing = Healing { tries: tries.saturating_add(1), not_before, stopped: false, blocked: false };
    }

    /// How many nodes of the group that serves are not there.
    fn missing(&self, group: GroupId) -> u32 {
        if let Some(missing) = self.missing_while_held(group) {
            return missing;
        }
        let there = u32::try_from(self.pass.state.wanted_nodes(group).count()).unwrap_or(u32::MAX);
        self.pass.state.size_of(group.release).saturating_sub(there)
    }

    /// How many of the missing nodes there may be now: on the way back from half way there is only so much room, and a node that runs alone waits for the last one to be gone.
    fn room_for_replacements(&mut self, declaration: &Declaration, missing: u32) -> u32 {
        let alone = declaration.policy.strategy == Strategy::Recreate;
        let waits = alone && self.seen.nodes.keys().any(|node| !self.pass.state.is_wanted(*node));
        let most = if waits { 0 } else { self.room_to_go_back().unwrap_or(missing) };
        self.pass.state.healing.blocked = missing > 0 && most == 0;
        missing.min(most)
    }

    /// Every group has been grown to its size.
    pub fn make_groups(&mut self) {
        let kind = crate::effect::EffectKind::EnsureGroup;
        let short = self.pass.state.groups.iter().filter(|(_, known)| !known.nodes.is_empty() && known.made < known.size);
        let wanted: Vec<(GroupId, u32)> = short.map(|(group, known)| (*group, known.size)).collect();
        for (group, size) in wanted.into_iter().filter(|(group, _)| self.may_be_made(*group)).collect::<Vec<_>>() {
            let under_way =
                |effect: &Effect| matches!(effect, Effect::EnsureGroup { group: made, size: to } if *made == group && *to >= size);
            if !self.pass.state.pending.values().any(under_way) && self.pass.may_try(kind) {
                self.pass.send(Effect::EnsureGroup { group, size });
            }
        }
    }
}

impl Round<'_> {
    /// Nothing is there beside which nodes of this group must not be made (I7).
    fn may_be_made(&self, group: GroupId) -> bool {
        let state = &self.pass.state;
        let alone = state.is_single(group.release);
        if state.releases.keys().all(|release| !state.is_single(*release)) {
            return true;
        }
        self.seen.nodes.keys().all(|node| {
            let beside = node.group != group && (alone || state.is_single(node.group.release));
            !beside && (!alone || state.is_wanted(*node))
        })
    }
}

fn in_words(death: &Rejection) -> String {
    match death {
        Rejection::NodeExited { code: Some(code), output, .. } => format!("its command ended with code {code}: {output}"),
        Rejection::NodeExited { code: None, output, .. } => output.clone(),
        Rejection::GateFailed { evidence, .. } => {
            format!("it runs and fails every check: {}: {} ({} times in a row)", evidence.check, evidence.result, evidence.times)
        }
        other => format!("{other:?}"),
    }
}
