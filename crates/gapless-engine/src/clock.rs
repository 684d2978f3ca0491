//! The time, as the engine sees it.

use gapless_core::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time. The simulator has its own.
pub trait Clock: Send + Sync {
    /// Now, never before an earlier answer.
    fn now(&self) -> Instant;
}

/// The machine's clock. It stands still while the machine's clock is set back.
#[derive(Debug, Default)]
pub struct SystemClock {
    latest: AtomicU64,
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Instant(self.latest.fetch_max(milliseconds, Ordering::SeqCst).max(milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_never_lies_before_an_earlier_one() {
        let clock = SystemClock::default();
        let far = clock.now().0 + 1_000_000;
        clock.latest.store(far, Ordering::SeqCst);
        assert_eq!(clock.now(), Instant(far));
    }
}
