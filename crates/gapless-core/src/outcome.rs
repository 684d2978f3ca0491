//! How effects ended.

use crate::effect::{Effect, EffectId, EffectKind};
use crate::event::Failure;
use crate::limit::{CUT_GRACE, DESTROY_AGAIN, ENSURE_TRIES};
use crate::node::{GroupId, NodeId};
use crate::notice::{Notice, Rejection};
use crate::pass::Pass;
use crate::rollout::Step;
use crate::service::{Rollout, ServiceState, Stage};
use crate::time::Instant;
use alloc::collections::BTreeSet;

pub(crate) fn effect_ended(state: &ServiceState, id: EffectId, result: &Result<(), Failure>, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    if let Some(effect) = pass.state.pending.remove(&id) {
        match result {
            Ok(()) => pass.done(effect),
            Err(failure) => pass.failed(&effect, failure),
        }
    }
    pass.step()
}

impl Pass {
    fn done(&mut self, effect: Effect) {
        let kind = effect.kind();
        match effect {
            Effect::EnsureGroup { group, size } => {
                if let Some(known) = self.state.groups.get_mut(&group) {
                    known.made = known.made.max(size);
                }
            }
            Effect::Drain { nodes, .. } => {
                for node in nodes {
                    let told_last = self.now.after(self.state.drain_deadline(node.group));
                    if let Some(drain) = self.state.draining.get_mut(&node) {
                        drain.ends.get_or_insert(told_last.max(drain.deadline).after(CUT_GRACE));
                    }
                }
            }
            Effect::DestroyNodes { nodes } => {
                let again = self.now.after(DESTROY_AGAIN);
                self.settle(&nodes);
                self.state.destroyed.extend(nodes.into_iter().map(|node| (node, again)));
            }
            // What counts is what the proxies acknowledge in the next observation.
            Effect::Route(_) => return,
            Effect::RunTask { group, task, .. } => self.task_done(group, task),
            Effect::Analyse { .. } | Effect::Notify(_) => {}
        }
        self.state.retries.remove(&kind);
    }

    /// Nodes that were destroyed are never made, also if an order to make them comes late; and the tasks of their group have ended.
    fn settle(&mut self, nodes: &BTreeSet<NodeId>) {
        for (group, known) in self.state.groups.iter_mut().filter(|(_, known)| known.nodes.is_empty()) {
            let ordinals: BTreeSet<u32> = nodes.iter().filter(|node| node.group == *group).map(|node| node.ordinal).collect();
            let Some(last) = ordinals.last().copied() else { continue };
            if (known.made..known.size).any(|ordinal| !ordinals.contains(&ordinal)) {
                continue;
            }
            known.size = known.size.max(last + 1);
            known.made = known.size;
            known.runs_task = false;
        }
    }

    fn failed(&mut self, effect: &Effect, failure: &Failure) {
        if matches!(effect, Effect::Route(route) if route.generation < self.state.route.generation) {
            return; // A later route has taken its place.
        }
        self.try_again_later(effect.kind());
        self.notify(Notice::EffectFailed { effect: effect.name().into(), reason: failure.reason.clone() });
        match effect {
            Effect::EnsureGroup { group, .. }
                if self.is_on_trial(*group) && (failure.is_final || self.tries(EffectKind::EnsureGroup) >= ENSURE_TRIES) =>
            {
                self.reject(Rejection::EffectFailed { effect: effect.name().into(), reason: failure.reason.clone() });
            }
            Effect::RunTask { group, task, .. } => self.task_failed(*group, *task, failure),
            Effect::Analyse { .. } => self.set_look(self.state.retries.get(&EffectKind::Analyse).and_then(|retry| retry.at)),
            _ => {}
        }
    }

    fn is_on_trial(&self, group: GroupId) -> bool {
        let Some(Rollout { to, stage, .. }) = &self.state.rollout else { return false };
        let exposed = self.state.groups.get(&group).is_some_and(|known| known.exposed);
        *to == group && (matches!(stage, Stage::Roll { .. }) || (!exposed && matches!(stage, Stage::Prepare { .. })))
    }

    fn tries(&self, kind: EffectKind) -> u32 {
        self.state.retries.get(&kind).map_or(0, |retry| retry.tries)
    }

    /// Gives the new group up. The old one is not touched, or takes its place back.
    pub fn reject(&mut self, reason: Rejection) {
        let Some(Rollout { number, to, stage, .. }) = &self.state.rollout else { return };
        let (number, to) = (*number, *to);
        if matches!(stage, Stage::Roll { .. } | Stage::Canary(_)) {
            self.set_stage(Stage::Unroll { reason: reason.clone() });
        } else {
            self.give_up(to);
            self.set_stage(Stage::Undo { reason: reason.clone() });
        }
        if let Some(rollout) = &mut self.state.rollout {
            rollout.paused = None;
        }
        self.state.pinned &= self.state.live_release() != self.state.declared;
        self.notify(Notice::Rejecting { rollout: number, reason });
    }
}
