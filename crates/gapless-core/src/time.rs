//! Instants, as the core is told them.

use core::time::Duration;

/// Milliseconds since the Unix epoch, as told by the engine. The engine never tells an instant that lies before an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The instant `span` after this one; the end of time if that cannot be counted.
    #[must_use]
    pub fn after(self, span: Duration) -> Instant {
        let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(milliseconds))
    }

    /// The time from `earlier` to this instant, zero if `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
