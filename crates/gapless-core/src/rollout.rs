//! The one transition function.

use crate::effect::{Effect, EffectId};
use crate::event::Event;
use crate::service::ServiceState;
use crate::time::Instant;
use alloc::string::String;
use alloc::vec::Vec;

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
#[must_use]
pub fn step(state: &ServiceState, _event: &Event, _now: Instant) -> Step {
    Step { state: state.clone(), effects: Vec::new(), refusal: None }
}
