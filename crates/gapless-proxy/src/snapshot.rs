//! The applied snapshot on disk: what a worker that takes a dead one's place begins with.

use crate::error::ProxyError;
use crate::route::validate;
use gapless_wire::route::Snapshot;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name inside the state folder.
const FILE: &str = "snapshot.json";

/// Where the snapshot stands.
pub(crate) fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// Reads the snapshot; `None` when there is none yet.
///
/// # Errors
/// When it cannot be read, or is not a snapshot.
pub(crate) fn load(state: &Path) -> Result<Option<Snapshot>, ProxyError> {
    let path = path(state);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ProxyError::path("read the snapshot", &path, &error)),
    };
    let damaged = |reason: String| {
        ProxyError::new(format!("the snapshot {} cannot be used: {reason}", path.display()))
            .hint("the next snapshot that is put replaces it")
    };
    let snapshot: Snapshot = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    validate(&snapshot).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(snapshot))
}

/// Writes the snapshot so that after a crash at any moment either the old one or the new one stands there, whole. When it returns, it is on the disk.
///
/// # Errors
/// When the disk refuses. The old snapshot stands then, unless the refusal came last: the error says so.
pub(crate) fn persist(state: &Path, snapshot: &Snapshot) -> Result<(), ProxyError> {
    let text =
        serde_json::to_vec_pretty(snapshot).map_err(|error| ProxyError::new(format!("the snapshot cannot be written as JSON: {error}")))?;
    replace(state, &text, |folder| File::open(folder)?.sync_all())
}

fn replace(state: &Path, text: &[u8], sync_folder: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), ProxyError> {
    let path = path(state);
    let temporary = state.join(format!("{FILE}.{}", std::process::id()));
    write_whole(&temporary, text).and_then(|()| fs::rename(&temporary, &path)).map_err(|error| {
        // It may not even be there; what matters is the error that is told.
        let _ = fs::remove_file(&temporary);
        ProxyError::path("write the snapshot", &path, &error).hint("make room on the disk; the routes in force are unchanged")
    })?;
    sync_folder(state).map_err(|error| {
        ProxyError::path("make sure of the new snapshot", &path, &error).hint(
            "the routes in force are unchanged, but the new snapshot stands in the folder already: whether a worker that starts finds it or the old one is \
             not known until one is written without an error",
        )
    })
}

/// Writes a file and makes sure that it is on the disk.
///
/// # Errors
/// The system's.
pub(crate) fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::route::SNAPSHOT_VERSION;

    #[test]
    fn what_was_persisted_is_loaded_and_what_is_damaged_is_told() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(load(state.path()).unwrap(), None);
        let snapshot = Snapshot { version: SNAPSHOT_VERSION, ..Snapshot::default() };
        persist(state.path(), &snapshot).unwrap();
        assert_eq!(load(state.path()).unwrap(), Some(snapshot));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "no temporary file is left");
        let told = replace(state.path(), b"{}", |_| Err(ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(fs::read(path(state.path())).unwrap(), b"{}");
        assert!(told.hint_text().unwrap().contains("not known"), "it must not say that the old one stands: {told}");
        fs::write(path(state.path()), "{\"version\": 1, \"servi").unwrap();
        assert!(load(state.path()).unwrap_err().to_string().contains("cannot be used"));
    }
}
