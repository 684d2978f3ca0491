//! Releases: one service at one artifact version and one declaration.

use crate::digest::Digest;
use crate::effect::Task;
use crate::policy::Policy;
use alloc::collections::BTreeSet;
use core::fmt;

/// The number of a release, counted up from 1 per service, independent of the artifact's version. Written `r7`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseNumber(pub u32);

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// The number of a published artifact, counted up from 1 per name and type without gaps. Written `v3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactVersion(pub u32);

impl fmt::Display for ArtifactVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// What the core needs to know of a declared service. The rest of the declaration (command, environment, …) is the engine's; its
/// content hash stands here, so that a change of any part of it is a new release.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Declaration {
    /// The hash of the whole declaration: artifact, image, node settings, policy, secret versions.
    pub content: Digest,
    /// The artifact's version.
    pub artifact: ArtifactVersion,
    /// The digest of the image that every node must have been verified against.
    pub image: Digest,
    /// How many nodes serve; at least 1.
    pub nodes: u32,
    /// How the service moves from one release to the next.
    pub policy: Policy,
    /// Whether its nodes answer requests, behind the proxies. A worker has no port and is in no proxy's route.
    pub serves: bool,
    /// What is run once for the release, beside its nodes.
    pub tasks: BTreeSet<Task>,
}
