//! The database's tables, in versions: each migration is run once, in order, and never changed afterwards.

use super::told;
use gapless_engine::error::{Error, ErrorKind};
use rusqlite::Connection;

/// The migrations. The database's `user_version` says how many of them it has seen.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE journal (
        service TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence > 0),
        version INTEGER NOT NULL,
        at INTEGER NOT NULL,
        body TEXT NOT NULL,
        checksum BLOB NOT NULL,
        PRIMARY KEY (service, sequence)
    ) STRICT;
    CREATE TABLE artifacts (
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        version INTEGER NOT NULL CHECK (version > 0),
        image TEXT NOT NULL,
        published INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        PRIMARY KEY (name, kind, version)
    ) STRICT;
    CREATE UNIQUE INDEX artifacts_once ON artifacts (name, kind, image, metadata);
    CREATE TABLE declarations (
        content TEXT NOT NULL PRIMARY KEY,
        version INTEGER NOT NULL,
        body TEXT NOT NULL,
        checksum BLOB NOT NULL
    ) STRICT;
    CREATE TABLE receipts (
        service TEXT NOT NULL,
        rollout INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (service, rollout)
    ) STRICT;
    CREATE TABLE installation_values (
        name TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
",
    "
    CREATE TABLE revocations (
        artifact TEXT NOT NULL,
        version INTEGER NOT NULL CHECK (version > 0),
        at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (artifact, version)
    ) STRICT;
",
    "
    CREATE TABLE writer (
        only INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
        epoch INTEGER NOT NULL
    ) STRICT;
    INSERT INTO writer (only, epoch) VALUES (1, 0);
    CREATE TABLE journal_ends (
        service TEXT NOT NULL PRIMARY KEY,
        last INTEGER NOT NULL CHECK (last > 0)
    ) STRICT;
    INSERT INTO journal_ends (service, last) SELECT service, max(sequence) FROM journal GROUP BY service;
    CREATE TABLE kept_states (
        service TEXT NOT NULL,
        sequence INTEGER NOT NULL CHECK (sequence > 0),
        version INTEGER NOT NULL,
        body TEXT NOT NULL,
        checksum BLOB NOT NULL,
        PRIMARY KEY (service, sequence)
    ) STRICT;
",
];

/// Brings the database up to date.
pub(super) fn migrate(connection: &Connection) -> Result<(), Error> {
    let seen: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| told(&error))?;
    let seen = seen as usize;
    if seen > MIGRATIONS.len() {
        return Err(Error::new(format!("the database is of schema {seen}, and this program knows {}", MIGRATIONS.len()))
            .kind(ErrorKind::Invalid)
            .hint("start the version of gapless that was used last, or a newer one"));
    }
    for (number, migration) in (1..).zip(MIGRATIONS).skip(seen) {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT;"))
            .map_err(|error| told(&error).context(format!("bringing the database to schema {number}")))?;
    }
    Ok(())
}
