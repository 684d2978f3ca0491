//! What the witness's samples say about each rollout, and the timeline that is drawn of them.

use super::receipt::{Latencies, Seen, hundredths};
use super::reconcile::Count;
use super::timeline::{BUCKET_MS, Bucket, Latency, Span, Timeline};
use gapless_load::{Name, Quantiles, Recording, SMALL_CLASSES, Sample, SampleLog, Window};
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::{Fact, Outcome, RolloutKind};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// How the witness names requests that no release answered.
const NO_RELEASE: &str = "none";

/// A stretch of time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Its beginning.
    pub from_ms: u64,
    /// Its end.
    pub until_ms: u64,
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    // A clock before 1970 is a clock that nothing here can be compared with.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Stretch {
    /// The same, as the witness's samples are asked for it.
    pub fn window(self) -> Window {
        Window::from_unix_ms(self.from_ms, self.until_ms)
    }
}

/// When the first fact of this kind happened in a rollout, in milliseconds since the Unix epoch.
pub fn moment(receipt: &Receipt, is: impl Fn(&Fact) -> bool) -> Option<u64> {
    receipt.steps.iter().find(|step| is(&step.fact)).map(|step| step.at_ms)
}

/// When every proxy had acknowledged the new route.
pub fn shifted_ms(receipt: &Receipt) -> Option<u64> {
    moment(receipt, |fact| matches!(fact, Fact::Shifted { .. }))
}

/// When no route named the old nodes any more.
pub fn drain_began_ms(receipt: &Receipt) -> Option<u64> {
    moment(receipt, |fact| matches!(fact, Fact::DrainBegan { .. }))
}

/// What the witness saw of a rollout; `quiet` is the stretch before it that it is compared with.
pub fn of_rollout(log: &SampleLog, receipt: &Receipt, quiet: Option<Stretch>) -> Seen {
    let whole = Stretch { from_ms: receipt.started_ms, until_ms: receipt.ended_ms };
    let switch = latencies(log, whole);
    Seen {
        in_flight_at_switch: shifted_ms(receipt).map(|at_ms| old_in_flight(log, receipt, at_ms).values().sum()),
        longest_gap_ms: switch.max_ms.map(|_| hundredths(log.longest_gap_ms(&SMALL_CLASSES, whole.window()))),
        steady: quiet.map(|stretch| latencies(log, stretch)).unwrap_or_default(),
        switch,
    }
}

/// Requests in flight, by class, on the nodes that a rollout replaced.
pub fn old_in_flight(log: &SampleLog, receipt: &Receipt, at_ms: u64) -> BTreeMap<String, u64> {
    let Some(from) = &receipt.from else { return BTreeMap::new() };
    let at_us = at_ms * 1_000;
    let mut counts = BTreeMap::new();
    for sample in log.samples.iter().filter(|sample| answered_by(sample, &from.release) && in_flight(sample, at_us)) {
        if let Some(class) = log.classes.get(usize::from(sample.class)) {
            *counts.entry(class.clone()).or_default() += 1;
        }
    }
    counts
}

fn answered_by(sample: &Sample, release: &str) -> bool {
    sample.release.as_ref().is_some_and(|name| name.as_str() == release)
}

fn in_flight(sample: &Sample, at_us: u64) -> bool {
    sample.sent_us().is_some_and(|sent| sent <= at_us) && sample.ended_us() > at_us
}

fn latencies(log: &SampleLog, stretch: Stretch) -> Latencies {
    let found = log.quantiles(&SMALL_CLASSES, stretch.window());
    some(found).map_or_else(Latencies::default, |found| Latencies::new(found.p50_ms, found.p99_ms, found.max_ms))
}

fn some(quantiles: Quantiles) -> Option<Quantiles> {
    (quantiles.count > 0).then_some(quantiles)
}

/// The witness's count of every request that it started, by the release that answered.
pub fn count(recording: &Recording) -> Count {
    let mut count = Count::default();
    for (release, report) in &recording.report.by_release {
        count.add(if release == NO_RELEASE { "" } else { release }, report.requests);
    }
    count
}

/// The whole run over time, with its rollouts.
pub fn timeline(log: &SampleLog, receipts: &[Receipt]) -> Timeline {
    let releases = releases_in_order(log);
    let latencies = latencies_by_bucket(log);
    let buckets = log
        .split(BUCKET_MS, Window::ALL)
        .into_iter()
        .enumerate()
        .map(|(place, bucket)| Bucket {
            at_ms: bucket.start_unix_ms,
            by_release: releases.iter().map(|name| bucket.by_release.get(name).copied().unwrap_or(0)).collect(),
            failed: bucket.failed,
            latency: latencies.get(&(place as u64)).copied(),
        })
        .collect();
    Timeline { releases, buckets, spans: receipts.iter().map(span).collect() }
}

fn releases_in_order(log: &SampleLog) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in log.samples.iter().filter_map(|sample| sample.release.as_ref().map(Name::as_str)) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Latencies of small GETs by the place of the bucket in which they ended.
fn latencies_by_bucket(log: &SampleLog) -> BTreeMap<u64, Latency> {
    let Some(first_us) = log.samples.iter().map(|sample| sample.scheduled_us).min() else { return BTreeMap::new() };
    let mut by_bucket: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for sample in log.of_classes(&SMALL_CLASSES).filter(|sample| sample.is_ok()) {
        by_bucket.entry((sample.ended_us() - first_us) / (BUCKET_MS * 1_000)).or_default().push(sample.latency_us);
    }
    by_bucket.into_iter().map(|(place, latencies)| (place, latency(latencies))).collect()
}

fn latency(mut microseconds: Vec<u64>) -> Latency {
    microseconds.sort_unstable();
    let rank = |per_cent: usize| {
        let place = (microseconds.len() * per_cent).div_ceil(100).saturating_sub(1);
        microseconds.get(place).map_or(0.0, |latency| hundredths(*latency as f64 / 1_000.0))
    };
    Latency { p50_ms: rank(50), p99_ms: rank(99), max_ms: rank(100) }
}

fn span(receipt: &Receipt) -> Span {
    let verb = match receipt.kind {
        RolloutKind::Deploy => "deploy",
        RolloutKind::Rollback => "rollback to",
        RolloutKind::Eviction => "eviction to",
    };
    Span {
        label: format!("{verb} {}", receipt.to.release),
        began_ms: receipt.started_ms,
        shifted_ms: shifted_ms(receipt),
        ended_ms: receipt.ended_ms,
        rejected: receipt.outcome == Outcome::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::super::receipt::tests::signed;
    use super::*;
    use gapless_load::{ReleaseReport, Report};
    use gapless_wire::rollout::Step;

    fn sample(scheduled_ms: u64, latency_ms: u64, class: u16, release: &str) -> Sample {
        Sample {
            scheduled_us: scheduled_ms * 1_000,
            latency_us: latency_ms * 1_000,
            from_send_us: Some(latency_ms * 1_000),
            class,
            release: Some(Name::from(release)),
            node: None,
            status: Some(200),
            failure: None,
        }
    }

    fn log() -> SampleLog {
        SampleLog {
            classes: vec!["small".to_owned(), "slow".to_owned()],
            samples: vec![
                sample(1_000, 10, 0, "web-r1"),
                sample(1_400, 20, 0, "web-r1"),
                sample(1_500, 2_000, 1, "web-r1"),
                sample(1_505, 2_000, 1, "web-r2"),
                sample(1_600, 30, 0, "web-r2"),
            ],
        }
    }

    fn receipt() -> Receipt {
        let step = |at_ms, fact| Step { at_ms, rollout: Some(2), fact, text: String::new(), rule: String::new() };
        let drain = Fact::DrainBegan { nodes: Vec::new(), deadline_ms: 0 };
        let steps = vec![step(1_510, Fact::Shifted { generation: 2 }), step(1_515, drain)];
        Receipt { started_ms: 1_300, ended_ms: 4_000, steps, ..signed() }
    }

    #[test]
    fn what_was_in_flight_on_the_old_nodes_is_seen() {
        let seen = of_rollout(&log(), &receipt(), Some(Stretch { from_ms: 900, until_ms: 1_100 }));
        assert_eq!(seen.in_flight_at_switch, Some(1));
        assert_eq!(old_in_flight(&log(), &receipt(), 1_515), BTreeMap::from([("slow".to_owned(), 1)]));
        assert_eq!((seen.steady.max_ms, seen.switch.max_ms), (Some(10.0), Some(30.0)));
        assert_eq!(drain_began_ms(&receipt()), Some(1_515));
        // Its next success after 1,630 never came: the gap reaches to the rollout's end or the log's, whichever is nearer.
        assert_eq!(seen.longest_gap_ms, Some(1_875.0));
    }

    #[test]
    fn without_traffic_nothing_was_seen() {
        let first = Receipt { from: None, ..receipt() };
        let seen = of_rollout(&SampleLog::default(), &first, None);
        assert_eq!(seen, Seen { in_flight_at_switch: Some(0), ..Seen::default() });
    }

    #[test]
    fn the_timeline_holds_every_request() {
        let timeline = timeline(&log(), &[receipt()]);
        assert_eq!(timeline.releases, ["web-r1", "web-r2"]);
        let counted: u64 = timeline.buckets.iter().flat_map(|bucket| bucket.by_release.iter()).sum();
        assert_eq!(counted, 5);
        assert_eq!(timeline.buckets[0].latency, Some(Latency { p50_ms: 10.0, p99_ms: 10.0, max_ms: 10.0 }));
        assert_eq!(timeline.spans[0].shifted_ms, Some(1_510));
    }

    #[test]
    fn requests_without_an_answer_have_the_empty_name() {
        let by_release = BTreeMap::from([("none".to_owned(), ReleaseReport { requests: 2, failed: 2 })]);
        let recording = Recording { report: Report { by_release, ..Report::default() }, ..Recording::default() };
        assert_eq!(count(&recording).by_release, BTreeMap::from([(String::new(), 2)]));
    }
}
