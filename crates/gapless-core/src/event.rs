//! What the core is told.

use crate::analysis::Judgement;
use crate::effect::EffectId;
use crate::observation::Observation;
use crate::release::{ArtifactVersion, Declaration, ReleaseNumber};
use crate::service::Together;
use alloc::collections::BTreeSet;
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
// There is one at a time, and nearly all are observations, whose size lies elsewhere.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// The service's declarer wants this. The same declaration as the wanted release's: nothing (I6).
    Declared {
        /// What is wanted.
        declaration: Declaration,
        /// It does not wait for the end of a freeze window.
        urgent: bool,
        /// The services whose releases shift with this one's, if there are any.
        together: Option<Together>,
    },
    /// Somebody wants an earlier release back. `None`: the one that was live before the present one. It pins the service until its declaration changes.
    RollbackRequested {
        /// The release to go back to.
        to: Option<ReleaseNumber>,
        /// Also past a release that declared that what was before it can no longer run.
        forced: bool,
    },
    /// The rollout in progress shall go no further until it is resumed. What has to be done for safety is done all the same.
    Paused,
    /// The rollout that was paused goes on; its deadlines are later by the time in between.
    Resumed,
    /// The rollout in progress shall end in the old release.
    Cancelled,
    /// The step of the canary in progress is good enough.
    Promoted,
    /// The declared release shall be tried again that was rejected, or the nodes that were given up in a crash loop.
    RetryRequested,
    /// The same, for all services that were to move together: each of them is told.
    RetriedTogether {
        /// Whom this service moves together with now.
        together: Together,
    },
    /// The service shall have this many nodes, until a declaration names another number.
    Scaled {
        /// How many nodes; at least 1.
        nodes: u32,
    },
    /// These versions of the service's artifact are revoked, and no others: none may be deployed, and no node may go on running one.
    Revoked {
        /// All revoked versions.
        artifacts: BTreeSet<ArtifactVersion>,
    },
    /// Every service that moves together with this one's rollout is ready to shift.
    PartnersReady,
    /// A service that should move together with this one's rollout cannot, or has gone back after this one had moved.
    PartnersFailed {
        /// Which one, and why.
        reason: String,
    },
    /// Somebody took the release of a service back that moves, or moved, together with this one.
    PartnersTakenBack {
        /// Which one, and why.
        reason: String,
    },
    /// A comparison that was asked for has its verdict.
    Analysed {
        /// The effect that asked for it.
        effect: EffectId,
        /// What came of it.
        judgement: Judgement,
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

impl Event {
    /// A declaration by itself, without hurry.
    #[must_use]
    pub fn declared(declaration: Declaration) -> Event {
        Event::Declared { declaration, urgent: false, together: None }
    }
}
