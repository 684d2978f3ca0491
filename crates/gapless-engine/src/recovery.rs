//! Recovery: a journal becomes a state again, through the same function that wrote it.

use crate::engine::Parts;
use crate::error::{Context, Error};
use crate::store::{JournalRecord, Sequence};
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::rollout::{Step, step};
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;

/// What a service's journal amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The state after the last record.
    pub state: ServiceState,
    /// The last record's place; 0 when there is none.
    pub last: Sequence,
    /// The last record's time.
    pub at: Instant,
}

/// Replays a journal.
///
/// # Errors
/// When the records are not numbered from 1 without gaps, or when this program decides differently on an event than the journal says was decided: another version wrote
/// it.
pub fn replay(service: &ServiceName, records: &[(Sequence, JournalRecord)]) -> Result<Replayed, Error> {
    let mut replayed = Replayed::default();
    for (sequence, record) in records {
        if sequence.0 != replayed.last.0 + 1 {
            return Err(Error::new(format!("record {} of {service} is missing from the journal", replayed.last.0 + 1))
                .hint("restore the server's state folder from a backup"));
        }
        let decided = step(&replayed.state, &record.event, record.at);
        if decided.effects != record.effects {
            return Err(differs(service, *sequence, &decided, record));
        }
        replayed = Replayed { state: decided.state, last: *sequence, at: record.at };
    }
    Ok(replayed)
}

fn differs(service: &ServiceName, sequence: Sequence, decided: &Step, record: &JournalRecord) -> Error {
    Error::new(format!(
        "record {} of the journal of {service} says {}, and this version of gapless decides {}: the version changed",
        sequence.0,
        names(&record.effects),
        names(&decided.effects),
    ))
    .hint("start the version of gapless that wrote the journal, and let its rollouts end before you change it")
}

fn names(effects: &[(EffectId, Effect)]) -> String {
    if effects.is_empty() {
        return "no effect".to_string();
    }
    effects.iter().map(|(id, effect)| format!("{id} {}", effect.name())).collect::<Vec<_>>().join(", ")
}

/// What a restart of the engine would do now with one service. Nothing of it is done.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The service.
    pub service: ServiceName,
    /// How many records its journal has.
    pub records: u64,
    /// What the journal amounts to, or why it cannot be replayed.
    pub state: Result<ServiceState, Error>,
    /// Effects whose intent is in the journal and whose outcome is not.
    pub pending: Vec<(EffectId, Effect)>,
    /// What the first look at the world after a restart would have done.
    pub would_do: Vec<(EffectId, Effect)>,
    /// Why the world could not be looked at.
    pub unseen: Option<Error>,
}

/// What a restart would do now, service by service. It needs no running engine, and only reads.
///
/// # Errors
/// When the journal cannot be read at all. What is wrong with one service stands in its [`Diagnosis`].
pub async fn diagnose(parts: &Parts) -> Result<Vec<Diagnosis>, Error> {
    let mut found = Vec::new();
    for service in services(parts).await? {
        found.push(diagnose_service(parts, service).await);
    }
    Ok(found)
}

async fn diagnose_service(parts: &Parts, service: ServiceName) -> Diagnosis {
    let read = read(parts, &service).await;
    let records = read.as_ref().map_or(0, |records| records.len() as u64);
    let replayed = match read.and_then(|records| replay(&service, &records)) {
        Ok(replayed) => replayed,
        Err(error) => {
            return Diagnosis { service, records, state: Err(error), pending: Vec::new(), would_do: Vec::new(), unseen: None };
        }
    };
    let pending = replayed.state.pending.iter().map(|(id, effect)| (*id, effect.clone())).collect();
    let now = parts.clock.now().max(replayed.at);
    let Step { state: restarted, effects: mut would_do, .. } = step(&replayed.state, &Event::Restarted, now);
    let unseen = match parts.platform.peek(&service).await {
        Ok(seen) => {
            would_do.extend(step(&restarted, &Event::Observed(seen), now).effects);
            None
        }
        Err(error) => Some(error),
    };
    Diagnosis { service, records, state: Ok(replayed.state), pending, would_do, unseen }
}

/// Every service with a journal.
pub(crate) async fn services(parts: &Parts) -> Result<Vec<ServiceName>, Error> {
    let journal = parts.journal.clone();
    blocking(move || journal.services()).await.context(|| "listing the services of the journal".to_string())
}

/// A service's journal.
pub(crate) async fn read(parts: &Parts, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
    let (journal, name) = (parts.journal.clone(), service.clone());
    blocking(move || journal.read(&name)).await.context(|| format!("reading the journal of {service}"))
}

/// Runs a call that waits for a disk where it holds nothing else up.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| Err(Error::new(format!("a call to the store did not end: {error}"))))
}
