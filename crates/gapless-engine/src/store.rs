//! What the engine needs written down. The traits are synchronous: each call is short, and durable when it returns.
//!
//! A store says of itself whether its calls wait for a disk. Those of one that never does are made where the engine stands and not on another thread, so that a whole engine runs
//! in one thread, in an order that a seed repeats.

use crate::declaration::ServiceDeclaration;
use crate::error::Error;
use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId};
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::BTreeMap;

/// The place of a record in a service's journal, from 1 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// One entry of the journal: what happened, and with it the intents that follow. The state is what replaying the events gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// When.
    pub at: Instant,
    /// What happened.
    pub event: Event,
    /// What the core wanted done because of it: written before any of it is done (I4).
    pub effects: Vec<(EffectId, Effect)>,
}

/// The journal: one list per service that only grows. One writer at a time, held by a lock; a writer that another one has taken over from is refused.
pub trait Journal: Send + Sync {
    /// Whether a call may wait for a disk.
    fn may_wait(&self) -> bool {
        true
    }

    /// Appends a record. It is durable when this returns.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::NoRoom`] when the disk is full: nothing was written, and it may be tried again. [`crate::error::ErrorKind::Fenced`] when another writer
    /// has taken over: nothing was written. After any other error the record may be there, whole, or not.
    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error>;

    /// All records of a service, in order.
    ///
    /// # Errors
    /// When the journal cannot be read or a record is of a version that this program does not know.
    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error>;

    /// The records of a service that come after this one, in order.
    ///
    /// # Errors
    /// As [`Journal::read`].
    fn read_after(&self, service: &ServiceName, after: Sequence) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        Ok(self.read(service)?.into_iter().filter(|(sequence, _)| *sequence > after).collect())
    }

    /// Keeps what a service's journal amounts to after the record `sequence`, which is of the time `at`, so that a start need not replay what came before. The journal keeps
    /// all of its records. A store that keeps nothing makes every start replay everything.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn keep(&self, service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        let _ = (service, sequence, at, state);
        Ok(())
    }

    /// The latest such state that can be read. One that is damaged, or of a version that this program does not know, is passed over.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn kept(&self, service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        let _ = service;
        Ok(None)
    }

    /// Every service that has a journal.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn services(&self) -> Result<Vec<ServiceName>, Error>;
}

/// A published artifact: a named, typed, numbered record of an image. Never changed once published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// `project/image`.
    pub name: String,
    /// Such as `oci.image`.
    pub kind: String,
    /// Counted up from 1 per name and kind, without gaps.
    pub version: ArtifactVersion,
    /// The digest of the image's manifest.
    pub image: Digest,
    /// When it was published.
    pub published: Instant,
    /// Commit, layer digests, provenance, by dotted name (`commit`, `layer.base`, …).
    pub metadata: BTreeMap<String, String>,
}

/// An artifact that shall be published and gets its number then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArtifact {
    /// `project/image`.
    pub name: String,
    /// Such as `oci.image`.
    pub kind: String,
    /// The digest of the image's manifest.
    pub image: Digest,
    /// When.
    pub published: Instant,
    /// As in [`Artifact`].
    pub metadata: BTreeMap<String, String>,
}

/// Why a version of an artifact may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Since when.
    pub at: Instant,
    /// Why, for people.
    pub reason: String,
}

/// Records beside the journal.
pub trait Records: Send + Sync {
    /// Whether a call may wait for a disk.
    fn may_wait(&self) -> bool {
        true
    }

    /// Publishes an artifact and gives it the next number, in one transaction. Publishing the same image with the same metadata again gives the number it has.
    ///
    /// # Errors
    /// When it cannot be written.
    fn publish(&self, artifact: NewArtifact) -> Result<Artifact, Error>;

    /// All artifacts, by name, kind and version; of one name if it is given.
    ///
    /// # Errors
    /// When they cannot be read.
    fn artifacts(&self, name: Option<&str>) -> Result<Vec<Artifact>, Error>;

    /// Keeps a declaration under its content hash. Keeping it again does nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error>;

    /// The declaration with this content hash.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::NotFound`] when there is none.
    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error>;

    /// Keeps the signed receipt of a rollout, as the text that was signed. A second one for the same rollout replaces the first.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_receipt(&self, service: &ServiceName, rollout: RolloutNumber, receipt: &str) -> Result<(), Error>;

    /// The receipt of a rollout.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::NotFound`] when there is none (yet).
    fn receipt(&self, service: &ServiceName, rollout: RolloutNumber) -> Result<String, Error>;

    /// What is revoked of the artifacts of this name, whatever their kind.
    ///
    /// # Errors
    /// When it cannot be read.
    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error>;

    /// Revokes a version, which need not be published. A second revocation replaces the first.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error>;

    /// Gives a version free again. One that is not revoked stays so.
    ///
    /// # Errors
    /// When it cannot be written.
    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error>;

    /// A value that belongs to the installation, such as the state of a build cache, by name.
    ///
    /// # Errors
    /// When it cannot be read.
    fn value(&self, name: &str) -> Result<Option<String>, Error>;

    /// Keeps such a value.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_value(&self, name: &str, value: &str) -> Result<(), Error>;
}
