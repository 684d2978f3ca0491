//! Who owes a receipt, and up to where a journal owes none any more: neither a start nor the end of a rollout reads what was settled long ago.

use crate::journal::Place;
use crate::server::Server;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::time::Instant;
use gapless_engine::error::Error;
use gapless_engine::store::{JournalRecord, Sequence};
use std::collections::{BTreeMap, BTreeSet};

/// The rollouts without a stored receipt, in progress or ended.
#[derive(Default)]
pub(super) struct Owed {
    /// Each with the record that it began with: what was counted since then is needed.
    rollouts: BTreeMap<(ServiceName, RolloutNumber), Place>,
    /// The services of which none is missing above.
    complete: BTreeSet<ServiceName>,
}

impl Owed {
    /// A rollout owes a receipt from here on.
    pub(super) fn add(&mut self, service: &ServiceName, rollout: RolloutNumber, first: Place) {
        self.rollouts.insert((service.clone(), rollout), first);
    }

    /// Its receipt is stored.
    pub(super) fn settle(&mut self, service: &ServiceName, rollout: RolloutNumber) {
        self.rollouts.remove(&(service.clone(), rollout));
    }

    /// No receipt will be made any more of what began up to this record.
    pub(super) fn forget_up_to(&mut self, service: &ServiceName, record: Sequence) {
        self.rollouts.retain(|(owing, _), first| owing != service || first.record > record);
    }

    /// Whether everything of the service that owes a receipt is known from here on.
    pub(super) fn set_complete(&mut self, service: &ServiceName, complete: bool) {
        if complete {
            self.complete.insert(service.clone());
        } else {
            self.complete.remove(service);
        }
    }

    /// Some of what was told was missed.
    pub(super) fn doubt_all(&mut self) {
        self.complete.clear();
    }

    /// Since when what was counted is needed, in milliseconds since the Unix epoch.
    pub(super) fn needed_since_ms(&self) -> Option<u64> {
        self.rollouts.values().map(|first| first.at.0).min()
    }

    /// The first record of the oldest rollout of the service that owes a receipt, if all of them are known.
    pub(super) fn begin(&self, service: &ServiceName) -> Option<Place> {
        self.complete.contains(service).then(|| self.oldest(service))?
    }

    fn oldest(&self, service: &ServiceName) -> Option<Place> {
        let of_service = self.rollouts.iter().filter(|((owing, _), _)| owing == service);
        of_service.map(|(_, first)| *first).min_by_key(|first| first.record)
    }

    /// The last of these records before which no rollout of the service began that owes a receipt, itself included.
    pub(super) fn settled(&self, service: &ServiceName, records: &[(Sequence, JournalRecord)]) -> Option<Place> {
        let oldest = self.oldest(service);
        let settled = |record: Sequence| oldest.is_none_or(|oldest| record < oldest.record);
        let last = records.iter().rfind(|(sequence, _)| settled(*sequence));
        last.map(|(sequence, record)| Place { record: *sequence, at: record.at })
    }
}

/// The name under which a service's mark is kept.
fn name(service: &ServiceName) -> String {
    format!("receipts/{service}")
}

/// The record up to which a service's journal owes no receipt. Without a mark that can be read, the journal is read from its start.
pub(super) async fn mark(server: &Server, service: &ServiceName) -> Option<Place> {
    let name = name(service);
    let value = server.stored(move |records| records.value(&name)).await.ok()??;
    let (record, at) = serde_json::from_str(&value).ok()?;
    Some(Place { record: Sequence(record), at: Instant(at) })
}

/// Moves the mark: every receipt of what began up to there is stored.
pub(super) async fn move_mark(server: &Server, service: &ServiceName, Place { record, at }: Place) -> Result<(), Error> {
    let (name, value) = (name(service), format!("[{},{}]", record.0, at.0));
    server.stored(move |records| records.put_value(&name, &value)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::event::Event;

    fn web() -> ServiceName {
        "hello/web".parse().expect("a name")
    }

    fn place(record: u64) -> Place {
        Place { record: Sequence(record), at: Instant(10 * record) }
    }

    fn records() -> Vec<(Sequence, JournalRecord)> {
        let record = |at| JournalRecord { at: Instant(at), event: Event::Restarted, effects: Vec::new() };
        (4..=9).map(|sequence| (Sequence(sequence), record(10 * sequence))).collect()
    }

    #[test]
    fn a_journal_is_settled_up_to_the_oldest_that_owes() {
        let mut owed = Owed::default();
        assert_eq!(owed.settled(&web(), &records()), Some(place(9)));
        owed.add(&web(), RolloutNumber(2), place(8));
        owed.add(&web(), RolloutNumber(1), place(6));
        owed.add(&"hello/api".parse().expect("a name"), RolloutNumber(1), place(5));
        assert_eq!(owed.settled(&web(), &records()), Some(place(5)));
        assert_eq!(owed.needed_since_ms(), Some(50));
        owed.settle(&web(), RolloutNumber(1));
        assert_eq!(owed.settled(&web(), &records()), Some(place(7)));
        owed.forget_up_to(&web(), Sequence(7));
        assert_eq!(owed.settled(&web(), &records()), Some(place(7)), "the other one began later");
        owed.forget_up_to(&web(), Sequence(8));
        assert_eq!(owed.settled(&web(), &records()), Some(place(9)));
        assert_eq!(owed.needed_since_ms(), Some(50), "the other service's is left");
        owed.add(&web(), RolloutNumber(2), place(4));
        assert_eq!(owed.settled(&web(), &records()), None, "the mark stays where it is");
        owed.add(&web(), RolloutNumber(2), place(12));
        assert_eq!(owed.settled(&web(), &records()), Some(place(9)), "it began after these were read");
    }

    #[test]
    fn what_owes_is_begun_at_only_while_none_is_missing() {
        let mut owed = Owed::default();
        owed.add(&web(), RolloutNumber(1), place(6));
        assert_eq!(owed.begin(&web()), None);
        owed.set_complete(&web(), true);
        assert_eq!(owed.begin(&web()), Some(place(6)));
        owed.doubt_all();
        assert_eq!(owed.begin(&web()), None);
        owed.set_complete(&web(), true);
        owed.settle(&web(), RolloutNumber(1));
        assert_eq!(owed.begin(&web()), None, "there is none");
    }
}
