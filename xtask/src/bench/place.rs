//! Where a run happens: a folder of its own, which goes away with it, and free ports of the loopback address.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folder of a run. It is removed when this is dropped.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// A new folder among the temporary ones.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Place, String> {
        let folder = std::env::temp_dir().join(format!("gapless-bench-proxy-{}", std::process::id()));
        let place = Place { folder };
        make(&place.folder)?;
        Ok(place)
    }

    /// A folder inside, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        make(&folder)?;
        Ok(folder)
    }

    /// A folder inside without anything that somebody left there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn fresh_folder(&self, name: &str) -> Result<PathBuf, String> {
        let _ = fs::remove_dir_all(self.folder.join(name));
        self.folder(name)
    }

    /// The path of something directly inside.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Readable for the users that Apache changes to.
fn make(folder: &Path) -> Result<(), String> {
    let made = fs::create_dir_all(folder).and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)));
    made.map_err(|error| format!("making {}: {error}", folder.display()))
}

/// Different addresses that nobody listens on.
///
/// # Errors
/// When the system has none left.
pub fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT], String> {
    let mut found = [SocketAddr::from(([127, 0, 0, 1], 0)); COUNT];
    // All are held until the last is found, so that they differ.
    let mut held = Vec::new();
    for address in &mut found {
        let listener = TcpListener::bind(*address).map_err(|error| format!("looking for a free port: {error}"))?;
        *address = listener.local_addr().map_err(|error| format!("looking for a free port: {error}"))?;
        held.push(listener);
    }
    Ok(found)
}
