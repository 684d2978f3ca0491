//! The state of one service, as far as the core decides on it.

use crate::digest::Digest;
use crate::effect::{Effect, EffectId, EffectKind, Task};
use crate::limit::ENSURE_TRIES;
use crate::name::ServiceName;
use crate::node::{GroupId, InstanceId, NodeId};
use crate::notice::{Rejection, RolloutKind, RolloutNumber};
use crate::policy::Strategy;
use crate::release::{ArtifactVersion, Declaration, ReleaseNumber};
use crate::route::{Generation, Route};
use crate::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

/// Everything the core remembers of one service. It holds no history and no time but armed deadlines: equal states decide equally.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceState {
    /// The releases that are kept, with what the core needs of their declarations: what is wanted, live or on its way, and those that a rollback may go to.
    pub releases: BTreeMap<ReleaseNumber, Declaration>,
    /// The release that the declarer wants. A rollback by hand does not change it.
    pub declared: Option<ReleaseNumber>,
    /// The group that has the traffic.
    pub live: Option<GroupId>,
    /// The release that was live before the present one: where a rollback without a name goes.
    pub previous: Option<ReleaseNumber>,
    /// Set by a rollback by hand: nothing but a changed declaration moves the service.
    pub pinned: bool,
    /// Releases whose rollout ended live at least once: where a rollback may go.
    pub served: BTreeSet<ReleaseNumber>,
    /// The rollout in progress.
    pub rollout: Option<Rollout>,
    /// The release that is tried next.
    pub queued: Option<Queued>,
    /// What was to move together with others.
    pub together: Ties,
    /// How many nodes somebody wanted, if that is not what the declaration says.
    pub scaled: Option<Scaled>,
    /// The newest release that was given up after it may have taken away what earlier ones need: its command was begun, or its nodes had traffic.
    pub tried: Option<ReleaseNumber>,
    /// Versions of the artifact that may not run.
    pub revoked: BTreeSet<ArtifactVersion>,
    /// Releases to which an eviction was tried in vain.
    pub evicted_in_vain: BTreeSet<ReleaseNumber>,
    /// Every group that may still have nodes.
    pub groups: BTreeMap<GroupId, Group>,
    /// The route that was decided last.
    pub route: Route,
    /// Nodes that left the routes and run out.
    pub draining: BTreeMap<NodeId, Draining>,
    /// Nodes that died by themselves and are not cleared away yet.
    pub lost: BTreeSet<NodeId>,
    /// Nodes that were asked for to replace lost ones and have not passed the gate yet, each with the end of its trial.
    pub joining: BTreeMap<NodeId, Instant>,
    /// How fast lost nodes may be replaced.
    pub healing: Healing,
    /// Nodes whose destruction was reported, each with the instant from which on it is destroyed again if it is still seen.
    pub destroyed: BTreeMap<NodeId, Instant>,
    /// Effects that were sent and have not ended. `Notify` is never among them.
    pub pending: BTreeMap<EffectId, Effect>,
    /// Kinds of effects that failed or did not help, and when they may be tried again.
    pub retries: BTreeMap<EffectKind, Retry>,
    /// The next numbers; each is used once.
    pub next: NextNumbers,
}

/// Another number of nodes than is declared. It holds for every release that declares the number in place of which it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scaled {
    /// What is declared.
    pub declared: u32,
    /// What somebody wanted.
    pub nodes: u32,
}

/// A group that may still have nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Group {
    /// One more than the highest ordinal that was ever asked for.
    pub size: u32,
    /// `EnsureGroup` ended well up to this size.
    pub made: u32,
    /// The ordinals that shall exist. Empty once the group has to go.
    pub nodes: BTreeSet<u32>,
    /// Some route gave its nodes traffic.
    pub exposed: bool,
    /// A task of it was begun, and nobody reported its end.
    pub runs_task: bool,
}

/// A node that left the routes and runs out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Draining {
    /// A generation that does not name the node; every proxy had acknowledged it when the drain began. No later one names it either.
    pub unnamed_since: Generation,
    /// When the proxies cut what still runs.
    pub deadline: Instant,
    /// Set once the proxies know of the drain: by then even one that was told last has cut what still ran.
    pub ends: Option<Instant>,
    /// Requests that were in flight when the deadline was first seen to have passed.
    pub cut: Option<u32>,
    /// It has run out: nothing is in flight, or everything was cut.
    pub over: bool,
}

/// How fast lost nodes may be replaced, so that a crash loop does not spin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Healing {
    /// Replacements in a row, without a calm time between them.
    pub tries: u32,
    /// The next replacement comes no sooner.
    pub not_before: Instant,
    /// It is a crash loop: no more replacements until somebody asks for them.
    pub stopped: bool,
    /// Another node has to be gone first: what is seen of it ends the wait, not time.
    pub blocked: bool,
}

/// When a kind of effect may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// Tries in a row that did not help.
    pub tries: u32,
    /// The next one comes no sooner. `None`: the time has come.
    pub at: Option<Instant>,
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
    /// What has to be run for it, each once.
    pub tasks: BTreeMap<Task, TaskState>,
    /// All new nodes have passed the gate once.
    pub gate_passed: bool,
    /// The services that move together with it.
    pub together: Option<Together>,
    /// All of those are ready to shift.
    pub partners_ready: bool,
    /// Since when it is paused, if it is.
    pub paused: Option<Instant>,
    /// The old group left before the new one was made.
    pub vacated: bool,
    /// Somebody wanted to go back, to this service's earlier release or to that of one that came with it.
    pub by_hand: bool,
}

impl Rollout {
    /// A rollout at its beginning.
    #[must_use]
    pub fn new(number: RolloutNumber, kind: RolloutKind, from: Option<GroupId>, to: GroupId, stage: Stage) -> Self {
        Self {
            number,
            kind,
            from,
            to,
            stage,
            tasks: BTreeMap::new(),
            gate_passed: false,
            together: None,
            partners_ready: false,
            paused: None,
            vacated: false,
            by_hand: false,
        }
    }
}

/// How far a task of a rollout has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Its turn has not come.
    Waiting,
    /// It was begun; a crash may have hidden its end.
    Begun,
    /// It ended well.
    Done,
}

/// A release that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Queued {
    /// The release.
    pub release: ReleaseNumber,
    /// It does not wait for the end of a freeze window.
    pub urgent: bool,
    /// The end of the freeze window that it waits for.
    pub not_before: Option<Instant>,
    /// The services that move together with it.
    pub together: Option<Together>,
}

/// Services whose releases shift together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Together {
    /// The same for all of them, and never used before.
    pub id: Digest,
    /// The other ones.
    pub with: BTreeSet<ServiceName>,
}

/// How rollouts ended that were to move together with others, by the release that each was to make live. What is live may be bound by an earlier one than the last, as when that
/// came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ties(pub BTreeMap<ReleaseNumber, TogetherEnd>);

impl Ties {
    /// How the rollout ended that was the part of this service in what has this identity, and what it was to make live.
    #[must_use]
    pub fn of(&self, id: Digest) -> Option<(ReleaseNumber, &TogetherEnd)> {
        self.0.iter().find(|(_, end)| end.id == id).map(|(release, end)| (*release, end))
    }
}

/// How a rollout ended that was to move together with others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TogetherEnd {
    /// As in [`Together`].
    pub id: Digest,
    /// As in [`Together`].
    pub with: BTreeSet<ServiceName>,
    /// What was live before.
    pub from: Option<ReleaseNumber>,
    /// What came of it.
    pub outcome: TogetherOutcome,
}

/// What came of a rollout that was to move together with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TogetherOutcome {
    /// Its release went live.
    Live,
    /// Its release was given up, if not at once then later.
    Failed,
    /// Somebody took its release back.
    TakenBack,
}

/// How far a rollout has come. What is done inside a stage follows from what is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The old group leaves before anything of the new one is made: out of the routes, drained, destroyed.
    Vacate,
    /// The release command runs. No other node of the new group exists.
    Command,
    /// The new nodes are created, started and checked; then what has to be done before the shift. Nothing has touched the old group.
    Prepare {
        /// All nodes must have passed the gate by then.
        deadline: Instant,
        /// All nodes have been seen running.
        booted: bool,
    },
    /// The new nodes passed the gate; the services that move together with this one have not yet.
    Await {
        /// They must have by then.
        deadline: Instant,
    },
    /// The new group has a share of the traffic.
    Canary(Canary),
    /// New nodes take old ones' place, some after others.
    Roll {
        /// The present batch must have passed the gate by then.
        deadline: Instant,
    },
    /// The route to the new group was decided; not every proxy has acknowledged it.
    Shift,
    /// The new group has all the traffic; what has to be done after the shift is not done. The old one is kept.
    Confirm,
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
    /// A rolling rollout was given up: old nodes take new ones' place again, some after others.
    Unroll {
        /// Why.
        reason: Rejection,
    },
    /// The new group was given up and is gone; nodes of the old release are made again.
    Restore {
        /// Why it was given up.
        reason: Rejection,
        /// The rollout ends then, also when not all of them serve yet.
        deadline: Instant,
    },
}

/// A step of a canary in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Canary {
    /// Which step, from 0.
    pub step: u32,
    /// Since when every proxy sends the new group its share: what is compared begins here. `None`: not every proxy has acknowledged it.
    pub since: Option<Instant>,
    /// The step ends then at the earliest. `None`: when somebody promotes it, or before `since` is known.
    pub until: Option<Instant>,
    /// The answers are compared again then. `None`: there is no analysis, or one is under way.
    pub look: Option<Instant>,
    /// The latest verdict, or that there is no analysis, or a person, allows the next step.
    pub good: bool,
    /// Verdicts in a row after `until` that decided nothing.
    pub holds: u32,
}

impl ServiceState {
    /// The declaration of a release that this service has.
    #[must_use]
    pub fn declaration(&self, release: ReleaseNumber) -> Option<&Declaration> {
        self.releases.get(&release)
    }

    /// The release that has the traffic.
    #[must_use]
    pub fn live_release(&self) -> Option<ReleaseNumber> {
        self.live.map(|group| group.release)
    }

    /// The group that has, or is just being given, the traffic: it is kept at its full size.
    #[must_use]
    pub fn serving(&self) -> Option<GroupId> {
        match &self.rollout {
            Some(Rollout { to, stage: Stage::Shift | Stage::Confirm | Stage::Bake { .. } | Stage::Retire, .. }) => Some(*to),
            _ => self.live,
        }
    }

    /// In the bake window, while all of the old group is warm: a rollback is a single `Route`.
    #[must_use]
    pub fn is_one_route_from_the_old(&self) -> bool {
        crate::request::warm_group(self).is_some()
    }

    /// Whether the service answers requests, behind the proxies. One that does not never begins to, and the other way round.
    #[must_use]
    pub fn has_routes(&self) -> bool {
        self.releases.values().next().is_none_or(|declaration| declaration.serves)
    }

    /// The rollout in progress took the old group away before the new one was made: nothing else can begin before it has ended.
    #[must_use]
    pub fn is_vacated(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.vacated)
    }

    /// A rollout was given up half way, and the old group is whole again: what is left of the new one only leaves.
    #[must_use]
    pub fn is_whole_again(&self) -> bool {
        let Some(Rollout { from: Some(from), to, stage: Stage::Unroll { .. }, .. }) = self.rollout else { return false };
        let whole = self.wanted_nodes(from).count() >= self.size_of(from.release) as usize;
        whole && self.joining.is_empty() && self.wanted_nodes(to).next().is_none()
    }

    /// Nodes that are wanted cannot be made, try after try: as when there is no room for them.
    pub(crate) fn cannot_be_made_whole(&self) -> bool {
        let tries = self.retries.get(&EffectKind::EnsureGroup).map_or(0, |retry| retry.tries);
        let unmade = |node: &NodeId| self.groups.get(&node.group).is_some_and(|group| node.ordinal >= group.made);
        tries >= ENSURE_TRIES && self.joining.keys().any(unmade)
    }

    /// How many nodes a group of this release shall have.
    #[must_use]
    pub fn size_of(&self, release: ReleaseNumber) -> u32 {
        let declared = self.declaration(release).map(|declaration| declaration.nodes).unwrap_or_default();
        self.scaled.filter(|scaled| scaled.declared == declared).map_or(declared, |scaled| scaled.nodes)
    }

    /// Whether this release may not run.
    #[must_use]
    pub fn is_revoked(&self, release: ReleaseNumber) -> bool {
        self.declaration(release).is_some_and(|declaration| self.revoked.contains(&declaration.artifact))
    }

    /// Whether nodes of this release never run beside others of the service.
    #[must_use]
    pub fn is_single(&self, release: ReleaseNumber) -> bool {
        self.declaration(release).is_some_and(|declaration| declaration.policy.strategy == Strategy::Recreate)
    }

    /// How long requests may run out on nodes of this group.
    #[must_use]
    pub fn drain_deadline(&self, group: GroupId) -> Duration {
        self.declaration(group.release).map_or(crate::limit::DRAIN_OF_UNKNOWN, |declaration| declaration.policy.drain_deadline)
    }

    /// Whether this node shall exist.
    #[must_use]
    pub fn is_wanted(&self, node: NodeId) -> bool {
        self.groups.get(&node.group).is_some_and(|group| group.nodes.contains(&node.ordinal))
    }

    /// The nodes of a group that shall exist, in order.
    pub fn wanted_nodes(&self, group: GroupId) -> impl Iterator<Item = NodeId> + '_ {
        self.groups.get(&group).into_iter().flat_map(move |known| known.nodes.iter().map(move |ordinal| group.node(*ordinal)))
    }

    /// Every node that shall exist, in order.
    pub fn all_wanted(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.groups.iter().flat_map(|(group, known)| known.nodes.iter().map(|ordinal| group.node(*ordinal)))
    }

    /// When the core must be shown the world at the latest, even if nothing seems to happen. `None`: no deadline is armed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let stage = self.rollout.as_ref().and_then(Rollout::next_deadline);
        let queued = self.queued.as_ref().and_then(|queued| queued.not_before);
        let running_out = self.draining.values().filter(|drain| !drain.over).filter_map(Draining::next_deadline);
        let retries = self.retries.values().filter_map(|retry| retry.at);
        let again = self.destroyed.values().copied();
        let joining = self.joining.values().copied();
        stage.into_iter().chain(queued).chain(running_out).chain(retries).chain(again).chain(joining).chain(self.next_replacement()).min()
    }

    fn next_replacement(&self) -> Option<Instant> {
        let group = self.serving()?;
        let waits = !self.healing.stopped && !self.healing.blocked && !self.is_rolling();
        (waits && self.groups.get(&group)?.nodes.len() < self.size_of(group.release) as usize).then_some(self.healing.not_before)
    }

    /// New nodes are taking old ones' place, some after others: none of either is replaced, unless somebody holds it.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        matches!(self.rollout, Some(Rollout { stage: Stage::Roll { .. }, .. }))
    }
}

impl Rollout {
    fn next_deadline(&self) -> Option<Instant> {
        if self.paused.is_some() {
            return None;
        }
        match &self.stage {
            // What follows the gate has deadlines of its own.
            Stage::Prepare { .. } if self.gate_passed => None,
            Stage::Prepare { deadline, .. } | Stage::Await { deadline } | Stage::Roll { deadline } | Stage::Restore { deadline, .. } => {
                Some(*deadline)
            }
            Stage::Canary(canary) => canary.look.into_iter().chain(canary.until.filter(|_| canary.good)).min(),
            Stage::Bake { until } => Some(*until),
            Stage::Vacate | Stage::Command | Stage::Shift | Stage::Confirm | Stage::Retire | Stage::Undo { .. } | Stage::Unroll { .. } => {
                None
            }
        }
    }
}

impl Draining {
    /// The next instant at which time alone changes this drain.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let ends = self.ends?;
        Some(if self.cut.is_none() { self.deadline } else { ends })
    }
}
