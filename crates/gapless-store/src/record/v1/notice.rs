//! Notices in version 1.

use super::observation::Evidence;
use super::{group, node, nodes};
use gapless_core::notice::{self as core, RolloutNumber};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::Generation;
use gapless_core::time::Instant;
use gapless_engine::error::Error;
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) enum Notice {
    RolloutStarted {
        rollout: u32,
        kind: RolloutKind,
        from: Option<u32>,
        to: u32,
    },
    NodesBooted {
        rollout: u32,
        group: String,
    },
    GatePassed {
        rollout: u32,
        group: String,
    },
    ShiftBegan {
        rollout: u32,
        generation: u64,
        way_back: bool,
    },
    Shifted {
        rollout: u32,
        generation: u64,
    },
    BakeBegan {
        rollout: u32,
        until: u64,
    },
    DrainBegan {
        rollout: u32,
        nodes: Vec<String>,
        deadline: u64,
    },
    Drained {
        rollout: u32,
        cut: u32,
    },
    Rejecting {
        rollout: u32,
        reason: Rejection,
    },
    RolloutEnded {
        rollout: u32,
        outcome: Outcome,
        #[serde(default = "settled")]
        settled: bool,
    },
    NodeLost {
        node: String,
        why: String,
    },
    NodeReplaced {
        node: String,
    },
    EffectFailed {
        effect: String,
        reason: String,
    },
}

/// Records that do not say it were written before a rollout could be told to have ended unsettled.
fn settled() -> bool {
    true
}

#[derive(Deserialize)]
pub(super) enum RolloutKind {
    Deploy,
    Rollback,
}

#[derive(Deserialize)]
pub(super) enum Outcome {
    Live,
    Rejected(Rejection),
}

#[derive(Deserialize)]
pub(super) enum Rejection {
    GateFailed { node: String, evidence: Evidence },
    NodeExited { node: String, code: Option<i32>, output: String },
    ProgressDeadline { waiting_for: String },
    WrongImage { node: String },
    EffectFailed { effect: String, reason: String },
    TakenBack,
}

impl TryFrom<Notice> for core::Notice {
    type Error = Error;

    fn try_from(notice: Notice) -> Result<Self, Error> {
        use core::Notice as N;
        Ok(match notice {
            Notice::RolloutStarted { rollout, kind, from, to } => N::RolloutStarted {
                rollout: RolloutNumber(rollout),
                kind: kind.into(),
                from: from.map(ReleaseNumber),
                to: ReleaseNumber(to),
            },
            Notice::NodesBooted { rollout, group: name } => N::NodesBooted { rollout: RolloutNumber(rollout), group: group(&name)? },
            Notice::GatePassed { rollout, group: name } => N::GatePassed { rollout: RolloutNumber(rollout), group: group(&name)? },
            Notice::ShiftBegan { rollout, generation, way_back } => {
                N::ShiftBegan { rollout: RolloutNumber(rollout), generation: Generation(generation), way_back }
            }
            Notice::Shifted { rollout, generation } => N::Shifted { rollout: RolloutNumber(rollout), generation: Generation(generation) },
            Notice::BakeBegan { rollout, until } => N::BakeBegan { rollout: RolloutNumber(rollout), until: Instant(until) },
            Notice::DrainBegan { rollout, nodes: names, deadline } => {
                N::DrainBegan { rollout: RolloutNumber(rollout), nodes: nodes(&names)?, deadline: Instant(deadline) }
            }
            Notice::Drained { rollout, cut } => N::Drained { rollout: RolloutNumber(rollout), cut },
            Notice::Rejecting { rollout, reason } => N::Rejecting { rollout: RolloutNumber(rollout), reason: reason.try_into()? },
            Notice::RolloutEnded { rollout, outcome, settled } => {
                N::RolloutEnded { rollout: RolloutNumber(rollout), outcome: outcome.try_into()?, settled }
            }
            Notice::NodeLost { node: name, why } => N::NodeLost { node: node(&name)?, why },
            Notice::NodeReplaced { node: name } => N::NodeReplaced { node: node(&name)? },
            Notice::EffectFailed { effect, reason } => N::EffectFailed { effect, reason },
        })
    }
}

impl From<RolloutKind> for core::RolloutKind {
    fn from(kind: RolloutKind) -> Self {
        match kind {
            RolloutKind::Deploy => core::RolloutKind::Deploy,
            RolloutKind::Rollback => core::RolloutKind::Rollback,
        }
    }
}

impl TryFrom<Outcome> for core::Outcome {
    type Error = Error;

    fn try_from(outcome: Outcome) -> Result<Self, Error> {
        Ok(match outcome {
            Outcome::Live => core::Outcome::Live,
            Outcome::Rejected(reason) => core::Outcome::Rejected(reason.try_into()?),
        })
    }
}

impl TryFrom<Rejection> for core::Rejection {
    type Error = Error;

    fn try_from(reason: Rejection) -> Result<Self, Error> {
        use core::Rejection as R;
        Ok(match reason {
            Rejection::GateFailed { node: name, evidence } => R::GateFailed { node: node(&name)?, evidence: evidence.into() },
            Rejection::NodeExited { node: name, code, output } => R::NodeExited { node: node(&name)?, code, output },
            Rejection::ProgressDeadline { waiting_for } => R::ProgressDeadline { waiting_for },
            Rejection::WrongImage { node: name } => R::WrongImage { node: node(&name)? },
            Rejection::EffectFailed { effect, reason } => R::EffectFailed { effect, reason },
            Rejection::TakenBack => R::TakenBack,
        })
    }
}
