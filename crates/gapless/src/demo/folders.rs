//! Where a demo keeps what.

use gapless_engine::error::{Context, Error};
use std::path::{Path, PathBuf};

/// Marks a folder as a demo's own, so that no other folder is ever emptied.
const MARK: &str = ".gapless-demo";

/// The longest path of a Unix socket, in bytes (unix(7): 108 with its closing zero byte).
const SOCKET_LIMIT: usize = 107;

/// Room for the longest name of a socket below the demo's folder, in bytes: `/proxy/worker-4194304.sock`.
const SOCKET_NAME: usize = 26;

/// A demo's folders. All paths are absolute.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The demo's own folder: emptied at the start of each demo.
    pub root: PathBuf,
    /// The base image's cache, which later demos use again.
    pub cache: PathBuf,
}

impl Folders {
    /// The folders of a demo in `root`; the cache is beside it unless it is named.
    ///
    /// # Errors
    /// When a path cannot be resolved, or is too long for the sockets in it.
    pub fn resolve(root: &Path, cache: Option<&Path>) -> Result<Folders, Error> {
        let root = std::path::absolute(root).context(|| format!("find the folder {}", root.display()))?;
        let beside = || {
            let name = root.file_name().map_or_else(|| "demo".to_owned(), |name| name.to_string_lossy().into_owned());
            root.with_file_name(format!("{name}-cache"))
        };
        let cache = match cache {
            Some(path) => std::path::absolute(path).context(|| format!("find the folder {}", path.display()))?,
            None => beside(),
        };
        if root.as_os_str().len() + SOCKET_NAME > SOCKET_LIMIT {
            let error = Error::new(format!("{} is too long a path: the sockets in it may have {SOCKET_LIMIT} bytes", root.display()));
            return Err(error.hint("name a shorter one with --state, such as /tmp/gapless-demo"));
        }
        Ok(Folders { root, cache })
    }

    /// Refuses a folder that holds something else than a demo.
    ///
    /// # Errors
    /// When it does.
    pub fn check(&self) -> Result<(), Error> {
        let Ok(mut entries) = std::fs::read_dir(&self.root) else { return Ok(()) };
        if entries.next().is_none() || self.root.join(MARK).exists() {
            return Ok(());
        }
        Err(Error::new(format!("{} holds something that is no demo's", self.root.display())).hint("name an empty folder with --state"))
    }

    /// Removes what an earlier demo left here and makes the folders anew. The cache stays.
    ///
    /// # Errors
    /// When the folder holds something else, or cannot be removed or made.
    pub fn make(&self) -> Result<(), Error> {
        self.check()?;
        if self.root.exists() {
            std::fs::remove_dir_all(&self.root)
                .context(|| format!("remove the earlier demo in {}", self.root.display()))
                .map_err(|error| error.hint("look with `mount` whether something is mounted there"))?;
        }
        for folder in [&self.root, &self.logs(), &self.cache] {
            std::fs::create_dir_all(folder).context(|| format!("make the folder {}", folder.display()))?;
        }
        std::fs::write(self.root.join(MARK), "").context(|| format!("write into {}", self.root.display()))
    }

    /// The server's state folder.
    pub fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    /// The server's images.
    pub fn images(&self) -> PathBuf {
        self.server().join("images")
    }

    /// The proxy's state folder.
    pub fn proxy(&self) -> PathBuf {
        self.root.join("proxy")
    }

    /// The proxy's admin socket.
    pub fn proxy_socket(&self) -> PathBuf {
        self.proxy().join("proxy.sock")
    }

    /// The state folders of the naive run: its platform and its proxy.
    pub fn naive(&self) -> PathBuf {
        self.root.join("naive")
    }

    /// The project's repository.
    pub fn project(&self) -> PathBuf {
        self.root.join("project")
    }

    /// Where the processes' output goes.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The file that the server writes when it has come to the point at which it shall be killed.
    pub fn hold_marker(&self) -> PathBuf {
        self.root.join("held")
    }

    /// The witness's recording.
    pub fn recording(&self) -> PathBuf {
        self.root.join("witness.json")
    }

    /// The demo's result.
    pub fn receipt(&self) -> PathBuf {
        self.root.join("receipt.json")
    }

    /// The signed receipts, a file each.
    pub fn receipts(&self) -> PathBuf {
        self.root.join("receipts")
    }

    /// The same as a page.
    pub fn page(&self) -> PathBuf {
        self.root.join("receipt.html")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_else_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::resolve(&folder.path().join("demo"), None).unwrap();
        assert_eq!(folders.cache, folder.path().join("demo-cache"));
        folders.make().unwrap();
        std::fs::write(folders.receipt(), "{}").unwrap();
        folders.make().unwrap();
        assert!(!folders.receipt().exists() && folders.logs().is_dir());
        std::fs::remove_file(folders.root.join(MARK)).unwrap();
        assert!(folders.make().is_err());
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_with_a_hint() {
        let error = Folders::resolve(&Path::new("/").join("x".repeat(90)), None).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--state")));
    }
}
