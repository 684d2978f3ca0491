//! How a service moves from one release to the next.

use crate::analysis::AnalysisPolicy;
use crate::time::WeeklyWindow;
use alloc::vec::Vec;
use core::time::Duration;

/// The policy of a service's rollouts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The order in which the new nodes take the old ones' place.
    pub strategy: Strategy,
    /// Ready nodes in the applied routes never fall below this number (I1). Between 0 and the node count.
    pub floor: u32,
    /// Successful checks in a row that a new node needs before it may get traffic. At least 1.
    pub gate_passes: u32,
    /// Failed checks in a row, counted from the node's first answer of any kind, after which a new node is given up. One that never answers is given up at the progress deadline. At least 1.
    pub gate_failures: u32,
    /// How long a rollout may take from its start until the new nodes passed the gate; in a rolling one, how long each batch may take.
    pub progress_deadline: Duration,
    /// How long requests that are still running on an old node may go on after it left the routes.
    pub drain_deadline: Duration,
    /// How long the old group is kept warm after the shift, so that the way back is one `Route`. Zero: not at all.
    pub bake: Duration,
    /// How long a release command or a hook may run.
    pub task_deadline: Duration,
    /// What a declaration does that comes while a rollout is in progress.
    pub supersede: Supersede,
    /// A release before this one can no longer run once this one was live (a migration that takes something away): a rollback past it is refused unless it is forced, and
    /// nothing goes back by itself.
    pub breaks_the_way_back: bool,
    /// Times of the week in which no deployment begins.
    pub freeze: Vec<WeeklyWindow>,
    /// How many earlier releases that were live are kept to go back to, beside the live one. At least 1.
    pub keep: u32,
}

/// The order in which new nodes take old ones' place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// A whole new group beside the old one, one shift, the old one kept warm.
    BlueGreen,
    /// Some nodes after others, inside the room that `surge` and the floor leave.
    Rolling {
        /// How many nodes there may be beyond the node count. With 0, old nodes leave first, down to the floor.
        surge: u32,
    },
    /// A whole new group beside the old one that is given the traffic step by step.
    Canary {
        /// The steps before all of the traffic, with growing shares. At least 1.
        steps: Vec<CanaryStep>,
        /// What the new group's answers are compared with the old one's by, in each step; `None`: by nothing but its health.
        analysis: Option<AnalysisPolicy>,
    },
    /// The old group is destroyed before the new one is made, because only one may use its state. The outage is counted and shown.
    Recreate,
}

/// A step of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanaryStep {
    /// The new group's share of the traffic, from 1 to 99 percent.
    pub percent: u8,
    /// What ends the step.
    pub pause: CanaryPause,
}

/// What ends a step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CanaryPause {
    /// This time, with a good verdict if there is an analysis.
    For(Duration),
    /// A person who promotes it.
    Person,
}

/// What a declaration does that comes while a rollout is in progress and can no longer simply be followed by another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Supersede {
    /// It waits for the rollout's end; a later declaration takes its place.
    #[default]
    Queue,
    /// It ends the rollout, if that has not shifted the traffic yet, and is next.
    Replace,
}

/// How many earlier releases are kept unless the declaration says otherwise: a working week of two releases a day.
pub const KEEP_DEFAULT: u32 = 10;

impl Default for Policy {
    /// Blue/green with a floor of 0 and no bake window; what a declaration leaves out of the newer settings.
    fn default() -> Self {
        Self {
            strategy: Strategy::BlueGreen,
            floor: 0,
            gate_passes: 2,
            gate_failures: 3,
            progress_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            bake: Duration::ZERO,
            task_deadline: Duration::from_secs(600),
            supersede: Supersede::Queue,
            breaks_the_way_back: false,
            freeze: Vec::new(),
            keep: KEEP_DEFAULT,
        }
    }
}
