//! Who tells services that move together how the others stand: the engine's part, as far as the model needs it.

use super::cores::Cause;
use super::state::{Part, State};
use gapless_core::digest::Digest;
use gapless_core::notice::Rejection;
use gapless_core::service::{Rollout, Stage, TogetherOutcome};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    OnItsWay,
    Ready,
    Failed,
    TakenBack,
}

/// What this service has to be told now, if anything.
pub fn message(state: &State, service: usize) -> Option<Cause> {
    let core = &state.parts[service].core.state;
    let others =
        |id: Digest| state.parts.iter().enumerate().filter(move |(place, _)| *place != service).map(move |(_, part)| standing(part, id));
    let Some(rollout) = core.rollout.as_ref() else {
        let id = core.came_together()?.1.id;
        let bound = state.parts.iter().enumerate().filter(|(place, part)| *place != service && !part.core.state.has_gone_on_from(id));
        return who_went_back(bound.map(|(_, part)| standing(part, id)));
    };
    let id = rollout.together.as_ref()?.id;
    if matches!(rollout.stage, Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } | Stage::Retire) {
        return None;
    }
    if let Some(cause) = who_went_back(others(id)) {
        return Some(cause);
    }
    let waits = matches!(rollout.stage, Stage::Await { .. }) && !rollout.partners_ready;
    (waits && others(id).all(|standing| standing == Standing::Ready)).then_some(Cause::PartnersReady)
}

fn who_went_back(others: impl Iterator<Item = Standing>) -> Option<Cause> {
    let others: Vec<Standing> = others.collect();
    if others.contains(&Standing::TakenBack) {
        return Some(Cause::PartnersTakenBack);
    }
    others.contains(&Standing::Failed).then_some(Cause::PartnersFailed)
}

fn standing(part: &Part, id: Digest) -> Standing {
    let state = &part.core.state;
    let own = |rollout: &&Rollout| rollout.together.as_ref().is_some_and(|known| known.id == id);
    if let Some(rollout) = state.rollout.as_ref().filter(own) {
        return match &rollout.stage {
            Stage::Vacate | Stage::Command | Stage::Prepare { .. } => Standing::OnItsWay,
            Stage::Undo { reason: Rejection::PartnerTakenBack { .. } } => Standing::TakenBack,
            Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } => Standing::Failed,
            _ => Standing::Ready,
        };
    }
    match state.together.of(id).map(|(_, end)| end.outcome) {
        Some(TogetherOutcome::Live) => Standing::Ready,
        Some(TogetherOutcome::Failed) => Standing::Failed,
        Some(TogetherOutcome::TakenBack) => Standing::TakenBack,
        None => Standing::OnItsWay,
    }
}
