//! Artifacts, as the server tells them.

use crate::revocation::Revocation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of artifacts that nodes of the local platform are made from.
pub const OCI_IMAGE: &str = "oci.image";

/// A published artifact: a named, typed, numbered record of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `project/image`.
    pub name: String,
    /// Such as [`OCI_IMAGE`].
    pub kind: String,
    /// Counted up from 1 per name and kind, without gaps.
    pub version: u32,
    /// The digest of the image's manifest, `sha256:…`.
    pub image: String,
    /// The commit that it was built from, when one is known.
    pub commit: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    pub published_ms: u64,
    /// Layer digests and provenance, by dotted name (`layer.base`, …).
    pub metadata: BTreeMap<String, String>,
    /// It may not run, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}
