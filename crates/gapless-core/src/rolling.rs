//! Rolling: new nodes take old ones' place, some after others, inside the room that the surge and the floor leave. And the way back from half way, a canary's too: its nodes have
//! traffic, and some of the old ones may not be fit for it just then.

use crate::node::{GroupId, NodeId};
use crate::notice::{Notice, Rejection};
use crate::observation::NodeSeen;
use crate::policy::Strategy;
use crate::rollout::Round;
use crate::route::Weight;
use crate::service::{Rollout, Stage};
use crate::time::Instant;
use alloc::vec::Vec;

impl Round<'_> {
    /// The first batch passed the gate, or old nodes have to leave before there can be one.
    pub fn begin_roll(&mut self) {
        let Some(Rollout { number, from, to, .. }) = self.rollout().cloned() else { return };
        let way_back = from.is_some_and(|from| self.can_take_the_traffic(from));
        self.drop_joining();
        let deadline = self.batch_deadline();
        self.pass.set_stage(Stage::Roll { deadline });
        let generation = self.next_generation();
        self.pass.notify(Notice::ShiftBegan { rollout: number, generation, way_back });
        self.expose(to);
        self.roll(deadline);
    }

    /// One look at a rolling rollout: what is ready joins, what it replaces leaves, and there is room for more.
    pub fn roll(&mut self, deadline: Instant) {
        let Some(Rollout { number, from: Some(from), to, paused, .. }) = self.rollout().cloned() else { return };
        if let Some(reason) = self.first_fault(to) {
            return self.reject(reason);
        }
        if paused.is_some() {
            return;
        }
        self.probe_what_runs(to);
        let joined = self.join_what_passed(to);
        let left = self.let_go(from, to);
        let grown = self.grow(from, to);
        if joined > 0 {
            let (new, old) = (self.with_traffic(to), self.with_traffic(from));
            self.pass.notify(Notice::BatchJoined { rollout: number, new, old });
        }
        if self.with_traffic(to) >= self.size(to) && self.pass.state.wanted_nodes(from).next().is_none() {
            return self.pass.set_stage(Stage::Shift);
        }
        if joined + left + grown > 0 {
            let deadline = self.batch_deadline();
            self.pass.set_stage(Stage::Roll { deadline });
        } else if self.pass.now >= deadline {
            let declaration = self.pass.state.declaration(to.release).cloned();
            let waiting_for = declaration.map_or_else(Default::default, |declaration| self.waiting_for(to, &declaration));
            self.reject(Rejection::ProgressDeadline { waiting_for });
        }
    }

    /// One look at the way back from half way: the broken nodes leave at once, the others as old nodes take their place again.
    pub fn unroll(&mut self) {
        let Some(Rollout { from: Some(from), to, .. }) = self.rollout().cloned() else { return };
        let useless: Vec<NodeId> = self.pass.state.wanted_nodes(to).filter(|node| !self.is_at_work(*node)).collect();
        useless.into_iter().for_each(|node| self.drop_node(node));
        self.let_go(to, from);
        if self.pass.state.is_whole_again() && self.new_is_gone() && self.acknowledged_unchanged() {
            self.pass.end_rollout();
        }
    }

    /// How many more nodes there may be while one group takes the other's place.
    pub fn room_to_go_back(&self) -> Option<u32> {
        let Some(Rollout { from: Some(from), to, stage: Stage::Unroll { .. }, .. }) = self.rollout() else { return None };
        Some(self.room(*from, *to))
    }

    /// How many old nodes have to be made again while a rolling rollout is held: those that it would not have let go, as far as there is room.
    pub fn missing_while_held(&self, from: GroupId) -> Option<u32> {
        let Some(Rollout { to, stage: Stage::Roll { .. }, .. }) = self.rollout() else { return None };
        let wanted = if self.surge() == 0 { self.floor() } else { self.size(*to) };
        let there = u32::try_from(self.pass.state.wanted_nodes(from).count()).unwrap_or(u32::MAX);
        let missing = wanted.saturating_sub(there.saturating_add(self.with_traffic(*to)));
        Some(missing.min(self.room(from, *to)))
    }

    fn batch_deadline(&self) -> Instant {
        let Some(Rollout { from, to, .. }) = self.rollout() else { return self.pass.now };
        let progress = self.policy_of(*to, |policy| policy.progress_deadline).unwrap_or_default();
        // A batch may have to wait for the room that old nodes leave, and those for their last requests.
        let drain = from.map_or_else(Default::default, |from| self.pass.state.drain_deadline(from));
        self.pass.now.after(progress.saturating_add(drain))
    }

    fn probe_what_runs(&mut self, group: GroupId) {
        let new: Vec<NodeId> = self.runnable(group).filter(|node| !self.members.contains_key(node)).collect();
        self.members.extend(new.into_iter().map(|node| (node, Weight::PROBED)));
    }

    fn join_what_passed(&mut self, group: GroupId) -> u32 {
        if !self.acknowledged {
            return 0;
        }
        let probed = |node: &NodeId| self.members.get(node) == Some(&Weight::PROBED) && self.pass.state.route.members.contains_key(node);
        let able: Vec<NodeId> = self.able(group).filter(probed).collect();
        let count = u32::try_from(able.len()).unwrap_or(u32::MAX);
        self.members.extend(able.into_iter().map(|node| (node, Weight::EQUAL)));
        count
    }

    /// Nodes of `falling` leave the routes whose place nodes of `rising` have taken; without surge also those that have to make room, down to the floor.
    fn let_go(&mut self, falling: GroupId, rising: GroupId) -> u32 {
        // The group that went may never have had so many.
        let floor = self.floor().min(self.size(rising));
        let risen = self.with_traffic(rising);
        let kept = if self.surge() == 0 { floor } else { self.size(rising) }.saturating_sub(risen);
        let mut leaving = u32::try_from(self.pass.state.wanted_nodes(falling).count()).unwrap_or(u32::MAX).saturating_sub(kept);
        let mut ready = self.ready();
        let mut gone = 0;
        // Those that serve nobody go first: they hold nothing up.
        let mut nodes: Vec<(bool, NodeId)> = self.pass.state.wanted_nodes(falling).map(|node| (self.is_ready(node), node)).collect();
        nodes.sort_unstable();
        for (is_ready, node) in nodes {
            if leaving == 0 || (is_ready && ready <= floor) {
                break;
            }
            ready -= u32::from(is_ready);
            leaving -= 1;
            gone += 1;
            self.drop_node(node);
        }
        gone
    }

    fn grow(&mut self, from: GroupId, to: GroupId) -> u32 {
        let room = self.room(from, to);
        let whole = self.size(to);
        let Some(group) = self.pass.state.groups.get_mut(&to) else { return 0 };
        let more = room.min(whole.saturating_sub(u32::try_from(group.nodes.len()).unwrap_or(u32::MAX)));
        let ordinals = group.size..group.size.saturating_add(more);
        group.size = ordinals.end;
        group.nodes.extend(ordinals);
        more
    }

    /// How many nodes there may be beside those that exist or are asked for: the node count and the surge, both groups together.
    fn room(&self, from: GroupId, to: GroupId) -> u32 {
        let exists = |group: GroupId| {
            let unseen = self.pass.state.wanted_nodes(group).filter(|node| !self.seen.nodes.contains_key(node)).count();
            self.seen.nodes_of(group).count() + unseen
        };
        let most = self.size(to).max(self.size(from)).saturating_add(self.surge());
        most.saturating_sub(u32::try_from(exists(from) + exists(to)).unwrap_or(u32::MAX))
    }

    fn surge(&self) -> u32 {
        let strategy = self.rollout().and_then(|rollout| self.policy_of(rollout.to, |policy| policy.strategy.clone()));
        match strategy {
            Some(Strategy::Rolling { surge }) => surge,
            // A canary is a whole group beside a whole group.
            Some(Strategy::Canary { .. }) => self.rollout().map_or(0, |rollout| self.size(rollout.to)),
            _ => 0,
        }
    }

    fn size(&self, group: GroupId) -> u32 {
        self.pass.state.size_of(group.release)
    }

    /// The floor of the rollout's own policy, in both directions. Where somebody wanted more nodes than are declared, no more of them may be missing than of those.
    fn floor(&self) -> u32 {
        let Some(to) = self.rollout().map(|rollout| rollout.to) else { return 0 };
        let Some(declaration) = self.pass.state.declaration(to.release) else { return 0 };
        let spare = declaration.nodes.saturating_sub(declaration.policy.floor);
        self.size(to).saturating_sub(spare).max(declaration.policy.floor)
    }

    fn with_traffic(&self, group: GroupId) -> u32 {
        let count = self.members.iter().filter(|(node, weight)| node.group == group && weight.has_traffic()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn is_ready(&self, node: NodeId) -> bool {
        self.has_traffic(node) && self.seen.nodes.get(&node).is_some_and(NodeSeen::is_healthy)
    }

    fn ready(&self) -> u32 {
        let count = self.members.keys().filter(|node| self.is_ready(**node)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}
