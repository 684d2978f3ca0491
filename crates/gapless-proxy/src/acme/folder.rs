//! What ACME keeps in `<state>/acme/`: the account, the certificates with their keys, and the challenges. Only this user can read it.

use crate::error::ProxyError;
use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of [`AccountRecord`] that is written.
pub(super) const RECORD_VERSION: u32 = 1;
/// As much as a chain, a key and an account take together at most, in bytes.
const PROBE_SIZE: usize = 64 * 1024;
/// What to do when a file cannot be written.
pub(super) const FILE_MODE_NOTE: &str = "make room on the disk, and let this process write in its state folder";

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// The account at one authority. It holds the account's key.
#[derive(Serialize, Deserialize)]
pub(super) struct AccountRecord {
    pub(super) version: u32,
    pub(super) directory: String,
    pub(super) contacts: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

impl AccountRecord {
    /// The credentials cannot be cloned, and using them takes them.
    ///
    /// # Errors
    /// Never in practice: they were read from JSON.
    pub(super) fn copy_of_credentials(&self) -> Result<AccountCredentials, ProxyError> {
        serde_json::to_value(&self.credentials).and_then(serde_json::from_value).map_err(|_| {
            ProxyError::new("the account's credentials cannot be used").hint("remove the account's file; a new account is made")
        })
    }
}

/// Where challenges stand.
pub(super) fn challenges(state: &Path) -> PathBuf {
    state.join("acme").join("challenges")
}

impl Folder {
    pub(super) fn new(state: &Path) -> Self {
        Self { path: state.join("acme") }
    }

    /// Makes the folders that are missing, with mode 0700.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn make(&self) -> Result<(), ProxyError> {
        for folder in [self.path.clone(), self.path.join("challenges"), self.path.join("certificates")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| ProxyError::path("make the folder", &folder, &error).hint(FILE_MODE_NOTE))?;
        }
        Ok(())
    }

    /// The file of a certificate and its key.
    pub(super) fn certificate(&self, first_name: &str) -> PathBuf {
        self.path.join("certificates").join(format!("{first_name}.pem"))
    }

    /// Writes a file so that after a crash at any moment either the old or the new one stands there, whole.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(&self, path: &Path, text: &[u8]) -> Result<(), ProxyError> {
        replace(path, text).map_err(|error| ProxyError::path("write", path, &error).hint(FILE_MODE_NOTE))
    }

    /// Makes sure that the disk takes what will be issued, before anybody is asked to issue it: what cannot be kept counts for the authority all the same.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn check_writable(&self) -> Result<(), ProxyError> {
        let path = self.path.join("certificates").join(".probe");
        let written = write_whole(&path, &[0; PROBE_SIZE]).and_then(|()| fs::remove_file(&path));
        written.map_err(|error| ProxyError::path("write", &path, &error).hint(FILE_MODE_NOTE))
    }

    /// The account that is kept for the authority with this directory.
    ///
    /// # Errors
    /// When the file cannot be read or is none of this version.
    pub(super) fn account(&self, directory: &str) -> Result<Option<AccountRecord>, ProxyError> {
        let path = self.account_path(directory);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ProxyError::path("read the account", &path, &error).hint("let this process read its state folder")),
        };
        // What the parser says may quote the file, and a key stands in it.
        let record: Option<AccountRecord> = serde_json::from_slice(&text).ok();
        let fits = |record: &AccountRecord| record.version == RECORD_VERSION && record.directory == directory;
        record.filter(fits).map(Some).ok_or_else(|| {
            ProxyError::new(format!("the account {} cannot be used", path.display()))
                .hint("bring it back from a backup, or remove it: then a new account is made")
        })
    }

    /// Keeps an account.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn keep_account(&self, record: &AccountRecord) -> Result<(), ProxyError> {
        let text = serde_json::to_vec_pretty(record).map_err(|_| ProxyError::new("the account cannot be written as JSON"))?;
        self.write(&self.account_path(&record.directory), &text)
    }

    /// Drops an account that the authority does not know any more.
    pub(super) fn forget_account(&self, directory: &str) {
        let path = self.account_path(directory);
        match fs::remove_file(&path) {
            Ok(()) => {
                tracing::warn!(path = %path.display(), "the authority does not know the account any more; the next order makes a new one")
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot remove an account that the authority does not know any more")
            }
        }
    }

    /// One file for each authority, so that changing back finds the account again.
    fn account_path(&self, directory: &str) -> PathBuf {
        let name: String = directory
            .trim_start_matches("https://")
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' })
            .take(ACCOUNT_NAME_LIMIT)
            .collect();
        self.path.join(format!("account-{name}.json"))
    }
}

/// As much of a directory's URL makes the name of a file, in characters: names of files may have 255 bytes.
const ACCOUNT_NAME_LIMIT: usize = 200;

/// Writes, makes sure, and renames.
pub(super) fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // With a dot in front it is neither a token nor a certificate.
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = write_whole(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // It may not even be there; what matters is the error that is told.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
