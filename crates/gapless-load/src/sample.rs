//! The log of requests and what can be read from it: quantiles, the longest gap, what was in flight, the split.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Cause;

/// Most buckets of a split; a split that would need more gets wider buckets.
const MAX_SPLIT_BUCKETS: u64 = 100_000;
/// How requests without a release header are named in a split and in the report.
pub(crate) const NO_RELEASE: &str = "none";

/// A release's or node's name, shared between the samples that carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// One request, as it was for the client. Times are microseconds; the clock was read once, at the start of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it had to start: microseconds since the Unix epoch.
    pub scheduled_us: u64,
    /// From the scheduled instant to the end, so that a late start counts as waiting.
    pub latency_us: u64,
    /// From just before its first byte was written to the end; none if nothing was written.
    pub from_send_us: Option<u64>,
    /// Index into the log's classes.
    pub class: u16,
    /// The response header `x-gapless-release`.
    pub release: Option<Name>,
    /// The response header `x-gapless-node`.
    pub node: Option<Name>,
    /// The response's status, if its head arrived.
    pub status: Option<u16>,
    /// Why it failed; none if it succeeded.
    pub failure: Option<Cause>,
}

/// All samples that were kept, in the order in which they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleLog {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// A span of time, from `from_us` up to but without `until_us`: microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first microsecond.
    pub from_us: u64,
    /// The first microsecond after it.
    pub until_us: u64,
}

/// Latencies of the requests that succeeded, from the scheduled instant; exact, by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Requests that succeeded.
    pub count: u64,
    /// Requests that failed; they have no part in the latencies.
    pub failed: u64,
    /// Half of them were at most this long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// Requests that ended in one span of time, by release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitBucket {
    /// Start of the bucket: milliseconds since the Unix epoch.
    pub start_unix_ms: u64,
    /// Requests by release, failed ones included; those without a release header as `none`.
    pub by_release: BTreeMap<String, u64>,
    /// Requests that failed.
    pub failed: u64,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Arc::from(text)))
    }
}

impl Sample {
    /// Whether it succeeded.
    pub fn is_ok(&self) -> bool {
        self.failure.is_none()
    }

    /// When it ended: microseconds since the Unix epoch.
    pub fn ended_us(&self) -> u64 {
        self.scheduled_us + self.latency_us
    }

    /// When its first byte was about to be written, if it came to that.
    pub fn sent_us(&self) -> Option<u64> {
        self.from_send_us.map(|from_send| self.ended_us().saturating_sub(from_send))
    }
}

impl Window {
    /// All times.
    pub const ALL: Self = Self { from_us: 0, until_us: u64::MAX };

    /// From and until in milliseconds since the Unix epoch.
    pub fn from_unix_ms(from_ms: u64, until_ms: u64) -> Self {
        Self { from_us: from_ms.saturating_mul(1000), until_us: until_ms.saturating_mul(1000) }
    }

    /// Whether the instant lies inside.
    pub fn contains(&self, instant_us: u64) -> bool {
        (self.from_us..self.until_us).contains(&instant_us)
    }

    /// Whether a request was under way inside the window: waiting counts, from its scheduled instant on.
    fn touches(&self, sample: &Sample) -> bool {
        sample.scheduled_us < self.until_us && sample.ended_us() >= self.from_us
    }
}

impl SampleLog {
    /// The samples of the classes with these names; of all classes if no name is given.
    pub fn of_classes<'a>(&'a self, classes: &[&str]) -> impl Iterator<Item = &'a Sample> {
        let chosen: Vec<bool> = self.classes.iter().map(|name| classes.is_empty() || classes.contains(&name.as_str())).collect();
        self.samples.iter().filter(move |sample| chosen.get(usize::from(sample.class)).copied().unwrap_or(false))
    }

    /// Latencies of the requests of `classes` (all, if empty) that were under way in the window. A request
    /// that a switch held up counts in the switch's window even if it was scheduled before it.
    pub fn quantiles(&self, classes: &[&str], window: Window) -> Quantiles {
        let (mut latencies, mut failed) = (Vec::new(), 0);
        for sample in self.of_classes(classes).filter(|sample| window.touches(sample)) {
            match sample.failure {
                None => latencies.push(sample.latency_us),
                Some(_) => failed += 1,
            }
        }
        latencies.sort_unstable();
        Quantiles {
            count: latencies.len() as u64,
            failed,
            p50_ms: rank_ms(&latencies, 500),
            p99_ms: rank_ms(&latencies, 990),
            p999_ms: rank_ms(&latencies, 999),
            max_ms: rank_ms(&latencies, 1000),
        }
    }

    /// The longest time, in milliseconds, between one success of `classes` (all, if empty) and the next, by the
    /// times at which they ended. A gap that reaches over the window's edge counts whole; where the record has no
    /// success before or after, the gap ends at the window's edge, or at the record's, whichever is nearer.
    pub fn longest_gap_ms(&self, classes: &[&str], window: Window) -> f64 {
        let Some(extent) = self.extent() else { return 0.0 };
        let from = window.from_us.max(extent.from_us);
        let until = window.until_us.min(extent.until_us);
        if from >= until {
            return 0.0;
        }
        let mut ends: Vec<u64> = self.of_classes(classes).filter(|sample| sample.is_ok()).map(Sample::ended_us).collect();
        ends.sort_unstable();
        let first = ends.partition_point(|end| *end < from);
        let last = ends.partition_point(|end| *end < until);
        let before = first.checked_sub(1).map_or(from, |index| ends[index]);
        let after = ends.get(last).copied().unwrap_or(until);
        let mut previous = before;
        let mut longest = 0;
        for end in ends[first..last].iter().copied().chain([after]) {
            longest = longest.max(end - previous);
            previous = end;
        }
        milliseconds(longest)
    }

    /// Requests by class of which something was sent and that had not ended at the instant (microseconds since the
    /// Unix epoch).
    pub fn in_flight_at(&self, instant_us: u64) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = self.classes.iter().map(|name| (name.clone(), 0)).collect();
        let sent_by = |sample: &Sample| sample.sent_us().is_some_and(|sent| sent <= instant_us);
        for sample in self.samples.iter().filter(|sample| sent_by(sample) && sample.ended_us() > instant_us) {
            if let Some(count) = self.classes.get(usize::from(sample.class)).and_then(|name| counts.get_mut(name)) {
                *count += 1;
            }
        }
        counts
    }

    /// Requests per release over time: by their ends, in buckets of `bucket_ms` milliseconds that begin at the
    /// window's start, or at the record's if that is later. Empty buckets are there too.
    pub fn split(&self, bucket_ms: u64, window: Window) -> Vec<SplitBucket> {
        let Some(extent) = self.extent() else { return Vec::new() };
        let from = window.from_us.max(extent.from_us);
        let until = window.until_us.min(extent.until_us);
        if from >= until {
            return Vec::new();
        }
        let least = (until - from).div_ceil(MAX_SPLIT_BUCKETS);
        let width = bucket_ms.max(1).saturating_mul(1000).max(least);
        let bucket = |index: u64| SplitBucket { start_unix_ms: (from + index * width) / 1000, by_release: BTreeMap::new(), failed: 0 };
        let mut buckets: Vec<SplitBucket> = (0..(until - from).div_ceil(width)).map(bucket).collect();
        for sample in self.samples.iter().filter(|sample| (from..until).contains(&sample.ended_us())) {
            let bucket = &mut buckets[((sample.ended_us() - from) / width) as usize];
            let release = sample.release.as_ref().map_or(NO_RELEASE, Name::as_str);
            count_up(&mut bucket.by_release, release);
            bucket.failed += u64::from(!sample.is_ok());
        }
        buckets
    }

    /// From the first scheduled instant to just after the last end.
    fn extent(&self) -> Option<Window> {
        let from_us = self.samples.iter().map(|sample| sample.scheduled_us).min()?;
        let until_us = self.samples.iter().map(Sample::ended_us).max()? + 1;
        Some(Window { from_us, until_us })
    }
}

/// Adds one to the count of `key`, without a copy of the key if it is known.
pub(crate) fn count_up(counts: &mut BTreeMap<String, u64>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => {
            counts.insert(key.to_owned(), 1);
        }
    }
}

/// The nearest-rank quantile of sorted microseconds, in milliseconds.
fn rank_ms(sorted: &[u64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    milliseconds(sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0))
}

pub(crate) fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(scheduled_ms: u64, latency_ms: u64, class: u16, failure: Option<Cause>) -> Sample {
        Sample {
            scheduled_us: scheduled_ms * 1000,
            latency_us: latency_ms * 1000,
            from_send_us: Some(latency_ms * 1000),
            class,
            release: Some(Name::from(if scheduled_ms < 100 { "web-r1" } else { "web-r2" })),
            node: None,
            status: Some(200),
            failure,
        }
    }

    fn log(samples: Vec<Sample>) -> SampleLog {
        SampleLog { classes: vec!["small".to_owned(), "slow".to_owned()], samples }
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let log = log((1..=1000).map(|latency| sample(1000, latency, 0, None)).collect());
        let all = log.quantiles(&[], Window::ALL);
        assert_eq!((all.count, all.failed), (1000, 0));
        assert_eq!((all.p50_ms, all.p99_ms, all.p999_ms, all.max_ms), (500.0, 990.0, 999.0, 1000.0));
        assert_eq!(log.quantiles(&["slow"], Window::ALL), Quantiles::default());
    }

    #[test]
    fn quantiles_take_what_was_under_way_and_leave_failures_out() {
        let log = log(vec![
            sample(0, 10, 0, None),
            sample(50, 100, 0, None),
            sample(120, 1, 0, Some(Cause::Reset)),
            sample(200, 7, 0, None),
            sample(120, 3, 1, None),
        ]);
        let quantiles = log.quantiles(&["small"], Window::from_unix_ms(100, 200));
        assert_eq!((quantiles.count, quantiles.failed, quantiles.max_ms), (1, 1, 100.0));
        assert_eq!(log.quantiles(&[], Window::from_unix_ms(11, 50)).count, 0);
    }

    #[test]
    fn the_longest_gap_lies_between_successes() {
        let log = log(vec![
            sample(0, 10, 0, None),
            sample(20, 10, 0, None),
            sample(40, 10, 0, Some(Cause::Status503)),
            sample(50, 10, 1, None),
            sample(100, 10, 0, None),
            sample(101, 20, 0, None),
        ]);
        assert_eq!(log.longest_gap_ms(&["small"], Window::ALL), 80.0);
        assert_eq!(log.longest_gap_ms(&[], Window::ALL), 50.0);
        // Begins and ends inside the gap: the gap counts whole.
        assert_eq!(log.longest_gap_ms(&["small"], Window::from_unix_ms(60, 70)), 80.0);
        assert_eq!(log.longest_gap_ms(&["small"], Window::from_unix_ms(111, 120)), 11.0);
        assert_eq!(log.longest_gap_ms(&["small"], Window::from_unix_ms(500, 600)), 0.0);
    }

    #[test]
    fn a_gap_without_end_is_seen() {
        let failing = (1..=50).map(|number| sample(number * 10, 5, 0, Some(Cause::ConnectRefused)));
        let log = log([sample(0, 5, 0, None)].into_iter().chain(failing).collect());
        assert_eq!(log.longest_gap_ms(&["small"], Window::ALL), 500.001);
        assert_eq!(log.longest_gap_ms(&["small"], Window::from_unix_ms(100, 200)), 195.0);
        let never = SampleLog { samples: log.samples[1..].to_vec(), ..log };
        assert_eq!(never.longest_gap_ms(&[], Window::from_unix_ms(100, 200)), 100.0);
    }

    #[test]
    fn in_flight_is_sent_and_not_ended() {
        let mut unsent = sample(0, 100, 0, Some(Cause::ConnectTimeout));
        unsent.from_send_us = None;
        let mut waited = sample(0, 100, 1, None);
        waited.from_send_us = Some(40_000);
        let log = log(vec![sample(0, 10, 0, None), sample(5, 100, 0, None), unsent, waited]);
        let at = |ms: u64| {
            let counts = log.in_flight_at(ms * 1000);
            (counts["small"], counts["slow"])
        };
        assert_eq!([at(0), at(5), at(10), at(60), at(104), at(105)], [(1, 0), (2, 0), (1, 0), (1, 1), (1, 0), (0, 0)]);
    }

    #[test]
    fn the_split_counts_by_end_and_release() {
        let log =
            log(vec![sample(0, 1, 0, None), sample(10, 1, 0, None), sample(95, 10, 0, None), sample(100, 4, 0, Some(Cause::Corrupt))]);
        let split = log.split(50, Window::ALL);
        let rows: Vec<_> = split.iter().map(|bucket| (bucket.start_unix_ms, bucket.failed)).collect();
        assert_eq!(rows, [(0, 0), (50, 0), (100, 1)]);
        assert_eq!(split[0].by_release, BTreeMap::from([("web-r1".to_owned(), 2)]));
        assert!(split[1].by_release.is_empty());
        assert_eq!(split[2].by_release, BTreeMap::from([("web-r1".to_owned(), 1), ("web-r2".to_owned(), 1)]));
        assert_eq!(log.split(0, Window::from_unix_ms(100, 104)).len(), 4);
        assert!(SampleLog::default().split(50, Window::ALL).is_empty());
    }
}
