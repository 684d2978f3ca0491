//! What was acknowledged is there: after a SIGKILL, after a full disk, and not when it was damaged.

use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::service::ServiceState;
use gapless_engine::error::ErrorKind;
use gapless_engine::store::{Journal, Records, Sequence};
use gapless_store::contract::examples::every_state;
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
    tamper(folder.path(), "UPDATE journal SET body = replace(body, '\"to\":2', '\"to\":3') WHERE sequence = 2");
    let error = open(folder.path()).read(&web()).expect_err("a damaged record was read");
    assert_eq!(error.error_kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("record 2 of the journal of hello/web is damaged"), "{error}");
}

#[test]
fn a_record_that_was_moved_is_damaged_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    store.append(&web(), &every_record()[0]).expect("append");
    drop(store);
    tamper(folder.path(), "UPDATE journal SET service = 'hello/api'");
    let api = ServiceName::new("hello", "api").expect("a name");
    let error = open(folder.path()).read(&api).expect_err("it was moved");
    assert_eq!(error.error_kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("record 1 of the journal of hello/api is damaged"), "{error}");
}

#[test]
fn a_record_that_is_missing_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    for record in every_record().iter().take(4) {
        store.append(&web(), record).expect("append");
    }
    drop(store);
    for (lost, first) in [("= 4", 4), ("= 2", 2), ("> 0", 1)] {
        tamper(folder.path(), &format!("DELETE FROM journal WHERE sequence {lost}"));
        let store = open(folder.path());
        let error = store.read(&web()).expect_err("one is missing");
        assert_eq!(error.error_kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&format!("record {first} of the journal of hello/web is missing")), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("gapless restore")));
        assert_eq!(store.services().expect("services"), [web()]);
    }
}

/// Two servers on one folder, because somebody removed the lock file: the first one is told, and writes nothing any more.
#[test]
fn a_writer_that_another_one_took_over_from_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open(folder.path());
    let records = every_record();
    first.append(&web(), &records[0]).expect("append");
    std::fs::remove_file(folder.path().join("server.lock")).expect("the lock file");
    let second = open(folder.path());
    let artifact = gapless_engine::store::NewArtifact {
        name: "hello/web".into(),
        kind: "oci.image".into(),
        image: gapless_core::digest::Digest([1; 32]),
        published: gapless_core::time::Instant(1),
        metadata: std::collections::BTreeMap::new(),
    };
    let refused = [
        first.append(&web(), &records[1]).err(),
        first.keep(&web(), Sequence(1), records[0].at, &ServiceState::default()).err(),
        first.put_value("name", "value").err(),
        first.put_receipt(&web(), RolloutNumber(1), "signed").err(),
        first.put_declaration(a_declaration().content(), &a_declaration()).err(),
        first.publish(artifact).err(),
    ];
    for error in refused {
        let error = error.expect("it was written");
        assert_eq!(error.error_kind(), ErrorKind::Fenced, "{error}");
        assert!(error.to_string().contains("another gapless server has taken the database over"), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("stop this server")), "{error:?}");
    }
    assert_eq!(second.read(&web()).expect("read").len(), 1);
    assert_eq!(second.value("name").expect("value"), None);
    assert_eq!(second.append(&web(), &records[2]).expect("the second one writes"), Sequence(2));
    assert_eq!(first.read(&web()).expect("the first one may still read").len(), 2);
    drop(second);
    assert_eq!(first.append(&web(), &records[1]).expect_err("for good").error_kind(), ErrorKind::Fenced);
}

/// A copy is what the database was at one moment, whatever is written meanwhile.
#[test]
fn a_copy_is_of_one_moment() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = open(folder.path());
    let records = every_record();
    for record in &records {
        store.append(&web(), record).expect("append");
    }
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for record in records.iter().cycle().take(3 * records.len()) {
                store.append(&web(), record).expect("a copy holds nobody up");
            }
            4 * records.len()
        });
        store.copy_to(&other.path().join("gapless.db")).expect("copied");
        writer.join().expect("it wrote")
    });
    assert!(store.copy_to(&other.path().join("gapless.db")).is_err(), "a file that is there is not written over");
    let copied = open(other.path()).read(&web()).expect("the copy is whole");
    assert!((records.len()..=written).contains(&copied.len()), "{}", copied.len());
    assert_eq!(copied[..], store.read(&web()).expect("read")[..copied.len()]);
}

#[test]
fn a_copy_of_nothing_is_refused() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = open(folder.path());
    tamper(folder.path(), "PRAGMA user_version = 0");
    let error = store.copy_to(&other.path().join("gapless.db")).expect_err("it holds nothing");
    assert_eq!(error.error_kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("it is empty") && error.hint_text().is_some(), "{error}");
}

#[test]
fn a_kept_state_that_cannot_be_read_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let states = every_state();
    for (number, state) in (1..=3).zip(&states) {
        store.append(&web(), &every_record()[0]).expect("append");
        store.keep(&web(), Sequence(number), every_record()[0].at, state).expect("keep");
    }
    let kept = |store: &SqliteStore| store.kept(&web()).expect("kept").map(|(sequence, _, state)| (sequence, state));
    assert_eq!(kept(&store), Some((Sequence(3), states[2].clone())));
    drop(store);
    tamper(folder.path(), "UPDATE kept_states SET body = replace(body, 'pinned\":true', 'pinned\":false') WHERE sequence = 3");
    assert_eq!(kept(&open(folder.path())), Some((Sequence(2), states[1].clone())));
    tamper(folder.path(), "UPDATE kept_states SET version = 99 WHERE sequence = 2");
    assert_eq!(kept(&open(folder.path())), None);
}

#[test]
fn newer_records_and_databases_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    store.append(&web(), &every_record()[0]).expect("append");
    drop(store);
    tamper(folder.path(), "UPDATE journal SET version = 3");
    let error = open(folder.path()).read(&web()).expect_err("a newer record was read");
    assert_eq!(error.error_kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("record 1 of the journal of hello/web is of version 3"), "{error}");
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
