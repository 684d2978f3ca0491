//! Fencing: each writer of a database has a number, and only the last one writes.
//!
//! The lock of the state folder keeps a second server out. When it could not (its file was removed, the folder was moved to another machine while a server slept), the
//! server that came first must not go on: it decides on a state that is no longer so.

use super::told;
use gapless_engine::error::{Context, Error, ErrorKind};
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// The number of a writer. It is counted up by each store that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Epoch {
    /// This store's own.
    Own(i64),
    /// The disk had no room for a number of its own: the first write takes it, unless another store was opened since this number was seen.
    Next(i64),
}

impl Epoch {
    /// The next number, durable when this returns. A full disk keeps nobody from reading what is there.
    pub(super) fn take(connection: &mut Connection) -> Result<Self, Error> {
        let seen = present(connection)?;
        let taken =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| told(&error)).and_then(|transaction| {
                let own = next(&transaction)?;
                transaction.commit().map_err(|error| told(&error))?;
                Ok(own)
            });
        match taken {
            Err(error) if error.error_kind() == ErrorKind::NoRoom => Ok(Self::Next(seen)),
            taken => taken.context(|| "taking the database over".to_string()),
        }
    }

    /// Whether the transaction may write: its number as it is once the transaction is committed.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] when another store was opened after this one.
    pub(super) fn assert(self, transaction: &Transaction<'_>) -> Result<Self, Error> {
        let (Self::Own(known) | Self::Next(known)) = self;
        let present = present(transaction)?;
        if present != known {
            return Err(fenced(known, present));
        }
        match self {
            Self::Own(_) => Ok(self),
            Self::Next(_) => next(transaction),
        }
    }
}

fn present(connection: &Connection) -> Result<i64, Error> {
    connection.query_row("SELECT epoch FROM writer", [], |row| row.get(0)).map_err(|error| told(&error))
}

fn next(transaction: &Transaction<'_>) -> Result<Epoch, Error> {
    let own = transaction.query_row("UPDATE writer SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get(0));
    own.map(Epoch::Own).map_err(|error| told(&error))
}

fn fenced(own: i64, present: i64) -> Error {
    Error::new(format!(
        "another gapless server has taken the database over (it is writer {present}, this one is writer {own}): nothing was written"
    ))
    .kind(ErrorKind::Fenced)
    .hint("stop this server: one state folder serves one server, and its lock file must not be removed while one runs")
}
