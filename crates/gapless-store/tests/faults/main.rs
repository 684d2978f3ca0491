//! Both stores keep to the contract on disks that refuse, tear and lose what they were told to write; SQLite through a file layer that does so.

mod disk;
mod vfs;

use disk::Disk;
use gapless_core::name::ServiceName;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Journal, Records, Sequence};
use gapless_store::contract::faults::{self, Fault, Keep, Machine};
use gapless_store::contract::{self, every_record};
use gapless_store::{DATABASE_FILE, FaultyStore, MemoryStore, SqliteStore, StateLock};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A machine whose state folder SQLite finds on a faulty disk. Its lock is a file of the real one.
struct SqliteMachine {
    folder: tempfile::TempDir,
    disk: Disk,
}

impl SqliteMachine {
    fn new(seed: u64) -> Self {
        let (folder, disk) = (tempfile::tempdir().expect("a folder"), Disk::new(seed));
        vfs::mount(folder.path(), disk.clone());
        Self { folder, disk }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a name in UTF-8").to_string()
    }
}

impl Drop for SqliteMachine {
    fn drop(&mut self) {
        vfs::unmount(self.folder.path());
    }
}

impl Machine for SqliteMachine {
    type Store = SqliteStore;

    fn open(&self) -> Result<SqliteStore, Error> {
        SqliteStore::open(StateLock::acquire(self.folder.path())?)
    }

    fn strike(&self, after: u64, times: u64, fault: Fault) {
        self.disk.strike(after, times, fault);
    }

    fn heal(&self) {
        self.disk.heal();
    }

    fn operations(&self) -> u64 {
        self.disk.operations()
    }

    fn crash(&self, keep: Keep) {
        self.disk.crash(keep);
    }
}

struct MemoryMachine(RefCell<FaultyStore>);

impl MemoryMachine {
    fn new(seed: u64) -> Self {
        Self(RefCell::new(FaultyStore::new(MemoryStore::new(), seed)))
    }
}

impl Machine for MemoryMachine {
    type Store = FaultyStore;

    fn open(&self) -> Result<FaultyStore, Error> {
        Ok(self.0.borrow().clone())
    }

    fn strike(&self, after: u64, times: u64, fault: Fault) {
        self.0.borrow().strike(after, times, fault);
    }

    fn heal(&self) {
        self.0.borrow().heal();
    }

    fn operations(&self) -> u64 {
        self.0.borrow().writes()
    }

    fn crash(&self, keep: Keep) {
        let next = self.0.borrow().crash(keep);
        *self.0.borrow_mut() = next;
    }
}

macro_rules! on_both {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $check() { super::faults::$check(super::MemoryMachine::new); })*
        }

        mod sqlite {
            $(#[test] fn $check() { super::faults::$check(super::SqliteMachine::new); })*
        }
    };
}

on_both!(
    what_was_acknowledged_survives_a_crash_at_any_operation,
    what_was_acknowledged_survives_many_crashes,
    refused_writes_leave_nothing_and_are_got_over,
    what_had_no_room_never_turns_up,
);

macro_rules! through_the_file_layer {
    ($($check:ident),* $(,)?) => {
        mod layer {
            use super::Machine;
            $(#[test] fn $check() { super::contract::$check(&super::SqliteMachine::new(0).open().expect("a store")); })*
        }
    };
}

through_the_file_layer!(
    records_come_back_as_they_were_written,
    artifacts_are_numbered_by_name_and_kind,
    artifacts_published_at_once_have_no_gap,
    declarations_are_kept_by_content,
    receipts_are_replaced,
    values_are_replaced,
    revocations_hold_until_they_are_lifted,
    a_journal_is_read_from_any_place_on,
    the_latest_state_is_kept,
);

fn web() -> ServiceName {
    ServiceName::new("hello", "web").expect("a name")
}

/// A database with all its content in the one file, none in the log.
fn with_records() -> (SqliteMachine, Vec<gapless_engine::store::JournalRecord>) {
    let machine = SqliteMachine::new(0);
    let store = machine.open().expect("a store");
    let records = every_record();
    for record in &records {
        store.append(&web(), record).expect("append");
    }
    // So much that SQLite moves the log into the database.
    for filler in ["x", "y", "z"] {
        store.put_value("filler", &filler.repeat(1_500_000)).expect("put");
    }
    // The log begins anew with the next write; until then its frames are read instead of the database's pages.
    store.put_value("after", "the log has begun anew").expect("put");
    drop(store);
    (machine, records)
}

/// Each byte of each record's text in the file is changed in turn, and its reader is told of which record it is.
#[test]
fn a_changed_byte_of_a_record_is_named_with_what_to_do() {
    let (machine, records) = with_records();
    let (path, files) = (machine.file(DATABASE_FILE), machine.disk.files());
    let times: BTreeSet<u64> = records.iter().map(|record| record.at.0).collect();
    let mut tried = 0;
    for at in times {
        let same: Vec<u64> = (1..).zip(&records).filter(|(_, record)| record.at.0 == at).map(|(place, _)| place).collect();
        let text = format!("{{\"at\":{at},\"event\":");
        let places = files[&path].windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes());
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        assert!(places.len() >= same.len(), "not every record of the time {at} stands in the file");
        for byte in places.iter().flat_map(|place| (*place..*place + 60).step_by(7)) {
            machine.disk.put_back(&files);
            machine.disk.damage(&path, |content| content[byte] ^= 0x20);
            // A page that is not in use any more may hold an old copy.
            let Err(error) = machine.open().and_then(|store| store.read(&web())) else { continue };
            tried += 1;
            assert_eq!(error.error_kind(), ErrorKind::Corrupt, "{error}");
            let is_named = |place: &u64| error.to_string().contains(&format!("record {place} of the journal of hello/web is damaged"));
            assert!(same.iter().any(is_named), "{error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("gapless restore")), "{error:?}");
        }
    }
    assert!(tried >= records.len() * 8, "only {tried} changes were seen");
}

/// A byte anywhere in the file: what is read is what was written, or nothing is.
#[test]
fn a_changed_byte_anywhere_is_never_read_as_something_else() {
    let (machine, records) = with_records();
    let (path, files) = (machine.file(DATABASE_FILE), machine.disk.files());
    let mut refused = 0;
    for byte in (0..files[&path].len().min(80_000)).step_by(23) {
        machine.disk.put_back(&files);
        machine.disk.damage(&path, |content| content[byte] ^= 0x04);
        match machine.open().and_then(|store| store.read(&web())) {
            Err(error) => {
                refused += 1;
                assert!(error.hint_text().is_some(), "byte {byte}: {error}");
            }
            Ok(read) => assert!(read.iter().map(|(_, record)| record).eq(&records), "byte {byte}: {} records", read.len()),
        }
    }
    assert!(refused > 100, "only {refused} changes were seen");
}

#[test]
fn a_sequence_goes_on_without_a_gap_after_each_life() {
    let machine = SqliteMachine::new(5);
    for life in 1..=5_u64 {
        let store = machine.open().expect("a store");
        assert_eq!(store.append(&web(), &every_record()[0]).expect("append"), Sequence(life));
        drop(store);
        machine.crash(Keep::Subset);
    }
}
