//! The store in SQLite: one file in the state folder, one writer.

mod epoch;
mod schema;

use self::epoch::Epoch;
use crate::lock::StateLock;
use crate::memory::not_found;
use crate::record::{self, Written};
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The database's name in the state folder.
pub const DATABASE_FILE: &str = "gapless.db";

/// How long a call waits for a process that still holds the database: a server that was just killed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many states of a service are kept: the last one, and the one before it in case that it is damaged.
const STATES_KEPT: u32 = 2;

/// How many records of a journal are read at a time, while all others wait.
const JOURNAL_PAGE: u32 = 1000;

/// From each service to the next one by the index, so that it costs the same however long the journals are. One whose records are all gone is found by its end.
const SERVICES: &str = "
    WITH RECURSIVE known (service) AS (
        SELECT min(service) FROM journal
        UNION ALL
        SELECT (SELECT min(service) FROM journal WHERE service > known.service) FROM known WHERE known.service IS NOT NULL
    )
    SELECT service FROM known WHERE service IS NOT NULL UNION SELECT service FROM journal_ends ORDER BY service";

/// The store in SQLite. The lock of its state folder lasts as long as it does.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Mutex<Writer>,
    lock: StateLock,
}

/// The one connection, and what makes it the one that may write.
#[derive(Debug)]
struct Writer {
    connection: Connection,
    epoch: Epoch,
}

impl SqliteStore {
    /// Opens the database of a state folder that this process holds, makes it if it is not there, and brings it up to date. From here on no store that was opened
    /// earlier writes into it.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged, or is of a version that this program does not know.
    pub fn open(lock: StateLock) -> Result<Self, Error> {
        let path = lock.folder().join(DATABASE_FILE);
        let opened = prepare(&path).and_then(|mut connection| {
            let epoch = Epoch::take(&mut connection)?;
            Ok(Writer { connection, epoch })
        });
        Ok(Self { writer: Mutex::new(opened.context(|| format!("opening the database {}", path.display()))?), lock })
    }

    /// Writes a copy of the whole database into a file, which must not be there yet, as it is at one moment. Writers go on meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::NoRoom`] when the disk is full, [`ErrorKind::Corrupt`] when the copy is damaged, and when the database cannot be read. What was written of the copy is left.
    pub fn copy_to(&self, file: &Path) -> Result<(), Error> {
        let copying = || format!("copying the database to {}", file.display());
        let name = file.to_str().ok_or_else(|| Error::new("the name is not UTF-8").kind(ErrorKind::Invalid).context(copying()))?;
        // A connection of its own: it reads one moment's state from the log, and nobody waits for it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let copied = Connection::open_with_flags(self.lock.folder().join(DATABASE_FILE), flags).and_then(|reader| {
            reader.busy_timeout(BUSY_TIMEOUT)?;
            reader.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            reader.execute("VACUUM INTO ?1", [name])
        });
        copied.map_err(|error| told(&error)).and_then(|_| assert_sound(file)).context(copying)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads. Another thread's call waits meanwhile.
    fn look<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        read(&self.writer().connection)
    }

    /// A transaction of this writer alone, undone unless it is committed, also by a panic.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let Writer { connection, epoch } = &mut *self.writer();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| told(&error))?;
        let own = epoch.assert(&transaction)?;
        let changed = change(&transaction)?;
        transaction.commit().map_err(|error| told(&error))?;
        *epoch = own;
        Ok(changed)
    }
}

/// Refuses a copy that is empty or damaged: it must be noticed now, and not when it is needed.
fn assert_sound(copy: &Path) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked = Connection::open_with_flags(copy, flags).and_then(|copy| {
        let version: u32 = copy.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let found: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((version, found))
    });
    let damaged = |what: String| {
        let hint = "make the backup again; `gapless doctor` looks for what is damaged";
        Error::new(format!("the copy is no sound database: {what}")).kind(ErrorKind::Corrupt).hint(hint)
    };
    match looked.map_err(|error| told(&error))? {
        (0, _) => Err(damaged("it is empty".to_string())),
        (_, found) if found != "ok" => Err(damaged(found)),
        _ => Ok(()),
    }
}

fn prepare(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path).map_err(|error| told(&error))?;
    let set = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(|error| told(&error));
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| told(&error))?;
    // Before WAL: a new database gets its first page through a rollback journal. If a power cut brought that one's name back, it would undo all that the log holds since.
    set("synchronous", "EXTRA")?;
    set("journal_mode", "WAL")?;
    set("foreign_keys", "ON")?;
    set("temp_store", "MEMORY")?;
    // The log and its index stay when the store is closed: the room that they take is there when the next one is opened on a full disk.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(|error| told(&error))?;
    schema::migrate(&connection)?;
    Ok(connection)
}

impl SqliteStore {
    /// The rows of a journal after a record, a page at a time: writers get their turn in between, and a row that is written never changes.
    fn rows_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(i64, Written)>, Error> {
        let name = service.to_string();
        let mut rows: Vec<(i64, Written)> = Vec::new();
        let mut last = signed(after.0);
        loop {
            let page: Vec<(i64, Written)> = self.look(|connection| {
                collect(
                    connection,
                    "SELECT version, body, checksum, sequence FROM journal WHERE service = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                    params![name, last, JOURNAL_PAGE],
                    |row| Ok((row.get(3)?, written(row)?)),
                )
            })?;
            let more = page.len() >= JOURNAL_PAGE as usize;
            last = page.last().map_or(last, |(sequence, _)| *sequence);
            rows.extend(page);
            if !more {
                return Ok(rows);
            }
        }
    }
}

impl Journal for SqliteStore {
    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        let name = service.to_string();
        self.write(|transaction| {
            let sequence = Sequence(end(transaction, &name)?.0 + 1);
            let Written { version, body, checksum } = record::write_journal(service, sequence, record)?;
            execute(
                transaction,
                "INSERT INTO journal (service, sequence, version, at, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![name, signed(sequence.0), version, signed(record.at.0), body, checksum],
            )?;
            execute(
                transaction,
                "INSERT INTO journal_ends (service, last) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET last = excluded.last",
                params![name, signed(sequence.0)],
            )?;
            Ok(sequence)
        })
        .context(|| format!("appending to the journal of {service}"))
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.read_after(service, Sequence::default())
    }

    fn read_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        let end = self.look(|connection| end(connection, &service.to_string()))?;
        let rows = self.rows_after(service, after)?;
        let missing = |sequence: u64| damaged(&format!("record {sequence} of the journal of {service} is missing"));
        let read = |(expected, (sequence, written)): (u64, (i64, Written))| {
            let sequence = Sequence(unsigned(sequence)?);
            if sequence.0 != expected {
                return Err(missing(expected));
            }
            Ok((sequence, record::read_journal(service, sequence, &written)?))
        };
        let records: Vec<_> = (after.0 + 1..).zip(rows).map(read).collect::<Result<_, _>>()?;
        let last = records.last().map_or(after, |(sequence, _)| *sequence);
        if last < end { Err(missing(last.0 + 1)) } else { Ok(records) }
    }

    fn keep(&self, service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        let name = service.to_string();
        let Written { version, body, checksum } = record::write_state(service, sequence, at, state)?;
        self.write(|transaction| {
            execute(
                transaction,
                "INSERT INTO kept_states (service, sequence, version, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
                params![name, signed(sequence.0), version, body, checksum],
            )?;
            execute(
                transaction,
                "DELETE FROM kept_states WHERE service = ?1 AND sequence NOT IN
                    (SELECT sequence FROM kept_states WHERE service = ?1 ORDER BY sequence DESC LIMIT ?2)",
                params![name, STATES_KEPT],
            )
        })
        .context(|| format!("keeping the state of {service}"))
    }

    fn kept(&self, service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        let rows: Vec<(i64, Written)> = self.look(|connection| {
            collect(
                connection,
                "SELECT version, body, checksum, sequence FROM kept_states WHERE service = ?1 ORDER BY sequence DESC",
                [service.to_string()],
                |row| Ok((row.get(3)?, written(row)?)),
            )
        })?;
        // One that cannot be read is passed over: an older one, or the whole journal, tells the same.
        Ok(rows.into_iter().find_map(|(sequence, written)| {
            let sequence = Sequence(unsigned(sequence).ok()?);
            let (at, state) = record::read_state(service, sequence, &written).ok()?;
            Some((sequence, at, state))
        }))
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        let names: Vec<String> = self.look(|connection| collect(connection, SERVICES, [], |row| row.get(0)))?;
        names
            .into_iter()
            .map(|name| name.parse().map_err(|error: gapless_core::name::NotAServiceName| damaged(&error.to_string())))
            .collect()
    }
}

impl Records for SqliteStore {
    fn publish(&self, artifact: NewArtifact) -> Result<Artifact, Error> {
        let named = format!("publishing {}", artifact.name);
        self.write(|transaction| publish(transaction, artifact)).context(|| named)
    }

    fn artifacts(&self, name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        let rows: Vec<Row6> = collect(
            &self.writer().connection,
            "SELECT name, kind, version, image, published, metadata FROM artifacts WHERE ?1 IS NULL OR name = ?1 ORDER BY name, kind, version",
            [name],
            row6,
        )?;
        rows.into_iter().map(artifact).collect()
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        let content = content.to_string();
        let Written { version, body, checksum } = record::write_declaration(&content, declaration)?;
        self.write(|transaction| {
            execute(
                transaction,
                "INSERT INTO declarations (content, version, body, checksum) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![content, version, body, checksum],
            )
        })
        .context(|| format!("keeping the declaration of {}", declaration.service))
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        let content = content.to_string();
        let found = self
            .writer()
            .connection
            .query_row("SELECT version, body, checksum FROM declarations WHERE content = ?1", [&content], written)
            .optional()
            .map_err(|error| told(&error))?;
        let found = found.ok_or_else(|| not_found(format!("no declaration has the content {content}")))?;
        record::read_declaration(&content, &found)
    }

    fn put_receipt(&self, service: &ServiceName, rollout: RolloutNumber, receipt: &str) -> Result<(), Error> {
        self.write(|transaction| {
            execute(
                transaction,
                "INSERT INTO receipts (service, rollout, body) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET body = excluded.body",
                params![service.to_string(), rollout.0, receipt],
            )
        })
        .context(|| format!("keeping the receipt of rollout {rollout} of {service}"))
    }

    fn receipt(&self, service: &ServiceName, rollout: RolloutNumber) -> Result<String, Error> {
        self.writer()
            .connection
            .query_row("SELECT body FROM receipts WHERE service = ?1 AND rollout = ?2", params![service.to_string(), rollout.0], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|error| told(&error))?
            .ok_or_else(|| not_found(format!("rollout {rollout} of {service} has no receipt yet")))
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        let rows: Vec<(u32, i64, String)> =
            collect(&self.writer().connection, "SELECT version, at, reason FROM revocations WHERE artifact = ?1", [artifact], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        let read = |(version, at, reason)| Ok((ArtifactVersion(version), Revocation { at: Instant(unsigned(at)?), reason }));
        rows.into_iter().map(read).collect()
    }

    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        self.write(|transaction| {
            execute(
                transaction,
                "INSERT INTO revocations (artifact, version, at, reason) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET at = excluded.at, reason = excluded.reason",
                params![artifact, version.0, signed(revocation.at.0), revocation.reason],
            )
        })
        .context(|| format!("writing down that {artifact} {version} is revoked"))
    }

    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        self.write(|transaction| {
            execute(transaction, "DELETE FROM revocations WHERE artifact = ?1 AND version = ?2", params![artifact, version.0])
        })
        .context(|| format!("writing down that {artifact} {version} is revoked no more"))
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        self.writer()
            .connection
            .query_row("SELECT value FROM installation_values WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|error| told(&error))
    }

    fn put_value(&self, name: &str, value: &str) -> Result<(), Error> {
        self.write(|transaction| {
            execute(
                transaction,
                "INSERT INTO installation_values (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
                params![name, value],
            )
        })
        .context(|| format!("keeping the value `{name}`"))
    }
}

/// The last record that a service's journal must have; 0 when it has none. It stands beside the records, so that a lost end is seen as a lost middle is.
fn end(connection: &Connection, service: &str) -> Result<Sequence, Error> {
    let last = connection.query_row("SELECT last FROM journal_ends WHERE service = ?1", [service], |row| row.get(0)).optional();
    Ok(Sequence(unsigned(last.map_err(|error| told(&error))?.unwrap_or_default())?))
}

fn publish(transaction: &Transaction<'_>, new: NewArtifact) -> Result<Artifact, Error> {
    let NewArtifact { name, kind, image, published, metadata } = new;
    let written = serde_json::to_string(&metadata).map_err(|error| damaged(&error.to_string()))?;
    let same = transaction
        .query_row(
            "SELECT name, kind, version, image, published, metadata FROM artifacts WHERE name = ?1 AND kind = ?2 AND image = ?3 AND metadata = ?4",
            params![name, kind, image.to_string(), written],
            row6,
        )
        .optional()
        .map_err(|error| told(&error))?;
    if let Some(same) = same {
        return artifact(same);
    }
    let version = transaction
        .query_row("SELECT coalesce(max(version), 0) + 1 FROM artifacts WHERE name = ?1 AND kind = ?2", params![name, kind], |row| {
            row.get(0)
        })
        .map_err(|error| told(&error))?;
    execute(
        transaction,
        "INSERT INTO artifacts (name, kind, version, image, published, metadata) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![name, kind, version, image.to_string(), signed(published.0), written],
    )?;
    Ok(Artifact { name, kind, version: ArtifactVersion(version), image, published, metadata })
}

type Row6 = (String, String, u32, String, i64, String);

fn row6(row: &Row<'_>) -> rusqlite::Result<Row6> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

fn artifact((name, kind, version, image, published, metadata): Row6) -> Result<Artifact, Error> {
    let metadata: BTreeMap<String, String> = serde_json::from_str(&metadata)
        .map_err(|error| damaged(&error.to_string()).context(format!("reading artifact {version} of {name}")))?;
    let image: Digest = image.parse().map_err(|error: gapless_core::digest::NotADigest| {
        damaged(&error.to_string()).context(format!("reading artifact {version} of {name}"))
    })?;
    Ok(Artifact { name, kind, version: ArtifactVersion(version), image, published: Instant(unsigned(published)?), metadata })
}

fn written(row: &Row<'_>) -> rusqlite::Result<Written> {
    Ok(Written { version: row.get(0)?, body: row.get(1)?, checksum: row.get(2)? })
}

fn collect<T>(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Error> {
    let rows = connection.prepare(query).and_then(|mut statement| statement.query_map(parameters, read)?.collect());
    rows.map_err(|error| told(&error).context("reading the database"))
}

fn execute(transaction: &Transaction<'_>, statement: &str, parameters: impl rusqlite::Params) -> Result<(), Error> {
    transaction.execute(statement, parameters).map(drop).map_err(|error| told(&error))
}

/// SQLite's integers have a sign; no instant or sequence reaches it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| damaged(&format!("{number} stands where a count should")))
}

fn damaged(what: &str) -> Error {
    Error::new(what).kind(ErrorKind::Corrupt).hint(record::DAMAGED)
}

/// What SQLite says, as an error of ours.
fn told(error: &rusqlite::Error) -> Error {
    let code = match error {
        rusqlite::Error::SqliteFailure(ffi::Error { code, extended_code }, _) => Some((*code, *extended_code)),
        _ => None,
    };
    let said = Error::new(error.to_string());
    match code {
        Some((ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE)) => {
            said.kind(ErrorKind::NoRoom).hint("make room on the disk of the server's state folder")
        }
        Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)) => damaged(&error.to_string()),
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => {
            said.hint("another program has the database open: end it, and use gapless's own commands instead")
        }
        // What a whole disk does not say either: a table or a column that is not there, a number that is none.
        _ => said.hint(record::DAMAGED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::event::Event;

    /// A store whose journal has so many records, written at once: one after the other they would wait for the disk that often.
    fn store_of(records: u32, folder: &Path) -> SqliteStore {
        let store = SqliteStore::open(StateLock::acquire(folder).expect("the lock")).expect("a store");
        let fill = |transaction: &Transaction<'_>| {
            for number in 1..=u64::from(records) {
                let record = JournalRecord { at: Instant(number), event: Event::Restarted, effects: Vec::new() };
                let Written { version, body, checksum } = record::write_journal(&web(), Sequence(number), &record)?;
                let statement = "INSERT INTO journal (service, sequence, version, at, body, checksum) VALUES (?1, ?2, ?3, ?2, ?4, ?5)";
                execute(transaction, statement, params![web().to_string(), signed(number), version, body, checksum])?;
            }
            execute(transaction, "INSERT INTO journal_ends (service, last) VALUES (?1, ?2)", params![web().to_string(), records])
        };
        store.write(fill).expect("filled");
        store
    }

    fn web() -> ServiceName {
        ServiceName::new("hello", "web").expect("a name")
    }

    fn numbers(store: &SqliteStore, after: u64) -> Vec<u64> {
        store.read_after(&web(), Sequence(after)).expect("readable").iter().map(|(sequence, _)| sequence.0).collect()
    }

    #[test]
    fn a_journal_of_several_pages_is_read_whole() {
        for records in [JOURNAL_PAGE - 1, JOURNAL_PAGE, JOURNAL_PAGE + 1, 2 * JOURNAL_PAGE, 2 * JOURNAL_PAGE + 7] {
            let folder = tempfile::tempdir().expect("a folder");
            let store = store_of(records, folder.path());
            for after in [0, 1, 7] {
                assert_eq!(numbers(&store, after), (after + 1..=records.into()).collect::<Vec<_>>(), "{records} records, after {after}");
            }
            assert_eq!(numbers(&store, records.into()), [0; 0]);
        }
    }

    #[test]
    fn a_record_that_is_missing_where_pages_meet_is_noticed() {
        for lost in [JOURNAL_PAGE, JOURNAL_PAGE + 1, 2 * JOURNAL_PAGE] {
            let folder = tempfile::tempdir().expect("a folder");
            let store = store_of(2 * JOURNAL_PAGE, folder.path());
            store.write(|transaction| execute(transaction, "DELETE FROM journal WHERE sequence = ?1", [lost])).expect("it is lost");
            let error = store.read(&web()).expect_err("it is missing").to_string();
            assert!(error.contains(&format!("record {lost} of the journal of hello/web is missing")), "{error}");
        }
    }
}
