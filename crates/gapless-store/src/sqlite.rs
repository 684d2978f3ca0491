//! The store in SQLite: one file in the state folder, one writer.

mod schema;

use crate::lock::StateLock;
use crate::memory::not_found;
use crate::record::{self, Written};
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The database's name in the state folder.
pub const DATABASE_FILE: &str = "gapless.db";

/// How long a call waits for a process that still holds the database: a server that was just killed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store in SQLite. The lock of its state folder lasts as long as it does.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Mutex<Connection>,
    _lock: StateLock,
}

impl SqliteStore {
    /// Opens the database of a state folder that this process holds, makes it if it is not there, and brings it up to date.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged, or is of a version that this program does not know.
    pub fn open(lock: StateLock) -> Result<Self, Error> {
        let path = lock.folder().join(DATABASE_FILE);
        let connection = prepare(&path).context(|| format!("opening the database {}", path.display()))?;
        Ok(Self { connection: Mutex::new(connection), _lock: lock })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction that is undone unless it is committed, also by a panic.
    fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| told(&error))?;
        let changed = change(&transaction)?;
        transaction.commit().map_err(|error| told(&error))?;
        Ok(changed)
    }
}

fn prepare(path: &std::path::Path) -> Result<Connection, Error> {
    let connection = Connection::open(path).map_err(|error| told(&error))?;
    let set = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(|error| told(&error));
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| told(&error))?;
    // Before WAL: with one writer the log's index stays in memory, and there is no shared file that a full disk could stop.
    set("locking_mode", "EXCLUSIVE")?;
    set("journal_mode", "WAL")?;
    set("synchronous", "FULL")?;
    set("foreign_keys", "ON")?;
    set("temp_store", "MEMORY")?;
    schema::migrate(&connection)?;
    Ok(connection)
}

impl Journal for SqliteStore {
    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        let name = service.to_string();
        self.write(|transaction| {
            let last = transaction
                .query_row("SELECT coalesce(max(sequence), 0) FROM journal WHERE service = ?1", [&name], |row| row.get::<_, i64>(0))
                .map_err(|error| told(&error))?;
            let sequence = Sequence(unsigned(last)? + 1);
            let Written { version, body, checksum } = record::write_journal(service, sequence, record)?;
            execute(
                transaction,
                "INSERT INTO journal (service, sequence, version, at, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![name, last + 1, version, signed(record.at.0), body, checksum],
            )?;
            Ok(sequence)
        })
        .context(|| format!("appending to the journal of {service}"))
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        let rows: Vec<(i64, Written)> = collect(
            &self.connection(),
            "SELECT version, body, checksum, sequence FROM journal WHERE service = ?1 ORDER BY sequence",
            [service.to_string()],
            |row| Ok((row.get(3)?, written(row)?)),
        )?;
        let read = |(sequence, written): (i64, Written)| {
            let sequence = Sequence(unsigned(sequence)?);
            Ok((sequence, record::read_journal(service, sequence, &written)?))
        };
        rows.into_iter().map(read).collect()
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        let names: Vec<String> =
            collect(&self.connection(), "SELECT DISTINCT service FROM journal ORDER BY service", [], |row| row.get(0))?;
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
            &self.connection(),
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
            .connection()
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
        self.connection()
            .query_row("SELECT body FROM receipts WHERE service = ?1 AND rollout = ?2", params![service.to_string(), rollout.0], |row| {
                row.get(0)
            })
            .optional()
            .map_err(|error| told(&error))?
            .ok_or_else(|| not_found(format!("rollout {rollout} of {service} has no receipt yet")))
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        let rows: Vec<(u32, i64, String)> =
            collect(&self.connection(), "SELECT version, at, reason FROM revocations WHERE artifact = ?1", [artifact], |row| {
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
        self.connection()
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
    Error::new(what).kind(ErrorKind::Corrupt).hint("look after the disk, and restore the server's state folder from a backup")
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
        _ => said,
    }
}
