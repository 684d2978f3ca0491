//! How rollouts begin: to a new group, or back to one that is still there; now, or when what is in the way is over.

use crate::effect::{Effect, EffectKind, Task};
use crate::node::{GroupId, InstanceId};
use crate::notice::{Notice, Rejection, RolloutKind, RolloutNumber};
use crate::pass::Pass;
use crate::policy::{Strategy, Supersede};
use crate::release::ReleaseNumber;
use crate::request::{busy, frozen_until};
use crate::rollout::Round;
use crate::service::{Group, Healing, Queued, Rollout, Stage, TaskState, Together, TogetherOutcome};
use crate::time::Instant;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl Pass {
    /// A rollout to a new group of this release.
    pub fn begin(&mut self, kind: RolloutKind, release: ReleaseNumber, together: Option<Together>) {
        let Some(declaration) = self.state.declaration(release) else { return };
        let tasks = declaration.tasks.iter().filter(|task| kind == RolloutKind::Deploy || **task != Task::ReleaseCommand);
        let tasks: BTreeMap<Task, TaskState> = tasks.map(|task| (*task, TaskState::Waiting)).collect();
        let alone = self.state.is_single(release) || self.state.live_release().is_some_and(|live| self.state.is_single(live));
        self.state.next.instances.0 += 1;
        let to = GroupId { release, instance: InstanceId(self.state.next.instances.0) };
        self.state.groups.insert(to, Group::default());
        self.start(kind, self.state.live, to, Stage::Command);
        if let Some(rollout) = &mut self.state.rollout {
            (rollout.tasks, rollout.together) = (tasks, together);
        }
        if alone { self.vacate() } else { self.command_or_prepare() }
    }

    /// The old nodes leave; what follows begins when nothing of them is left.
    fn vacate(&mut self) {
        let Some(Rollout { number, from, to, .. }) = self.state.rollout else { return };
        self.set_stage(Stage::Vacate);
        // Also what an earlier rollout left at work: it would be waited for without end.
        let others: Vec<GroupId> = self.state.groups.keys().copied().filter(|group| *group != to).collect();
        others.into_iter().for_each(|group| self.give_up(group));
        if from.is_none() {
            return;
        }
        if let Some(rollout) = &mut self.state.rollout {
            rollout.vacated = true;
        }
        self.state.live = None;
        self.notify(Notice::OutageBegan { rollout: number });
    }

    /// What comes first for the new group: its release's command, or its nodes.
    pub fn command_or_prepare(&mut self) {
        let waits = |rollout: &Rollout| rollout.tasks.get(&Task::ReleaseCommand).is_some_and(|state| *state != TaskState::Done);
        if self.state.rollout.as_ref().is_some_and(waits) {
            self.set_stage(Stage::Command);
            self.run_task(Task::ReleaseCommand);
        } else {
            self.prepare();
        }
    }

    /// The new nodes are made: all of them, or the first batch.
    pub fn prepare(&mut self) {
        let Some(Rollout { to, .. }) = self.state.rollout else { return };
        let Some(policy) = self.state.declaration(to.release).map(|declaration| declaration.policy.clone()) else { return };
        let whole = self.state.size_of(to.release);
        let size = match policy.strategy {
            Strategy::Rolling { surge } if self.state.live.is_some() => surge.min(whole),
            _ => whole,
        };
        if let Some(group) = self.state.groups.get_mut(&to) {
            *group = Group { size, made: 0, nodes: (0..size).collect(), exposed: false, runs_task: false };
        }
        self.set_stage(Stage::Prepare { deadline: self.now.after(policy.progress_deadline), booted: false });
        self.state.retries.remove(&EffectKind::EnsureGroup);
        // Nodes that run alone are made when the next look shows that nothing else is there.
        let alone = self.state.groups.keys().any(|group| self.state.is_single(group.release));
        if size > 0 && !alone {
            self.send(Effect::EnsureGroup { group: to, size });
        }
    }

    /// A rollout back to the group that is still warm. Its nodes are members already: the next look at the world gates and shifts.
    pub fn return_to(&mut self, kind: RolloutKind, group: GroupId) {
        self.close_rollout(false);
        self.start_back(kind, group, true);
    }

    /// Gives the present rollout up in its shift or right after it, and begins one back to the group that had the traffic. Its nodes may be members no more, so they are probed
    /// first; the new group keeps what traffic it has until then.
    pub fn take_back(&mut self, group: GroupId, reason: Rejection) {
        let Some(Rollout { number, to, ref together, .. }) = self.state.rollout else { return };
        let moved_together = together.is_some();
        self.state.live = Some(to);
        self.set_stage(Stage::Undo { reason: reason.clone() });
        self.notify(Notice::Rejecting { rollout: number, reason });
        self.close_rollout(false);
        // The others follow when the traffic is back, and not before: it may come to nothing.
        if let Some(end) = self.state.together.0.get_mut(&to.release).filter(|_| moved_together) {
            end.outcome = TogetherOutcome::Live;
        }
        self.start_back(RolloutKind::Rollback, group, false);
    }

    fn start_back(&mut self, kind: RolloutKind, group: GroupId, booted: bool) {
        let trial = self.state.declaration(group.release).map_or_else(Default::default, |declaration| declaration.policy.progress_deadline);
        let deadline = self.now.after(trial);
        self.start(kind, self.state.live, group, Stage::Prepare { deadline, booted });
    }

    fn start(&mut self, kind: RolloutKind, from: Option<GroupId>, to: GroupId, stage: Stage) {
        self.state.next.rollouts += 1;
        let number = RolloutNumber(self.state.next.rollouts);
        self.state.healing = Healing::default();
        self.state.retries.remove(&EffectKind::RunTask);
        self.state.retries.remove(&EffectKind::Analyse);
        self.state.rollout = Some(Rollout::new(number, kind, from, to, stage));
        let from = from.map(|group| group.release);
        self.notify(Notice::RolloutStarted { rollout: number, kind, from, to: to.release });
    }

    /// This release is next; one that waited before it is not tried any more.
    pub fn queue(&mut self, queued: Queued, frozen_until: Option<Instant>) {
        self.dequeue_for(queued.together.as_ref());
        self.notify(Notice::Queued { release: queued.release, frozen_until });
        self.state.queued = Some(queued);
    }

    /// Nothing is next.
    pub fn dequeue(&mut self) {
        self.dequeue_for(None);
    }

    /// What is next makes way for a release that moves together with these. Those that waited for it are told, unless that is their part in the same.
    pub fn dequeue_for(&mut self, together: Option<&Together>) {
        let Some(queued) = self.state.queued.take() else { return };
        self.notify(Notice::Dequeued { release: queued.release });
        if let Some(left) = queued.together.filter(|left| together.is_none_or(|together| together.id != left.id)) {
            self.leave_before_its_turn(queued.release, left);
        }
    }

    /// The rollout in progress ends for the release that waits, if that wants it and the traffic has not shifted. What moves together with others does not end for what some of them are
    /// not part of: they would be given up, too, and nothing would take their place.
    pub fn replace_if_wanted(&mut self, release: ReleaseNumber, together: Option<&Together>) {
        let replaces = self.state.declaration(release).is_some_and(|declaration| declaration.policy.supersede == Supersede::Replace);
        if replaces && self.state.rollout.as_ref().is_some_and(|rollout| rollout.can_be_rejected() && rollout.takes_all_along(together)) {
            self.reject(Rejection::Superseded);
        }
    }
}

impl Round<'_> {
    /// What could not begin when it was asked for begins when nothing is in its way any more.
    pub fn begin_what_waits(&mut self) {
        if busy(&self.pass.state).is_some() {
            return;
        }
        let Some(queued) = self.pass.state.queued.clone() else { return };
        let declaration = self.pass.state.declaration(queued.release);
        let frozen = declaration.filter(|_| !queued.urgent).and_then(|declaration| frozen_until(declaration, self.pass.now));
        if frozen.is_some() {
            if let Some(waiting) = &mut self.pass.state.queued {
                waiting.not_before = frozen;
            }
            return;
        }
        self.pass.make_room();
        self.pass.state.queued = None;
        self.pass.begin(RolloutKind::Deploy, queued.release, queued.together);
        self.take_out_what_has_to_go();
    }
}

impl Rollout {
    /// The traffic has not shifted: it may simply be given up.
    pub(crate) fn can_be_rejected(&self) -> bool {
        matches!(
            self.stage,
            Stage::Vacate | Stage::Command | Stage::Prepare { .. } | Stage::Await { .. } | Stage::Canary(_) | Stage::Roll { .. }
        )
    }

    /// Whether what comes next takes all of those along that this one moves together with.
    pub(crate) fn takes_all_along(&self, next: Option<&Together>) -> bool {
        let Some(moving) = &self.together else { return true };
        next.is_some_and(|next| moving.with.is_subset(&next.with))
    }

    /// It was given up, and what it made leaves.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.stage, Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. })
    }

    /// The new release has run in a way that the old one may feel: its command was begun, or its nodes had traffic.
    pub(crate) fn has_touched_the_old(&self) -> bool {
        let before =
            matches!(self.stage, Stage::Vacate | Stage::Prepare { .. } | Stage::Await { .. } | Stage::Undo { .. } | Stage::Restore { .. });
        !before || self.tasks.get(&Task::ReleaseCommand).is_some_and(|state| *state != TaskState::Waiting)
    }
}
