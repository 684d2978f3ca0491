//! Values with units, paths and names: each reader says what it accepts.

use super::reader::{Complaint, text};
use hcl_edit::expr::Expression;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The units of time, each with its milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// The units of memory, each with its bytes (IEC 80000-13).
const SIZE_UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A span of time within bounds, such as "30s".
pub(crate) fn time(lowest: Duration, highest: Duration) -> impl Fn(&Expression) -> Result<Duration, Complaint> {
    move |value| {
        let hint = format!("a time from \"{}\" to \"{}\"; units: ms, s, m, h", show_time(lowest), show_time(highest));
        let milliseconds = with_unit(value, &TIME_UNITS, &hint)?;
        let time = Duration::from_millis(milliseconds);
        if time < lowest || time > highest { Err(out_of_bounds(value, hint)) } else { Ok(time) }
    }
}

/// An amount of memory within bounds, in bytes, such as "256MiB".
pub(crate) fn size(lowest: u64, highest: u64) -> impl Fn(&Expression) -> Result<u64, Complaint> {
    move |value| {
        let hint = format!("a size from \"{}\" to \"{}\"; units: KiB, MiB, GiB", show_size(lowest), show_size(highest));
        let bytes = with_unit(value, &SIZE_UNITS, &hint)?;
        if (lowest..=highest).contains(&bytes) { Ok(bytes) } else { Err(out_of_bounds(value, hint)) }
    }
}

/// A number of CPU cores within bounds, in thousandths, such as "0.5".
pub(crate) fn cores(lowest: u32, highest: u32) -> impl Fn(&Expression) -> Result<u32, Complaint> {
    move |value| {
        let shown = match value {
            Expression::Number(number) => number.value().to_string(),
            other => text(other)?,
        };
        let show = |thousandths: u32| format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        let hint = format!("a number of CPU cores from \"{}\" to \"{}\", at most three decimals", show(lowest), show(highest));
        let thousandths = decimal_thousandths(&shown).filter(|thousandths| (lowest..=highest).contains(thousandths));
        thousandths.ok_or_else(|| Complaint::new(format!("is \"{shown}\""), hint))
    }
}

/// A percentage within bounds, in hundredths of a percent, such as "0.5%".
pub(crate) fn hundredths(lowest: u32, highest: u32) -> impl Fn(&Expression) -> Result<u32, Complaint> {
    move |value| {
        let show = |hundredths: u32| format!("{}.{:02}%", hundredths / 100, hundredths % 100);
        let hint = format!("a percentage from \"{}\" to \"{}\", at most two decimals", show(lowest), show(highest));
        if let Expression::Number(number) = value {
            return Err(Complaint::new(format!("is {} without a unit", number.value()), hint));
        }
        let shown = text(value)?;
        let thousandths = shown.strip_suffix('%').and_then(decimal_thousandths).filter(|thousandths| thousandths.is_multiple_of(10));
        let found = thousandths.map(|thousandths| thousandths / 10).filter(|hundredths| (lowest..=highest).contains(hundredths));
        found.ok_or_else(|| Complaint::new(format!("is \"{shown}\""), hint))
    }
}

/// A whole percentage within bounds, such as "20%".
pub(crate) fn percent(lowest: u32, highest: u32) -> impl Fn(&Expression) -> Result<u32, Complaint> {
    move |value| {
        let hint = format!("a whole percentage from \"{lowest}%\" to \"{highest}%\"");
        let percent = u32::try_from(with_unit(value, &[("%", 1)], &hint)?).ok().filter(|percent| (lowest..=highest).contains(percent));
        percent.ok_or_else(|| out_of_bounds(value, hint))
    }
}

/// An absolute path without `..`.
pub(crate) fn absolute(value: &Expression) -> Result<PathBuf, Complaint> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() && is_plain(&path) {
        return Ok(path);
    }
    Err(Complaint::new(format!("is \"{}\"", path.display()), "an absolute path, such as \"/srv/app\", without `..`"))
}

/// A path inside the project, without `..`.
pub(crate) fn inside_project(value: &Expression) -> Result<PathBuf, Complaint> {
    let path = PathBuf::from(text(value)?);
    if path.is_relative() && is_plain(&path) && path.components().next().is_some() {
        return Ok(path);
    }
    Err(Complaint::new(format!("is \"{}\"", path.display()), "a path inside the project, such as \"app\", without `..`"))
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

fn with_unit(value: &Expression, units: &[(&str, u64)], hint: &str) -> Result<u64, Complaint> {
    if let Expression::Number(number) = value {
        return Err(Complaint::new(format!("is {} without a unit", number.value()), hint));
    }
    let shown = text(value)?;
    let digits = shown.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = shown.split_at(digits);
    let unit = unit.trim_start();
    if unit.is_empty() && !number.is_empty() {
        return Err(Complaint::new(format!("is \"{shown}\" without a unit"), hint));
    }
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let amount = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    amount.ok_or_else(|| Complaint::new(format!("is \"{shown}\""), hint))
}

fn out_of_bounds(value: &Expression, hint: String) -> Complaint {
    Complaint::new(format!("is \"{}\"", value.as_str().unwrap_or_default()), hint)
}

fn decimal_thousandths(shown: &str) -> Option<u32> {
    let (whole, decimals) = shown.split_once('.').unwrap_or((shown, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(decimals) || decimals.len() > 3 {
        return None;
    }
    let decimals: u32 = format!("{decimals:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(decimals)
}

/// A span of time as it may be written.
pub(crate) fn show_time(time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_string();
    }
    let (unit, factor) = largest_unit(milliseconds, &TIME_UNITS);
    format!("{}{unit}", milliseconds / factor)
}

fn show_size(bytes: u64) -> String {
    let (unit, factor) = largest_unit(bytes, &SIZE_UNITS);
    format!("{}{unit}", bytes / factor)
}

fn largest_unit(amount: u64, units: &'static [(&'static str, u64)]) -> (&'static str, u64) {
    units.iter().rev().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor)).copied().unwrap_or(units[0])
}
