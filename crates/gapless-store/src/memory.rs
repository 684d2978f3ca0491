//! The store in memory: for tests and simulations. It lasts as long as its last clone.

use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The store in memory. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    journal: BTreeMap<ServiceName, Vec<JournalRecord>>,
    states: BTreeMap<ServiceName, (Sequence, Instant, ServiceState)>,
    artifacts: Vec<Artifact>,
    declarations: BTreeMap<Digest, ServiceDeclaration>,
    receipts: BTreeMap<(ServiceName, RolloutNumber), String>,
    values: BTreeMap<String, String>,
    revocations: BTreeMap<String, BTreeMap<ArtifactVersion, Revocation>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryStore {
    fn may_wait(&self) -> bool {
        false
    }

    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        let mut kept = self.lock();
        let records = kept.journal.entry(service.clone()).or_default();
        records.push(record.clone());
        Ok(Sequence(records.len() as u64))
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.read_after(service, Sequence::default())
    }

    fn read_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        let kept = self.lock();
        let records = (1..).map(Sequence).zip(kept.journal.get(service).into_iter().flatten());
        Ok(records.skip_while(|(sequence, _)| *sequence <= after).map(|(sequence, record)| (sequence, record.clone())).collect())
    }

    fn keep(&self, service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        let mut kept = self.lock();
        let newest = kept.states.get(service).map_or(Sequence::default(), |(newest, ..)| *newest);
        if newest < sequence {
            kept.states.insert(service.clone(), (sequence, at, state.clone()));
        }
        Ok(())
    }

    fn kept(&self, service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        Ok(self.lock().states.get(service).cloned())
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        Ok(self.lock().journal.keys().cloned().collect())
    }
}

impl Records for MemoryStore {
    fn may_wait(&self) -> bool {
        false
    }

    fn publish(&self, new: NewArtifact) -> Result<Artifact, Error> {
        let mut kept = self.lock();
        let family = kept.artifacts.iter().filter(|artifact| artifact.name == new.name && artifact.kind == new.kind);
        if let Some(same) = family.clone().find(|artifact| artifact.image == new.image && artifact.metadata == new.metadata) {
            return Ok(same.clone());
        }
        let version = ArtifactVersion(1 + family.map(|artifact| artifact.version.0).max().unwrap_or_default());
        let NewArtifact { name, kind, image, published, metadata } = new;
        let artifact = Artifact { name, kind, version, image, published, metadata };
        kept.artifacts.push(artifact.clone());
        Ok(artifact)
    }

    fn artifacts(&self, name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        let kept = self.lock();
        let mut found: Vec<_> = kept.artifacts.iter().filter(|artifact| name.is_none_or(|name| artifact.name == name)).cloned().collect();
        found.sort_by(|one, other| (&one.name, &one.kind, one.version).cmp(&(&other.name, &other.kind, other.version)));
        Ok(found)
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        self.lock().declarations.entry(content).or_insert_with(|| declaration.clone());
        Ok(())
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        self.lock().declarations.get(&content).cloned().ok_or_else(|| not_found(format!("no declaration has the content {content}")))
    }

    fn put_receipt(&self, service: &ServiceName, rollout: RolloutNumber, receipt: &str) -> Result<(), Error> {
        self.lock().receipts.insert((service.clone(), rollout), receipt.to_string());
        Ok(())
    }

    fn receipt(&self, service: &ServiceName, rollout: RolloutNumber) -> Result<String, Error> {
        let found = self.lock().receipts.get(&(service.clone(), rollout)).cloned();
        found.ok_or_else(|| not_found(format!("rollout {rollout} of {service} has no receipt yet")))
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        Ok(self.lock().revocations.get(artifact).cloned().unwrap_or_default())
    }

    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        self.lock().revocations.entry(artifact.to_string()).or_default().insert(version, revocation.clone());
        Ok(())
    }

    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        if let Some(known) = self.lock().revocations.get_mut(artifact) {
            known.remove(&version);
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.lock().values.get(name).cloned())
    }

    fn put_value(&self, name: &str, value: &str) -> Result<(), Error> {
        self.lock().values.insert(name.to_string(), value.to_string());
        Ok(())
    }
}

pub(crate) fn not_found(what: String) -> Error {
    Error::new(what).kind(ErrorKind::NotFound)
}
