//! Times of the week, such as "Fri 16:00 - Mon 08:00", in UTC.

use crate::hcl::{Complaint, list, text};
use gapless_core::time::{WEEK_MINUTES, WeeklyWindow};
use hcl_edit::expr::Expression;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const HINT: &str = "two times of the week in UTC, such as \"Fri 16:00 - Mon 08:00\"; days: Mon, Tue, Wed, Thu, Fri, Sat, Sun";

/// A list of windows that leaves some time free.
pub(super) fn read(value: &Expression) -> Result<Vec<WeeklyWindow>, Complaint> {
    let windows = list(window)(value)?;
    if leaves_time(&windows) {
        return Ok(windows);
    }
    Err(Complaint::new("leaves no minute of the week in which a deployment may begin", "leave some time free"))
}

fn window(value: &Expression) -> Result<WeeklyWindow, Complaint> {
    let shown = text(value)?;
    let complaint = || Complaint::new(format!("is \"{shown}\""), HINT);
    let (from, until) = shown.split_once('-').ok_or_else(complaint)?;
    let (from, until) = minute(from).zip(minute(until)).ok_or_else(complaint)?;
    if from == until {
        return Err(Complaint::new(format!("is \"{shown}\", which begins and ends at the same minute"), HINT));
    }
    Ok(WeeklyWindow { from, until })
}

/// The minute of the week of a time such as `Fri 16:00`.
fn minute(text: &str) -> Option<u16> {
    let (day, time) = text.trim().split_once(' ')?;
    let (hours, minutes) = time.trim().split_once(':')?;
    let day = DAYS.iter().position(|known| *known == day)?;
    let digits = |digits: &str, below: u16| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|number| plain && *number < below)
    };
    Some(u16::try_from(day).ok()? * 24 * 60 + digits(hours, 24)? * 60 + digits(minutes, 60)?)
}

fn leaves_time(windows: &[WeeklyWindow]) -> bool {
    let week = u16::try_from(WEEK_MINUTES).unwrap_or(u16::MAX);
    let inside = |window: &WeeklyWindow, minute: u16| {
        let distance = |from: u16, to: u16| (u32::from(to) + u32::from(week) - u32::from(from)) % u32::from(week);
        distance(window.from, minute) < distance(window.from, window.until)
    };
    (0..week).any(|minute| !windows.iter().any(|window| inside(window, minute)))
}
