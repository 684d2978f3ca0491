//! A store in memory that counts, and refuses what a test asks it to refuse.

use gapless_core::digest::Digest;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use gapless_store::MemoryStore;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[derive(Default)]
pub struct TestStore {
    kept: MemoryStore,
    /// There is no room for receipts.
    pub refuse_receipts: AtomicBool,
    /// The journal of this service is damaged.
    pub damaged: Mutex<Option<ServiceName>>,
    /// This record of this service's journal is damaged.
    pub damaged_record: Mutex<Option<(ServiceName, Sequence)>>,
    /// There is no room for a declaration of this service.
    pub refuse_declarations: Mutex<Option<ServiceName>>,
    /// How often a journal was read.
    pub journal_reads: AtomicU32,
    /// The first record that was read of a journal since this was last taken.
    pub read_from: Mutex<BTreeMap<ServiceName, Sequence>>,
}

impl TestStore {
    fn note_read(&self, service: &ServiceName, records: &[(Sequence, JournalRecord)]) {
        let Some((first, _)) = records.first() else { return };
        let mut read_from = self.read_from.lock().expect("whole");
        let earliest = read_from.entry(service.clone()).or_insert(*first);
        *earliest = (*earliest).min(*first);
    }

    /// Everything after this record can be read.
    fn sound_after(&self, service: &ServiceName, after: Sequence) -> Result<(), Error> {
        let damaged = |number: u64| Err(Error::new(format!("record {number} is damaged")).kind(ErrorKind::Corrupt));
        if self.damaged.lock().expect("whole").as_ref() == Some(service) {
            return damaged(3);
        }
        match &*self.damaged_record.lock().expect("whole") {
            Some((of, record)) if of == service && *record > after => damaged(record.0),
            _ => Ok(()),
        }
    }
}

impl Journal for TestStore {
    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        let is_refused =
            matches!(record.event, Event::Declared { .. }) && self.refuse_declarations.lock().expect("whole").as_ref() == Some(service);
        if is_refused {
            return Err(Error::new("the disk is full").kind(ErrorKind::NoRoom));
        }
        self.kept.append(service, record)
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.journal_reads.fetch_add(1, Ordering::SeqCst);
        self.sound_after(service, Sequence(0))?;
        self.kept.read(service).inspect(|records| self.note_read(service, records))
    }

    fn read_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.sound_after(service, after)?;
        self.kept.read_after(service, after).inspect(|records| self.note_read(service, records))
    }

    fn keep(&self, service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        self.kept.keep(service, sequence, at, state)
    }

    fn kept(&self, service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        self.kept.kept(service)
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        self.kept.services()
    }
}

impl Records for TestStore {
    fn publish(&self, artifact: NewArtifact) -> Result<Artifact, Error> {
        self.kept.publish(artifact)
    }

    fn artifacts(&self, name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        self.kept.artifacts(name)
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        self.kept.put_declaration(content, declaration)
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        self.kept.declaration(content)
    }

    fn put_receipt(&self, service: &ServiceName, rollout: RolloutNumber, receipt: &str) -> Result<(), Error> {
        if self.refuse_receipts.load(Ordering::SeqCst) {
            return Err(Error::new("no room for receipts").kind(ErrorKind::NoRoom));
        }
        self.kept.put_receipt(service, rollout, receipt)
    }

    fn receipt(&self, service: &ServiceName, rollout: RolloutNumber) -> Result<String, Error> {
        self.kept.receipt(service, rollout)
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        self.kept.revocations(artifact)
    }

    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        self.kept.put_revocation(artifact, version, revocation)
    }

    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        self.kept.remove_revocation(artifact, version)
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        self.kept.value(name)
    }

    fn put_value(&self, name: &str, value: &str) -> Result<(), Error> {
        self.kept.put_value(name, value)
    }
}
