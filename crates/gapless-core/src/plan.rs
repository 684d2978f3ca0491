//! What a declaration would do: the lines of `gapless deploy --plan`.

use crate::node::{GroupId, InstanceId};
use crate::release::{Declaration, ReleaseNumber};
use crate::request::{Wish, wish};
use crate::rollout::Refusal;
use crate::service::ServiceState;
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
    /// `EnsureGroup`: new nodes beside the old ones.
    Create {
        /// Their group.
        group: GroupId,
        /// How many.
        nodes: u32,
    },
    /// `Route`: the new nodes become members without traffic and are checked.
    Gate {
        /// Passed checks in a row that each needs.
        passes: u32,
        /// Until then, else the old release stays.
        deadline: Duration,
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

/// What declaring this would do, if everything goes well. Nothing is changed.
#[must_use]
pub fn plan(state: &ServiceState, declaration: &Declaration) -> Vec<Planned> {
    match wish(state, declaration) {
        Wish::Nothing => vec![Planned::Nothing { live: state.live_release(), pinned: state.pinned }],
        Wish::Adopt(live) => vec![Planned::Nothing { live: Some(live), pinned: false }],
        Wish::Refused(reason, hint) => vec![Planned::Refused(Refusal { reason, hint: hint.into() })],
        Wish::Release => release(state, declaration),
    }
}

fn release(state: &ServiceState, declaration: &Declaration) -> Vec<Planned> {
    let release = ReleaseNumber(state.next.releases + 1);
    let group = GroupId { release, instance: InstanceId(state.next.instances.0 + 1) };
    let policy = &declaration.policy;
    let bakes = state.live.is_some() && !policy.bake.is_zero();
    let mut lines = vec![
        Planned::Release { release, from: state.live_release() },
        Planned::Create { group, nodes: declaration.nodes },
        Planned::Gate { passes: policy.gate_passes, deadline: policy.progress_deadline },
        Planned::Shift { keep_old: bakes },
    ];
    if bakes {
        lines.push(Planned::Bake { window: policy.bake });
    }
    if let Some(old) = state.live {
        let deadline = state.declaration(old.release).map_or(policy.drain_deadline, |known| known.policy.drain_deadline);
        lines.extend([Planned::Drain { group: old, deadline }, Planned::Destroy { group: old }]);
    }
    lines
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
            Planned::Create { group, nodes } => write!(f, "EnsureGroup: {nodes} nodes of {group} beside the old ones"),
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

struct Live(Option<ReleaseNumber>);

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(release) => write!(f, "{release}"),
            None => f.write_str("no release"),
        }
    }
}
