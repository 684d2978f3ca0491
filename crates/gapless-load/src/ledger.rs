//! Counts what the requests of a run come to: the one place where totals, log and progress are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::exchange::Finished;
use crate::failure::Cause;
use crate::plan::MAX_DEADLINE_MS;
use crate::progress::{Interval, Progress};
use crate::report::{ClassReport, FailureExample, Recording, ReleaseReport, Report};
use crate::sample::{NO_RELEASE, Name, Sample, SampleLog, count_up, milliseconds};

/// Longest latency the totals tell apart, in microseconds: the longest deadline and a late start as long.
const MAX_LATENCY_US: u64 = 2 * MAX_DEADLINE_MS * 1000;
/// Most samples kept: an hour at 500 requests a second, about 150 MB. Totals go on beyond it.
const MAX_SAMPLES: usize = 1_800_000;
/// Most failures told in words.
const MAX_FAILURE_EXAMPLES: usize = 32;
/// Most different names of releases and nodes, and most bytes of one: a server may send anything.
const MAX_NAMES: usize = 4096;
/// Longest name taken from a response, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// What names beyond the limits are counted as.
const OTHER_NAME: &str = "other";

/// The counts of a run.
pub struct Ledger {
    start: Instant,
    start_unix_us: u64,
    classes: Vec<ClassTally>,
    by_release: BTreeMap<Name, ReleaseReport>,
    names: BTreeSet<Name>,
    samples: Vec<Sample>,
    sample_limit: usize,
    samples_dropped: u64,
    late_starts: u64,
    stale_connections: u64,
    failure_examples: Vec<FailureExample>,
    interval: Interval,
    interval_start: Instant,
}

struct ClassTally {
    name: String,
    started: u64,
    ok: u64,
    failed_by_cause: BTreeMap<Cause, u64>,
    latencies: Histogram<u64>,
}

impl ClassTally {
    fn new(name: String) -> Self {
        // The constructor refuses only bounds and digits that these constants are not.
        let latencies =
            Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).unwrap_or_else(|_| unreachable!("constant bounds and three digits"));
        Self { name, started: 0, ok: 0, failed_by_cause: BTreeMap::new(), latencies }
    }

    fn failed(&self) -> u64 {
        self.failed_by_cause.values().sum()
    }

    fn report(&self) -> ClassReport {
        let quantile = |quantile| match self.latencies.is_empty() {
            true => 0.0,
            false => milliseconds(self.latencies.value_at_quantile(quantile)),
        };
        ClassReport {
            requests: self.started,
            ok: self.ok,
            failed: self.failed(),
            failed_by_cause: named(&self.failed_by_cause),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            max_ms: quantile(1.0),
        }
    }
}

impl Ledger {
    /// An empty ledger of a run over these classes that starts now.
    pub fn new(classes: Vec<String>, start: Instant) -> Self {
        Self {
            start,
            start_unix_us: unix_us(),
            classes: classes.into_iter().map(ClassTally::new).collect(),
            by_release: BTreeMap::new(),
            names: BTreeSet::new(),
            samples: Vec::new(),
            sample_limit: MAX_SAMPLES,
            samples_dropped: 0,
            late_starts: 0,
            stale_connections: 0,
            failure_examples: Vec::new(),
            interval: Interval::default(),
            interval_start: start,
        }
    }

    /// A request of this class starts.
    pub fn start_request(&mut self, class: usize) {
        self.classes[class].started += 1;
    }

    /// A request that was started has ended.
    pub fn finish_request(&mut self, finished: Finished) {
        let release = finished.release.as_deref().map(|name| self.intern(name));
        let node = finished.node.as_deref().map(|name| self.intern(name));
        let micros = |from: Instant| finished.ended.saturating_duration_since(from).as_micros() as u64;
        let sample = Sample {
            scheduled_us: self.unix_us_at(finished.slot.scheduled),
            latency_us: micros(finished.slot.scheduled),
            from_send_us: finished.sent.map(micros),
            class: finished.slot.class as u16,
            release,
            node,
            status: finished.status,
            failure: finished.failure.as_ref().map(|failure| failure.cause),
        };
        self.late_starts += u64::from(finished.late);
        self.stale_connections += finished.stale_connections;
        self.count(&sample);
        if let Some(failure) = finished.failure {
            self.keep_example(&sample, failure.detail);
        }
        self.keep(sample);
    }

    fn count(&mut self, sample: &Sample) {
        let class = &mut self.classes[usize::from(sample.class)];
        match sample.failure {
            None => {
                class.ok += 1;
                class.latencies.saturating_record(sample.latency_us);
                let longest = self.interval.max_ms.entry(class.name.clone()).or_default();
                *longest = longest.max(milliseconds(sample.latency_us));
            }
            Some(cause) => *class.failed_by_cause.entry(cause).or_default() += 1,
        }
        let failed = u64::from(!sample.is_ok());
        self.interval.finished += 1;
        self.interval.failed += failed;
        count_up(&mut self.interval.by_release, sample.release.as_ref().map_or(NO_RELEASE, Name::as_str));
        let release = sample.release.clone().unwrap_or_else(|| Name::from(NO_RELEASE));
        let release = self.by_release.entry(release).or_default();
        release.requests += 1;
        release.failed += failed;
    }

    fn keep(&mut self, sample: Sample) {
        match self.samples.len() < self.sample_limit {
            true => self.samples.push(sample),
            false => self.samples_dropped += 1,
        }
    }

    fn keep_example(&mut self, sample: &Sample, detail: String) {
        let (Some(cause), true) = (sample.failure, self.failure_examples.len() < MAX_FAILURE_EXAMPLES) else {
            return;
        };
        self.failure_examples.push(FailureExample {
            scheduled_us: sample.scheduled_us,
            class: self.classes[usize::from(sample.class)].name.clone(),
            cause,
            detail,
            release: sample.release.clone(),
            node: sample.node.clone(),
        });
    }

    /// One shared copy of each name, and no more names than the limits allow.
    fn intern(&mut self, name: &str) -> Name {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let room = self.names.len() < MAX_NAMES && name.len() <= MAX_NAME_BYTES;
        let name = Name::from(if room { name } else { OTHER_NAME });
        self.names.insert(name.clone());
        name
    }

    fn unix_us_at(&self, instant: Instant) -> u64 {
        self.start_unix_us + instant.saturating_duration_since(self.start).as_micros() as u64
    }

    fn failed_by_cause(&self) -> BTreeMap<String, u64> {
        let mut total: BTreeMap<Cause, u64> = BTreeMap::new();
        for (cause, count) in self.classes.iter().flat_map(|class| &class.failed_by_cause) {
            *total.entry(*cause).or_default() += count;
        }
        named(&total)
    }

    /// How the run stands; the next snapshot's interval begins here.
    pub fn progress(&mut self) -> Progress {
        let now = Instant::now();
        let mut interval = std::mem::take(&mut self.interval);
        interval.length_ms = now.saturating_duration_since(self.interval_start).as_millis() as u64;
        self.interval_start = now;
        let failed = self.classes.iter().map(ClassTally::failed).sum();
        let in_flight = |class: &ClassTally| (class.name.clone(), class.started - class.ok - class.failed());
        Progress {
            at_unix_ms: self.unix_us_at(now) / 1000,
            elapsed_ms: now.saturating_duration_since(self.start).as_millis() as u64,
            requests: self.classes.iter().map(|class| class.started).sum(),
            finished: self.classes.iter().map(|class| class.ok).sum::<u64>() + failed,
            failed,
            failed_by_cause: self.failed_by_cause(),
            in_flight: self.classes.iter().map(in_flight).collect(),
            by_release: self.by_release.iter().map(|(name, count)| (name.to_string(), count.requests)).collect(),
            late_starts: self.late_starts,
            interval,
        }
    }

    /// Closes the ledger.
    pub fn into_recording(self) -> Recording {
        let report = Report {
            requests: self.classes.iter().map(|class| class.started).sum(),
            failed: self.classes.iter().map(ClassTally::failed).sum(),
            failed_by_cause: self.failed_by_cause(),
            by_class: self.classes.iter().map(|class| (class.name.clone(), class.report())).collect(),
            by_release: self.by_release.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            late_starts: self.late_starts,
            stale_connections: self.stale_connections,
            samples_dropped: self.samples_dropped,
            started_unix_ms: self.start_unix_us / 1000,
            ended_unix_ms: self.unix_us_at(Instant::now()) / 1000,
            failure_examples: self.failure_examples,
        };
        let classes = self.classes.into_iter().map(|class| class.name).collect();
        Recording { report, samples: SampleLog { classes, samples: self.samples } }
    }
}

fn named(counts: &BTreeMap<Cause, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(cause, count)| (cause.as_str().to_owned(), *count)).collect()
}

/// Microseconds since the Unix epoch; 0 on a machine whose clock stands before it.
fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchange::Slot;
    use crate::failure::Failure;

    fn finished(ledger: &Ledger, number: u64, cause: Option<Cause>) -> Finished {
        let scheduled = ledger.start + Duration::from_millis(number);
        Finished {
            slot: Slot { number, class: 0, scheduled },
            ended: scheduled + Duration::from_millis(3),
            sent: Some(scheduled + Duration::from_millis(1)),
            late: false,
            stale_connections: 1,
            status: Some(200),
            release: Some(format!("web-r{}", number / 2)),
            node: None,
            failure: cause.map(|cause| Failure::new(cause, "in words")),
        }
    }

    #[test]
    fn totals_go_on_when_the_log_is_full() {
        let mut ledger = Ledger::new(vec!["small".to_owned()], Instant::now());
        ledger.sample_limit = 2;
        for (number, cause) in [None, None, Some(Cause::Reset), None].into_iter().enumerate() {
            ledger.start_request(0);
            ledger.finish_request(finished(&ledger, number as u64, cause));
        }
        ledger.start_request(0);
        let progress = ledger.progress();
        assert_eq!((progress.requests, progress.finished, progress.in_flight["small"]), (5, 4, 1));
        assert_eq!((progress.interval.finished, progress.interval.failed), (4, 1));
        assert_eq!(ledger.progress().interval.finished, 0);
        let recording = ledger.into_recording();
        let report = recording.report;
        assert_eq!((report.requests, report.failed, report.samples_dropped), (5, 1, 2));
        assert_eq!(report.failed_by_cause, BTreeMap::from([("reset".to_owned(), 1)]));
        assert_eq!(report.by_release["web-r1"], ReleaseReport { requests: 2, failed: 1 });
        assert_eq!(report.failure_examples[0].detail, "in words");
        assert_eq!(report.stale_connections, 4);
        assert!((2.9..3.1).contains(&report.by_class["small"].p50_ms));
        assert_eq!(recording.samples.samples.len(), 2);
        assert_eq!(recording.samples.samples[1].from_send_us, Some(2000));
    }

    #[test]
    fn a_server_cannot_fill_the_memory_with_names() {
        let mut ledger = Ledger::new(vec!["small".to_owned()], Instant::now());
        (0..MAX_NAMES + 10).for_each(|number| drop(ledger.intern(&number.to_string())));
        assert!(ledger.names.len() <= MAX_NAMES + 1);
        assert_eq!(ledger.intern(&"x".repeat(MAX_NAME_BYTES + 1)).as_str(), OTHER_NAME);
        assert_eq!(ledger.intern("0").as_str(), "0");
    }
}
