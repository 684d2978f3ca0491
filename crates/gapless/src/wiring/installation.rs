//! An installation: its state folder and its short unique id.

use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_store::DATABASE_FILE;
use gapless_store::archive::assert_whole;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file that holds the id in the state folder.
pub const ID: &str = "installation";

/// Makes the state folder, which only its owner may enter. Answers with its path from the root on, without links.
pub fn folder(state: &Path) -> Result<PathBuf, Error> {
    let making = || format!("making the state folder {}", state.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).context(making)?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o700)).context(making)?;
    fs::canonicalize(state).context(making)
}

/// The installation's id: 6 hexadecimal digits, made once. The caller holds the state folder's lock.
pub fn id(state: &Path) -> Result<String, Error> {
    assert_whole(state)?;
    if let Some(id) = existing_id(state)? {
        return Ok(id);
    }
    let database = state.join(DATABASE_FILE);
    if database.try_exists().context(|| format!("looking for {}", database.display()))? {
        // Under a new id nothing of what its journal tells would be found on this machine.
        return Err(Error::new(format!("{} has a database and no file `{ID}`, which names everything that gapless made", state.display()))
            .kind(ErrorKind::Corrupt)
            .hint("restore a backup again, into an empty folder; or write the id into the file, such as from the name of the bridge (`ip link`)"));
    }
    make_id(state)
}

/// The installation's id, if the state folder has one.
pub fn existing_id(state: &Path) -> Result<Option<String>, Error> {
    let path = state.join(ID);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("reading {}", path.display()))?,
    };
    let id = text.trim();
    if id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Some(id.to_string()));
    }
    let hint =
        "it is the name of everything that gapless made on this machine: restore it, such as from the name of the bridge (`ip link`)";
    Err(Error::new(format!("{} does not hold 6 hexadecimal digits", path.display())).kind(ErrorKind::Corrupt).hint(hint))
}

fn make_id(state: &Path) -> Result<String, Error> {
    let mut bytes = [0; 3];
    let writing = || format!("writing the installation's id into {}", state.display());
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(std::io::Error::from).context(writing)?;
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = state.join(format!("{ID}.new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).context(writing)?;
    writeln!(file, "{id}").and_then(|()| file.sync_all()).context(writing)?;
    fs::rename(&unfinished, state.join(ID)).context(writing)?;
    fs::File::open(state).and_then(|folder| folder.sync_all()).context(writing)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once() {
        let parent = tempfile::tempdir().expect("folder");
        let state = folder(&parent.path().join("state")).expect("made");
        let first = id(&state).expect("made");
        assert_eq!(id(&state).expect("read"), first);
        assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o700);
        fs::write(state.join(ID), "nonsense").expect("written");
        assert!(id(&state).is_err(), "a damaged id is not replaced");
    }

    #[test]
    fn an_installation_that_lost_its_id_gets_no_new_one() {
        let state = tempfile::tempdir().expect("folder");
        fs::write(state.path().join(DATABASE_FILE), "a journal").expect("written");
        let error = id(state.path()).expect_err("its id is lost");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("restore a backup")), "{error}");
        assert!(!state.path().join(ID).exists());
    }
}
