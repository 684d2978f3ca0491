//! The store in memory with faults: writes are refused, fail in doubt, or are the last thing that a program does. Whatever becomes durable is judged at once.

use crate::mortal::{Mortal, Place};
use crate::watch::Watched;
use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use gapless_engine::checkpoint::EffectContext;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use gapless_platforms::sim::{Random, Sim};
use gapless_platforms::sometimes;
use gapless_store::MemoryStore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// How often the store fails: of a thousand calls each.
#[derive(Clone, Debug, Default)]
pub struct StoreFaults {
    /// Writes for which there is no room.
    pub no_room: u32,
    /// Writes that fail and were not done; nobody knows.
    pub not_there: u32,
    /// Writes that fail and were done; nobody knows.
    pub there: u32,
    /// Readings that fail.
    pub unreadable: u32,
    /// There is no room at all.
    pub full: bool,
}

pub struct FaultyStore {
    inner: MemoryStore,
    sim: Sim,
    kept: Mutex<Kept>,
}

struct Kept {
    mortal: Arc<Mortal>,
    random: Random,
    faults: StoreFaults,
    gone_wrong: u64,
    watched: BTreeMap<ServiceName, Watched>,
    violations: Vec<String>,
    /// Nobody dies in this world: capacity is judged, and no request may fail.
    calm: bool,
}

impl FaultyStore {
    pub fn new(seed: u64, sim: Sim, calm: bool) -> Arc<Self> {
        let kept = Kept {
            mortal: Mortal::new(),
            random: Random::new(seed),
            faults: StoreFaults::default(),
            gone_wrong: 0,
            watched: BTreeMap::new(),
            violations: Vec::new(),
            calm,
        };
        Arc::new(Self { inner: MemoryStore::new(), sim, kept: Mutex::new(kept) })
    }

    fn world(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("the store")
    }

    /// Another program opens the store.
    pub fn open(&self, mortal: &Arc<Mortal>) {
        self.world().mortal = mortal.clone();
    }

    pub fn set_faults(&self, faults: StoreFaults) {
        self.world().faults = faults;
    }

    pub fn fill(&self, full: bool) {
        self.world().faults.full = full;
    }

    pub fn gone_wrong(&self) -> u64 {
        self.world().gone_wrong
    }

    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    /// What the durable records of a service amount to.
    pub fn state(&self, service: &ServiceName) -> ServiceState {
        self.world().watched.get(service).map(|watched| watched.state.clone()).unwrap_or_default()
    }

    /// How many records a service has.
    pub fn records(&self, service: &ServiceName) -> usize {
        self.inner.read(service).map_or(0, |records| records.len())
    }

    /// All journals as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for service in self.inner.services().expect("services") {
            for (sequence, record) in self.inner.read(&service).expect("records") {
                text += &format!("{service} {} {record:?}\n", sequence.0);
            }
        }
        text
    }

    /// I4: what leaves is written down and has not ended. What an analysis finds may be of no use any more when it begins: its canary went on without it.
    pub fn judge_intent(&self, context: &EffectContext) {
        let mut kept = self.world();
        if matches!(context.effect, Effect::Analyse { .. }) && self.is_written(context) {
            return;
        }
        let watched = kept.watched.get(&context.service);
        let intended = watched.and_then(|watched| watched.state.pending.get(&context.id)).cloned();
        if intended.as_ref() != Some(&context.effect) {
            kept.violations.push(format!("I4: effect {} of {} leaves, and its intent is {intended:?}", context.id, context.service));
        }
    }
}

impl FaultyStore {
    fn is_written(&self, context: &EffectContext) -> bool {
        let records = self.inner.read(&context.service).unwrap_or_default();
        records.iter().any(|(_, record)| record.effects.iter().any(|(id, effect)| *id == context.id && *effect == context.effect))
    }
}

impl Kept {
    fn alive(&self, place: Place) -> Result<(), Error> {
        if self.mortal.is_dead(place) { Err(Error::new("the program died")) } else { Ok(()) }
    }

    fn goes_wrong(&mut self, per_mille: u32) -> bool {
        let wrong = self.random.happens(per_mille);
        self.gone_wrong += u64::from(wrong);
        wrong
    }

    fn refuse(&mut self) -> Result<(), Error> {
        self.alive(Place::BeforeWriting)?;
        let faults = self.faults.clone();
        if faults.full || self.goes_wrong(faults.no_room) {
            sometimes!("a write is refused because there is no room");
            return Err(Error::new("no room").kind(ErrorKind::NoRoom));
        }
        if self.goes_wrong(faults.not_there) {
            sometimes!("a write fails and is not there");
            return Err(Error::new("the disk failed"));
        }
        Ok(())
    }

    fn doubt(&mut self) -> Result<(), Error> {
        self.alive(Place::AfterWriting)?;
        let there = self.faults.there;
        if self.goes_wrong(there) {
            sometimes!("a write fails and is there");
            return Err(Error::new("the disk failed after the write"));
        }
        Ok(())
    }

    fn readable(&mut self) -> Result<(), Error> {
        self.alive(Place::Reading)?;
        let unreadable = self.faults.unreadable;
        if self.goes_wrong(unreadable) {
            sometimes!("a reading of the store fails");
            return Err(Error::new("the disk cannot be read"));
        }
        Ok(())
    }

    fn watch(&mut self, service: &ServiceName, record: &JournalRecord, sim: &Sim) {
        let others: Vec<ServiceState> =
            self.watched.iter().filter(|(name, _)| *name != service).map(|(_, watched)| watched.state.clone()).collect();
        let watched = self.watched.entry(service.clone()).or_default();
        if let Err(violation) = watched.watch(record, &others) {
            sim.say(&format!("VIOLATION in {service}: {violation}"));
            self.violations.push(format!("{service}: {violation}"));
        }
        if self.calm {
            sim.demand_capacity(service, gapless_core::invariant::floor(&watched.state));
        }
    }
}

impl Journal for FaultyStore {
    fn may_wait(&self) -> bool {
        false
    }

    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        let mut kept = self.world();
        kept.refuse()?;
        let sequence = self.inner.append(service, record)?;
        kept.watch(service, record, &self.sim);
        kept.doubt()?;
        Ok(sequence)
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.world().readable()?;
        self.inner.read(service)
    }

    fn read_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.world().readable()?;
        self.inner.read_after(service, after)
    }

    fn keep(&self, service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        let mut kept = self.world();
        kept.refuse().inspect_err(|_| sometimes!("a state is not kept"))?;
        self.inner.keep(service, sequence, at, state)?;
        kept.doubt()
    }

    fn kept(&self, service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        self.world().readable()?;
        let kept = self.inner.kept(service)?;
        sometimes!("a start begins at a kept state", kept.is_some());
        Ok(kept)
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        self.world().readable()?;
        self.inner.services()
    }
}

impl Records for FaultyStore {
    fn may_wait(&self) -> bool {
        false
    }

    fn publish(&self, artifact: NewArtifact) -> Result<Artifact, Error> {
        self.inner.publish(artifact)
    }

    fn artifacts(&self, name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        self.inner.artifacts(name)
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        let mut kept = self.world();
        kept.refuse()?;
        self.inner.put_declaration(content, declaration)?;
        kept.doubt()
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        self.world().readable()?;
        self.inner.declaration(content)
    }

    fn put_receipt(&self, service: &ServiceName, rollout: RolloutNumber, receipt: &str) -> Result<(), Error> {
        self.inner.put_receipt(service, rollout, receipt)
    }

    fn receipt(&self, service: &ServiceName, rollout: RolloutNumber) -> Result<String, Error> {
        self.inner.receipt(service, rollout)
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        self.world().readable()?;
        self.inner.revocations(artifact)
    }

    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        let mut kept = self.world();
        kept.refuse()?;
        self.inner.put_revocation(artifact, version, revocation)?;
        kept.doubt()
    }

    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        let mut kept = self.world();
        kept.refuse()?;
        self.inner.remove_revocation(artifact, version)?;
        kept.doubt()
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        self.inner.value(name)
    }

    fn put_value(&self, name: &str, value: &str) -> Result<(), Error> {
        self.inner.put_value(name, value)
    }
}
