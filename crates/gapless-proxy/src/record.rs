//! What happened to every request, in slices of 100 ms: one recorder for each core, merged when somebody asks.

use crate::sync::lock;
use gapless_wire::record::{KEPT_MS, SLICE_MS, Slice};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many entries (a slice of one service and release) a core keeps at most: with many services this bounds memory before the age does, at some
/// 50 MB.
const ENTRY_LIMIT: usize = 100_000;

/// The record's clock: the wall's at the worker's start, and from then on the time that has passed. A wall clock that is set would tear a hole into the
/// record, or count requests of different times in one slice.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Since the Unix epoch.
    wall_at_start: Duration,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        let wall_at_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_at_start, start: Instant::now() }
    }

    fn ms_at(&self, instant: Instant) -> u64 {
        let since_epoch = self.wall_at_start + instant.saturating_duration_since(self.start);
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The time since the Unix epoch by the same clock as [`now_ms`].
pub(crate) fn wall_clock() -> Duration {
    Duration::from_millis(now_ms())
}

/// Milliseconds since the Unix epoch, by a clock that began with this process's first question and never goes back.
pub(crate) fn now_ms() -> u64 {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(Clock::start).ms_at(Instant::now())
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) service: Arc<str>,
    /// Empty when no node answered.
    pub(crate) release: Arc<str>,
    pub(crate) status: u16,
    pub(crate) failed: Option<&'static str>,
    pub(crate) cut: bool,
    pub(crate) retried: bool,
    pub(crate) held: bool,
    /// For a small GET that was answered whole: its time in microseconds.
    pub(crate) small_us: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    service: Arc<str>,
    release: Arc<str>,
    requests: u64,
    failed: Vec<(&'static str, u64)>,
    retried: u64,
    failed_tries: u64,
    asked: u64,
    answered: Vec<(u64, u64)>,
    unanswered: u64,
    held: u64,
    cut: u64,
    statuses: [u64; 5],
    latencies: Vec<(u64, u64)>,
    /// One bit for each millisecond of the slice in which a successful small GET ended: first, last and longest gap, and two cores merge by OR.
    small: u128,
}

impl Entry {
    fn add(&mut self, ended: &Ended, offset_ms: u64) {
        self.requests += 1;
        self.retried += u64::from(ended.retried);
        self.held += u64::from(ended.held);
        self.cut += u64::from(ended.cut);
        if let Some(cause) = ended.failed {
            count(&mut self.failed, cause, 1);
        }
        let class = usize::from(ended.status / 100);
        if (1..=5).contains(&class) {
            self.statuses[class - 1] += 1;
        }
        if let Some(time) = ended.small_us {
            count(&mut self.latencies, two_digits(time), 1);
            if class == 2 || class == 3 {
                self.small |= 1 << offset_ms;
            }
        }
    }

    fn merge(&mut self, other: &Entry) {
        self.requests += other.requests;
        self.retried += other.retried;
        self.failed_tries += other.failed_tries;
        self.asked += other.asked;
        self.unanswered += other.unanswered;
        self.held += other.held;
        self.cut += other.cut;
        for (cause, times) in &other.failed {
            count(&mut self.failed, *cause, *times);
        }
        for (mine, theirs) in self.statuses.iter_mut().zip(other.statuses) {
            *mine += theirs;
        }
        for (time, times) in &other.latencies {
            count(&mut self.latencies, *time, *times);
        }
        for (asked_at_ms, times) in &other.answered {
            count(&mut self.answered, *asked_at_ms, *times);
        }
        self.small |= other.small;
    }

    fn told(mut self, at_ms: u64) -> Slice {
        self.latencies.sort_unstable();
        self.answered.sort_unstable();
        Slice {
            at_ms,
            service: self.service.to_string(),
            release: self.release.to_string(),
            requests: self.requests,
            failed: self.failed.iter().map(|(cause, times)| ((*cause).to_string(), *times)).collect(),
            retried: self.retried,
            failed_tries: self.failed_tries,
            asked: self.asked,
            answered: self.answered,
            unanswered: self.unanswered,
            held: self.held,
            cut: self.cut,
            statuses: self.statuses,
            latencies: self.latencies,
            small_ended: ends(self.small).map(|(first, last)| (at_ms + first, at_ms + last)),
            small_gap_ms: longest_gap(self.small),
        }
    }
}

fn count<K: PartialEq>(counts: &mut Vec<(K, u64)>, key: K, times: u64) {
    match counts.iter_mut().find(|(known, _)| *known == key) {
        Some((_, known)) => *known += times,
        None => counts.push((key, times)),
    }
}

/// Two significant digits, rounded up.
fn two_digits(value: u64) -> u64 {
    let mut unit = 1;
    while value / unit >= 100 {
        unit *= 10;
    }
    value.div_ceil(unit) * unit
}

fn ends(bits: u128) -> Option<(u64, u64)> {
    (bits != 0).then(|| (u64::from(bits.trailing_zeros()), u64::from(127 - bits.leading_zeros())))
}

fn longest_gap(bits: u128) -> u64 {
    let mut longest = 0;
    let mut before: Option<u64> = None;
    for at in (0..SLICE_MS).filter(|at| bits & (1 << at) != 0) {
        longest = longest.max(before.map_or(0, |before| at - before));
        before = Some(at);
    }
    longest
}

/// The upper ends of the classes in which times of small GETs are counted for metrics, in microseconds.
pub(crate) const TIME_CLASSES: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];
/// How many services and releases have totals. Of more, those that were heard of last stay: 4 MB.
const TOTALS_LIMIT: usize = 4_000;

/// What became of one service's and release's requests since the worker began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Total {
    pub(crate) requests: u64,
    pub(crate) failed: BTreeMap<&'static str, u64>,
    pub(crate) retried: u64,
    pub(crate) failed_tries: u64,
    pub(crate) held: u64,
    pub(crate) cut: u64,
    pub(crate) statuses: [u64; 5],
    /// Of small GETs: how many in each of [`TIME_CLASSES`] and above, and their sum in microseconds.
    pub(crate) times: [u64; TIME_CLASSES.len() + 1],
    pub(crate) time_us: u64,
    heard_ms: u64,
}

impl Total {
    fn add(&mut self, entry: &Entry, at_ms: u64) {
        self.heard_ms = at_ms;
        self.requests += entry.requests;
        self.retried += entry.retried;
        self.failed_tries += entry.failed_tries;
        self.held += entry.held;
        self.cut += entry.cut;
        entry.failed.iter().for_each(|(cause, times)| *self.failed.entry(cause).or_default() += times);
        self.statuses.iter_mut().zip(entry.statuses).for_each(|(mine, theirs)| *mine += theirs);
        for (time, times) in &entry.latencies {
            let class = TIME_CLASSES.iter().position(|end| time <= end).unwrap_or(TIME_CLASSES.len());
            self.times[class] += times;
            self.time_us += time * times;
        }
    }

    pub(crate) fn merge(&mut self, other: &Total) {
        self.requests += other.requests;
        self.retried += other.retried;
        self.failed_tries += other.failed_tries;
        self.held += other.held;
        self.cut += other.cut;
        self.time_us += other.time_us;
        other.failed.iter().for_each(|(cause, times)| *self.failed.entry(cause).or_default() += times);
        self.statuses.iter_mut().zip(other.statuses).for_each(|(mine, theirs)| *mine += theirs);
        self.times.iter_mut().zip(other.times).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// By service and release.
pub(crate) type Totals = BTreeMap<(Arc<str>, Arc<str>), Total>;

/// What one core counted in the slice that begins at this instant.
type Part = (u64, Arc<[Entry]>);

/// One core's slices.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Slices that are over never change, so whoever asks shares them: nothing is copied while requests wait for the lock.
    over: VecDeque<Part>,
    entries: usize,
    totals: Totals,
    at_ms: u64,
    open: Vec<Entry>,
    /// The end of the latest slice that was dropped.
    complete_from_ms: u64,
}

impl Recorder {
    /// Enters a request that ended now. The clock is read under the recorder's lock, so that a slice that is over stays as it is.
    pub(crate) fn note(&mut self, ended: &Ended, now_ms: u64) {
        self.roll(now_ms);
        // Total: an instant before the open slice counts at its beginning.
        let offset = now_ms.saturating_sub(self.at_ms).min(SLICE_MS - 1);
        self.entry(&ended.service, &ended.release).add(ended, offset);
    }

    /// Enters a try with a node of this release that came to nothing now. The clock as for [`Self::note`].
    pub(crate) fn note_failed_try(&mut self, service: &Arc<str>, release: &Arc<str>, now_ms: u64) {
        self.roll(now_ms);
        self.entry(service, release).failed_tries += 1;
    }

    /// Enters that a node of this release is the first to be asked for a request, now. Gives the slice that it stands in. The clock as for [`Self::note`].
    pub(crate) fn note_asked(&mut self, service: &Arc<str>, release: &Arc<str>, now_ms: u64) -> u64 {
        self.roll(now_ms);
        self.entry(service, release).asked += 1;
        self.at_ms
    }

    /// Enters that the answer begins now for which a node of this release was asked first in that slice. The clock as for [`Self::note`].
    pub(crate) fn note_answered(&mut self, service: &Arc<str>, release: &Arc<str>, asked_at_ms: u64, now_ms: u64) {
        self.roll(now_ms);
        count(&mut self.entry(service, release).answered, asked_at_ms, 1);
    }

    /// Enters a request whose client went away now before a node of this release began to answer it. The clock as for [`Self::note`].
    pub(crate) fn note_unanswered(&mut self, service: &Arc<str>, release: &Arc<str>, now_ms: u64) {
        self.roll(now_ms);
        self.entry(service, release).unanswered += 1;
    }

    /// The open slice's entry.
    fn entry(&mut self, service: &Arc<str>, release: &Arc<str>) -> &mut Entry {
        let known = self.open.iter().position(|entry| entry.service == *service && entry.release == *release);
        let at = known.unwrap_or_else(|| {
            self.open.push(Entry { service: service.clone(), release: release.clone(), ..Entry::default() });
            self.open.len() - 1
        });
        &mut self.open[at]
    }

    fn roll(&mut self, now_ms: u64) {
        let at_ms = now_ms - now_ms % SLICE_MS;
        if at_ms <= self.at_ms {
            return;
        }
        let over = std::mem::take(&mut self.open);
        if !over.is_empty() {
            self.add_to_totals(&over);
            self.entries += over.len();
            self.over.push_back((self.at_ms, over.into()));
        }
        self.at_ms = at_ms;
        while self.entries > ENTRY_LIMIT || self.over.front().is_some_and(|(old, _)| old + KEPT_MS < at_ms) {
            let Some((old, entries)) = self.over.pop_front() else { break };
            self.entries -= entries.len();
            self.complete_from_ms = old + SLICE_MS;
        }
    }

    fn add_to_totals(&mut self, over: &[Entry]) {
        for entry in over {
            let total = self.totals.entry((entry.service.clone(), entry.release.clone())).or_default();
            total.add(entry, self.at_ms);
        }
        if self.totals.len() > TOTALS_LIMIT {
            let mut heard: Vec<u64> = self.totals.values().map(|total| total.heard_ms).collect();
            heard.sort_unstable();
            let oldest = heard[heard.len() / 2];
            self.totals.retain(|_, total| total.heard_ms > oldest);
        }
    }

    /// What became of all requests that have ended by now.
    pub(crate) fn totals(&mut self, now_ms: u64) -> Totals {
        self.roll(now_ms);
        let mut totals = self.totals.clone();
        for entry in &self.open {
            totals.entry((entry.service.clone(), entry.release.clone())).or_default().add(entry, self.at_ms);
        }
        totals
    }

    /// The slices from `since_ms` up to `until_ms`; of these only the open one is copied.
    fn parts(&self, since_ms: u64, until_ms: u64) -> Vec<Part> {
        let asked = since_ms..until_ms;
        let mut parts: Vec<Part> = self.over.iter().filter(|(at_ms, _)| asked.contains(at_ms)).cloned().collect();
        if asked.contains(&self.at_ms) && !self.open.is_empty() {
            parts.push((self.at_ms, self.open.as_slice().into()));
        }
        parts
    }
}

/// What all cores recorded.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// The oldest first.
    pub(crate) slices: Vec<Slice>,
    /// Some core dropped slices that began before this instant; 0: none did.
    pub(crate) complete_from_ms: u64,
}

/// The slices from `since_ms` up to `until_ms` of all cores.
pub(crate) fn merged(recorders: &[Arc<Mutex<Recorder>>], since_ms: u64, until_ms: u64) -> Merged {
    let since_ms = since_ms - since_ms % SLICE_MS;
    let mut complete_from_ms = 0;
    let mut merged: BTreeMap<(u64, Arc<str>, Arc<str>), Entry> = BTreeMap::new();
    for recorder in recorders {
        let (parts, core_complete_from_ms) = {
            let recorder = lock(recorder);
            (recorder.parts(since_ms, until_ms), recorder.complete_from_ms)
        };
        complete_from_ms = complete_from_ms.max(core_complete_from_ms);
        for (at_ms, entry) in parts.iter().flat_map(|(at_ms, entries)| entries.iter().map(|entry| (*at_ms, entry))) {
            match merged.entry((at_ms, entry.service.clone(), entry.release.clone())) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(entry.clone());
                }
                std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().merge(entry),
            }
        }
    }
    Merged { slices: merged.into_iter().map(|((at_ms, _, _), entry)| entry.told(at_ms)).collect(), complete_from_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(release: &str, small_us: Option<u64>) -> Ended {
        Ended {
            service: "hello/web".into(),
            release: release.into(),
            status: 200,
            failed: None,
            cut: false,
            retried: false,
            held: false,
            small_us,
        }
    }

    #[test]
    fn cores_merge_into_one_slice_with_the_gap_between_them() {
        let recorders = [Arc::new(Mutex::new(Recorder::default())), Arc::new(Mutex::new(Recorder::default()))];
        lock(&recorders[0]).note(&ended("web-r1", Some(1234)), 1000);
        lock(&recorders[1]).note(&ended("web-r1", Some(1299)), 1030);
        lock(&recorders[0]).note(&ended("web-r1", None), 1040);
        lock(&recorders[0]).note(&ended("web-r2", Some(5)), 1099);
        lock(&recorders[0]).note(&ended("web-r1", Some(5)), 1100);
        let Merged { slices, complete_from_ms } = merged(&recorders, 1050, 1100);
        assert_eq!(complete_from_ms, 0, "nothing was dropped");
        assert_eq!(slices.len(), 2);
        assert_eq!(slices[0].requests, 3);
        assert_eq!(slices[0].statuses, [0, 3, 0, 0, 0]);
        assert_eq!(slices[0].latencies, vec![(1300, 2)]);
        assert_eq!(slices[0].small_ended, Some((1000, 1030)));
        assert_eq!(slices[0].small_gap_ms, 30);
        assert_eq!(merged(&recorders, 1100, 1200).slices.len(), 1, "the next question begins where the last one ended");
    }

    #[test]
    fn asking_copies_nothing_but_the_open_slice() {
        let mut recorder = Recorder::default();
        recorder.note(&ended("web-r1", None), 1000);
        recorder.note(&ended("web-r1", None), 1100);
        let parts = recorder.parts(0, u64::MAX);
        assert_eq!(parts.iter().map(|(at_ms, _)| *at_ms).collect::<Vec<_>>(), [1000, 1100]);
        assert!(Arc::ptr_eq(&parts[0].1, &recorder.over[0].1), "a slice that is over is shared");
        recorder.note(&ended("web-r1", None), 1101);
        assert_eq!((parts[1].1[0].requests, recorder.parts(1100, 1200)[0].1[0].requests), (1, 2), "the open one goes on");
    }

    #[test]
    fn the_clock_is_the_walls_at_the_start_and_then_what_has_passed() {
        let start = Instant::now();
        let clock = Clock { wall_at_start: Duration::from_micros(1_700_000_000_000_900), start };
        assert_eq!(clock.ms_at(start), 1_700_000_000_000);
        assert_eq!(clock.ms_at(start + Duration::from_micros(100)), 1_700_000_000_001);
        assert_eq!(clock.ms_at(start + Duration::from_secs(3600)), 1_700_003_600_000, "whatever the wall clock says by then");
        assert!(now_ms() <= now_ms());
    }

    #[test]
    fn two_significant_digits_round_up() {
        let rounded: Vec<u64> = [0, 99, 100, 101, 999, 12_345].into_iter().map(two_digits).collect();
        assert_eq!(rounded, [0, 99, 100, 110, 1000, 13_000]);
    }

    #[test]
    fn old_slices_are_forgotten_and_that_is_said() {
        let mut recorder = Recorder::default();
        recorder.note(&ended("web-r1", None), 1000);
        recorder.note(&ended("web-r1", None), 2000);
        recorder.note(&ended("web-r1", None), 1150 + KEPT_MS);
        assert_eq!(recorder.parts(0, u64::MAX).len(), 2);
        let recorders = [Arc::new(Mutex::new(recorder)), Arc::default()];
        assert_eq!(merged(&recorders, 2000, 3000).complete_from_ms, 1100, "also to a question about later slices");
    }

    #[test]
    fn too_many_entries_are_forgotten_and_that_is_said() {
        let mut recorder = Recorder::default();
        let at = |index: usize| 1000 + u64::try_from(index / 500).expect("small") * SLICE_MS;
        for index in 0..ENTRY_LIMIT + 1000 {
            recorder.note(&ended(&format!("web-r{}", index % 500), None), at(index));
        }
        assert!(recorder.entries <= ENTRY_LIMIT);
        let recorders = [Arc::new(Mutex::new(recorder))];
        let told = merged(&recorders, 0, u64::MAX);
        assert!(told.complete_from_ms > 1000);
        assert_eq!(told.slices[0].at_ms, told.complete_from_ms);
    }
}
