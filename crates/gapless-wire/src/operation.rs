//! What is done to a rollout in progress, or to a service as it is.

use serde::{Deserialize, Serialize};

/// An operation. It never makes a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// The rollout goes no further until it is resumed.
    Pause,
    /// The rollout that was paused goes on.
    Resume,
    /// The rollout ends in the old release.
    Cancel,
    /// The step of the canary is good enough.
    Promote,
    /// The declared release is tried again that was rejected, or nodes are made again that were given up in a crash loop.
    Retry,
    /// The service has so many nodes, until a declaration names another number.
    Scale {
        /// How many; at least 1.
        nodes: u32,
    },
}
