//! What a demo may leave on the machine: nodes, networks, mounts. They are the platform's to find and remove.

use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_platforms::local::leftovers::Leftovers;
use gapless_platforms::local::names::RUNTIME_FOLDER;
use gapless_platforms::local::requirements::{self, Missing};
use std::path::{Path, PathBuf};

/// The OCI runtime of the demo's nodes.
pub const RUNTIME: &str = "runc";

/// Refuses a machine that lacks something that the demo cannot do without.
///
/// # Errors
/// When something is missing.
pub fn requirements() -> Result<(), Error> {
    let missing: Vec<Missing> = requirements::check(RUNTIME).into_iter().filter(|missing| missing.essential).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(|missing| format!("\n  {missing}")).collect();
    let error = Error::new(format!("this machine lacks something that the demo needs:{}", list.concat())).kind(ErrorKind::Invalid);
    Err(error.hint("`make setup` installs what Debian and Ubuntu have"))
}

/// Removes everything of the installations with this state folder from the machine. Answers with what was removed.
///
/// # Errors
/// When something could not be removed.
pub fn remove(state: &Path) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for installation in installations(state)? {
        let leftovers = Leftovers::of(&installation, state)?;
        leftovers.remove_everything().context(|| format!("remove the nodes and networks of the installation {installation}"))?;
        removed.push(format!("nodes and networks of the installation {installation}"));
    }
    Ok(removed)
}

/// The ids of the installations that said that this is their state folder. They say so outside of it, so that it may be gone.
fn installations(state: &Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(RUNTIME_FOLDER) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| format!("look into {RUNTIME_FOLDER}"))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.context(|| format!("look into {RUNTIME_FOLDER}"))?.path();
        let claimed = std::fs::read(path.join("state.json")).ok().and_then(|text| serde_json::from_slice::<PathBuf>(&text).ok());
        if let (true, Some(name)) = (claimed.is_some_and(|claimed| claimed == state), path.file_name()) {
            found.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}
