//! What the core wants done.

use crate::node::{GroupId, NodeId};
use crate::notice::Notice;
use crate::route::Route;
use alloc::collections::BTreeSet;
use core::fmt;
use core::time::Duration;

/// Names one effect of a service for ever. Receivers may use it as a key; every effect may be delivered twice (I4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId(pub u64);

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// Something to be done in the world. Each may be done twice with the same end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Every node of `group` with an ordinal below `size` has been created. It only ever grows: an ordinal that was created once, even if its node is gone, is
    /// not created again.
    EnsureGroup {
        /// The group.
        group: GroupId,
        /// One more than the highest ordinal that must have been created.
        size: u32,
    },
    /// Every proxy has applied and persisted this route, or a later one. It is done when all have acknowledged it.
    Route(Route),
    /// The proxies close their idle connections to these nodes, and when the deadline has passed the requests that still run there (counted as cut). The first deadline given for
    /// a node stays. It is done when the proxies know.
    Drain {
        /// Nodes that no acknowledged route names any more.
        nodes: BTreeSet<NodeId>,
        /// From now.
        deadline: Duration,
    },
    /// These nodes do not exist any more. Their ordinals stay used.
    DestroyNodes {
        /// Nodes that are drained, or never had traffic, or died.
        nodes: BTreeSet<NodeId>,
    },
    /// Tell people and records.
    Notify(Notice),
}

/// The kinds of effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectKind {
    /// [`Effect::EnsureGroup`].
    EnsureGroup,
    /// [`Effect::Route`].
    Route,
    /// [`Effect::Drain`].
    Drain,
    /// [`Effect::DestroyNodes`].
    DestroyNodes,
    /// [`Effect::Notify`].
    Notify,
}

impl EffectKind {
    /// The kind's name, for people and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EffectKind::EnsureGroup => "EnsureGroup",
            EffectKind::Route => "Route",
            EffectKind::Drain => "Drain",
            EffectKind::DestroyNodes => "DestroyNodes",
            EffectKind::Notify => "Notify",
        }
    }
}

impl Effect {
    /// The effect's kind.
    #[must_use]
    pub fn kind(&self) -> EffectKind {
        match self {
            Effect::EnsureGroup { .. } => EffectKind::EnsureGroup,
            Effect::Route(_) => EffectKind::Route,
            Effect::Drain { .. } => EffectKind::Drain,
            Effect::DestroyNodes { .. } => EffectKind::DestroyNodes,
            Effect::Notify(_) => EffectKind::Notify,
        }
    }

    /// The effect's name, for people and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }
}
