//! The time, as the engine sees it.

use gapless_core::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time. The simulator has its own.
pub trait Clock: Send + Sync {
    /// Now, never before an earlier answer.
    fn now(&self) -> Instant;

    /// From now on, never before this instant, which an earlier engine wrote down.
    fn go_on_from(&self, _at: Instant) {}
}

/// Reads the machine's wall clock once, and counts on by its monotonic one: a wall clock that is set makes deadlines neither pass at once nor stand still. An earlier
/// engine whose wall clock went ahead leaves this one ahead too, by the same time, and no longer.
#[derive(Debug)]
pub struct SystemClock {
    began: std::time::Instant,
    /// Milliseconds since the Unix epoch at `began`.
    base: AtomicU64,
}

impl SystemClock {
    fn beginning_at(wall: Instant) -> Self {
        Self { began: std::time::Instant::now(), base: AtomicU64::new(wall.0) }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::beginning_at(Instant(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let elapsed = self.elapsed();
        Instant(self.base.load(Ordering::SeqCst).saturating_add(elapsed))
    }

    fn go_on_from(&self, at: Instant) {
        let base = at.0.saturating_sub(self.elapsed());
        self.base.fetch_max(base, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for the clock to go on by one millisecond at least.
    fn goes_on(clock: &SystemClock) {
        let (before, patience) = (clock.now(), std::time::Instant::now());
        while clock.now() <= before {
            assert!(patience.elapsed().as_secs() < 10, "the time stands still at {before:?}");
        }
    }

    #[test]
    fn the_time_goes_on_also_when_an_earlier_engine_was_ahead() {
        let clock = SystemClock::default();
        goes_on(&clock);
        let hour = 3_600_000;
        let ahead = Instant(clock.now().0 + hour);
        clock.go_on_from(ahead);
        assert!(clock.now() >= ahead);
        goes_on(&clock);
        assert!(clock.now().0 < ahead.0 + hour, "the time jumped");
    }

    #[test]
    fn an_earlier_record_changes_nothing() {
        let clock = SystemClock::beginning_at(Instant(5_000_000));
        clock.go_on_from(Instant(1));
        assert!(clock.now() >= Instant(5_000_000));
    }
}
