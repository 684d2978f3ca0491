//! The one transition function.

use crate::effect::{Effect, EffectId};
use crate::event::Event;
use crate::node::{GroupId, NodeId};
use crate::notice::{Notice, Rejection, RolloutKind};
use crate::observation::Observation;
use crate::pass::Pass;
use crate::route::{Generation, Weight};
use crate::service::{Rollout, ServiceState, Stage};
use crate::time::Instant;
use crate::{gate::Trial, outcome, request};
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
        Event::Declared { declaration, .. } => request::declare(state, declaration, now),
        Event::RollbackRequested { to, .. } => request::roll_back(state, *to, now),
        Event::Paused
        | Event::Resumed
        | Event::Cancelled
        | Event::Promoted
        | Event::RetryRequested
        | Event::Scaled { .. }
        | Event::Revoked { .. }
        | Event::PartnersReady
        | Event::PartnersFailed { .. }
        | Event::Analysed { .. } => Pass::new(state, now).step(),
        Event::EffectEnded { effect, result } => outcome::effect_ended(state, *effect, result, now),
        Event::Observed(seen) => Round::new(state, seen, now).follow(),
        Event::Restarted => restarted(state, now),
    }
}

/// What was under way may have been done or not: it is all derived again from the next look at the world, and every receiver bears to be told twice.
fn restarted(state: &ServiceState, now: Instant) -> Step {
    let mut pass = Pass::new(state, now);
    pass.state.pending.clear();
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
        let acknowledged = !ahead && seen.is_acknowledged(state.route.generation);
        let (decided, members) = (state.route.generation, state.route.members.clone());
        Self { pass: Pass::new(state, now), seen, ahead, acknowledged, decided, members, death: None }
    }

    /// The policy: every look at the world runs through this from top to bottom.
    fn follow(mut self) -> Step {
        self.forget_nodes();
        self.take_out_what_has_to_go();
        self.take_out_the_dead();
        self.take_out_the_hung();
        match self.stage() {
            Some(Stage::Prepare { deadline, booted }) => match self.trial(deadline) {
                Trial::Failed(reason) => self.reject(reason),
                Trial::Running if !booted => self.probe_the_new(),
                Trial::Passed => self.shift(),
                Trial::Late => self.wait_on(),
                Trial::Starting | Trial::Running => {}
            },
            Some(Stage::Shift | Stage::Bake { .. }) if self.must_give_back() => self.give_back(),
            Some(Stage::Shift) if self.acknowledged_unchanged() => self.shifted(),
            Some(Stage::Bake { until }) if self.pass.now >= until => self.end_bake(),
            Some(Stage::Retire) if self.acknowledged_unchanged() && self.old_is_gone() => self.pass.end_rollout(),
            Some(Stage::Undo { .. }) if self.new_is_gone() => self.pass.end_rollout(),
            _ => {}
        }
        self.heal();
        self.send_route();
        self.make_groups();
        self.drain();
        self.destroy();
        self.forget_retries();
        self.forget_groups();
        self.pass.step()
    }

    pub fn rollout(&self) -> Option<&Rollout> {
        self.pass.state.rollout.as_ref()
    }

    fn stage(&self) -> Option<Stage> {
        self.rollout().map(|rollout| rollout.stage.clone())
    }

    /// Every proxy has acknowledged the route as it is now wanted.
    fn acknowledged_unchanged(&self) -> bool {
        self.acknowledged && self.members == self.pass.state.route.members
    }

    /// The generation of a route that is decided in this round: above everything that a proxy may hold.
    pub fn next_generation(&self) -> Generation {
        let held = self.seen.proxies.values().flatten().max().copied().unwrap_or_default();
        self.pass.state.route.generation.max(held).next()
    }

    /// Every proxy has acknowledged this generation or a later one of ours.
    pub fn is_acknowledged(&self, generation: Generation) -> bool {
        !self.ahead && self.seen.is_acknowledged(generation)
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
    fn shift(&mut self) {
        let Some(Rollout { number, from, to, .. }) = self.rollout().cloned() else { return };
        let way_back = from.is_some_and(|from| self.can_take_the_traffic(from));
        self.pass.notify(Notice::GatePassed { rollout: number, group: to });
        self.drop_joining();
        let warm = !self.bake_window().is_zero();
        for node in from.into_iter().flat_map(|from| self.pass.state.wanted_nodes(from)).collect::<Vec<_>>() {
            match self.members.get_mut(&node) {
                Some(weight) if warm => *weight = Weight::PROBED,
                _ => drop(self.members.remove(&node)),
            }
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
            Some(Rollout { kind: RolloutKind::Deploy, from: Some(_), to, .. }) => {
                self.policy_of(*to, |policy| policy.bake).unwrap_or_default()
            }
            _ => Duration::ZERO,
        }
    }

    /// The shift is evident: every proxy has acknowledged it.
    fn shifted(&mut self) {
        let Some(Rollout { number, to, .. }) = self.rollout().cloned() else { return };
        self.pass.state.live = Some(to);
        self.pass.notify(Notice::Shifted { rollout: number, generation: self.pass.state.route.generation });
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
        if self.new_is_gone() {
            self.pass.end_rollout();
        }
    }

    fn old_is_gone(&self) -> bool {
        self.rollout().and_then(|rollout| rollout.from).is_none_or(|from| self.is_gone(from))
    }

    fn new_is_gone(&self) -> bool {
        self.rollout().is_some_and(|rollout| self.is_gone(rollout.to))
    }

    /// Nothing of the group exists and nothing is on its way to make some of it.
    pub fn is_gone(&self, group: GroupId) -> bool {
        let coming = |effect: &Effect| matches!(effect, Effect::EnsureGroup { group: made, .. } if *made == group);
        self.seen.nodes_of(group).next().is_none() && !self.pass.state.pending.values().any(coming)
    }

    fn expose(&mut self, group: GroupId) {
        if let Some(known) = self.pass.state.groups.get_mut(&group) {
            known.exposed = true;
        }
    }
}
