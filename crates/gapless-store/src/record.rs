//! How records are written: in versions, so that a newer program reads what an older one wrote, and each with a checksum.

mod v1;

use gapless_core::name::ServiceName;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{JournalRecord, Sequence};
use sha2::{Digest as _, Sha256};

/// The version in which records are written now.
pub(crate) const VERSION: u32 = 1;

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) version: u32,
    pub(crate) body: String,
    pub(crate) checksum: [u8; 32],
}

/// The text of a journal record.
pub(crate) fn write_journal(service: &ServiceName, sequence: Sequence, record: &JournalRecord) -> Result<Written, Error> {
    let body = json(&v1::Record::from(record))?;
    Ok(Written { version: VERSION, checksum: checksum(&place(service, sequence), VERSION, &body), body })
}

/// The journal record of a text.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the text is not what was written; [`ErrorKind::Invalid`] when it is of a version that this program does not know.
pub(crate) fn read_journal(service: &ServiceName, sequence: Sequence, written: &Written) -> Result<JournalRecord, Error> {
    let place = place(service, sequence);
    verify(&place, written)?;
    parse::<v1::Record, _>(&written.body).map_err(|error| error.context(format!("reading {place}")))
}

/// The text of a declaration.
pub(crate) fn write_declaration(content: &str, declaration: &ServiceDeclaration) -> Result<Written, Error> {
    let body = json(&v1::ServiceDeclaration::from(declaration))?;
    Ok(Written { version: VERSION, checksum: checksum(&declaration_place(content), VERSION, &body), body })
}

/// The declaration of a text.
///
/// # Errors
/// As [`read_journal`].
pub(crate) fn read_declaration(content: &str, written: &Written) -> Result<ServiceDeclaration, Error> {
    let place = declaration_place(content);
    verify(&place, written)?;
    parse::<v1::ServiceDeclaration, _>(&written.body).map_err(|error| error.context(format!("reading {place}")))
}

fn place(service: &ServiceName, sequence: Sequence) -> String {
    format!("record {} of the journal of {service}", sequence.0)
}

fn declaration_place(content: &str) -> String {
    format!("the declaration {content}")
}

fn verify(place: &str, written: &Written) -> Result<(), Error> {
    if written.version != VERSION {
        return Err(Error::new(format!("{place} is of version {}, and this program reads version {VERSION}", written.version))
            .kind(ErrorKind::Invalid)
            .hint("start the version of gapless that wrote it"));
    }
    if checksum(place, written.version, &written.body) != written.checksum {
        return Err(Error::new(format!("{place} is damaged: its checksum does not match"))
            .kind(ErrorKind::Corrupt)
            .hint("look after the disk, and restore the server's state folder from a backup"));
    }
    Ok(())
}

/// SHA-256 over the record's place, its version and its body, so that a record which was moved does not match either.
fn checksum(place: &str, version: u32, body: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((place.len() as u64).to_be_bytes());
    hash.update(place);
    hash.update(version.to_be_bytes());
    hash.update(body);
    hash.finalize().into()
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::new(format!("it cannot be written as JSON: {error}")))
}

fn parse<V: serde::de::DeserializeOwned, T: TryFrom<V, Error = Error>>(body: &str) -> Result<T, Error> {
    let value: V = serde_json::from_str(body).map_err(|error| Error::new(error.to_string()).kind(ErrorKind::Corrupt))?;
    value.try_into()
}
