//! How records are written: in versions, so that a newer program reads what an older one wrote, and each with a checksum.

mod v1;
mod v2;

use self::v2::Form;
use gapless_core::name::ServiceName;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{JournalRecord, Sequence};
use sha2::{Digest as _, Sha256};

/// The version in which everything is written now. All before it are read.
pub(crate) const VERSION: u32 = 2;

/// What to do about damage.
pub(crate) const DAMAGED: &str = "look after the disk, and give the server a state folder from a backup: `gapless restore FILE`";

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) version: u32,
    pub(crate) body: String,
    pub(crate) checksum: [u8; 32],
}

/// The text of a journal record.
pub(crate) fn write_journal(service: &ServiceName, sequence: Sequence, record: &JournalRecord) -> Result<Written, Error> {
    write(&place(service, sequence), record)
}

/// The journal record of a text.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the text is not what was written; [`ErrorKind::Invalid`] when it is of a version that this program does not know.
pub(crate) fn read_journal(service: &ServiceName, sequence: Sequence, written: &Written) -> Result<JournalRecord, Error> {
    let place = place(service, sequence);
    let read = match verify(&place, written)? {
        Version::One => parse::<v1::Record>(&written.body).and_then(TryInto::try_into),
        Version::Two => read(&written.body),
    };
    read.map_err(|error| error.context(format!("reading {place}")))
}

/// The text of a declaration.
pub(crate) fn write_declaration(content: &str, declaration: &ServiceDeclaration) -> Result<Written, Error> {
    write(&declaration_place(content), declaration)
}

/// The declaration of a text.
///
/// # Errors
/// As [`read_journal`].
pub(crate) fn read_declaration(content: &str, written: &Written) -> Result<ServiceDeclaration, Error> {
    let place = declaration_place(content);
    let read = match verify(&place, written)? {
        Version::One => parse::<v1::ServiceDeclaration>(&written.body).and_then(TryInto::try_into),
        Version::Two => read(&written.body),
    };
    read.map_err(|error| error.context(format!("reading {place}")))
}

/// The text of a state that a service's journal amounted to after a record.
pub(crate) fn write_state(service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<Written, Error> {
    write(&state_place(service, sequence), &v2::KeptState { at, state: state.clone() })
}

/// The state of a text, and the time of the record.
///
/// # Errors
/// As [`read_journal`].
pub(crate) fn read_state(service: &ServiceName, sequence: Sequence, written: &Written) -> Result<(Instant, ServiceState), Error> {
    let place = state_place(service, sequence);
    let read = match verify(&place, written)? {
        Version::One => Err(Error::new("version 1 kept no states").kind(ErrorKind::Invalid)),
        Version::Two => read::<v2::KeptState>(&written.body),
    };
    read.map(|kept| (kept.at, kept.state)).map_err(|error| error.context(format!("reading {place}")))
}

fn place(service: &ServiceName, sequence: Sequence) -> String {
    format!("record {} of the journal of {service}", sequence.0)
}

fn state_place(service: &ServiceName, sequence: Sequence) -> String {
    format!("the state of {service} after record {}", sequence.0)
}

fn declaration_place(content: &str) -> String {
    format!("the declaration {content}")
}

/// A version that this program reads.
enum Version {
    One,
    Two,
}

fn verify(place: &str, written: &Written) -> Result<Version, Error> {
    let version = match written.version {
        1 => Version::One,
        VERSION => Version::Two,
        unknown => {
            return Err(Error::new(format!("{place} is of version {unknown}, and this program reads versions 1 to {VERSION}"))
                .kind(ErrorKind::Invalid)
                .hint("start the version of gapless that wrote it"));
        }
    };
    if checksum(place, written.version, &written.body) != written.checksum {
        return Err(Error::new(format!("{place} is damaged: its checksum does not match")).kind(ErrorKind::Corrupt).hint(DAMAGED));
    }
    Ok(version)
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

fn write<T: Form>(place: &str, value: &T) -> Result<Written, Error> {
    let body = serde_json::to_string(&value.write()).map_err(|error| Error::new(format!("{place} cannot be written as JSON: {error}")))?;
    Ok(Written { version: VERSION, checksum: checksum(place, VERSION, &body), body })
}

fn read<T: Form>(body: &str) -> Result<T, Error> {
    T::read(parse::<T::Text>(body)?)
}

fn parse<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, Error> {
    serde_json::from_str(body).map_err(|error| Error::new(error.to_string()).kind(ErrorKind::Corrupt))
}
