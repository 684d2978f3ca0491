//! What the core is told.

use crate::effect::EffectId;
use crate::observation::Observation;
use crate::release::{Declaration, ReleaseNumber};
use alloc::string::String;

/// Why an effect could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Why, for people.
    pub reason: String,
    /// Trying again cannot help: the image is corrupt or unknown. Everything else (no room, a proxy that does not answer) is not final.
    pub is_final: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The service's declarer wants this. The same declaration as the wanted release's: nothing (I6).
    Declared(Declaration),
    /// Somebody wants an earlier release back. `None`: the one that was live before the present one. It pins the service until its declaration changes.
    RollbackRequested {
        /// The release to go back to.
        to: Option<ReleaseNumber>,
    },
    /// A look at the world.
    Observed(Observation),
    /// An effect was carried out, or could not be.
    EffectEnded {
        /// Which one.
        effect: EffectId,
        /// `Err` when it could not be carried out.
        result: Result<(), Failure>,
    },
    /// The engine started again: of the effects that had not ended, none is known to have been carried out.
    Restarted,
}
