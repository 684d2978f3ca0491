//! Backups of an installation.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A backup that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRequest {
    /// The file that the server makes, from the root on, on its own machine. There must be none of this name.
    pub file: PathBuf,
}

/// A backup that was made, or put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The file.
    pub file: PathBuf,
    /// The installation that it is of.
    pub installation: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// How many files it holds.
    pub files: usize,
    /// What they are together, in bytes.
    pub bytes: u64,
    /// Artifacts whose images are not kept any more, such as `hello/web v1`: their records are in the backup, their content is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_image: Vec<String>,
}
