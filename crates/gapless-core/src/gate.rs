//! The health gate: what new nodes must show before they get traffic.

use crate::limit::NODES_NAMED;
use crate::node::{GroupId, NodeId};
use crate::notice::{Rejection, RolloutKind};
use crate::observation::{Condition, Evidence, NodeSeen};
use crate::release::Declaration;
use crate::rollout::Round;
use crate::service::{Rollout, Stage};
use crate::sorted::sighted;
use crate::time::Instant;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

/// How the new nodes of a rollout stand.
pub(crate) enum Trial {
    /// Some do not run yet.
    Starting,
    /// All run; some have not passed the gate.
    Running,
    /// All have passed the gate, at proxies that know the present route.
    Passed,
    /// The way back, or an eviction, waits for a proxy that can be told, and its time is over.
    Late,
    /// One is given up, and with it the rollout.
    Failed(Rejection),
}

/// Whether this node may get traffic: the right image (I3), running, and enough passed checks in a row.
pub(crate) fn passes(seen: &NodeSeen, declaration: &Declaration) -> bool {
    seen.image == declaration.image && seen.is_healthy() && seen.health.passes >= declaration.policy.gate_passes
}

/// Why this node can never pass, if that is certain.
pub(crate) fn hopeless(node: NodeId, seen: &NodeSeen, declaration: &Declaration) -> Option<Rejection> {
    if let Condition::Exited { code, output } = &seen.condition {
        return Some(Rejection::NodeExited { node, code: *code, output: output.clone() });
    }
    if seen.image != declaration.image {
        return Some(Rejection::WrongImage { node });
    }
    let failures = seen.health.failures_after_answer;
    (failures >= declaration.policy.gate_failures).then(|| Rejection::GateFailed { node, evidence: evidence(seen) })
}

pub(crate) fn evidence(seen: &NodeSeen) -> Evidence {
    let unknown = || Evidence { check: "health check".into(), result: "failed".into(), times: seen.health.failures };
    seen.health.evidence.clone().unwrap_or_else(unknown)
}

/// Of several reasons the one that says most is told, whichever node it is: a command that ended said why, a failed check says only that it failed.
pub(crate) fn says_less(reason: &Rejection) -> u8 {
    match reason {
        Rejection::NodeExited { code: Some(_), .. } => 0,
        Rejection::NodeExited { code: None, .. } => 1,
        Rejection::WrongImage { .. } => 2,
        _ => 3,
    }
}

/// A node that a route named and that is no more.
pub(crate) fn vanished(node: NodeId) -> Rejection {
    Rejection::NodeExited { node, code: None, output: "the node is not there any more".to_string() }
}

impl Round<'_> {
    /// How the new nodes of the rollout stand.
    pub fn trial(&self, deadline: Instant) -> Trial {
        let Some(to) = self.rollout().map(|rollout| rollout.to) else { return Trial::Starting };
        let Some(declaration) = self.pass.state.declaration(to.release) else { return Trial::Starting };
        if self.is_way_back(to) {
            return self.trial_of_the_way_back(to, declaration, deadline);
        }
        if let Some(reason) = self.first_hopeless(to, declaration) {
            return Trial::Failed(reason);
        }
        let count =
            |test: &dyn Fn(&NodeSeen) -> bool| sighted(&self.pass.state, self.seen, to).filter(|(_, seen)| seen.is_some_and(test)).count();
        let nodes = self.pass.state.wanted_nodes(to).count();
        if self.are_probed(to) && self.acknowledged && count(&|seen| passes(seen, declaration)) >= nodes {
            return Trial::Passed;
        }
        if self.is_due(deadline) && self.rollout().is_some_and(|rollout| rollout.kind == RolloutKind::Eviction) && !self.acknowledged {
            // Another release would fare no better, and what is revoked would stay.
            return Trial::Late;
        }
        if self.is_due(deadline) {
            return Trial::Failed(Rejection::ProgressDeadline { waiting_for: self.waiting_for(to, declaration) });
        }
        let running = count(&|seen| seen.condition == Condition::Running);
        if running >= nodes { Trial::Running } else { Trial::Starting }
    }

    pub fn are_probed(&self, group: GroupId) -> bool {
        // Members are wanted, or were taken out.
        let members = self.members.range(group.node(0)..=group.node(u32::MAX)).count();
        self.pass.state.groups.get(&group).is_none_or(|known| known.nodes.len() <= members)
    }

    /// The first thing that is certainly wrong with a group that has its first traffic, if there is one.
    pub fn first_fault(&self, group: GroupId) -> Option<Rejection> {
        self.first_hopeless(group, self.pass.state.declaration(group.release)?)
    }

    fn first_hopeless(&self, group: GroupId, declaration: &Declaration) -> Option<Rejection> {
        let reasons = sighted(&self.pass.state, self.seen, group).filter_map(|(node, seen)| match seen {
            Some(seen) => hopeless(node, seen, declaration),
            None if self.members.contains_key(&node) => Some(vanished(node)),
            None => None,
        });
        reasons.min_by_key(says_less)
    }

    /// The nodes that have not passed, with what was seen of them last.
    pub fn waiting_for(&self, group: GroupId, declaration: &Declaration) -> String {
        let late: Vec<NodeId> = self
            .pass
            .state
            .wanted_nodes(group)
            .filter(|node| !self.seen.nodes.get(node).is_some_and(|seen| passes(seen, declaration)))
            .collect();
        if late.is_empty() {
            return "the proxies' acknowledgement of the route".into();
        }
        let mut text =
            late.iter().take(NODES_NAMED).map(|node| format!("{node}: {}", self.condition_of(*node))).collect::<Vec<_>>().join("; ");
        if late.len() > NODES_NAMED {
            let _ = write!(text, "; and {} more", late.len() - NODES_NAMED);
        }
        text
    }

    fn condition_of(&self, node: NodeId) -> String {
        let Some(seen) = self.seen.nodes.get(&node) else { return "not made yet".into() };
        match (&seen.condition, &seen.health.evidence) {
            (Condition::Starting, _) => "starting".into(),
            (_, Some(evidence)) if seen.health.failures > 0 => {
                format!("{}: {} ({} times)", evidence.check, evidence.result, evidence.times)
            }
            _ if seen.health.passes > 0 => format!("{} of {} checks passed", seen.health.passes, self.gate_passes(node.group)),
            _ => "running, not checked yet".into(),
        }
    }

    fn gate_passes(&self, group: GroupId) -> u32 {
        self.policy_of(group, |policy| policy.gate_passes).unwrap_or_default()
    }

    /// Whether this group, as it is seen, could take all the traffic: the way back, rehearsed.
    pub fn can_take_the_traffic(&self, group: GroupId) -> bool {
        let healthy = sighted(&self.pass.state, self.seen, group).filter(|(_, seen)| seen.is_some_and(NodeSeen::is_healthy)).count();
        let floor = self.policy_of(group, |policy| policy.floor).unwrap_or_default().max(1);
        healthy >= floor as usize
    }

    pub fn has_traffic(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|weight| weight.has_traffic())
    }

    /// The node has traffic, and nothing says that it does not serve it.
    pub fn is_at_work(&self, node: NodeId) -> bool {
        self.has_traffic(node) && self.seen.nodes.get(&node).is_some_and(NodeSeen::may_serve)
    }

    /// Nodes of the group that may get traffic.
    pub fn able(&self, group: GroupId) -> impl Iterator<Item = NodeId> + '_ {
        let declaration = self.pass.state.declaration(group.release);
        let able = move |seen: &NodeSeen| declaration.is_some_and(|declaration| passes(seen, declaration));
        sighted(&self.pass.state, self.seen, group).filter(move |(_, seen)| seen.is_some_and(able)).map(|(node, _)| node)
    }

    /// Nodes of the group that run and fail no check.
    pub fn runnable(&self, group: GroupId) -> impl Iterator<Item = NodeId> + '_ {
        let runs = |seen: &NodeSeen| seen.condition == Condition::Running && seen.health.failures == 0;
        sighted(&self.pass.state, self.seen, group).filter(move |(_, seen)| seen.is_some_and(runs)).map(|(node, _)| node)
    }

    /// Whether this group is on trial as the rollout's new one. One that had all the traffic before is not.
    pub fn is_on_trial(&self, group: GroupId) -> bool {
        self.rollout().is_some_and(|Rollout { to, stage, .. }| {
            let tried = match stage {
                Stage::Prepare { .. } | Stage::Await { .. } => !self.is_way_back(group),
                Stage::Canary(_) | Stage::Roll { .. } => true,
                _ => false,
            };
            *to == group && tried
        })
    }
}
