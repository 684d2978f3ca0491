//! The one transition function.

use crate::effect::{Effect, EffectId, Task};
use crate::event::Event;
use crate::limit::PARTNERS_PATIENCE;
use crate::node::{GroupId, NodeId};
use crate::notice::{Notice, Rejection, RolloutKind};
use crate::observation::Observation;
use crate::pass::Pass;
use crate::policy::Strategy;
use crate::route::{Generation, Weight};
use crate::service::{Group, Healing, Rollout, ServiceState, Stage, TogetherOutcome};
use crate::time::Instant;
use crate::{canary, gate::Trial, operation, outcome, request, revocation, together};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// What came of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The next state.
    pub state: ServiceState,
    /// What the world should see, in order. An effect may be sent while earlier ones still run, unless it stands in the pending set.
    pub effects: Vec<(EffectId, Effect)>,
    /// Set when a person's wish was refused: why, and what to do. State and effects are then as before.
    pub refusal: Option<Refusal>,
}

/// Why a person's wish was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused and why.
    pub reason: String,
    /// What the person can do.
    pub hint: String,
}

/// The next state of a service and the effects of an event.
///
/// Total and pure. An event that matters nothing gives the same state and no effects, so it need not be written down. Except for the first
/// [`Effect::EnsureGroup`] of a rollout, effects follow from an [`Event::Observed`]: show the world again after every other event.
#[must_use]
pub fn step(state: &ServiceState, event: &Event, now: Instant) -> Step {
    match event {
        Event::Declared { declaration, urgent, together } => request::declare(state, declaration, *urgent, together.as_ref(), now),
        Event::RollbackRequested { to, forced } => request::roll_back(state, *to, *forced, now),
        Event::Paused => operation::pause(state, now),
        Event::Resumed => operation::resume(state, now),
        Event::Cancelled => operation::cancel(state, now),
        Event::Promoted => operation::promote(state, now),
        Event::RetryRequested => operation::retry(state, None, now),
        Event::RetriedTogether { together } => operation::retry(state, Some(together), now),
        Event::Scaled { nodes } => operation::scale(state, *nodes, now),
        Event::Revoked { artifacts } => revocation::revoke(state, artifacts, now),
        Event::PartnersReady => together::be_ready(state, now),
        Event::PartnersFailed { reason } => together::go_back(state, reason, TogetherOutcome::Failed, now),
        Event::PartnersTakenBack { reason } => together::go_back(state, reason, TogetherOutcome::TakenBack, now),
        Event::Analysed { effect, judgement } => canary::analysed(state, *effect, judgement, now),
        Event::EffectEnded { effect, result } => outcome::effect_ended(state, *effect, result, now),
        Event::Observed(seen) => Round::new(state, seen, now).follow(),
        Event::Restarted => restarted(state, now),
    }
}

/// What was under way may have been done or not: it is all derived again from the next look at the world, and every receiver bears to be told twice.
fn restarted(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    pass.compare_again();
    pass.state.pending.clear();
    pass.drain_anew();
    pass.step()
}

/// One look at the world, and what follows from it.
pub(crate) struct Round<'a> {
    pub pass: Pass,
    pub seen: &'a Observation,
    /// Some proxy has a generation that this state never decided, as after the loss of a journal: nobody can say which nodes it names.
    pub ahead: bool,
    /// Every proxy has acknowledged the route that was decided before this round.
    pub acknowledged: bool,
    /// The generation that was decided before this round.
    pub decided: Generation,
    /// The members of the route as this round wants them.
    pub members: BTreeMap<NodeId, Weight>,
    /// The latest death of this round in the group that serves.
    pub death: Option<Rejection>,
}

impl<'a> Round<'a> {
    fn new(state: &ServiceState, seen: &'a Observation, now: Instant) -> Self {
        let ahead = seen.proxies.values().any(|known| *known > Some(state.route.generation));
        // Nobody has to hear of the route of a service without one: what is decided is so.
        let acknowledged = !state.has_routes() || (!ahead && seen.is_acknowledged(state.route.generation));
        let (decided, members) = (state.route.generation, state.route.members.clone());
        Self { pass: Pass::new(state, now), seen, ahead, acknowledged, decided, members, death: None }
    }

    /// The policy: every look at the world runs through this from top to bottom.
    fn follow(mut self) -> Step {
        self.forget_nodes();
        self.take_out_what_has_to_go();
        self.take_out_the_dead();
        self.take_out_the_hung();
        self.let_go_of_what_helped_out();
        self.begin_what_waits();
        self.evict();
        match self.stage() {
            Some(Stage::Vacate) if self.others_are_gone() => self.pass.command_or_prepare(),
            Some(Stage::Command) => self.command(),
            Some(Stage::Prepare { deadline, booted }) => self.try_the_new(deadline, booted),
            Some(Stage::Await { deadline }) => self.await_partners(deadline),
            Some(Stage::Canary(canary)) => self.canary(&canary),
            Some(Stage::Roll { deadline }) => self.roll(deadline),
            Some(Stage::Shift | Stage::Confirm | Stage::Bake { .. }) if self.must_give_back() => self.give_back(),
            Some(Stage::Shift) if self.acknowledged_unchanged() => self.shifted(),
            Some(Stage::Confirm) => self.confirm(),
            Some(Stage::Bake { until }) if self.is_due(until) => self.end_bake(),
            Some(Stage::Retire) if self.acknowledged_unchanged() && self.old_is_gone() => self.pass.end_rollout(),
            Some(Stage::Undo { reason }) if self.new_is_gone() => self.undone(reason),
            Some(Stage::Unroll { .. }) => self.unroll(),
            Some(Stage::Restore { deadline, .. }) if self.is_restored(deadline) => self.pass.end_rollout(),
            _ => {}
        }
        self.heal();
        self.weigh();
        self.send_route();
        self.make_groups();
        self.drain();
        self.destroy();
        self.forget_retries();
        self.forget_groups();
        self.pass.step()
    }

    /// The new nodes on trial, and when they have passed, what has to be done before they get traffic, in this order.
    fn try_the_new(&mut self, deadline: Instant, booted: bool) {
        let passed = self.rollout().is_some_and(|rollout| rollout.gate_passed);
        match self.trial(if passed { Instant(u64::MAX) } else { deadline }) {
            Trial::Failed(reason) => self.reject(reason),
            Trial::Running if !booted => self.probe_the_new(),
            Trial::Passed => self.gate_passed(),
            Trial::Late => self.wait_on(),
            Trial::Starting | Trial::Running => {}
        }
    }

    fn gate_passed(&mut self) {
        let Some(Rollout { number, to, gate_passed, together, partners_ready, paused, .. }) = self.rollout().cloned() else { return };
        if !gate_passed {
            self.pass.notify(Notice::GatePassed { rollout: number, group: to });
            self.note_gate();
        }
        if paused.is_some() {
            return;
        }
        if self.waits_for(Task::BeforeShift) {
            return self.pass.run_task(Task::BeforeShift);
        }
        if together.is_some() && !partners_ready {
            return self.begin_to_await();
        }
        match self.strategy() {
            Strategy::Canary { .. } => self.begin_canary(),
            Strategy::Rolling { .. } => self.begin_roll(),
            Strategy::BlueGreen | Strategy::Recreate => self.shift(),
        }
    }

    fn note_gate(&mut self) {
        if let Some(rollout) = &mut self.pass.state.rollout {
            rollout.gate_passed = true;
        }
    }

    fn begin_to_await(&mut self) {
        let Some(Rollout { number, to, stage, vacated, .. }) = self.rollout().cloned() else { return };
        if matches!(stage, Stage::Await { .. }) {
            return;
        }
        let own = self.policy_of(to, |policy| policy.progress_deadline).unwrap_or_default();
        // Nobody serves meanwhile.
        let patience = if vacated { Duration::ZERO } else { PARTNERS_PATIENCE };
        let deadline = self.pass.now.after(own).after(patience);
        self.pass.set_stage(Stage::Await { deadline });
        self.pass.notify(Notice::PartnersAwaited { rollout: number });
    }

    /// The new nodes go on passing while the services that move together with this one are not ready.
    fn await_partners(&mut self, deadline: Instant) {
        let ready = self.rollout().is_some_and(|rollout| rollout.partners_ready);
        if !ready && self.is_due(deadline) {
            let reason = "not every service that moves together with it was ready in time".into();
            return self.reject(Rejection::PartnerFailed { reason });
        }
        self.try_the_new(Instant(u64::MAX), true);
    }

    /// Its time has come, and nobody holds the rollout.
    pub fn is_due(&self, deadline: Instant) -> bool {
        self.pass.now >= deadline && !self.is_paused()
    }

    pub fn is_paused(&self) -> bool {
        self.rollout().is_some_and(|rollout| rollout.paused.is_some())
    }

    /// The order in which the new nodes of the rollout take the old ones' place. Where there is nothing to share with, or to go back to, it is all at once.
    fn strategy(&self) -> Strategy {
        let Some(Rollout { kind, from, to, vacated, .. }) = self.rollout() else { return Strategy::BlueGreen };
        if from.is_none() || *vacated || self.is_way_back(*to) {
            return Strategy::BlueGreen;
        }
        match self.policy_of(*to, |policy| policy.strategy.clone()) {
            Some(Strategy::Canary { .. }) if *kind != RolloutKind::Deploy => Strategy::BlueGreen,
            other => other.unwrap_or(Strategy::BlueGreen),
        }
    }

    pub fn rollout(&self) -> Option<&Rollout> {
        self.pass.state.rollout.as_ref()
    }

    fn stage(&self) -> Option<Stage> {
        self.rollout().map(|rollout| rollout.stage.clone())
    }

    /// Every proxy has acknowledged the route as it is now wanted.
    pub fn acknowledged_unchanged(&self) -> bool {
        self.acknowledged && self.members == self.pass.state.route.members
    }

    /// The generation of a route that is decided in this round: above everything that a proxy may hold.
    pub fn next_generation(&self) -> Generation {
        let held = self.seen.proxies.values().flatten().max().copied().unwrap_or_default();
        self.pass.state.route.generation.max(held).next()
    }

    /// Every proxy has acknowledged this generation or a later one of ours.
    pub fn is_acknowledged(&self, generation: Generation) -> bool {
        if self.pass.state.has_routes() { !self.ahead && self.seen.is_acknowledged(generation) } else { generation <= self.decided }
    }

    pub fn policy_of<T>(&self, group: GroupId, part: impl Fn(&crate::policy::Policy) -> T) -> Option<T> {
        self.pass.state.declaration(group.release).map(|declaration| part(&declaration.policy))
    }

    /// The new nodes run: the proxies get to know them, without traffic, and begin to check them.
    fn probe_the_new(&mut self) {
        let Some(Rollout { number, to, .. }) = self.rollout().cloned() else { return };
        self.members.extend(self.pass.state.wanted_nodes(to).map(|node| (node, Weight::PROBED)));
        if let Some(Rollout { stage: Stage::Prepare { booted, .. }, .. }) = &mut self.pass.state.rollout {
            *booted = true;
        }
        self.pass.notify(Notice::NodesBooted { rollout: number, group: to });
    }

    /// All traffic to the new group; on the way back, a node of it that is not well joins later. The old one stays a member without traffic for the bake window, else it is named no more.
    pub fn shift(&mut self) {
        let Some(Rollout { number, from, to, .. }) = self.rollout().cloned() else { return };
        let way_back = from.is_some_and(|from| self.can_take_the_traffic(from));
        self.drop_joining();
        let warm = !self.bake_window().is_zero() || self.waits_for(Task::AfterShift);
        let leaves = |node: &NodeId| Some(node.group) == from;
        if warm {
            self.members.iter_mut().filter(|(node, _)| leaves(node)).for_each(|(_, weight)| *weight = Weight::PROBED);
        } else {
            self.members.retain(|node, _| !leaves(node));
        }
        let able: Vec<NodeId> = self.able(to).collect();
        self.give_traffic(to, &able);
        self.expose(to);
        self.pass.set_stage(Stage::Shift);
        self.pass.notify(Notice::ShiftBegan { rollout: number, generation: self.next_generation(), way_back });
    }

    /// How long the old group is kept after the shift. Going back keeps nothing warm: what is left is what was not wanted.
    fn bake_window(&self) -> Duration {
        match self.rollout() {
            Some(Rollout { kind: RolloutKind::Deploy, from: Some(_), to, vacated: false, .. }) => {
                self.policy_of(*to, |policy| policy.bake).unwrap_or_default()
            }
            _ => Duration::ZERO,
        }
    }

    /// The shift is evident: every proxy has acknowledged it.
    fn shifted(&mut self) {
        let Some(Rollout { number, to, .. }) = self.rollout().cloned() else { return };
        self.pass.state.live = Some(to);
        self.give_up_what_is_neither();
        self.pass.notify(Notice::Shifted { rollout: number, generation: self.pass.state.route.generation });
        if self.waits_for(Task::AfterShift) {
            self.pass.set_stage(Stage::Confirm);
            return self.pass.run_task(Task::AfterShift);
        }
        self.bake_or_retire();
    }

    /// What an earlier rollout left at work, because the group that is live could not be made whole, is needed no more when that is.
    fn let_go_of_what_helped_out(&mut self) {
        let state = &self.pass.state;
        let Some(live) = state.live.filter(|_| state.rollout.is_none() && state.joining.is_empty()) else { return };
        let at_work = state.wanted_nodes(live).filter(|node| self.is_at_work(*node)).count();
        if at_work < state.size_of(live.release) as usize {
            return;
        }
        self.give_up_all_but(&[live]);
    }

    /// Nodes that an earlier rollout left at work, because nothing else could, are needed no more.
    fn give_up_what_is_neither(&mut self) {
        let Some(Rollout { from, to, .. }) = self.rollout().cloned() else { return };
        let kept: Vec<GroupId> = from.into_iter().chain([to]).collect();
        self.give_up_all_but(&kept);
    }

    fn give_up_all_but(&mut self, kept: &[GroupId]) {
        let others = self.pass.state.groups.iter().filter(|(group, known)| !kept.contains(group) && !known.nodes.is_empty());
        let others: Vec<GroupId> = others.map(|(group, _)| *group).collect();
        if !others.is_empty() {
            others.into_iter().for_each(|group| self.pass.give_up(group));
            self.take_out_what_has_to_go();
        }
    }

    pub fn bake_or_retire(&mut self) {
        let Some(Rollout { number, .. }) = self.rollout().cloned() else { return };
        self.pass.leave_the_others();
        let bake = self.bake_window();
        if bake.is_zero() {
            return self.retire();
        }
        let until = self.pass.now.after(bake);
        self.pass.set_stage(Stage::Bake { until });
        self.pass.notify(Notice::BakeBegan { rollout: number, until });
    }

    /// The old group has to go.
    pub fn retire(&mut self) {
        self.pass.set_stage(Stage::Retire);
        if let Some(from) = self.rollout().and_then(|rollout| rollout.from) {
            self.pass.give_up(from);
        }
        self.take_out_what_has_to_go();
        if self.acknowledged_unchanged() && self.old_is_gone() {
            self.pass.end_rollout();
        }
    }

    pub fn reject(&mut self, reason: Rejection) {
        self.pass.reject(reason);
        self.take_out_what_has_to_go();
        if let Some(Stage::Undo { reason }) = self.stage()
            && self.new_is_gone()
        {
            self.undone(reason);
        }
    }

    /// Everything of the new group is gone. Where the old one had to leave first, its release is made again.
    fn undone(&mut self, reason: Rejection) {
        let Some(Rollout { number, from, vacated, .. }) = self.rollout().cloned() else { return };
        let Some(from) = from.filter(|_| vacated) else { return self.pass.end_rollout() };
        if !self.others_are_gone() {
            return;
        }
        self.pass.state.next.instances.0 += 1;
        let group = GroupId { release: from.release, instance: self.pass.state.next.instances };
        self.pass.state.groups.insert(group, Group::default());
        self.pass.state.live = Some(group);
        self.pass.state.healing = Healing::default();
        let deadline = self.pass.now.after(self.policy_of(from, |policy| policy.progress_deadline).unwrap_or_default());
        self.pass.set_stage(Stage::Restore { reason, deadline });
        self.pass.notify(Notice::Restoring { rollout: number, group });
    }

    /// The old release serves again, or has had its time.
    fn is_restored(&self, deadline: Instant) -> bool {
        let Some(live) = self.pass.state.live else { return true };
        let whole = self.pass.state.wanted_nodes(live).count() >= self.pass.state.size_of(live.release) as usize;
        (whole && self.pass.state.joining.is_empty() && self.acknowledged_unchanged()) || self.pass.now >= deadline
    }

    fn old_is_gone(&self) -> bool {
        self.rollout().and_then(|rollout| rollout.from).is_none_or(|from| self.is_gone(from))
    }

    /// Nothing of the service exists but nodes of the rollout's new group.
    fn others_are_gone(&self) -> bool {
        let Some(to) = self.rollout().map(|rollout| rollout.to) else { return true };
        self.seen.nodes.keys().all(|node| node.group == to)
            && self.pass.state.groups.keys().all(|group| *group == to || self.is_gone(*group))
    }

    pub fn new_is_gone(&self) -> bool {
        self.rollout().is_some_and(|rollout| self.is_gone(rollout.to))
    }

    /// Nothing of the group exists, no task of it runs, and nothing is on its way to make some of it.
    pub fn is_gone(&self, group: GroupId) -> bool {
        let comes = self.is_being_made(group) || self.runs_a_task(group) || (self.runs_alone() && self.may_still_come(group));
        !comes && self.seen.nodes_of(group).next().is_none()
    }

    pub fn expose(&mut self, group: GroupId) {
        if let Some(known) = self.pass.state.groups.get_mut(&group) {
            known.exposed = true;
        }
    }
}
