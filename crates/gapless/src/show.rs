//! How things are shown: tables, times, counts.

use crate::trouble::Trouble;
use gapless_wire::rollout::Waiting;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// JSON for programs.
pub fn json(value: &impl Serialize) -> Result<(), Trouble> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Trouble::new(format!("this cannot be written as JSON: {error}"), "this is a fault of gapless"))?;
    println!("{text}");
    Ok(())
}

/// Rows below a head, in columns as wide as they need to be.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text += &line(row.iter().map(String::as_str).collect());
    }
    text
}

/// `4,312`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `740 ms`, `0.9 s`, `12 s`, `3 min 20 s`.
pub fn span(milliseconds: u64) -> String {
    match milliseconds {
        0..100 => format!("{milliseconds} ms"),
        100..10_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        10_000..120_000 => format!("{} s", milliseconds / 1000),
        _ => format!("{} min {} s", milliseconds / 60_000, milliseconds % 60_000 / 1000),
    }
}

/// `1.5 GiB`, `64.0 MiB`, `12 KiB`.
pub fn bytes(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{} MiB", tenths(1 << 20)),
        _ => format!("{} GiB", tenths(1 << 30)),
    }
}

/// `1.2 ms` from microseconds.
pub fn latency(microseconds: u64) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}

/// What a release waits for: `for the end of rollout 4`, `until Mon 08:00`.
pub fn waiting(waiting: &Waiting) -> String {
    let told = "`gapless status` tells";
    match (waiting.rollout, waiting.frozen_until_ms) {
        (_, Some(until)) => {
            format!("until {}, when a freeze window ends (`gapless deploy --urgent` does not wait); {told}", day_and_time(until))
        }
        (Some(rollout), None) => format!("for the end of rollout {rollout}; {told}"),
        (None, None) => format!("for its turn; {told}"),
    }
}

/// The first characters of a commit or digest.
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}

/// How long ago.
pub fn ago(at_ms: u64) -> String {
    let seconds = now_ms().saturating_sub(at_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `14:32` in the machine's own time zone.
pub fn time_of_day(at_ms: u64) -> String {
    clock(at_ms, false)
}

/// `Mon 14:32` in the machine's own time zone.
pub fn day_and_time(at_ms: u64) -> String {
    let local = i64::try_from(at_ms).unwrap_or(0).saturating_add(offset_ms(at_ms));
    // The Unix epoch was a Thursday.
    let day = usize::try_from(local.div_euclid(86_400_000).rem_euclid(7)).unwrap_or(0);
    format!("{} {}", ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][day], time_of_day(at_ms))
}

/// `2026-01-05 14:32` in the machine's own time zone.
pub fn date_and_time(at_ms: u64) -> String {
    let local = i64::try_from(at_ms).unwrap_or(0).saturating_add(offset_ms(at_ms));
    let (year, month, day) = date(local.div_euclid(86_400_000));
    format!("{year:04}-{month:02}-{day:02} {}", time_of_day(at_ms))
}

/// Year, month and day of a number of days after the Unix epoch, in the Gregorian calendar. The year is counted from March on, so that the leap day comes last.
fn date(days: i64) -> (i64, i64, i64) {
    // 400 years of the calendar have 146,097 days; the epoch is 719,468 days after 1 March of the year 0.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// `14:32:07.250` in the machine's own time zone.
pub fn exact_time(at_ms: u64) -> String {
    clock(at_ms, true)
}

fn clock(at_ms: u64, exact: bool) -> String {
    let local = i64::try_from(at_ms).unwrap_or(0).saturating_add(offset_ms(at_ms));
    let of_day = local.rem_euclid(86_400_000);
    let (hours, minutes, seconds) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    if exact { format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", of_day % 1000) } else { format!("{hours:02}:{minutes:02}") }
}

/// The machine's distance from UTC at an instant, in milliseconds, from `/etc/localtime` (TZif, RFC 8536). Whatever is not understood is UTC.
fn offset_ms(at_ms: u64) -> i64 {
    let bytes = std::fs::read("/etc/localtime").unwrap_or_default();
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(0);
    zone_offset(&bytes, seconds).unwrap_or(0) * 1000
}

/// The offset in seconds that a TZif file of version 2 or later gives for an instant: that of the last transition before it.
fn zone_offset(file: &[u8], at: i64) -> Option<i64> {
    let first = Counts::read(file)?;
    let second = file.get(44 + first.length(4)..)?;
    let counts = Counts::read(second)?;
    let data = second.get(44..)?;
    let (times, rest) = data.split_at_checked(counts.transitions * 8)?;
    let (kinds, rest) = rest.split_at_checked(counts.transitions)?;
    let passed = times.chunks_exact(8).take_while(|time| i64::from_be_bytes((*time).try_into().unwrap_or_default()) <= at).count();
    let kind = passed.checked_sub(1).and_then(|last| kinds.get(last)).map_or(0, |kind| usize::from(*kind));
    let offset: [u8; 4] = rest.get(kind * 6..kind * 6 + 4)?.try_into().ok()?;
    Some(i64::from(i32::from_be_bytes(offset)))
}

/// The counts in a TZif header.
struct Counts {
    utc: usize,
    standard: usize,
    leaps: usize,
    transitions: usize,
    kinds: usize,
    letters: usize,
}

impl Counts {
    fn read(header: &[u8]) -> Option<Self> {
        let number = |place: usize| {
            let bytes: [u8; 4] = header.get(20 + place * 4..24 + place * 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(bytes)).ok()
        };
        if header.get(..4)? != b"TZif" || *header.get(4)? < b'2' {
            return None;
        }
        Some(Self {
            utc: number(0)?,
            standard: number(1)?,
            leaps: number(2)?,
            transitions: number(3)?,
            kinds: number(4)?,
            letters: number(5)?,
        })
    }

    fn length(&self, time: usize) -> usize {
        self.transitions * time + self.transitions + self.kinds * 6 + self.letters + self.leaps * (time + 4) + self.standard + self.utc
    }
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([count(0), count(999), count(4_312), count(1_234_567)], ["0", "999", "4,312", "1,234,567"]);
        assert_eq!([span(45), span(940), span(12_400), span(200_000)], ["45 ms", "0.9 s", "12 s", "3 min 20 s"]);
        assert_eq!([bytes(1), bytes(3 << 19), bytes(5 << 29)], ["1 KiB", "1.5 MiB", "2.5 GiB"]);
        assert_eq!([latency(950), latency(12_340)], ["0.9 ms", "12.3 ms"]);
        assert_eq!(day_and_time(1_767_600_000_000).split(' ').next(), Some("Mon"));
        assert_eq!([short("sha256:0123456789abcdef"), short("c0ffee")], ["0123456789ab", "c0ffee"]);
    }

    #[test]
    fn days_have_their_dates() {
        let dates = [-1, 0, 59, 11_016, 11_017, 20_458, 47_540, 47_541].map(date);
        let known = [(1969, 12, 31), (1970, 1, 1), (1970, 3, 1), (2000, 2, 29), (2000, 3, 1), (2026, 1, 5), (2100, 2, 28), (2100, 3, 1)];
        assert_eq!(dates, known);
        assert!(date_and_time(1_767_614_400_000).starts_with("2026-01-0"), "{}", date_and_time(1_767_614_400_000));
    }

    #[test]
    fn columns_are_as_wide_as_needed() {
        let rows = vec![vec!["web-r1".into(), "1".into()], vec!["a".into(), "12".into()]];
        assert_eq!(table(&["release", "nodes"], &rows), "release  nodes\nweb-r1   1\na        12\n");
    }

    #[test]
    fn a_time_zone_is_read_from_its_file() {
        // One transition at the epoch from UTC (kind 0) to UTC+2 (kind 1), written as the second block of a version 2 file.
        let header = |transitions: u32, kinds: u32| {
            let mut bytes = b"TZif2".to_vec();
            bytes.extend([0; 15]);
            for number in [0, 0, 0, transitions, kinds, 4] {
                bytes.extend(u32::to_be_bytes(number));
            }
            bytes
        };
        let mut file = header(0, 1);
        file.extend([0, 0, 0, 0, 0, 0]);
        file.extend(b"UTC\0");
        file.extend(header(1, 2));
        file.extend(i64::to_be_bytes(0));
        file.push(1);
        file.extend([0; 6]);
        file.extend(i32::to_be_bytes(7200));
        file.extend([0, 0]);
        file.extend(b"X\0\0\0");
        assert_eq!((zone_offset(&file, -1), zone_offset(&file, 5)), (Some(0), Some(7200)));
        assert_eq!(zone_offset(b"no zone", 5), None);
    }
}
