//! What a declaration would do: the lines of `gapless deploy --plan`.

use crate::effect::Task;
use crate::name::ServiceName;
use crate::node::{GroupId, InstanceId};
use crate::policy::{CanaryPause, CanaryStep, Strategy, Supersede};
use crate::release::{Declaration, ReleaseNumber};
use crate::request::{Wish, busy, wish};
use crate::rollout::Refusal;
use crate::service::{ServiceState, Together};
use crate::time::Instant;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// One thing that would happen, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// It is so already, or on its way (I6).
    Nothing {
        /// The release that is live.
        live: Option<ReleaseNumber>,
        /// The service was rolled back by hand and stays where it is until its declaration changes.
        pinned: bool,
    },
    /// The declaration would be refused.
    Refused(Refusal),
    /// A new release.
    Release {
        /// Its number.
        release: ReleaseNumber,
        /// The release that is live.
        from: Option<ReleaseNumber>,
    },
    /// It waits: for the rollout in progress, or for the end of a freeze window.
    Queued {
        /// The end of the freeze window.
        frozen_until: Option<Instant>,
        /// What is in progress ends first, unless it ends by itself before.
        replaces: bool,
    },
    /// The old nodes leave before there are new ones: an outage.
    Vacate {
        /// The group that leaves.
        group: GroupId,
        /// When what still runs is cut.
        deadline: Duration,
    },
    /// `RunTask`.
    Run {
        /// Which task.
        task: Task,
        /// How long it may run.
        deadline: Duration,
    },
    /// `EnsureGroup`: new nodes.
    Create {
        /// Their group.
        group: GroupId,
        /// How many: all of them, or the first ones of a rolling rollout.
        nodes: u32,
        /// There are old ones that stay meanwhile.
        beside: bool,
    },
    /// The release that waits does not wait for the end of a freeze window any more.
    Hurried {
        /// Which.
        release: ReleaseNumber,
        /// No rollout is in progress that it waits for, too.
        at_once: bool,
    },
    /// The release that waits moves together with others than before: those have given it up.
    Tied {
        /// Which.
        release: ReleaseNumber,
        /// The other ones.
        with: BTreeSet<ServiceName>,
    },
    /// `Route`: a share of the traffic to the new nodes.
    Share {
        /// Their share.
        step: CanaryStep,
        /// The answers are compared.
        compared: bool,
    },
    /// New nodes take old ones' place, some after others.
    Roll {
        /// How many new nodes there are in the end.
        nodes: u32,
        /// How many nodes there may be beyond the node count.
        surge: u32,
        /// The fewest ready nodes.
        floor: u32,
    },
    /// `Route`: the new nodes become members without traffic and are checked.
    Gate {
        /// Passed checks in a row that each needs.
        passes: u32,
        /// Until then, else the old release stays.
        deadline: Duration,
    },
    /// The new nodes wait for the services that move together with this one.
    Await {
        /// Those.
        with: BTreeSet<ServiceName>,
    },
    /// `Route`: all traffic to the new nodes, acknowledged by every proxy.
    Shift {
        /// The old nodes stay as members without traffic.
        keep_old: bool,
    },
    /// The old nodes are kept warm: the way back is one `Route`.
    Bake {
        /// How long.
        window: Duration,
    },
    /// `Drain`: the old nodes' last requests run out.
    Drain {
        /// The group that leaves.
        group: GroupId,
        /// When what still runs is cut.
        deadline: Duration,
    },
    /// `DestroyNodes`.
    Destroy {
        /// The group that leaves.
        group: GroupId,
    },
}

/// What declaring this would do, if everything goes well. `together`: whom it would move together with. Nothing is changed.
#[must_use]
pub fn plan(state: &ServiceState, declaration: &Declaration, urgent: bool, together: Option<&Together>, now: Instant) -> Vec<Planned> {
    match wish(state, declaration, urgent, now) {
        Wish::Nothing => match state.queued.as_ref().filter(|queued| urgent && !queued.urgent) {
            Some(queued) => hurried(state, queued.release, declaration, together),
            None => vec![tied(state, together).unwrap_or(Planned::Nothing { live: state.live_release(), pinned: state.pinned })],
        },
        Wish::Adopt(live) => vec![Planned::Nothing { live: Some(live), pinned: false }],
        Wish::Refused(reason, hint) => vec![Planned::Refused(Refusal { reason, hint: hint.into() })],
        Wish::Release => release(state, ReleaseNumber(state.next.releases + 1), declaration, together),
        Wish::Queue { frozen_until } => {
            let alone = state.rollout.as_ref().is_some_and(|rollout| !rollout.takes_all_along(together));
            let replaces = declaration.policy.supersede == Supersede::Replace && busy(state).is_some() && !alone;
            let mut lines = vec![Planned::Queued { frozen_until, replaces }];
            lines.extend(release(state, ReleaseNumber(state.next.releases + 1), declaration, together));
            lines
        }
    }
}

/// What waits for its turn moves with these, and not with those that it was to move with before.
fn tied(state: &ServiceState, together: Option<&Together>) -> Option<Planned> {
    let with = &together.filter(|together| state.is_next_with() != Some(together))?.with;
    let queued = state.queued.as_ref().filter(|queued| Some(queued.release) == state.declared)?;
    Some(Planned::Tied { release: queued.release, with: with.clone() })
}

/// What waits for the end of a freeze window waits for it no more.
fn hurried(state: &ServiceState, waiting: ReleaseNumber, declaration: &Declaration, together: Option<&Together>) -> Vec<Planned> {
    let at_once = busy(state).is_none();
    let mut lines = vec![Planned::Hurried { release: waiting, at_once }];
    lines.extend(tied(state, together));
    lines.extend(release(state, waiting, declaration, together.or(state.is_next_with())));
    lines
}

fn release(state: &ServiceState, release: ReleaseNumber, declaration: &Declaration, together: Option<&Together>) -> Vec<Planned> {
    let group = GroupId { release, instance: InstanceId(state.next.instances.0 + 1) };
    let policy = &declaration.policy;
    let old = state.live.map(|old| (old, state.drain_deadline(old)));
    let mut lines = vec![Planned::Release { release, from: state.live_release() }];
    let alone = policy.strategy == Strategy::Recreate || state.live_release().is_some_and(|live| state.is_single(live));
    if let Some((group, deadline)) = old.filter(|_| alone) {
        lines.push(Planned::Vacate { group, deadline });
    }
    let task = |task: Task| declaration.tasks.contains(&task).then_some(Planned::Run { task, deadline: policy.task_deadline });
    lines.extend(task(Task::ReleaseCommand));
    let nodes = size(state, declaration);
    let beside = old.is_some() && !alone;
    let first = match policy.strategy {
        Strategy::Rolling { surge } if beside => surge.min(nodes),
        _ => nodes,
    };
    // Without a surge old nodes make room before there are new ones.
    if first > 0 {
        lines.push(Planned::Create { group, nodes: first, beside });
    }
    lines.push(Planned::Gate { passes: policy.gate_passes, deadline: policy.progress_deadline });
    lines.extend(task(Task::BeforeShift));
    lines.extend(together.map(|together| Planned::Await { with: together.with.clone() }));
    if beside {
        lines.extend(between(declaration, nodes));
    }
    let bakes = beside && !policy.bake.is_zero();
    lines.push(Planned::Shift { keep_old: bakes });
    lines.extend(task(Task::AfterShift));
    if bakes {
        lines.push(Planned::Bake { window: policy.bake });
    }
    if let Some((group, deadline)) = old.filter(|_| !alone) {
        lines.extend([Planned::Drain { group, deadline }, Planned::Destroy { group }]);
    }
    lines
}

/// How many nodes the new group shall have: what somebody wanted in place of the declared number, as in [`ServiceState::size_of`].
fn size(state: &ServiceState, declaration: &Declaration) -> u32 {
    state.scaled.filter(|scaled| scaled.declared == declaration.nodes).map_or(declaration.nodes, |scaled| scaled.nodes)
}

/// What is between the gate and the whole traffic.
fn between(declaration: &Declaration, nodes: u32) -> Vec<Planned> {
    let floor = declaration.policy.floor;
    match &declaration.policy.strategy {
        Strategy::BlueGreen | Strategy::Recreate => Vec::new(),
        Strategy::Rolling { surge } => {
            // No more may be missing of another number of nodes than of the declared one.
            let spare = declaration.nodes.saturating_sub(floor);
            vec![Planned::Roll { nodes, surge: *surge, floor: nodes.saturating_sub(spare).max(floor) }]
        }
        Strategy::Canary { steps, analysis } => {
            steps.iter().map(|step| Planned::Share { step: step.clone(), compared: analysis.is_some() }).collect()
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Planned::Nothing { live, pinned: true } => {
                write!(f, "nothing: rolled back by hand to {}, which stays until the declaration changes", Live(*live))
            }
            Planned::Nothing { live, pinned: false } => write!(f, "nothing: it is so already ({} is live)", Live(*live)),
            Planned::Refused(refusal) => write!(f, "refused: {}; {}", refusal.reason, refusal.hint),
            Planned::Release { release, from } => write!(f, "new release {release} after {}", Live(*from)),
            Planned::Queued { frozen_until, replaces } => write!(f, "queued: {}", turn(frozen_until.is_some(), *replaces)),
            Planned::Hurried { release, at_once: true } => {
                write!(f, "{release} waits for the end of the freeze window no more: it begins at once")
            }
            Planned::Hurried { release, at_once: false } => {
                write!(f, "{release} begins when the rollout in progress is over, also in a freeze window")
            }
            Planned::Tied { release, with } => {
                write!(f, "{release} moves together with {} when its turn comes", names(with))
            }
            Planned::Await { with } => write!(f, "wait until {} can shift too: all of them do, or none", names(with)),
            Planned::Vacate { group, deadline } => {
                write!(f, "outage: {group} leaves first; its requests run out, at most {deadline:?}, and it is destroyed")
            }
            Planned::Run { task, deadline } => write!(f, "RunTask: {task}, at most {deadline:?}"),
            Planned::Create { group, nodes, beside } => {
                let beside = if *beside { " beside the old ones" } else { "" };
                write!(f, "EnsureGroup: {} of {group}{beside}", Nodes(*nodes, ""))
            }
            Planned::Share { step, compared } => {
                write!(f, "Route: {} percent of the traffic to the new nodes, ", step.percent)?;
                match step.pause {
                    CanaryPause::For(span) => write!(f, "for {span:?}")?,
                    CanaryPause::Person => f.write_str("until somebody promotes it")?,
                }
                f.write_str(if *compared { "; their answers are compared with the old ones'" } else { "" })
            }
            Planned::Roll { nodes, surge, floor } => {
                let new = Nodes(*nodes, "new ");
                write!(
                    f,
                    "Route after Route: {new} in the old ones' place, at most {surge} beyond the node count, never fewer than {floor} ready"
                )
            }
            Planned::Gate { passes, deadline } => {
                write!(f, "Route: probed without traffic; gate: {passes} passed checks in a row each, within {deadline:?}")
            }
            Planned::Shift { keep_old: true } => {
                f.write_str("Route: all traffic to the new nodes, the old ones kept as members without traffic")
            }
            Planned::Shift { keep_old: false } => f.write_str("Route: all traffic to the new nodes"),
            Planned::Bake { window } => write!(f, "bake for {window:?}: the way back is one Route"),
            Planned::Drain { group, deadline } => write!(f, "Route without {group}; Drain: its requests run out, at most {deadline:?}"),
            Planned::Destroy { group } => write!(f, "DestroyNodes: {group}"),
        }
    }
}

/// When the turn of what is queued comes.
fn turn(is_frozen: bool, replaces: bool) -> &'static str {
    match (is_frozen, replaces) {
        (true, _) => "it begins when the freeze window is over",
        (false, true) => "the rollout in progress is given up for it, if it has not shifted the traffic",
        (false, false) => "it begins when the rollout in progress is over",
    }
}

fn names(services: &BTreeSet<ServiceName>) -> String {
    let names: Vec<String> = services.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

/// So many nodes, of some kind.
struct Nodes(u32, &'static str);

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Nodes(count, kind) = self;
        write!(f, "{count} {kind}{}", if *count == 1 { "node" } else { "nodes" })
    }
}

struct Live(Option<ReleaseNumber>);

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(release) => write!(f, "{release}"),
            None => f.write_str("no release"),
        }
    }
}
