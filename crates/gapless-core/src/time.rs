//! Instants, as the core is told them.

use core::fmt;
use core::time::Duration;

/// Milliseconds in a minute.
const MINUTE: u64 = 60_000;

/// Minutes in a week.
pub const WEEK_MINUTES: u64 = 7 * 24 * 60;

/// The Unix epoch was a Thursday: so many minutes after the Monday of its week.
const EPOCH_MINUTE: u64 = 3 * 24 * 60;

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

/// A span of each week, in UTC: from one minute of the week (0: Monday, 00:00) to another one, which may lie in the next week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeeklyWindow {
    /// The first minute that belongs to it, below [`WEEK_MINUTES`].
    pub from: u16,
    /// The first minute that does not, below [`WEEK_MINUTES`]. The same as `from`: the window is empty.
    pub until: u16,
}

impl WeeklyWindow {
    /// The end of the window that `now` lies in, if it lies in one.
    #[must_use]
    pub fn ends_after(self, now: Instant) -> Option<Instant> {
        let minutes = now.0 / MINUTE;
        let of_week = minutes.saturating_add(EPOCH_MINUTE) % WEEK_MINUTES;
        let distance = |from: u64, to: u64| (to + WEEK_MINUTES - from) % WEEK_MINUTES;
        let (from, until) = (u64::from(self.from) % WEEK_MINUTES, u64::from(self.until));
        let inside = distance(from, of_week) < distance(from, until);
        inside.then(|| Instant(minutes.saturating_add(distance(of_week, until)).saturating_mul(MINUTE)))
    }
}

impl fmt::Display for WeeklyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |minute: u16| ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][usize::from(minute / (24 * 60)) % 7];
        let (from, until) = (self.from, self.until);
        let of_day = |minute: u16| (minute / 60 % 24, minute % 60);
        let ((from_hour, from_minute), (until_hour, until_minute)) = (of_day(from), of_day(until));
        write!(f, "{} {from_hour:02}:{from_minute:02} - {} {until_hour:02}:{until_minute:02}", day(from), day(until))
    }
}
