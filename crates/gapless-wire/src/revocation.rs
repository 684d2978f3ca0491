//! Revoked artifacts.

use crate::rollout::Declared;
use serde::{Deserialize, Serialize};

/// Why a version of an artifact may not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Since when, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why, as whoever revoked it said.
    pub reason: String,
}

/// Revoke a version, or give it free again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRequest {
    /// `project/image`.
    pub artifact: String,
    /// The version.
    pub version: u32,
    /// Why; needed to revoke.
    #[serde(default)]
    pub reason: Option<String>,
    /// Give it free again instead.
    #[serde(default)]
    pub lift: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// `project/image`.
    pub artifact: String,
    /// The version.
    pub version: u32,
    /// It may not run, and why; `None`: it may.
    pub revocation: Option<Revocation>,
    /// Every service whose nodes run it.
    pub running: Vec<Eviction>,
}

/// A service whose nodes run a revoked version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// The full service name.
    pub service: String,
    /// The release that runs it.
    pub release: String,
    /// The rollout that takes its place, if there is a good release to go to.
    pub to: Option<Declared>,
}
