//! What a demo may leave on the machine: nodes, networks, mounts. They are the platform's to find and remove.

use gapless_engine::error::Error;
use std::path::Path;

/// What the demo needs of the machine.
///
/// # Errors
/// When something is missing.
pub fn requirements() -> Result<(), Error> {
    Ok(())
}

/// Removes everything of the installation with this state folder from the machine. Answers with what was removed.
///
/// # Errors
/// When something could not be removed.
pub fn remove(state: &Path) -> Result<Vec<String>, Error> {
    let _ = state;
    Ok(Vec::new())
}
