//! What a person may do to a service beside declaring it and going back.

use gapless_core::event::Event;

/// Something that is done to the rollout in progress, or to the service as it is. It never makes a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The service has so many nodes, until a declaration names another number. At least 1.
    Scale(u32),
}

impl Operation {
    /// What the core is told.
    pub(crate) fn event(self) -> Event {
        match self {
            Operation::Pause => Event::Paused,
            Operation::Resume => Event::Resumed,
            Operation::Cancel => Event::Cancelled,
            Operation::Promote => Event::Promoted,
            Operation::Retry => Event::RetryRequested,
            Operation::Scale(nodes) => Event::Scaled { nodes },
        }
    }
}
