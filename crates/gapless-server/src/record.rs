//! Keeps what the proxies recorded: read from every worker again and again, so that it outlives a worker.

use crate::receipt::{ProxyRecord, Recorded, covered_from};
use gapless_wire::client::UnixClient;
use gapless_wire::record::{KEPT_MS, Record, SLICE_MS, Slice};
use gapless_wire::rollout::Counts;
use gapless_wire::route::ProxyStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a proxy may take to answer, before it is left out of this reading.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Slices this young may still grow: they are read again, in milliseconds.
const SETTLED_MS: u64 = 2 * SLICE_MS;

/// The most slices that are kept of one worker: a quarter of an hour of ten services with two releases each. The oldest go first.
const SLICES_LIMIT: usize = 200_000;

/// What is kept from before the oldest rollout in progress, in milliseconds: what its receipt compares with.
const BEFORE_MS: u64 = 60_000;

/// How long something waits for the workers' records to reach an instant: what they have not told by then is missing.
const RECORD_PATIENCE: Duration = Duration::from_secs(3);

/// What is known of every worker, the present and the past ones.
pub struct RecordKeeper {
    holders: Vec<PathBuf>,
    workers: Mutex<BTreeMap<WorkerName, Recorded>>,
    reading: tokio::sync::Mutex<()>,
}

/// A worker for ever: a process id may be used again, but not with the same beginning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WorkerName {
    holder: PathBuf,
    pid: u32,
    began_ms: u64,
}

impl RecordKeeper {
    /// A keeper that has read nothing yet of the proxies whose holders have these admin sockets.
    #[must_use]
    pub fn new(holders: Vec<PathBuf>) -> Self {
        Self { holders, workers: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Everything that is kept, slices from `since_ms` on.
    pub(crate) fn since(&self, since_ms: u64) -> Vec<Recorded> {
        let workers = self.lock();
        let from = since_ms - since_ms % SLICE_MS;
        let cut = |one: &Recorded| {
            let slices = one.record.slices.iter().filter(|slice| slice.at_ms >= from).cloned().collect();
            Recorded { record: Record { slices, ..one.record.clone() }, lives: one.lives, gone_by_ms: one.gone_by_ms }
        };
        workers.values().map(cut).collect()
    }

    /// Everything that is kept, proxy by proxy; one that was never read has no worker.
    pub(crate) fn proxies(&self) -> Vec<ProxyRecord> {
        let workers = self.lock();
        let of = |holder: &PathBuf| {
            let workers = workers.iter().filter(|(name, _)| name.holder == *holder).map(|(_, one)| one.clone());
            ProxyRecord { proxy: holder.display().to_string(), workers: workers.collect() }
        };
        self.holders.iter().map(of).collect()
    }

    /// What is kept of a service between two instants, proxy by proxy: whole slices that begin at the first one or later, and before the second.
    pub(crate) fn between(&self, service: &str, from_ms: u64, until_ms: u64) -> Vec<ProxyRecord> {
        let workers = self.lock();
        let wanted = |slice: &&Slice| slice.service == service && (from_ms..until_ms).contains(&slice.at_ms);
        let cut = |one: &Recorded| {
            let Record { worker, began_ms, complete_from_ms, until_ms, .. } = one.record;
            let slices = one.record.slices.iter().filter(wanted).cloned().collect();
            let record = Record { worker, began_ms, complete_from_ms, until_ms, slices, ..Record::default() };
            Recorded { record, lives: one.lives, gone_by_ms: one.gone_by_ms }
        };
        let of = |holder: &PathBuf| {
            let workers = workers.iter().filter(|(name, _)| name.holder == *holder).map(|(_, one)| cut(one));
            ProxyRecord { proxy: holder.display().to_string(), workers: workers.collect() }
        };
        self.holders.iter().map(of).collect()
    }

    /// Reads until every worker of every proxy was read up to this instant, or [`RECORD_PATIENCE`] is over.
    pub(crate) async fn read_up_to(&self, until_ms: u64) {
        let patience = tokio::time::Instant::now() + RECORD_PATIENCE;
        self.read().await;
        while !self.reaches(until_ms) && tokio::time::Instant::now() < patience {
            // The workers tell no event when a slice is complete; a slice lasts 100 ms.
            tokio::time::sleep(Duration::from_millis(SLICE_MS / 2)).await;
            self.read().await;
        }
    }

    /// Whether every worker of every proxy was read up to this instant.
    pub(crate) fn reaches(&self, until_ms: u64) -> bool {
        let workers = self.lock();
        let living = |holder: &PathBuf| {
            let of_holder = workers.iter().filter(move |(name, one)| name.holder == *holder && one.lives);
            of_holder.map(|(_, one)| one.record.until_ms).min()
        };
        self.holders.iter().all(|holder| living(holder).is_some_and(|read| read >= until_ms))
    }

    /// What was counted for a service since an instant.
    pub(crate) fn counts(&self, service: &str, since_ms: u64, now_ms: u64) -> Counts {
        let mut counts = Counts { at_ms: now_ms, ..Counts::default() };
        let workers = self.lock();
        let from = since_ms - since_ms % SLICE_MS;
        for slice in workers.values().flat_map(|one| &one.record.slices) {
            if slice.service != service || slice.at_ms < from {
                continue;
            }
            counts.requests += slice.requests;
            counts.failed += slice.failed.values().sum::<u64>();
            counts.retried += slice.retried;
            counts.held += slice.held;
            counts.cut += slice.cut;
            if slice.requests > 0 && slice.at_ms + 1_000 >= now_ms {
                *counts.split.entry(slice.release.clone()).or_default() += slice.requests;
            }
        }
        counts
    }

    /// Reads every worker of every proxy. One that does not answer counts as gone until it does.
    pub(crate) async fn read(&self) {
        let _one_at_a_time = self.reading.lock().await;
        let mut seen = BTreeSet::new();
        for holder in &self.holders {
            let Ok(proxy) = UnixClient::new(holder).timeout(ANSWER_TIME).get::<ProxyStatus>("/v1/proxy").await else { continue };
            for worker in proxy.workers {
                seen.extend(self.read_worker(holder, worker.pid, &worker.socket).await);
            }
        }
        self.note_gone(&seen);
    }

    /// Notes which workers are gone, and by when. A worker may have ended while this reading was under way; that it was gone by an instant is sure when a reading that began with it gone
    /// heard another worker of the same proxy tell of that instant.
    fn note_gone(&self, seen: &BTreeSet<WorkerName>) {
        let mut workers = self.lock();
        let told: BTreeMap<PathBuf, u64> =
            workers.iter().filter(|(name, _)| seen.contains(name)).map(|(name, one)| (name.holder.clone(), one.record.until_ms)).collect();
        for (name, one) in workers.iter_mut() {
            let was_gone = !std::mem::replace(&mut one.lives, seen.contains(name));
            one.gone_by_ms = match (one.lives, was_gone) {
                (true, _) => None,
                (false, true) => one.gone_by_ms.or(told.get(&name.holder).copied()),
                (false, false) => None,
            };
        }
    }

    async fn read_worker(&self, holder: &Path, pid: u32, socket: &str) -> Option<WorkerName> {
        let since = self.read_until(holder, pid).saturating_sub(SETTLED_MS);
        let since = since - since % SLICE_MS;
        let client = UnixClient::new(socket).timeout(ANSWER_TIME);
        match client.get::<Record>(&format!("/v1/record?since={since}")).await {
            Ok(record) => Some(self.merge(holder, pid, since, record)),
            Err(error) => {
                tracing::debug!(worker = pid, %error, "a proxy's worker did not tell its record");
                None
            }
        }
    }

    /// How far the latest worker with this process id was read; 0: not at all.
    fn read_until(&self, holder: &Path, pid: u32) -> u64 {
        let workers = self.lock();
        let known = workers.iter().filter(|(name, _)| name.holder == holder && name.pid == pid);
        known.map(|(_, one)| one.record.until_ms).max().unwrap_or(0)
    }

    /// Adds what a worker told from `since` on. What it has dropped of the time before is still here.
    fn merge(&self, holder: &Path, pid: u32, since: u64, record: Record) -> WorkerName {
        let name = WorkerName { holder: holder.to_path_buf(), pid, began_ms: record.began_ms };
        let told_from = covered_from(&record).max(since);
        let told_from = told_from - told_from % SLICE_MS;
        let mut workers = self.lock();
        let known = workers.entry(name.clone()).or_default();
        let goes_on = known.record.until_ms >= told_from;
        let complete_from_ms = if goes_on { covered_from(&known.record) } else { told_from };
        let mut slices = std::mem::take(&mut known.record.slices);
        slices.retain(|slice| slice.at_ms < told_from);
        slices.extend(record.slices.iter().filter(|slice| slice.at_ms >= told_from).cloned());
        known.record = Record { slices, complete_from_ms, ..record };
        name
    }

    /// Forgets slices that nobody needs any more, and workers that are gone for so long. What the rollouts in progress need, the oldest of which began at `oldest_ms`, is kept,
    /// however long they take.
    pub(crate) fn forget(&self, oldest_ms: Option<u64>) {
        let mut workers = self.lock();
        let now = workers.values().map(|one| one.record.until_ms).max().unwrap_or(0);
        let usual = now.saturating_sub(KEPT_MS);
        let needed = oldest_ms.map_or(usual, |oldest| usual.min(oldest.saturating_sub(BEFORE_MS)));
        for one in workers.values_mut() {
            forget_before(&mut one.record, needed);
        }
        workers.retain(|_, one| one.lives || one.record.until_ms >= needed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkerName, Recorded>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets slices from before an instant, and more when there are too many, and says so, so that no receipt believes it was quiet then.
fn forget_before(record: &mut Record, needed_ms: u64) {
    let too_many = record.slices.len().saturating_sub(SLICES_LIMIT);
    let old = record.slices.iter().take_while(|slice| slice.at_ms < needed_ms).count();
    let forgotten = record.slices.drain(..old.max(too_many)).next_back().map(|slice| slice.at_ms + SLICE_MS);
    record.complete_from_ms = covered_from(record).max(forgotten.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(began_ms: u64, until_ms: u64) -> Record {
        let slices = (began_ms..until_ms).step_by(100).map(|at_ms| Slice { at_ms, requests: 1, service: "a/b".into(), ..Slice::default() });
        Record { worker: 7, began_ms, complete_from_ms: began_ms, until_ms, slices: slices.collect(), ..Record::default() }
    }

    const HOLDER: &str = "/run/proxy.sock";

    fn keeper() -> RecordKeeper {
        RecordKeeper::new(vec![HOLDER.into()])
    }

    fn merge(keeper: &RecordKeeper, since: u64, record: Record) {
        keeper.merge(Path::new(HOLDER), 7, since, record);
    }

    #[test]
    fn a_later_reading_goes_on_where_the_earlier_one_ended() {
        let keeper = keeper();
        merge(&keeper, 0, record(1_000, 2_000));
        merge(&keeper, 1_800, Record { slices: record(1_800, 3_000).slices, ..record(1_000, 3_000) });
        assert_eq!(keeper.counts("a/b", 0, 3_000).requests, 20);
        assert_eq!(keeper.counts("a/b", 1_500, 3_000).requests, 15);
        assert_eq!(keeper.since(0)[0].record.complete_from_ms, 1_000);
    }

    #[test]
    fn another_worker_of_the_same_process_id_stands_beside_the_earlier_one() {
        let keeper = keeper();
        merge(&keeper, 0, record(1_000, 2_000));
        merge(&keeper, 1_800, record(2_500, 3_000));
        assert_eq!(keeper.counts("a/b", 0, 3_000).requests, 15);
        assert_eq!(keeper.proxies()[0].workers.len(), 2);
    }

    #[test]
    fn what_was_forgotten_leaves_what_is_kept_and_what_comes() {
        let keeper = keeper();
        let until = 1_000 + 2 * KEPT_MS;
        merge(&keeper, 0, record(1_000, until));
        keeper.forget(None);
        // The worker says as ever when it began.
        merge(&keeper, until - 200, Record { slices: record(until - 200, until + 500).slices, ..record(1_000, until + 500) });
        let kept = &keeper.since(0)[0].record;
        assert_eq!((kept.slices[0].at_ms, kept.slices.len()), (until - KEPT_MS, (KEPT_MS as usize + 500) / 100));
        assert_eq!((kept.began_ms, kept.complete_from_ms), (1_000, until - KEPT_MS));
    }

    #[test]
    fn what_a_worker_has_dropped_is_missing_only_where_it_was_never_read() {
        let keeper = keeper();
        let told = |from: u64, until: u64| Record { complete_from_ms: from, slices: record(from, until).slices, ..record(1_000, until) };
        merge(&keeper, 0, told(5_000, 6_000));
        assert_eq!(keeper.since(0)[0].record.complete_from_ms, 5_000, "a server that began late believes no quiet before");
        merge(&keeper, 5_800, Record { slices: record(5_800, 7_000).slices, ..told(5_700, 7_000) });
        assert_eq!(keeper.since(0)[0].record.complete_from_ms, 5_000, "it was read before it was dropped");
        merge(&keeper, 6_800, told(9_000, 9_500));
        assert_eq!(keeper.since(0)[0].record.complete_from_ms, 9_000, "nobody read what was between");
    }

    #[test]
    fn what_a_rollout_needs_is_kept_and_what_was_forgotten_is_said() {
        let keeper = keeper();
        merge(&keeper, 0, record(1_000, 1_000 + 2 * KEPT_MS));
        keeper.forget(Some(BEFORE_MS + 5_000));
        let kept = &keeper.since(0)[0].record;
        assert_eq!((kept.complete_from_ms, kept.slices[0].at_ms), (5_000, 5_000));
        keeper.forget(None);
        let kept = &keeper.since(0)[0].record;
        assert_eq!((kept.complete_from_ms, kept.slices[0].at_ms), (1_000 + KEPT_MS, 1_000 + KEPT_MS));
    }

    #[test]
    fn the_records_reach_an_instant_when_those_of_every_proxy_do() {
        let keeper = RecordKeeper::new(vec![HOLDER.into(), "/run/other.sock".into()]);
        let lives = |keeper: &RecordKeeper| keeper.lock().values_mut().for_each(|one| one.lives = true);
        merge(&keeper, 0, record(1_000, 3_000));
        lives(&keeper);
        assert!(!keeper.reaches(2_000), "the other proxy was not read");
        keeper.merge(Path::new("/run/other.sock"), 8, 0, record(1_000, 2_500));
        lives(&keeper);
        assert!(keeper.reaches(2_500) && !keeper.reaches(2_600));
    }

    #[test]
    fn a_worker_is_gone_for_sure_once_another_told_of_a_time_after_it_was_seen_to_be() {
        let keeper = keeper();
        let name = |pid: u32, began_ms: u64| WorkerName { holder: HOLDER.into(), pid, began_ms };
        let gone = |keeper: &RecordKeeper| keeper.lock()[&name(7, 1_000)].gone_by_ms;
        merge(&keeper, 0, record(1_000, 2_000));
        keeper.merge(Path::new(HOLDER), 8, 0, record(1_500, 2_100));
        keeper.note_gone(&[name(7, 1_000), name(8, 1_500)].into());
        keeper.merge(Path::new(HOLDER), 8, 2_000, record(1_500, 2_400));
        keeper.note_gone(&[name(8, 1_500)].into());
        assert_eq!(gone(&keeper), None, "it may have ended after the other had told");
        keeper.note_gone(&[].into());
        assert_eq!(gone(&keeper), None, "nobody told the time");
        keeper.merge(Path::new(HOLDER), 8, 2_300, record(1_500, 2_700));
        keeper.note_gone(&[name(8, 1_500)].into());
        assert_eq!(gone(&keeper), Some(2_700));
        keeper.merge(Path::new(HOLDER), 8, 2_600, record(1_500, 3_000));
        keeper.note_gone(&[name(8, 1_500)].into());
        assert_eq!(gone(&keeper), Some(2_700), "as early as it was sure");
        keeper.note_gone(&[name(7, 1_000), name(8, 1_500)].into());
        assert_eq!(gone(&keeper), None, "it only had not answered");
    }

    #[test]
    fn of_a_span_there_are_its_slices_and_no_others() {
        let keeper = keeper();
        merge(&keeper, 0, record(1_000, 3_000));
        let of = |service: &str| keeper.between(service, 1_500, 2_000)[0].workers[0].record.clone();
        let instants: Vec<u64> = of("a/b").slices.iter().map(|slice| slice.at_ms).collect();
        assert_eq!(instants, [1_500, 1_600, 1_700, 1_800, 1_900]);
        assert_eq!((of("a/b").began_ms, of("a/b").until_ms, of("a/other").slices.len()), (1_000, 3_000, 0));
    }
}
