//! What it costs to write a record down, and to start after a long history. The bar: 10,000 finished rollouts are recovered in under one second.
//!
//! `cargo bench -p gapless-store --bench journal`. The folder is made below the build's folder: a temporary one may be in memory, where a sync costs nothing.

#[path = "../crates/gapless-store/tests/support/rollouts.rs"]
mod rollouts;

use gapless_core::name::ServiceName;
use gapless_engine::recovery::recover;
use gapless_engine::store::{Journal, JournalRecord, Sequence};
use gapless_store::{SqliteStore, StateLock};
use rollouts::Rollouts;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Records appended one by one, each with its own sync.
const APPENDS: usize = 2_000;

/// Rollouts that ended before the start that is measured.
const ROLLOUTS: usize = 10_000;

/// How many records the engine leaves between two kept states at most: the start that is measured is the worst one.
const KEEP_EVERY: usize = 256;

fn web() -> ServiceName {
    ServiceName::new("hello", "web").expect("a name")
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(StateLock::acquire(folder).expect("the lock")).expect("a store")
}

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort();
    spans[spans.len() / 2]
}

fn appends(folder: &Path) {
    let store = open(folder);
    let mut world = Rollouts::default();
    let records: Vec<JournalRecord> = std::iter::from_fn(|| Some(world.next())).flatten().take(APPENDS).collect();
    let began = Instant::now();
    let each = records.iter().map(|record| {
        let began = Instant::now();
        store.append(&web(), record).expect("append");
        began.elapsed()
    });
    let mut each: Vec<Duration> = each.collect();
    let whole = began.elapsed();
    each.sort();
    let (middle, slow) = (median(each.clone()), each[each.len() * 99 / 100]);
    println!("append with sync: {:.0} records/s, median {middle:.2?}, p99 {slow:.2?}", APPENDS as f64 / whole.as_secs_f64());
}

/// A long history, with a state kept so long before its end that as much is left to replay as the engine ever leaves. It is written in memory, where a sync costs nothing,
/// and copied.
fn history(folder: &Path) -> (u64, u64) {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let store = open(memory.path());
    let mut world = Rollouts::default();
    let (mut last, mut kept, mut longest) = (Sequence(0), Sequence(0), 0);
    for rollout in 0..ROLLOUTS {
        let records = world.next();
        longest = longest.max(records.len());
        for record in &records {
            last = store.append(&web(), record).expect("append");
        }
        if (ROLLOUTS - rollout - 1) * longest <= KEEP_EVERY && kept == Sequence(0) {
            kept = last;
            let at = records.last().expect("a record").at;
            store.keep(&web(), kept, at, &world.state).expect("keep");
        }
    }
    drop(store);
    for item in std::fs::read_dir(memory.path()).expect("the folder") {
        let item = item.expect("a file");
        std::fs::copy(item.path(), folder.join(item.file_name())).expect("copied");
    }
    (last.0, last.0 - kept.0)
}

fn recovery(folder: &Path) {
    let (records, left) = history(folder);
    let size = std::fs::metadata(folder.join("gapless.db")).expect("the database").len();
    let spans = (0..5).map(|_| {
        let began = Instant::now();
        let store = open(folder);
        let services = store.services().expect("services");
        let recovered = recover(&store, &services[0]).expect("it recovers");
        let span = began.elapsed();
        assert_eq!(recovered.last, Sequence(records));
        span
    });
    let kept = median(spans.collect());
    println!("recovery of {ROLLOUTS} rollouts ({records} records, {} MB): {kept:.2?}, {left} records replayed", size / 1_000_000);
    let removed = Command::new("sqlite3").arg(folder.join("gapless.db")).arg("DELETE FROM kept_states").status();
    assert!(removed.expect("sqlite3 runs").success());
    let began = Instant::now();
    recover(&open(folder), &web()).expect("it recovers");
    println!("without a kept state: {:.2?}", began.elapsed());
}

fn main() {
    let below = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(below).expect("a folder");
    let folder = || tempfile::tempdir_in(below).expect("a folder");
    appends(folder().path());
    recovery(folder().path());
}
