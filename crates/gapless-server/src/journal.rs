//! Journals as far as they can be read: damage in what lies behind a service holds up nothing that lies before it.

use gapless_core::name::ServiceName;
use gapless_core::time::Instant;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::recovery::{recover, replay};
use gapless_engine::store::{Journal, JournalRecord, Sequence};
use std::sync::Arc;

/// The records of a service that can be read, in order.
#[derive(Debug)]
pub(crate) struct Readable {
    pub(crate) records: Vec<(Sequence, JournalRecord)>,
    /// Why these are only the last ones: from the state on that a start would begin at.
    pub(crate) damage: Option<Error>,
}

/// A service's journal, or what of it can be read.
pub(crate) async fn readable(journal: &Arc<dyn Journal>, service: &ServiceName) -> Result<Readable, Error> {
    let (journal, name) = (journal.clone(), service.clone());
    let read = tokio::task::spawn_blocking(move || read(&*journal, &name)).await;
    read.unwrap_or_else(|error| Err(Error::new(format!("a call to the store did not end: {error}"))))
        .context(|| format!("reading the journal of {service}"))
}

/// A record of a journal by its number and its time: a number alone is not enough where a part of a backup was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) record: Sequence,
    pub(crate) at: Instant,
}

impl Place {
    /// Whether this record is at this place.
    pub(crate) fn is_at(self, record: Option<&(Sequence, JournalRecord)>) -> bool {
        record.is_some_and(|(sequence, record)| (*sequence, record.at) == (self.record, self.at))
    }
}

/// The records from this one on. What lies before it is not looked at, unless the journal has no such record.
pub(crate) async fn readable_from(journal: &Arc<dyn Journal>, service: &ServiceName, begin: Option<Place>) -> Result<Readable, Error> {
    let Some(begin) = begin else { return readable(journal, service).await };
    let (reading, name) = (journal.clone(), service.clone());
    let read = tokio::task::spawn_blocking(move || read_from(&*reading, &name, begin)).await;
    // Whatever is wrong with them, reading all of them tells.
    match read {
        Ok(Some(records)) => Ok(Readable { records, damage: None }),
        _ => readable(journal, service).await,
    }
}

fn read_from(journal: &dyn Journal, service: &ServiceName, begin: Place) -> Option<Vec<(Sequence, JournalRecord)>> {
    let records = journal.read_after(service, Sequence(begin.record.0.checked_sub(1)?)).ok()?;
    begin.is_at(records.first()).then_some(records)
}

fn read(journal: &dyn Journal, service: &ServiceName) -> Result<Readable, Error> {
    let damage = match journal.read(service) {
        Ok(records) => return Ok(Readable { records, damage: None }),
        Err(error) if matches!(error.error_kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => error,
        Err(error) => return Err(error),
    };
    let Some((kept, _, _)) = journal.kept(service)? else { return Err(damage) };
    let records = journal.read_after(service, Sequence(kept.0.saturating_sub(1)))?;
    Ok(Readable { records, damage: Some(damage) })
}

/// What is damaged behind the state that a start would go on from: a record that cannot be read, or that is missing.
///
/// That this version would have decided an older record differently is no damage: that is what kept states are for.
#[must_use]
pub fn damage(journal: &dyn Journal, service: &ServiceName) -> Option<Error> {
    // Without a state to go on from, the damage is told where that is needed.
    recover(journal, service).ok()?;
    let whole = journal.read(service).and_then(|records| replay(service, &records));
    let error = whole.err().filter(|error| error.error_kind() == ErrorKind::Corrupt)?;
    Some(error.context("what it did long ago cannot be told, and it goes on all the same"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::event::Event;
    use gapless_store::{SqliteStore, StateLock};

    fn web() -> ServiceName {
        "hello/web".parse().expect("a name")
    }

    fn restarted(at: u64) -> JournalRecord {
        JournalRecord { at: Instant(at), event: Event::Restarted, effects: Vec::new() }
    }

    /// Four records, with a state kept after the third.
    fn fill(store: &dyn Journal) {
        for at in 1..=3 {
            store.append(&web(), &restarted(at)).expect("appended");
        }
        let replayed = recover(store, &web()).expect("it recovers");
        store.keep(&web(), replayed.last, replayed.at, &replayed.state).expect("kept");
        store.append(&web(), &restarted(4)).expect("appended");
    }

    #[test]
    fn records_are_read_from_a_place_that_is_the_journals_own() {
        let store = gapless_store::MemoryStore::default();
        for at in 1..=4 {
            store.append(&web(), &restarted(at)).expect("appended");
        }
        let from = |record, at| {
            let records = read_from(&store, &web(), Place { record: Sequence(record), at: Instant(at) })?;
            Some(records.iter().map(|(sequence, _)| sequence.0).collect::<Vec<_>>())
        };
        assert_eq!(from(1, 1), Some(vec![1, 2, 3, 4]));
        assert_eq!(from(3, 3), Some(vec![3, 4]));
        assert_eq!((from(3, 2), from(5, 5), from(0, 0)), (None, None, None), "it is another journal's");
    }

    #[test]
    fn a_damaged_record_behind_a_kept_state_is_told_and_the_rest_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || SqliteStore::open(StateLock::acquire(folder.path()).expect("the lock")).expect("a store");
        let store = open();
        fill(&store);
        assert!(damage(&store, &web()).is_none());
        assert_eq!(read(&store, &web()).expect("readable").records.len(), 4);
        drop(store);
        let statement = "UPDATE journal SET body = body || ' ' WHERE sequence = 2";
        let changed = std::process::Command::new("sqlite3").arg(folder.path().join("gapless.db")).arg(statement).status();
        assert!(changed.expect("sqlite3 runs").success());
        let store = open();
        let found = damage(&store, &web()).expect("damage");
        assert!(found.to_string().contains("record 2 of the journal of hello/web is damaged"), "{found}");
        assert!(found.hint_text().is_some(), "{found:?}");
        let readable = read(&store, &web()).expect("readable");
        assert_eq!(readable.records.iter().map(|(sequence, _)| sequence.0).collect::<Vec<_>>(), [3, 4]);
        assert!(readable.damage.expect("damage").to_string().contains("record 2"));
    }
}
