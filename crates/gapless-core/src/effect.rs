//! What the core wants done.

use crate::analysis::AnalysisPolicy;
use crate::node::{GroupId, NodeId};
use crate::notice::Notice;
use crate::release::ReleaseNumber;
use crate::route::Route;
use crate::time::Instant;
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
    /// A task of a release was run to its end and ended well. It is run once for a group: a receiver that is told again answers with what came of it.
    RunTask {
        /// The group whose release it belongs to.
        group: GroupId,
        /// Which task.
        task: Task,
        /// From its start.
        deadline: Duration,
    },
    /// Compare what two releases answered since then. It ends with [`crate::event::Event::Analysed`].
    Analyse {
        /// The release that is live.
        old: ReleaseNumber,
        /// The release that is tried.
        new: ReleaseNumber,
        /// What ended before does not count.
        since: Instant,
        /// What is allowed.
        policy: AnalysisPolicy,
    },
    /// Tell people and records.
    Notify(Notice),
}

/// Something that is run once for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// In a node of the new image, before any other of its nodes is made: a migration.
    ReleaseCommand,
    /// When the new nodes passed the gate, before they get traffic.
    BeforeShift,
    /// When the new nodes have the traffic, before the old ones are given up.
    AfterShift,
}

impl Task {
    /// Every task, in the order in which they are run.
    pub const ALL: [Task; 3] = [Task::ReleaseCommand, Task::BeforeShift, Task::AfterShift];

    /// The task's name, for people, logs and node names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Task::ReleaseCommand => "release-command",
            Task::BeforeShift => "before-shift",
            Task::AfterShift => "after-shift",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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
    /// [`Effect::RunTask`].
    RunTask,
    /// [`Effect::Analyse`].
    Analyse,
    /// [`Effect::Notify`].
    Notify,
}

impl EffectKind {
    /// Every kind, in order.
    pub const ALL: [EffectKind; 7] = [
        EffectKind::EnsureGroup,
        EffectKind::Route,
        EffectKind::Drain,
        EffectKind::DestroyNodes,
        EffectKind::RunTask,
        EffectKind::Analyse,
        EffectKind::Notify,
    ];

    /// The kind's name, for people and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EffectKind::EnsureGroup => "EnsureGroup",
            EffectKind::Route => "Route",
            EffectKind::Drain => "Drain",
            EffectKind::DestroyNodes => "DestroyNodes",
            EffectKind::RunTask => "RunTask",
            EffectKind::Analyse => "Analyse",
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
            Effect::RunTask { .. } => EffectKind::RunTask,
            Effect::Analyse { .. } => EffectKind::Analyse,
            Effect::Notify(_) => EffectKind::Notify,
        }
    }

    /// The effect's name, for people and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }
}
