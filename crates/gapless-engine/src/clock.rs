//! The time, as the engine sees it.

use gapless_core::time::Instant;

/// Tells the time. The simulator has its own.
pub trait Clock: Send + Sync {
    /// Now, never before an earlier answer.
    fn now(&self) -> Instant;
}
