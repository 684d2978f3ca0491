//! Keeps what the proxies recorded: read from every worker again and again, so that it outlives a worker.

use crate::receipt::Recorded;
use gapless_wire::client::UnixClient;
use gapless_wire::record::{KEPT_MS, Record, SLICE_MS};
use gapless_wire::rollout::Counts;
use gapless_wire::route::ProxyStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
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

/// What is known of every worker, the present and the past ones.
pub(crate) struct RecordKeeper {
    holders: Vec<PathBuf>,
    workers: Mutex<BTreeMap<WorkerName, Recorded>>,
    reading: tokio::sync::Mutex<()>,
}

/// A worker for ever: a process id may be used again, but not with the same beginning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WorkerName {
    holder: PathBuf,
    pid: u32,
}

impl RecordKeeper {
    pub(crate) fn new(holders: Vec<PathBuf>) -> Self {
        Self { holders, workers: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Everything that is kept, slices from `since_ms` on.
    pub(crate) fn since(&self, since_ms: u64) -> Vec<Recorded> {
        let workers = self.lock();
        let from = since_ms - since_ms % SLICE_MS;
        let cut = |one: &Recorded| {
            let slices = one.record.slices.iter().filter(|slice| slice.at_ms >= from).cloned().collect();
            Recorded { record: Record { slices, ..one.record.clone() }, lives: one.lives }
        };
        workers.values().map(cut).collect()
    }

    /// Whether every worker that lives was read up to this instant.
    pub(crate) fn reaches(&self, until_ms: u64) -> bool {
        let workers = self.lock();
        workers.values().any(|one| one.lives) && workers.values().filter(|one| one.lives).all(|one| one.record.until_ms >= until_ms)
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
            if slice.at_ms + 1_000 >= now_ms {
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
                let name = WorkerName { holder: holder.clone(), pid: worker.pid };
                if self.read_worker(&name, &worker.socket).await {
                    seen.insert(name);
                }
            }
        }
        for (name, one) in self.lock().iter_mut() {
            one.lives = seen.contains(name);
        }
    }

    async fn read_worker(&self, name: &WorkerName, socket: &str) -> bool {
        let since = self.lock().get(name).map_or(0, |one| one.record.until_ms.saturating_sub(SETTLED_MS));
        let since = since - since % SLICE_MS;
        let client = UnixClient::new(socket).timeout(ANSWER_TIME);
        match client.get::<Record>(&format!("/v1/record?since={since}")).await {
            Ok(record) => {
                self.merge(name, since, record);
                true
            }
            Err(error) => {
                tracing::debug!(worker = name.pid, %error, "a proxy's worker did not tell its record");
                false
            }
        }
    }

    fn merge(&self, name: &WorkerName, since: u64, record: Record) {
        let mut workers = self.lock();
        let known = workers.entry(name.clone()).or_default();
        if known.record.began_ms != record.began_ms {
            known.record = Record::default();
        }
        let mut slices = std::mem::take(&mut known.record.slices);
        slices.retain(|slice| slice.at_ms < since);
        slices.extend(record.slices.iter().filter(|slice| slice.at_ms >= since).cloned());
        known.record = Record { slices, ..record };
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

/// Forgets slices from before an instant, and more when there are too many. What was forgotten is as if it had never been recorded, so that no receipt believes it was
/// quiet then.
fn forget_before(record: &mut Record, needed_ms: u64) {
    let too_many = record.slices.len().saturating_sub(SLICES_LIMIT);
    let old = record.slices.iter().take_while(|slice| slice.at_ms < needed_ms).count();
    let forgotten = record.slices.drain(..old.max(too_many)).next_back().map(|slice| slice.at_ms + SLICE_MS);
    record.began_ms = record.began_ms.max(forgotten.unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::record::Slice;

    fn record(began_ms: u64, until_ms: u64) -> Record {
        let slices = (began_ms..until_ms).step_by(100).map(|at_ms| Slice { at_ms, requests: 1, service: "a/b".into(), ..Slice::default() });
        Record { worker: 7, began_ms, until_ms, slices: slices.collect(), ..Record::default() }
    }

    fn name() -> WorkerName {
        WorkerName { holder: "/run/proxy.sock".into(), pid: 7 }
    }

    #[test]
    fn a_later_reading_goes_on_where_the_earlier_one_ended() {
        let keeper = RecordKeeper::new(Vec::new());
        keeper.merge(&name(), 0, record(1_000, 2_000));
        keeper.merge(&name(), 1_800, Record { slices: record(1_800, 3_000).slices, ..record(1_000, 3_000) });
        assert_eq!(keeper.counts("a/b", 0, 3_000).requests, 20);
        assert_eq!(keeper.counts("a/b", 1_500, 3_000).requests, 15);
    }

    #[test]
    fn another_worker_of_the_same_process_id_begins_anew() {
        let keeper = RecordKeeper::new(Vec::new());
        keeper.merge(&name(), 0, record(1_000, 2_000));
        keeper.merge(&name(), 1_800, record(2_500, 3_000));
        assert_eq!(keeper.counts("a/b", 0, 3_000).requests, 5);
    }

    #[test]
    fn what_a_rollout_needs_is_kept_and_what_was_forgotten_was_never_recorded() {
        let keeper = RecordKeeper::new(Vec::new());
        keeper.merge(&name(), 0, record(1_000, 1_000 + 2 * KEPT_MS));
        keeper.forget(Some(BEFORE_MS + 5_000));
        let kept = &keeper.since(0)[0].record;
        assert_eq!((kept.began_ms, kept.slices[0].at_ms), (5_000, 5_000));
        keeper.forget(None);
        let kept = &keeper.since(0)[0].record;
        assert_eq!((kept.began_ms, kept.slices[0].at_ms), (1_000 + KEPT_MS, 1_000 + KEPT_MS));
    }
}
