//! What was acknowledged is there: after a SIGKILL, after a full disk, and not when it was damaged.

use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_engine::error::ErrorKind;
use gapless_engine::store::{Journal, Records, Sequence};
use gapless_store::contract::{a_declaration, every_record};
use gapless_store::{SqliteStore, StateLock};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(StateLock::acquire(folder).expect("the lock")).expect("a store")
}

fn web() -> ServiceName {
    ServiceName::new("hello", "web").expect("a name")
}

/// Ends the process when the test does.
struct Writer(Child);

impl Writer {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapless-store-writer"));
        Self(command.arg(folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the writer starts"))
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn every_acknowledged_record_survives_sigkill() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = every_record();
    let mut before = 0;
    for round in 1..=5_u64 {
        let mut writer = Writer::start(folder.path());
        let mut said = BufReader::new(writer.0.stdout.take().expect("its output")).lines();
        let mut acknowledged = before;
        // Each round dies at another place of the loop.
        for _ in 0..(20 * round + 7 * round % 5) {
            acknowledged = said.next().expect("a line").expect("its output").parse::<u64>().expect("a sequence");
        }
        writer.kill();
        let rest = said.map_while(Result::ok).filter_map(|line| line.parse().ok()).last();
        acknowledged = rest.unwrap_or(acknowledged).max(acknowledged);

        let store = open(folder.path());
        let read = store.read(&web()).expect("the journal is readable");
        let last = read.last().expect("a record").0.0;
        assert!(last >= acknowledged, "record {acknowledged} was acknowledged, and the last one is {last}");
        assert!(last <= acknowledged + 1, "more was written than could be under way");
        let mut expected = before;
        for (sequence, record) in read.iter().skip(usize::try_from(before).expect("a count")) {
            let place = usize::try_from(expected - before).expect("a count") % written.len();
            expected += 1;
            assert_eq!((*sequence, record), (Sequence(expected), &written[place]));
        }
        before = last;
    }
}

#[test]
fn a_second_server_is_refused_and_told_of_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = Writer::start(folder.path());
    let mut said = BufReader::new(writer.0.stdout.take().expect("its output")).lines();
    said.next().expect("a line").expect("it runs");
    let refused = StateLock::acquire(folder.path()).expect_err("the folder is in use");
    assert_eq!(refused.error_kind(), ErrorKind::Invalid);
    let text = refused.to_string();
    assert!(text.contains(&format!("process {}, started 2", writer.0.id())), "{text}");
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
    assert!(refused.hint_text().is_some());
    writer.kill();
    assert!(StateLock::acquire(folder.path()).is_ok(), "the lock outlived its process");
}

#[test]
fn a_program_that_was_started_does_not_inherit_the_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = StateLock::acquire(folder.path()).expect("the lock");
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a program");
    drop(lock);
    let again = StateLock::acquire(folder.path());
    drop(child.stdin.take());
    child.wait().expect("it ends");
    assert!(again.is_ok(), "a program that was started holds the lock: {again:?}");
}

/// A file system of its own, small enough to be filled.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(kilobytes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kilobytes}k,mode=0700"), "gapless-test"]).arg(folder.path());
        let mounted = mount.status().expect("mount runs");
        assert!(mounted.success(), "this test mounts a small file system and must run as root");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).expect("the filler");
        for size in [4096, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.path().display());
        }
    }
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_is_got_over() {
    let disk = SmallDisk::mount(4096);
    let records = every_record();
    let mut store = open(disk.path());
    let mut written: u64 = 0;
    for round in 0..3 {
        let filler = disk.fill();
        // What was set aside before may take a few more.
        let refused = loop {
            let place = usize::try_from(written).expect("a count") % records.len();
            match store.append(&web(), &records[place]) {
                Ok(sequence) => {
                    written += 1;
                    assert_eq!(sequence, Sequence(written));
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused.error_kind(), ErrorKind::NoRoom, "{refused}");
        assert!(refused.hint_text().is_some());
        let others = [
            store.put_declaration(a_declaration().content(), &a_declaration()).err(),
            store.put_receipt(&web(), RolloutNumber(1), &"x".repeat(20_000)).err(),
        ];
        for error in others.into_iter().flatten() {
            assert_eq!(error.error_kind(), ErrorKind::NoRoom, "{error}");
        }
        assert_eq!(store.read(&web()).expect("the journal is readable").len() as u64, written);
        if round == 1 {
            drop(store);
            store = open(disk.path());
            assert_eq!(store.read(&web()).expect("it opens on a full disk").len() as u64, written);
        }
        std::fs::remove_file(filler).expect("room");
        let place = usize::try_from(written).expect("a count") % records.len();
        written += 1;
        assert_eq!(store.append(&web(), &records[place]).expect("there is room again"), Sequence(written));
    }
    drop(store);
    let read = open(disk.path()).read(&web()).expect("the journal is readable");
    assert_eq!(read.len() as u64, written);
    assert!(read.iter().zip(records.iter().cycle()).all(|((_, read), written)| read == written));
}

fn tamper(folder: &Path, statement: &str) {
    let changed = Command::new("sqlite3").arg(folder.join("gapless.db")).arg(statement).status().expect("sqlite3 runs");
    assert!(changed.success());
}

#[test]
fn a_damaged_record_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    for record in every_record().iter().take(4) {
        store.append(&web(), record).expect("append");
    }
    drop(store);
    tamper(folder.path(), "UPDATE journal SET body = replace(body, '\"to\":2', '\"to\":3') WHERE sequence = 3");
    let error = open(folder.path()).read(&web()).expect_err("a damaged record was read");
    assert_eq!(error.error_kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("record 3 of the journal of hello/web is damaged"), "{error}");
}

#[test]
fn a_record_that_was_moved_is_damaged_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    store.append(&web(), &every_record()[0]).expect("append");
    drop(store);
    tamper(folder.path(), "UPDATE journal SET sequence = 2");
    assert_eq!(open(folder.path()).read(&web()).expect_err("it was moved").error_kind(), ErrorKind::Corrupt);
}

#[test]
fn newer_records_and_databases_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    store.append(&web(), &every_record()[0]).expect("append");
    drop(store);
    tamper(folder.path(), "UPDATE journal SET version = 2");
    let error = open(folder.path()).read(&web()).expect_err("a newer record was read");
    assert_eq!(error.error_kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("record 1 of the journal of hello/web is of version 2"), "{error}");
    tamper(folder.path(), "PRAGMA user_version = 99");
    let lock = StateLock::acquire(folder.path()).expect("the lock");
    let error = SqliteStore::open(lock).expect_err("a newer database was opened");
    assert!(error.to_string().contains("of schema 99"), "{error}");
}

#[test]
fn what_was_kept_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let declaration = a_declaration();
    let store = open(folder.path());
    store.put_declaration(declaration.content(), &declaration).expect("put");
    store.put_receipt(&web(), RolloutNumber(1), "signed").expect("put");
    store.put_value("name", "value").expect("put");
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.declaration(declaration.content()).expect("declaration"), declaration);
    assert_eq!(store.receipt(&web(), RolloutNumber(1)).expect("receipt"), "signed");
    assert_eq!(store.value("name").expect("value").as_deref(), Some("value"));
}
