//! The store in memory on a disk that fails as it is told: for tests and simulations of what is above a store.

use crate::contract::faults::{Chance, Fault, Keep};
use crate::memory::MemoryStore;
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

/// A [`MemoryStore`] whose writes fail as they are told. Clones are the same store.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    kept: MemoryStore,
    disk: Arc<Mutex<Disk>>,
    /// Which start of the machine this store was opened after.
    boot: u64,
}

#[derive(Debug, Default)]
struct Disk {
    strikes: Option<(u64, u64, Fault)>,
    writes: u64,
    boot: u64,
    is_off: bool,
    /// A record that was refused and of which nobody knows what reached the disk.
    in_doubt: Option<(ServiceName, JournalRecord)>,
    chance: Chance,
}

/// What becomes of one write.
enum Met {
    /// It is done.
    Done,
    /// It is done, and its writer is told that it failed.
    DoneUntold(Error),
    /// It is not done. What of it reached the disk is decided by a crash.
    Refused(Error),
}

impl FaultyStore {
    /// A store whose chances follow from a seed. It fails nowhere until it is told to.
    #[must_use]
    pub fn new(kept: MemoryStore, seed: u64) -> Self {
        Self { kept, disk: Arc::new(Mutex::new(Disk { chance: Chance(seed), ..Disk::default() })), boot: 0 }
    }

    /// From the write `after` more from now on, `times` of them meet this fault.
    pub fn strike(&self, after: u64, times: u64, fault: Fault) {
        let mut disk = self.disk();
        let from = disk.writes + after;
        disk.strikes = Some((from, from.saturating_add(times), fault));
    }

    /// Every write is done again.
    pub fn heal(&self) {
        self.disk().strikes = None;
    }

    /// How many writes it was asked for.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.disk().writes
    }

    /// The machine stops and starts again: the store as its next process finds it. This one refuses everything from now on.
    #[must_use]
    pub fn crash(&self, keep: Keep) -> Self {
        let mut disk = self.disk();
        disk.boot += 1;
        disk.is_off = false;
        disk.strikes = None;
        let survives = match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Prefix | Keep::Subset => disk.chance.below(2) == 0,
        };
        if let Some((service, record)) = disk.in_doubt.take().filter(|_| survives) {
            // The store in memory refuses nothing.
            let _ = self.kept.append(&service, &record);
        }
        Self { boot: disk.boot, ..self.clone() }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reads(&self) -> Result<&MemoryStore, Error> {
        let disk = self.disk();
        if disk.is_off || disk.boot != self.boot { Err(broken()) } else { Ok(&self.kept) }
    }

    fn write<T>(
        &self,
        doubt: Option<(&ServiceName, &JournalRecord)>,
        write: impl FnOnce(&MemoryStore) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut disk = self.disk();
        if disk.is_off || disk.boot != self.boot {
            return Err(broken());
        }
        match disk.meet() {
            Met::Done => {
                disk.in_doubt = None;
                write(&self.kept)
            }
            Met::DoneUntold(error) => {
                disk.in_doubt = None;
                write(&self.kept).and(Err(error))
            }
            Met::Refused(error) => {
                if error.error_kind() != ErrorKind::NoRoom {
                    disk.in_doubt = doubt.map(|(service, record)| (service.clone(), record.clone()));
                }
                Err(error)
            }
        }
    }
}

impl Disk {
    fn meet(&mut self) -> Met {
        let write = self.writes;
        self.writes += 1;
        match self.strikes {
            Some((from, until, fault)) if (from..until).contains(&write) => match fault {
                Fault::Full => Met::Refused(full()),
                Fault::Broken if self.chance.below(3) == 0 => Met::DoneUntold(broken()),
                Fault::Broken => Met::Refused(broken()),
                Fault::PowerCut => {
                    self.is_off = true;
                    Met::Refused(broken())
                }
            },
            _ => Met::Done,
        }
    }
}

fn full() -> Error {
    Error::new("no space left on the device").kind(ErrorKind::NoRoom).hint("make room on the disk of the server's state folder")
}

fn broken() -> Error {
    Error::new("input/output error").hint("look after the disk of the server's state folder")
}

impl Journal for FaultyStore {
    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        self.write(Some((service, record)), |kept| kept.append(service, record))
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.reads()?.read(service)
    }

    fn read_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.reads()?.read_after(service, after)
    }

    fn keep(&self, service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        self.write(None, |kept| kept.keep(service, sequence, at, state))
    }

    fn kept(&self, service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        self.reads()?.kept(service)
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        self.reads()?.services()
    }
}

impl Records for FaultyStore {
    fn publish(&self, artifact: NewArtifact) -> Result<Artifact, Error> {
        self.write(None, |kept| kept.publish(artifact))
    }

    fn artifacts(&self, name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        self.reads()?.artifacts(name)
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        self.write(None, |kept| kept.put_declaration(content, declaration))
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        self.reads()?.declaration(content)
    }

    fn put_receipt(&self, service: &ServiceName, rollout: RolloutNumber, receipt: &str) -> Result<(), Error> {
        self.write(None, |kept| kept.put_receipt(service, rollout, receipt))
    }

    fn receipt(&self, service: &ServiceName, rollout: RolloutNumber) -> Result<String, Error> {
        self.reads()?.receipt(service, rollout)
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        self.reads()?.revocations(artifact)
    }

    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        self.write(None, |kept| kept.put_revocation(artifact, version, revocation))
    }

    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        self.write(None, |kept| kept.remove_revocation(artifact, version))
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        self.reads()?.value(name)
    }

    fn put_value(&self, name: &str, value: &str) -> Result<(), Error> {
        self.write(None, |kept| kept.put_value(name, value))
    }
}
