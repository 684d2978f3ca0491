//! A service's whole declaration.

use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::policy::Policy;
use gapless_core::release::ArtifactVersion;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that makes a release: the artifact and how its nodes run. Its content hash is the release's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDeclaration {
    /// The service.
    pub service: ServiceName,
    /// The artifact's name, `project/image`.
    pub artifact_name: String,
    /// The artifact's version.
    pub artifact_version: ArtifactVersion,
    /// The digest of the image's manifest.
    pub image: Digest,
    /// How many nodes serve.
    pub nodes: u32,
    /// The `Host` that the service answers, lower case without port; `*` for any.
    pub host: String,
    /// How each node runs.
    pub node: NodeSettings,
    /// How a node is checked.
    pub health: HealthCheck,
    /// How the service moves between releases.
    pub policy: Policy,
}

/// How a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// The port that the node's application listens on.
    pub port: u16,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The folder the command starts in, absolute.
    pub working_directory: PathBuf,
    /// The user in the image that the command starts as, by name or `uid:gid`.
    pub user: String,
    /// Environment variables; no secrets.
    pub environment: BTreeMap<String, String>,
    /// Absolute paths that are writable: a tmpfs each, empty at start, gone with the node.
    pub writable: Vec<PathBuf>,
    /// Named folders of the host that outlive nodes, mounted at absolute paths.
    pub volumes: BTreeMap<String, PathBuf>,
    /// The most memory, in bytes.
    pub memory_bytes: u64,
    /// The most CPU time, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Whether nodes may open connections to the outside.
    pub outbound: bool,
}

/// How a node is checked: an HTTP GET to its own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path, with its leading slash. Any status from 200 to 299 passes.
    pub path: String,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// No whole answer after that: failed.
    pub timeout: Duration,
}
