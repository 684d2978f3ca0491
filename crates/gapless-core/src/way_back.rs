//! The way back: a group that had the traffic before takes it again, by a person's wish or because the new one cannot serve.

use crate::gate::{self, Trial};
use crate::limit::BAKE_AGAIN;
use crate::node::{GroupId, NodeId};
use crate::notice::Rejection;
use crate::observation::{Condition, NodeSeen};
use crate::release::Declaration;
use crate::rollout::Round;
use crate::route::Weight;
use crate::service::{Rollout, Stage};
use crate::sorted::Sorted;
use crate::time::Instant;
use alloc::string::ToString;
use alloc::vec::Vec;

impl Round<'_> {
    /// Whether some node of this group has traffic and is fit for it: it runs, and has not failed as many checks in a row as would fail the gate.
    pub fn serves(&self, group: GroupId) -> bool {
        let limit = self.policy_of(group, |policy| policy.gate_failures).unwrap_or(1);
        let fit = |seen: &NodeSeen| seen.condition == Condition::Running && seen.health.failures < limit;
        let mut wanted = self.pass.state.wanted_nodes(group);
        wanted.any(|node| self.has_traffic(node) && self.seen.nodes.get(&node).is_some_and(fit))
    }

    /// No node of the new group can serve, and the old one has some that can, and may.
    pub fn must_give_back(&self) -> bool {
        let Some(Rollout { from: Some(from), to, .. }) = self.rollout() else { return false };
        let allowed = !self.policy_of(*to, |policy| policy.breaks_the_way_back).unwrap_or_default();
        allowed && !self.serves(*to) && self.runnable(*from).next().is_some()
    }

    /// The old group gets the traffic back: what runs at once, the rest of it when it has passed the gate again.
    pub fn give_back(&mut self) {
        let Some(Rollout { from: Some(from), to, .. }) = self.rollout().cloned() else { return };
        let reason = self.why_it_cannot_serve(to);
        let able: Vec<NodeId> = self.runnable(from).collect();
        self.pass.state.live = Some(from);
        self.reject(reason);
        self.give_traffic(from, &able);
    }

    /// These nodes of a group get traffic; its other ones join it as replacements do.
    pub fn give_traffic(&mut self, group: GroupId, able: &[NodeId]) {
        let mut fit = Sorted::new(able.iter().copied());
        let members = self.members.range_mut(group.node(0)..=group.node(u32::MAX)).filter(|(node, _)| fit.has(**node));
        let known = members.map(|(_, weight)| *weight = Weight::EQUAL).count();
        if known < able.len() {
            self.members.extend(able.iter().map(|node| (*node, Weight::EQUAL)));
        }
        let trial = self.policy_of(group, |policy| policy.progress_deadline).unwrap_or_default();
        let deadline = self.pass.now.after(trial);
        let mut with_traffic = Sorted::new(self.members.iter().filter(|(_, weight)| weight.has_traffic()).map(|(node, _)| *node));
        let rest: Vec<NodeId> = self.pass.state.wanted_nodes(group).filter(|node| !with_traffic.has(*node)).collect();
        self.pass.state.joining.extend(rest.into_iter().map(|node| (node, deadline)));
    }

    fn why_it_cannot_serve(&mut self, group: GroupId) -> Rejection {
        if let Some(death) = self.death.take() {
            return death;
        }
        let reasons = self.seen.nodes_of(group).filter_map(|(node, seen)| match &seen.condition {
            Condition::Exited { code, output } => Some(Rejection::NodeExited { node, code: *code, output: output.clone() }),
            Condition::Running if seen.health.failures > 0 => Some(Rejection::GateFailed { node, evidence: gate::evidence(seen) }),
            Condition::Starting | Condition::Running => None,
        });
        let none =
            || Rejection::NodeExited { node: group.node(0), code: None, output: "no node of the group has traffic any more".to_string() };
        reasons.min_by_key(gate::says_less).unwrap_or_else(none)
    }

    /// The bake window is over. The old group goes only if the new one serves; when neither does, it stays: it may be well again first.
    pub fn end_bake(&mut self) {
        if self.rollout().is_some_and(|rollout| self.serves(rollout.to)) {
            return self.retire();
        }
        let until = self.pass.now.after(BAKE_AGAIN);
        self.pass.set_stage(Stage::Bake { until });
    }

    /// Whether this group had traffic before: it is not on trial, it is what a rollout goes back to.
    pub fn is_way_back(&self, group: GroupId) -> bool {
        self.pass.state.groups.get(&group).is_some_and(|known| known.exposed)
    }

    /// How the nodes of the group that takes the traffic again stand. A proxy that cannot be asked does not hold the way back up: it holds an earlier route, whose members
    /// all stay until it has acknowledged another one (I2).
    pub fn trial_of_the_way_back(&self, to: GroupId, declaration: &Declaration, deadline: Instant) -> Trial {
        let from_serves = self.rollout().and_then(|rollout| rollout.from).is_some_and(|from| self.serves(from));
        let wanted: Vec<(NodeId, Option<&NodeSeen>)> =
            self.pass.state.wanted_nodes(to).map(|node| (node, self.seen.nodes.get(&node))).collect();
        let able = wanted.iter().filter(|(_, seen)| seen.is_some_and(|seen| gate::passes(seen, declaration))).count();
        let reasons: Vec<Rejection> = wanted.iter().filter_map(|(node, seen)| gate::hopeless(*node, (*seen)?, declaration)).collect();
        let hopeless = reasons.len();
        let needed = declaration.policy.floor.max(1) as usize;
        if wanted.is_empty() || (from_serves && wanted.len() - hopeless < needed) {
            return Trial::Failed(reasons.into_iter().min_by_key(gate::says_less).unwrap_or_else(|| gate::vanished(to.node(0))));
        }
        let late = self.is_due(deadline);
        if !(self.are_probed(to) && self.is_acknowledged_where_reachable()) {
            return if late { Trial::Late } else { Trial::Running };
        }
        let enough = able >= needed || (able > 0 && !from_serves);
        if enough && (late || able + hopeless == wanted.len()) {
            return Trial::Passed;
        }
        if late { Trial::Failed(Rejection::ProgressDeadline { waiting_for: self.waiting_for(to, declaration) }) } else { Trial::Running }
    }

    /// A proxy cannot be told: the way back, or the eviction, goes on being tried, and its nodes stay.
    pub fn wait_on(&mut self) {
        let Some(Rollout { to, .. }) = self.rollout().cloned() else { return };
        let again = self.pass.now.after(self.policy_of(to, |policy| policy.progress_deadline).unwrap_or_default());
        if let Some(Rollout { stage: Stage::Prepare { deadline, .. }, .. }) = &mut self.pass.state.rollout {
            *deadline = again;
        }
    }

    /// Every proxy that could be asked, at least one, has acknowledged the route that was decided before this round.
    fn is_acknowledged_where_reachable(&self) -> bool {
        let mut known = self.seen.proxies.values().flatten().peekable();
        !self.pass.state.has_routes() || (!self.ahead && known.peek().is_some() && known.all(|known| *known >= self.decided))
    }
}
