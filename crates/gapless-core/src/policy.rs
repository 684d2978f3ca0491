//! How a service moves from one release to the next.

use core::time::Duration;

/// The policy of a service's rollouts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Ready nodes in the applied routes never fall below this number (I1). Between 0 and the node count.
    pub floor: u32,
    /// Successful checks in a row that a new node needs before it may get traffic. At least 1.
    pub gate_passes: u32,
    /// Failed checks in a row, counted from the node's first answer of any kind, after which a new node is given up. One that never answers is given up at the progress deadline. At least 1.
    pub gate_failures: u32,
    /// How long a rollout may take from its start until the new nodes passed the gate.
    pub progress_deadline: Duration,
    /// How long requests that are still running on an old node may go on after it left the routes.
    pub drain_deadline: Duration,
    /// How long the old group is kept warm after the shift, so that the way back is one `Route`. Zero: not at all.
    pub bake: Duration,
}
