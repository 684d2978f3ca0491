//! What is run once for a release, beside its nodes: its command, and hooks.

use crate::effect::{Effect, EffectKind, Task};
use crate::event::Failure;
use crate::limit::TASK_TRIES;
use crate::node::GroupId;
use crate::notice::{Notice, Rejection};
use crate::pass::Pass;
use crate::rollout::Round;
use crate::service::{Rollout, Stage, TaskState};

impl Pass {
    /// The task is on its way, unless it is already or has to wait for another try.
    pub fn run_task(&mut self, task: Task) {
        let Some(Rollout { number, to, .. }) = self.state.rollout else { return };
        let under_way = |effect: &Effect| matches!(effect, Effect::RunTask { group, task: run, .. } if *group == to && *run == task);
        if self.state.pending.values().any(under_way) || !self.may_try(EffectKind::RunTask) {
            return;
        }
        let Some(deadline) = self.state.declaration(to.release).map(|declaration| declaration.policy.task_deadline) else { return };
        if self.task_state(task) == Some(TaskState::Waiting) {
            self.set_task(task, TaskState::Begun);
            self.notify(Notice::TaskBegan { rollout: number, task });
        }
        self.note_running(to, true);
        self.send(Effect::RunTask { group: to, task, deadline });
    }

    pub fn task_done(&mut self, group: GroupId, task: Task) {
        self.note_running(group, false);
        let Some(rollout) = self.state.rollout.as_ref().filter(|rollout| !rollout.is_given_up()) else { return };
        let (number, to) = (rollout.number, rollout.to);
        if to == group && self.task_state(task) == Some(TaskState::Begun) {
            self.set_task(task, TaskState::Done);
            self.notify(Notice::TaskEnded { rollout: number, task });
        }
    }

    /// A task that does not end well ends the rollout. After the shift the old group takes the traffic back; where there is none, the release stays, and the failure is told.
    pub fn task_failed(&mut self, group: GroupId, task: Task, failure: &Failure) {
        if failure.is_final {
            self.note_running(group, false);
        }
        let Some(rollout) = self.state.rollout.clone().filter(|rollout| rollout.to == group) else { return };
        let tries = self.state.retries.get(&EffectKind::RunTask).map_or(0, |retry| retry.tries);
        if !failure.is_final && tries < TASK_TRIES {
            return;
        }
        self.state.retries.remove(&EffectKind::RunTask);
        let reason = Rejection::TaskFailed { task, reason: failure.reason.clone() };
        if rollout.can_be_rejected() {
            self.set_task(task, TaskState::Done);
            return self.reject(reason);
        }
        match self.old_group().filter(|_| rollout.stage == Stage::Confirm) {
            Some(old) => self.take_back(old, reason),
            None => self.set_task(task, TaskState::Done),
        }
    }

    fn note_running(&mut self, group: GroupId, runs: bool) {
        if let Some(known) = self.state.groups.get_mut(&group) {
            known.runs_task = runs;
        }
    }

    fn task_state(&self, task: Task) -> Option<TaskState> {
        self.state.rollout.as_ref().and_then(|rollout| rollout.tasks.get(&task)).copied()
    }

    fn set_task(&mut self, task: Task, state: TaskState) {
        if let Some(rollout) = &mut self.state.rollout {
            rollout.tasks.insert(task, state);
        }
    }
}

impl Round<'_> {
    /// Whether this task has to be run and has not ended well yet.
    pub fn waits_for(&self, task: Task) -> bool {
        self.rollout().and_then(|rollout| rollout.tasks.get(&task)).is_some_and(|state| *state != TaskState::Done)
    }

    /// The release command has ended, or goes on.
    pub fn command(&mut self) {
        self.pass.command_or_prepare();
    }

    /// What follows the shift has ended, or goes on.
    pub fn confirm(&mut self) {
        if self.waits_for(Task::AfterShift) {
            return self.pass.run_task(Task::AfterShift);
        }
        self.bake_or_retire();
    }
}
