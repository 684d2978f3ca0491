//! Who tells services that move together how the others stand: the engine's part, as far as the model needs it.

use super::cores::Cause;
use super::state::{Part, State};
use gapless_core::digest::Digest;
use gapless_core::service::{Rollout, Stage};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    OnItsWay,
    Ready,
    Failed,
}

/// What this service has to be told now, if anything.
pub fn message(state: &State, service: usize) -> Option<Cause> {
    let rollout = state.parts[service].core.state.rollout.as_ref()?;
    let id = rollout.together.as_ref()?.id;
    if matches!(rollout.stage, Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } | Stage::Retire) {
        return None;
    }
    let mut others = state.parts.iter().enumerate().filter(|(place, _)| *place != service).map(|(_, part)| standing(part, id));
    if others.clone().any(|standing| standing == Standing::Failed) {
        return Some(Cause::PartnersFailed);
    }
    let waits = matches!(rollout.stage, Stage::Await { .. }) && !rollout.partners_ready;
    (waits && others.all(|standing| standing == Standing::Ready)).then_some(Cause::PartnersReady)
}

fn standing(part: &Part, id: Digest) -> Standing {
    let state = &part.core.state;
    let own = |rollout: &&Rollout| rollout.together.as_ref().is_some_and(|known| known.id == id);
    if let Some(rollout) = state.rollout.as_ref().filter(own) {
        return match rollout.stage {
            Stage::Vacate | Stage::Command | Stage::Prepare { .. } => Standing::OnItsWay,
            Stage::Undo { .. } | Stage::Unroll { .. } | Stage::Restore { .. } => Standing::Failed,
            _ => Standing::Ready,
        };
    }
    match state.together.filter(|end| end.id == id) {
        Some(end) if end.live => Standing::Ready,
        Some(_) => Standing::Failed,
        None => Standing::OnItsWay,
    }
}
