//! Times in words. Instants are told in UTC: the story is the same for every reader, and freeze windows are written in UTC, too.

use gapless_core::time::{Instant, WEEK_MINUTES, WeeklyWindow};
use std::time::Duration;

const MINUTE_MS: u64 = 60_000;

/// The Unix epoch was a Thursday: so many minutes after the Monday of its week.
const EPOCH_MINUTE: u64 = 3 * 24 * 60;

/// `Mon 08:00 UTC`: no time in a story lies further away than a week.
pub(super) fn of_week(at: Instant) -> String {
    let minute = u16::try_from((at.0 / MINUTE_MS + EPOCH_MINUTE) % WEEK_MINUTES).unwrap_or_default();
    let shown = WeeklyWindow { from: minute, until: minute }.to_string();
    let time = shown.split(" - ").next().unwrap_or_default();
    format!("{time} UTC")
}

/// `250 ms`, `1.5 s`, `2 min 5 s`, `3 h 0 min`.
pub(super) fn span(span: Duration) -> String {
    let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let seconds = milliseconds / 1000;
    match milliseconds {
        0..1_000 => format!("{milliseconds} ms"),
        1_000..60_000 if milliseconds.is_multiple_of(1000) => format!("{seconds} s"),
        1_000..60_000 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60_000..3_600_000 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
