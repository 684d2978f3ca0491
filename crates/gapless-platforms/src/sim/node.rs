//! Virtual nodes.

use gapless_core::digest::Digest;
use gapless_core::observation::Condition;
use gapless_core::release::ArtifactVersion;
use gapless_core::time::Instant;
use std::time::Duration;

/// How the nodes of an artifact version behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// From being created to its command running.
    pub start: Duration,
    /// From its command running to its first answer. Until then it refuses connections.
    pub boot: Duration,
    /// The status of its health checks.
    pub status: u16,
    /// Its command ends by itself.
    pub exit: Option<Exit>,
    /// It is made from this image and not from the declared one.
    pub image: Option<Digest>,
}

/// A command that ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// After its start.
    pub after: Duration,
    /// With this code.
    pub code: i32,
    /// And these last words.
    pub output: String,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { start: Duration::from_millis(20), boot: Duration::from_millis(50), status: 200, exit: None, image: None }
    }
}

/// One virtual node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) artifact: ArtifactVersion,
    pub(super) declared_image: Digest,
    pub(super) created: Instant,
    pub(super) condition: Condition,
}

impl Node {
    /// What a health check gets, or a request: the status, or nothing when the connection is refused.
    pub(super) fn answer(&self, behaviour: &Behaviour, now: Instant) -> Option<u16> {
        let answers_from = self.created.after(behaviour.start + behaviour.boot);
        (self.condition == Condition::Running && now >= answers_from).then_some(behaviour.status)
    }

    /// Moves on to `now`. Whether its condition changed.
    pub(super) fn advance(&mut self, behaviour: &Behaviour, now: Instant) -> bool {
        let next = match (&self.condition, &behaviour.exit) {
            (Condition::Exited { .. }, _) => return false,
            (_, Some(exit)) if now >= self.created.after(behaviour.start + exit.after) => {
                Condition::Exited { code: Some(exit.code), output: exit.output.clone() }
            }
            (Condition::Starting, _) if now >= self.created.after(behaviour.start) => Condition::Running,
            _ => return false,
        };
        self.condition = next;
        true
    }
}
