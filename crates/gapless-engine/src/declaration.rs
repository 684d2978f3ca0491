//! A service's whole declaration.

use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, Declaration};
use sha2::Digest as _;
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

/// Begins every content hash, so that no other kind of content has the same one. The number counts up with every change of the order or of the meaning of the fields.
const CONTENT_TAG: &str = "gapless service declaration 1";

impl ServiceDeclaration {
    /// The content hash: the release's identity. SHA-256 over the tag `gapless service declaration 1` and then every field in the order in which the structs of this module
    /// name them (`node`, `health` and `policy` field by field). A text is its length in bytes (8 bytes, the highest first) and its bytes; a number is 8
    /// bytes, the highest first; a span of time is its nanoseconds; yes is 1 and no is 0; a list or map is the number of its entries and then each entry (key, value; by key). So
    /// no two declarations give the same bytes.
    #[must_use]
    pub fn content(&self) -> Digest {
        let mut content = Content(sha2::Sha256::new());
        content.text(CONTENT_TAG);
        content.text(&self.service.to_string());
        content.text(&self.artifact_name);
        content.number(self.artifact_version.0.into());
        content.bytes(&self.image.0);
        content.number(self.nodes.into());
        content.text(&self.host);
        content.node(&self.node);
        content.text(&self.health.path);
        content.span(self.health.interval);
        content.span(self.health.timeout);
        content.policy(&self.policy);
        Digest(content.0.finalize().into())
    }

    /// What the core needs to know of this declaration.
    #[must_use]
    pub fn to_core(&self) -> Declaration {
        Declaration {
            content: self.content(),
            artifact: self.artifact_version,
            image: self.image,
            nodes: self.nodes,
            policy: self.policy.clone(),
        }
    }
}

/// Content on its way into a hash.
struct Content(sha2::Sha256);

impl Content {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn span(&mut self, span: Duration) {
        self.number(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    }

    fn path(&mut self, path: &std::path::Path) {
        self.bytes(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    }

    fn node(&mut self, node: &NodeSettings) {
        self.number(node.port.into());
        self.number(node.command.len() as u64);
        node.command.iter().for_each(|word| self.text(word));
        self.path(&node.working_directory);
        self.text(&node.user);
        self.number(node.environment.len() as u64);
        for (name, value) in &node.environment {
            self.text(name);
            self.text(value);
        }
        self.number(node.writable.len() as u64);
        node.writable.iter().for_each(|path| self.path(path));
        self.number(node.volumes.len() as u64);
        for (name, path) in &node.volumes {
            self.text(name);
            self.path(path);
        }
        self.number(node.memory_bytes);
        self.number(node.cpu_millicores.into());
        self.number(node.outbound.into());
    }

    fn policy(&mut self, policy: &Policy) {
        // Taken apart by name: a field that is added to the policy does not compile until it is part of the hash.
        let Policy { floor, gate_passes, gate_failures, progress_deadline, drain_deadline, bake } = policy;
        self.number((*floor).into());
        self.number((*gate_passes).into());
        self.number((*gate_failures).into());
        self.span(*progress_deadline);
        self.span(*drain_deadline);
        self.span(*bake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn declaration() -> ServiceDeclaration {
        ServiceDeclaration {
            service: ServiceName::new("hello", "web").expect("a name"),
            artifact_name: "hello/web".to_string(),
            artifact_version: ArtifactVersion(7),
            image: Digest([7; 32]),
            nodes: 3,
            host: "hello.example".to_string(),
            node: NodeSettings {
                port: 80,
                command: vec!["serve".to_string(), "--now".to_string()],
                working_directory: "/srv".into(),
                user: "www-data".to_string(),
                environment: BTreeMap::from([("A".to_string(), "b".to_string())]),
                writable: vec!["/run".into()],
                volumes: BTreeMap::from([("data".to_string(), "/data".into())]),
                memory_bytes: 1 << 28,
                cpu_millicores: 500,
                outbound: true,
            },
            health: HealthCheck { path: "/healthz".to_string(), interval: Duration::from_millis(100), timeout: Duration::from_secs(1) },
            policy: Policy {
                floor: 2,
                gate_passes: 3,
                gate_failures: 4,
                progress_deadline: Duration::from_secs(60),
                drain_deadline: Duration::from_secs(30),
                bake: Duration::ZERO,
            },
        }
    }

    #[test]
    fn the_content_hash_of_a_declaration_never_changes() {
        let content = declaration().content();
        assert_eq!(content, declaration().content());
        // Releases that were declared by earlier programs must be found again.
        assert_eq!(content.to_string(), "sha256:5cd21dd2142211f54914268bd9ebed5f3925ce0ca5f1bb90fdae66cb673e6f79");
    }

    #[test]
    fn every_field_and_every_boundary_is_part_of_the_content_hash() {
        let changes: [fn(&mut ServiceDeclaration); 30] = [
            |_| {},
            |d| d.service = ServiceName::new("hello", "api").expect("a name"),
            |d| d.artifact_name.push('2'),
            |d| d.artifact_version.0 += 1,
            |d| d.image.0[31] ^= 1,
            |d| d.nodes += 1,
            |d| d.host.push('s'),
            |d| d.node.port += 1,
            |d| d.node.command = vec!["serve--now".to_string()],
            |d| d.node.command = vec!["serve-".to_string(), "-now".to_string()],
            |d| d.node.working_directory.push("x"),
            |d| d.node.user.clear(),
            |d| d.node.environment = BTreeMap::from([("Ab".to_string(), String::new())]),
            |d| drop(d.node.environment.insert("C".to_string(), "d".to_string())),
            |d| d.node.writable.push("/tmp".into()),
            |d| d.node.writable = vec!["/runn".into()],
            |d| drop(d.node.volumes.insert("more".to_string(), "/more".into())),
            |d| d.node.volumes = BTreeMap::new(),
            |d| d.node.memory_bytes += 1,
            |d| d.node.cpu_millicores += 1,
            |d| d.node.outbound = false,
            |d| d.health.path.push('2'),
            |d| d.health.interval += Duration::from_millis(1),
            |d| d.health.timeout += Duration::from_millis(1),
            |d| d.policy.floor += 1,
            |d| d.policy.gate_passes += 1,
            |d| d.policy.gate_failures += 1,
            |d| d.policy.progress_deadline += Duration::from_millis(1),
            |d| d.policy.drain_deadline += Duration::from_millis(1),
            |d| d.policy.bake += Duration::from_millis(1),
        ];
        let contents: BTreeSet<Digest> = changes
            .iter()
            .map(|change| {
                let mut changed = declaration();
                change(&mut changed);
                changed.content()
            })
            .collect();
        assert_eq!(contents.len(), changes.len());
    }
}
