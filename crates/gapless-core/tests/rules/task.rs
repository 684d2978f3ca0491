//! Tasks, each of which ends for the rollout that began it.

use crate::states::{NOW, group, live, release};
use gapless_core::effect::{Effect, EffectId, Task};
use gapless_core::event::Event;
use gapless_core::notice::{RolloutKind, RolloutNumber};
use gapless_core::rollout::step;
use gapless_core::service::{Group, Rollout, Stage, TaskState};
use std::time::Duration;

#[test]
fn a_task_is_done_for_its_own_group_alone() {
    let mut state = live(1);
    state.declared = Some(release(3));
    for number in [2, 3] {
        state.groups.insert(group(number), Group { size: 0, made: 0, nodes: [].into(), exposed: false, runs_task: true });
    }
    let mut rollout = Rollout::new(RolloutNumber(3), RolloutKind::Deploy, state.live, group(3), Stage::Command);
    rollout.tasks.insert(Task::ReleaseCommand, TaskState::Begun);
    state.rollout = Some(rollout);
    for (effect, number) in [(7, 2), (8, 3)] {
        let task = Effect::RunTask { group: group(number), task: Task::ReleaseCommand, deadline: Duration::from_secs(9) };
        state.pending.insert(EffectId(effect), task);
    }
    let done = |effect: u64| {
        let after = step(&state, &Event::EffectEnded { effect: EffectId(effect), result: Ok(()) }, NOW).state;
        after.rollout.and_then(|rollout| rollout.tasks.get(&Task::ReleaseCommand).copied())
    };
    assert_eq!(done(7), Some(TaskState::Begun), "that was an earlier rollout's");
    assert_eq!(done(8), Some(TaskState::Done));
}
