//! A start begins at a kept state, and tells the same as the whole journal.

#[path = "support/rollouts.rs"]
mod rollouts;

use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::time::Instant;
use gapless_engine::recovery::{recover, replay};
use gapless_engine::store::{Journal, JournalRecord, Sequence};
use gapless_store::{MemoryStore, SqliteStore, StateLock};
use rollouts::Rollouts;

fn web() -> ServiceName {
    ServiceName::new("hello", "web").expect("a name")
}

/// A journal of some rollouts, with a state kept after each record of the third one in turn.
#[test]
fn a_state_that_was_kept_anywhere_tells_what_the_whole_journal_does() {
    let mut world = Rollouts::default();
    let rounds: Vec<Vec<JournalRecord>> = (0..4).map(|_| world.next()).collect();
    let records: Vec<_> = rounds.concat();
    let numbered: Vec<_> = (1..).map(Sequence).zip(records.iter().cloned()).collect();
    let whole = replay(&web(), &numbered).expect("it replays");
    assert_eq!(whole.state, world.state);
    let third = rounds[0].len() + rounds[1].len();
    for place in third..third + rounds[2].len() {
        let store = MemoryStore::new();
        for record in &records {
            store.append(&web(), record).expect("append");
        }
        let until = replay(&web(), &numbered[..place]).expect("it replays");
        store.keep(&web(), until.last, until.at, &until.state).expect("keep");
        let recovered = recover(&store, &web()).expect("it recovers");
        assert_eq!((&recovered.state, recovered.last, recovered.at), (&whole.state, whole.last, whole.at), "kept after record {place}");
        assert_eq!(recovered.kept, until.last);
    }
}

/// What an older program decided differently is not compared once a state was kept after it.
#[test]
fn a_journal_of_another_mind_goes_on_from_a_kept_state() {
    let mut world = Rollouts::default();
    let mut records = world.next();
    let before = replay(&web(), &(1..).map(Sequence).zip(records.clone()).collect::<Vec<_>>()).expect("it replays");
    // Another program once wanted one effect more.
    let twice = records[0].effects[0].clone();
    records[0].effects.push(twice);
    let store = MemoryStore::new();
    for record in records.iter().chain(&world.next()) {
        store.append(&web(), record).expect("append");
    }
    let error = recover(&store, &web()).expect_err("it decides differently");
    assert!(error.to_string().contains("this version of gapless decides"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("stop it in order")), "{error:?}");
    store.keep(&web(), before.last, before.at, &before.state).expect("keep");
    assert_eq!(recover(&store, &web()).expect("it recovers").state, world.state);
}

/// A state whose own record is not in the journal, or is another one, is not trusted.
#[test]
fn a_state_without_its_record_is_passed_over() {
    let mut world = Rollouts::default();
    let store = MemoryStore::new();
    for record in world.next() {
        store.append(&web(), &record).expect("append");
    }
    let whole = recover(&store, &web()).expect("it recovers");
    for (sequence, at) in [(Sequence(whole.last.0 + 5), whole.at), (whole.last, Instant(1))] {
        let copy = MemoryStore::new();
        for (_, record) in store.read(&web()).expect("read") {
            copy.append(&web(), &record).expect("append");
        }
        copy.keep(&web(), sequence, at, &gapless_core::service::ServiceState::default()).expect("keep");
        assert_eq!(recover(&copy, &web()).expect("it recovers"), whole);
    }
}

/// Damage in what a kept state stands for holds no start up; damage after it does.
#[test]
fn only_what_is_replayed_must_be_readable_at_a_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || SqliteStore::open(StateLock::acquire(folder.path()).expect("the lock")).expect("a store");
    let mut world = Rollouts::default();
    let store = open();
    for record in world.next() {
        store.append(&web(), &record).expect("append");
    }
    let kept = recover(&store, &web()).expect("it recovers");
    store.keep(&web(), kept.last, kept.at, &kept.state).expect("keep");
    let after = Sequence(kept.last.0 + 1);
    store.append(&web(), &JournalRecord { at: kept.at, event: Event::Restarted, effects: Vec::new() }).expect("append");
    drop(store);
    let damage = |sequence: u64| {
        let statement = format!("UPDATE journal SET body = body || ' ' WHERE sequence = {sequence}");
        let changed = std::process::Command::new("sqlite3").arg(folder.path().join("gapless.db")).arg(statement).status();
        assert!(changed.expect("sqlite3 runs").success());
    };
    damage(2);
    let store = open();
    assert_eq!(recover(&store, &web()).expect("it recovers").last, after);
    assert!(store.read(&web()).expect_err("the story is damaged").to_string().contains("record 2 of the journal of hello/web is damaged"));
    drop(store);
    damage(after.0);
    let error = recover(&open(), &web()).expect_err("it must be replayed");
    assert!(error.to_string().contains(&format!("record {} of the journal of hello/web is damaged", after.0)), "{error}");
}
