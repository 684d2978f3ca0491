//! An engine's clock over the simulated world, as the machine's is: set by somebody between two lives of the engine, even within one.

use super::Sim;
use gapless_core::time::Instant;
use gapless_engine::clock::Clock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads a wall clock that may be wrong once, at its start, and counts on evenly.
pub struct SimClock {
    sim: Sim,
    began: Instant,
    base: AtomicU64,
}

impl SimClock {
    /// A clock that begins now, when the wall clock is `wrong_by` milliseconds before (negative) or after the world's time.
    #[must_use]
    pub fn new(sim: Sim, wrong_by: i64) -> Self {
        let began = sim.now();
        Self { base: AtomicU64::new(began.0.saturating_add_signed(wrong_by)), began, sim }
    }

    fn elapsed(&self) -> u64 {
        self.sim.now().0.saturating_sub(self.began.0)
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        Instant(self.base.load(Ordering::SeqCst).saturating_add(self.elapsed()))
    }

    fn go_on_from(&self, at: Instant) {
        self.base.fetch_max(at.0.saturating_sub(self.elapsed()), Ordering::SeqCst);
    }
}
