//! Notices in version 1.

use super::observation::Evidence;
use super::{group, node, nodes, texts};
use gapless_core::notice::{self as core, RolloutNumber};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::Generation;
use gapless_core::time::Instant;
use gapless_engine::error::Error;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
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

#[derive(Serialize, Deserialize)]
pub(super) enum RolloutKind {
    Deploy,
    Rollback,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Outcome {
    Live,
    Rejected(Rejection),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Rejection {
    GateFailed { node: String, evidence: Evidence },
    NodeExited { node: String, code: Option<i32>, output: String },
    ProgressDeadline { waiting_for: String },
    WrongImage { node: String },
    EffectFailed { effect: String, reason: String },
    TakenBack,
}

impl From<&core::Notice> for Notice {
    fn from(notice: &core::Notice) -> Self {
        use core::Notice as N;
        match notice.clone() {
            N::RolloutStarted { rollout, kind, from, to } => {
                Notice::RolloutStarted { rollout: rollout.0, kind: kind.into(), from: from.map(|release| release.0), to: to.0 }
            }
            N::NodesBooted { rollout, group } => Notice::NodesBooted { rollout: rollout.0, group: group.to_string() },
            N::GatePassed { rollout, group } => Notice::GatePassed { rollout: rollout.0, group: group.to_string() },
            N::ShiftBegan { rollout, generation, way_back } => {
                Notice::ShiftBegan { rollout: rollout.0, generation: generation.0, way_back }
            }
            N::Shifted { rollout, generation } => Notice::Shifted { rollout: rollout.0, generation: generation.0 },
            N::BakeBegan { rollout, until } => Notice::BakeBegan { rollout: rollout.0, until: until.0 },
            N::DrainBegan { rollout, nodes, deadline } => {
                Notice::DrainBegan { rollout: rollout.0, nodes: texts(&nodes), deadline: deadline.0 }
            }
            N::Drained { rollout, cut } => Notice::Drained { rollout: rollout.0, cut },
            N::Rejecting { rollout, reason } => Notice::Rejecting { rollout: rollout.0, reason: reason.into() },
            N::RolloutEnded { rollout, outcome, settled } => Notice::RolloutEnded { rollout: rollout.0, outcome: outcome.into(), settled },
            N::NodeLost { node, why } => Notice::NodeLost { node: node.to_string(), why },
            N::NodeReplaced { node } => Notice::NodeReplaced { node: node.to_string() },
            N::EffectFailed { effect, reason } => Notice::EffectFailed { effect, reason },
            _ => unreachable!("version 2 writes it"),
        }
    }
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

impl From<core::RolloutKind> for RolloutKind {
    fn from(kind: core::RolloutKind) -> Self {
        match kind {
            core::RolloutKind::Deploy => RolloutKind::Deploy,
            core::RolloutKind::Rollback => RolloutKind::Rollback,
            core::RolloutKind::Eviction => unreachable!("version 2 writes it"),
        }
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

impl From<core::Outcome> for Outcome {
    fn from(outcome: core::Outcome) -> Self {
        match outcome {
            core::Outcome::Live => Outcome::Live,
            core::Outcome::Rejected(reason) => Outcome::Rejected(reason.into()),
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

impl From<core::Rejection> for Rejection {
    fn from(reason: core::Rejection) -> Self {
        use core::Rejection as R;
        match reason {
            R::GateFailed { node, evidence } => Rejection::GateFailed { node: node.to_string(), evidence: (&evidence).into() },
            R::NodeExited { node, code, output } => Rejection::NodeExited { node: node.to_string(), code, output },
            R::ProgressDeadline { waiting_for } => Rejection::ProgressDeadline { waiting_for },
            R::WrongImage { node } => Rejection::WrongImage { node: node.to_string() },
            R::EffectFailed { effect, reason } => Rejection::EffectFailed { effect, reason },
            R::TakenBack => Rejection::TakenBack,
            _ => unreachable!("version 2 writes it"),
        }
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
