//! The state of one service, as far as the core decides on it.

use crate::effect::{Effect, EffectId};
use crate::node::{GroupId, InstanceId, NodeId};
use crate::notice::{Rejection, RolloutKind, RolloutNumber};
use crate::release::{Declaration, ReleaseNumber};
use crate::route::Route;
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet};

/// Everything the core remembers of one service. It holds no history and no time but armed deadlines: equal states decide equally.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceState {
    /// Every release that was ever declared, with what the core needs of its declaration.
    pub releases: BTreeMap<ReleaseNumber, Declaration>,
    /// The release that the declarer wants. A rollback by hand does not change it.
    pub declared: Option<ReleaseNumber>,
    /// The group that has the traffic.
    pub live: Option<GroupId>,
    /// The release that was live before the present one: where a rollback without a name goes.
    pub previous: Option<ReleaseNumber>,
    /// Set by a rollback by hand: nothing but a changed declaration moves the service.
    pub pinned: bool,
    /// The rollout in progress.
    pub rollout: Option<Rollout>,
    /// How far each group that may still have nodes was grown: one more than the highest ordinal.
    pub groups: BTreeMap<GroupId, u32>,
    /// The route that was decided last.
    pub route: Route,
    /// Nodes that left the routes, each with the end of its drain.
    pub draining: BTreeMap<NodeId, Instant>,
    /// Nodes of the live group that died by themselves and are being replaced.
    pub lost: BTreeSet<NodeId>,
    /// Effects that were sent and have not ended.
    pub pending: BTreeMap<EffectId, Effect>,
    /// When an effect that failed may be tried again.
    pub retry_at: Option<Instant>,
    /// The next numbers; each is used once.
    pub next: NextNumbers,
}

/// The next numbers of a service; each is used once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NextNumbers {
    /// Releases given out so far.
    pub releases: u32,
    /// Rollouts given out so far.
    pub rollouts: u32,
    /// Groups given out so far.
    pub instances: InstanceId,
    /// Effects given out so far.
    pub effects: EffectId,
}

/// A rollout in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rollout {
    /// Its number.
    pub number: RolloutNumber,
    /// Why it was begun.
    pub kind: RolloutKind,
    /// The group that was live at its start.
    pub from: Option<GroupId>,
    /// The group that shall be live.
    pub to: GroupId,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a rollout has come. What is done inside a stage follows from what is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The new nodes are created, started and checked. Nothing has touched the old group.
    Prepare {
        /// All nodes must have passed the gate by then.
        deadline: Instant,
        /// All nodes have been seen running.
        booted: bool,
    },
    /// The route to the new group was decided; not every proxy has acknowledged it.
    Shift,
    /// The new group has all the traffic; the old one is kept warm.
    Bake {
        /// Until then.
        until: Instant,
    },
    /// The old group leaves: out of the routes, drained, destroyed.
    Retire,
    /// The new group was given up: out of the routes, drained, destroyed.
    Undo {
        /// Why.
        reason: Rejection,
    },
}
