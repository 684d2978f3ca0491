//! Freeing images that no kept release needs.

use serde::{Deserialize, Serialize};

/// What shall be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Only say what would be freed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was freed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Artifacts whose images are gone, such as `hello/web v3`. They stay in the list of artifacts, and are built again from their commits.
    pub images: Vec<String>,
    /// How many unpacked layers.
    pub trees: u64,
    /// How many blobs.
    pub blobs: u64,
    /// How much room all of it took, in bytes.
    pub bytes: u64,
    /// Nothing was freed: it was only asked for.
    pub dry_run: bool,
}
