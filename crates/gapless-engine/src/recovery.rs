//! Recovery: a journal becomes a state again, through the same function that wrote it.

use crate::engine::Parts;
use crate::error::{Context, Error, ErrorKind};
use crate::store::{Journal, JournalRecord, Sequence};
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
    /// The record after which a kept state began; 0 when everything was replayed.
    pub kept: Sequence,
}

/// What a service's journal amounts to: the latest kept state that can be used, and what comes after it replayed. Without one, the whole journal is.
///
/// Only what is replayed is compared with what this program decides: a newer version goes on from a kept state also when it would decide older records differently.
///
/// # Errors
/// As [`replay`], and when the journal cannot be read.
pub fn recover(journal: &dyn Journal, service: &ServiceName) -> Result<Replayed, Error> {
    match begin(journal, service)? {
        Some((kept, records)) => go_on(service, kept, &records),
        None => replay(service, &journal.read(service)?),
    }
}

/// A state to begin at, and the records that come after it.
type Beginning = (Replayed, Vec<(Sequence, JournalRecord)>);

/// A state to begin at, with the records that come after it. It is passed over if its own record is not in the journal, as after a part of a backup was put back.
fn begin(journal: &dyn Journal, service: &ServiceName) -> Result<Option<Beginning>, Error> {
    let Some((kept, at, state)) = journal.kept(service)? else { return Ok(None) };
    let mut records = journal.read_after(service, Sequence(kept.0.saturating_sub(1)))?;
    let own = (!records.is_empty()).then(|| records.remove(0));
    let is_own = own.is_some_and(|(sequence, record)| sequence == kept && record.at == at);
    Ok(is_own.then_some((Replayed { state, last: kept, at, kept }, records)))
}

/// Replays a whole journal.
///
/// # Errors
/// When the records are not numbered from 1 without gaps, or when this program decides differently on an event than the journal says was decided: another version wrote
/// it.
pub fn replay(service: &ServiceName, records: &[(Sequence, JournalRecord)]) -> Result<Replayed, Error> {
    go_on(service, Replayed::default(), records)
}

fn go_on(service: &ServiceName, from: Replayed, records: &[(Sequence, JournalRecord)]) -> Result<Replayed, Error> {
    let mut replayed = from;
    for (sequence, record) in records {
        if sequence.0 != replayed.last.0 + 1 {
            return Err(Error::new(format!("record {} of {service} is missing from the journal", replayed.last.0 + 1))
                .kind(ErrorKind::Corrupt)
                .hint("give the server a state folder from a backup: `gapless restore FILE`"));
        }
        let decided = step(&replayed.state, &record.event, record.at);
        if decided.effects != record.effects {
            return Err(differs(service, *sequence, &decided, record));
        }
        replayed = Replayed { state: decided.state, last: *sequence, at: record.at, kept: replayed.kept };
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
    .kind(ErrorKind::Invalid)
    .hint("start the version of gapless that wrote the journal, and stop it in order (SIGTERM) before you change it: it leaves a state to begin at")
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
    let replayed = match recovered(parts, &service).await {
        Ok(replayed) => replayed,
        Err(error) => {
            let records = read(parts, &service).await.map_or(0, |records| records.len() as u64);
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
    Diagnosis { service, records: replayed.last.0, state: Ok(replayed.state), pending, would_do, unseen }
}

/// Every service with a journal.
pub(crate) async fn services(parts: &Parts) -> Result<Vec<ServiceName>, Error> {
    let journal = parts.journal.clone();
    blocking(journal.may_wait(), move || journal.services()).await.context(|| "listing the services of the journal".to_string())
}

/// What a service's journal amounts to, as [`recover`] says.
pub(crate) async fn recovered(parts: &Parts, service: &ServiceName) -> Result<Replayed, Error> {
    let (journal, name) = (parts.journal.clone(), service.clone());
    blocking(journal.may_wait(), move || recover(&*journal, &name)).await.context(|| format!("recovering {service}"))
}

/// A service's journal.
pub(crate) async fn read(parts: &Parts, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
    let (journal, name) = (parts.journal.clone(), service.clone());
    blocking(journal.may_wait(), move || journal.read(&name)).await.context(|| format!("reading the journal of {service}"))
}

/// The records of a service that come after this one.
pub(crate) async fn read_after(parts: &Parts, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
    let (journal, name) = (parts.journal.clone(), service.clone());
    blocking(journal.may_wait(), move || journal.read_after(&name, after)).await.context(|| format!("reading the journal of {service}"))
}

/// Runs a call that may wait for a disk where it holds nothing else up, and another one here.
pub(crate) async fn blocking<T: Send + 'static>(
    may_wait: bool,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if !may_wait {
        return call();
    }
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| Err(Error::new(format!("a call to the store did not end: {error}"))))
}
