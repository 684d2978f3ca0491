//! A lock on a file, between processes that share a folder. It ends with its holder, however that ends.

use gapless_engine::error::{Context, Error};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Waits until nobody else holds the lock at `path`, and takes it. Blocks the thread.
pub(crate) fn take(path: &Path) -> Result<Lock, Error> {
    let locking = || format!("locking {}", path.display());
    let file = File::options().create(true).append(true).open(path).context(locking)?;
    flock(&file, FlockOperation::LockExclusive).map_err(std::io::Error::from).context(locking)?;
    Ok(Lock { _file: file })
}
