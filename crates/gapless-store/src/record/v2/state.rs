//! A service's state in version 2, as it is kept so that a start need not replay the whole journal.

use super::form::{Form, form_of_enum, form_of_struct};
use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId, EffectKind, Task};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::{Rejection, RolloutKind, RolloutNumber};
use gapless_core::release::{ArtifactVersion, Declaration, ReleaseNumber};
use gapless_core::route::{Generation, Route};
use gapless_core::service::{
    Canary, Draining, Group, Healing, NextNumbers, Queued, Retry, Rollout, Scaled, ServiceState, Stage, TaskState, Ties, Together,
    TogetherEnd, TogetherOutcome,
};
use gapless_core::time::Instant;
use gapless_engine::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A state with the time of the record after which it was so.
pub(in crate::record) struct KeptState {
    pub(in crate::record) at: Instant,
    pub(in crate::record) state: ServiceState,
}

form_of_struct!(KeptState { at: Instant, state: ServiceState });

form_of_struct!(ServiceState {
    releases: BTreeMap<ReleaseNumber, Declaration>,
    declared: Option<ReleaseNumber>,
    live: Option<GroupId>,
    previous: Option<ReleaseNumber>,
    pinned: bool,
    served: BTreeSet<ReleaseNumber>,
    rollout: Option<Rollout>,
    queued: Option<Queued>,
    together: Ties,
    scaled: Option<Scaled>,
    tried: Option<ReleaseNumber>,
    revoked: BTreeSet<ArtifactVersion>,
    evicted_in_vain: BTreeSet<ReleaseNumber>,
    groups: BTreeMap<GroupId, Group>,
    route: Route,
    draining: BTreeMap<NodeId, Draining>,
    lost: BTreeSet<NodeId>,
    joining: BTreeMap<NodeId, Instant>,
    healing: Healing,
    destroyed: BTreeMap<NodeId, Instant>,
    pending: BTreeMap<EffectId, Effect>,
    retries: BTreeMap<EffectKind, Retry>,
    next: NextNumbers,
});

form_of_struct!(Scaled { declared: u32, nodes: u32 });

form_of_struct!(Group { size: u32, made: u32, nodes: BTreeSet<u32>, exposed: bool } later { runs_task: bool });

form_of_struct!(Draining { unnamed_since: Generation, deadline: Instant, ends: Option<Instant>, cut: Option<u32>, over: bool });

form_of_struct!(Healing { tries: u32, not_before: Instant, stopped: bool, blocked: bool });

form_of_struct!(Retry { tries: u32, at: Option<Instant> });

form_of_struct!(NextNumbers { releases: u32, rollouts: u32, instances: InstanceId, effects: EffectId });

form_of_struct!(Rollout {
    number: RolloutNumber,
    kind: RolloutKind,
    from: Option<GroupId>,
    to: GroupId,
    stage: Stage,
    tasks: BTreeMap<Task, TaskState>,
    gate_passed: bool,
    together: Option<Together>,
    partners_ready: bool,
    paused: Option<Instant>,
    vacated: bool,
} later {
    by_hand: bool,
});

form_of_enum!(TaskState { Waiting, Begun, Done });

form_of_struct!(Queued { release: ReleaseNumber, urgent: bool, not_before: Option<Instant>, together: Option<Together> });

form_of_struct!(Together { id: Digest, with: BTreeSet<ServiceName> });

/// An earlier program wrote no more than whether the release went live. It bound nothing, and neither does what is read of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::record) struct TogetherEndText {
    id: <Digest as Form>::Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    #[serde(default)]
    release: <ReleaseNumber as Form>::Text,
    #[serde(default)]
    from: <Option<ReleaseNumber> as Form>::Text,
    #[serde(default)]
    outcome: <Option<TogetherOutcome> as Form>::Text,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    with: <BTreeSet<ServiceName> as Form>::Text,
}

impl Form for (ReleaseNumber, TogetherEnd) {
    type Text = TogetherEndText;

    fn write(&self) -> TogetherEndText {
        let (release, TogetherEnd { id, with, from, outcome }) = self;
        TogetherEndText {
            id: id.write(),
            live: None,
            release: release.write(),
            from: from.write(),
            outcome: Some(*outcome).write(),
            with: with.write(),
        }
    }

    fn read(text: TogetherEndText) -> Result<Self, Error> {
        let known = if text.live == Some(true) { TogetherOutcome::Live } else { TogetherOutcome::Failed };
        let outcome = Option::<TogetherOutcome>::read(text.outcome)?.unwrap_or(known);
        Ok((
            Form::read(text.release)?,
            TogetherEnd { id: Form::read(text.id)?, with: Form::read(text.with)?, from: Form::read(text.from)?, outcome },
        ))
    }
}

/// An earlier program remembered the last one alone.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(in crate::record) enum TiesText {
    Now(Vec<TogetherEndText>),
    Earlier(Option<TogetherEndText>),
}

impl Form for Ties {
    type Text = TiesText;

    fn write(&self) -> TiesText {
        TiesText::Now(self.0.iter().map(|(release, end)| (*release, end.clone()).write()).collect())
    }

    fn read(text: TiesText) -> Result<Self, Error> {
        let known = match text {
            TiesText::Now(known) => known,
            TiesText::Earlier(known) => known.into_iter().collect(),
        };
        known.into_iter().map(Form::read).collect::<Result<_, _>>().map(Ties)
    }
}

form_of_enum!(TogetherOutcome { Live, Failed, TakenBack });

form_of_enum!(Stage {
    Vacate,
    Command,
    Prepare { deadline: Instant, booted: bool },
    Await { deadline: Instant },
    Canary(canary: Canary),
    Roll { deadline: Instant },
    Shift,
    Confirm,
    Bake { until: Instant },
    Retire,
    Undo { reason: Rejection },
    Unroll { reason: Rejection },
    Restore { reason: Rejection, deadline: Instant },
});

form_of_struct!(Canary {
    step: u32,
    since: Option<Instant>,
    until: Option<Instant>,
    look: Option<Instant>,
    good: bool,
    holds: u32,
});

#[cfg(test)]
mod tests {
    use super::*;

    /// Written before groups remembered their tasks, and before services followed back.
    const AT_FIRST: &str = include_str!("../../../tests/journals/v2-at-first.txt");

    #[test]
    fn what_was_kept_at_first_is_still_read() {
        let (mut states, mut came) = (0, 0);
        for body in AT_FIRST.lines().filter_map(|line| line.strip_prefix("2 ")).filter(|body| body.contains("\"evicted_in_vain\"")) {
            let text: <KeptState as Form>::Text = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
            let state = KeptState::read(text).expect(body).state;
            assert!(state.groups.values().all(|group| !group.runs_task));
            assert_eq!(state.came_together(), None, "it bound nothing");
            states += 1;
            came += u32::from(state.together.0.values().any(|end| end.outcome == TogetherOutcome::Live));
        }
        assert!(states > 10 && came > 0, "{states} states, {came} of them came together");
    }
}
