//! `service` blocks: nodes, port, health, resources, rollout.

use super::reader::{Complaint, Section, list, map, text, truth, whole};
use super::units::{absolute, cores, size, time};
use gapless_core::digest::Digest;
use gapless_core::name::{NotAServiceName, ServiceName, is_part};
use gapless_core::policy::Policy;
use gapless_core::release::ArtifactVersion;
use gapless_engine::declaration::{CheckKind, HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use hcl_edit::expr::Expression;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The most nodes of one service: a local installation's subnet and one server's memory bear no more.
pub const NODES_LIMIT: u64 = 100;

/// The least memory of a node, in bytes: less starts no shell.
const MEMORY_LOWEST: u64 = 8 << 20;

/// The most memory of a node, in bytes: a bound against slips of the unit.
const MEMORY_HIGHEST: u64 = 1024 << 30;

/// The most CPU of a node, in thousandths of a core: a bound against slips of the point.
const CORES_HIGHEST: u32 = 1_024_000;

/// The longest time that a policy may wait for people or nodes.
const WAIT_HIGHEST: Duration = Duration::from_secs(24 * 3600);

/// What a service declares, but for its artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The image's name in this project.
    pub image: String,
    /// The `Host` that it answers, lower case; `*` for any.
    pub host: String,
    /// How many nodes serve.
    pub nodes: u32,
    /// How a node runs.
    pub node: NodeSettings,
    /// How a node is checked.
    pub health: HealthCheck,
    /// How it moves between releases.
    pub policy: Policy,
}

impl ServiceSettings {
    /// The whole declaration of this service at an artifact's version.
    ///
    /// # Errors
    /// When `project` or `service` is no name; one that a file was parsed with always is.
    pub fn declaration(
        &self,
        project: &str,
        service: &str,
        version: ArtifactVersion,
        image: Digest,
    ) -> Result<ServiceDeclaration, NotAServiceName> {
        Ok(ServiceDeclaration {
            service: ServiceName::new(project, service)?,
            artifact_name: format!("{project}/{}", self.image),
            artifact_version: version,
            image,
            nodes: self.nodes,
            host: self.host.clone(),
            node: self.node.clone(),
            health: self.health.clone(),
            policy: self.policy.clone(),
            tasks: Tasks::default(),
        })
    }
}

struct Health {
    check: HealthCheck,
    passes: u32,
    failures: u32,
}

struct Resources {
    memory_bytes: u64,
    cpu_millicores: u32,
}

pub(super) fn read(section: &Section<'_>) -> ServiceSettings {
    let nodes = number(section.or("nodes", 2, whole(1, NODES_LIMIT)));
    let image = section.required("image", "add `image = \"NAME\"`, the name of an image of this file", text);
    let host = section.or("host", "*".into(), host);
    let health = section.block("health", health).unwrap_or_else(|| default_health("/"));
    let resources = section.block("resources", resources).unwrap_or(Resources { memory_bytes: 256 << 20, cpu_millicores: 1000 });
    let node = node(section, &resources);
    let policy = policy(section, nodes, &health);
    ServiceSettings { image, host, nodes, node, health: health.check, policy }
}

fn node(section: &Section<'_>, resources: &Resources) -> NodeSettings {
    let port = section.required("port", "add `port = 80`: where the command listens", whole(1, 65_535));
    let settings = NodeSettings {
        port: u16::try_from(port).ok(),
        command: section.required("command", "add `command = [\"/path/of/program\", \"argument\"]`", command),
        working_directory: section.or("working_directory", "/".into(), absolute),
        user: section.or("user", "root".into(), user),
        environment: section.or("environment", BTreeMap::new(), map(text)),
        writable: section.or("writable", Vec::new(), list(absolute)),
        volumes: section.or("volumes", BTreeMap::new(), map(absolute)),
        memory_bytes: resources.memory_bytes,
        cpu_millicores: resources.cpu_millicores,
        outbound: section.or("outbound", true, truth),
        stop_signal: StopSignal::default(),
    };
    check_names(section, &settings);
    check_mounts(section, &settings);
    settings
}

fn policy(section: &Section<'_>, nodes: u32, health: &Health) -> Policy {
    let settings = section.block("rollout", |rollout| {
        let floor = rollout.optional("floor", whole(0, NODES_LIMIT)).map(number);
        if floor.is_some_and(|floor| floor > nodes) {
            let what = format!("`floor` is {}, but the service has {nodes} nodes", floor.unwrap_or_default());
            rollout.fault_at("floor", what, format!("the fewest ready nodes during a rollout: from 0 to {nodes}"));
        }
        let wait = |lowest: u64| time(Duration::from_secs(lowest), WAIT_HIGHEST);
        let drain = rollout.or("drain", Duration::from_secs(30), wait(0));
        let progress = rollout.or("progress", Duration::from_secs(60), wait(1));
        let bake = rollout.or("bake", Duration::from_secs(300), wait(0));
        (floor, drain, progress, bake)
    });
    let (floor, drain, progress, bake) =
        settings.unwrap_or((None, Duration::from_secs(30), Duration::from_secs(60), Duration::from_secs(300)));
    Policy {
        floor: floor.unwrap_or(nodes),
        gate_passes: health.passes,
        gate_failures: health.failures,
        progress_deadline: progress,
        drain_deadline: drain,
        bake,
        ..Policy::default()
    }
}

fn default_health(path: &str) -> Health {
    let check =
        HealthCheck { kind: CheckKind::Http { path: path.into() }, interval: Duration::from_secs(1), timeout: Duration::from_secs(2) };
    Health { check, passes: 2, failures: 3 }
}

fn health(section: &Section<'_>) -> Health {
    let default = default_health("/");
    let bounds = |lowest: u64| time(Duration::from_millis(lowest), Duration::from_secs(300));
    Health {
        check: HealthCheck {
            kind: CheckKind::Http { path: section.or("path", "/".into(), url_path) },
            interval: section.or("interval", default.check.interval, bounds(50)),
            timeout: section.or("timeout", default.check.timeout, bounds(10)),
        },
        passes: number(section.or("passes", u64::from(default.passes), whole(1, 100))),
        failures: number(section.or("failures", u64::from(default.failures), whole(1, 100))),
    }
}

fn resources(section: &Section<'_>) -> Resources {
    Resources {
        memory_bytes: section.or("memory", 256 << 20, size(MEMORY_LOWEST, MEMORY_HIGHEST)),
        cpu_millicores: section.or("cpus", 1000, cores(10, CORES_HIGHEST)),
    }
}

fn check_names(section: &Section<'_>, settings: &NodeSettings) {
    for name in settings.environment.keys() {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            section.fault_at(
                "environment",
                format!("\"{name}\" cannot be the name of an environment variable"),
                "letters, digits and `_`, no digit first",
            );
        }
    }
    for name in settings.volumes.keys().filter(|name| !is_part(name)) {
        section.fault_at(
            "volumes",
            format!("\"{name}\" cannot be the name of a volume"),
            "lower-case letters, digits and dashes, a letter first",
        );
    }
}

/// No path twice, and none that the node's system needs for itself.
fn check_mounts(section: &Section<'_>, settings: &NodeSettings) {
    let mut taken: BTreeMap<&PathBuf, &str> = BTreeMap::new();
    let mounts = settings.writable.iter().map(|path| ("writable", path)).chain(settings.volumes.values().map(|path| ("volumes", path)));
    for (attribute, path) in mounts {
        let reserved = ["/", "/proc", "/sys", "/dev", "/etc"].iter().any(|reserved| path.as_path() == std::path::Path::new(reserved))
            || path.starts_with("/proc")
            || path.starts_with("/sys");
        if reserved {
            section.fault_at(
                attribute,
                format!("\"{}\" cannot be writable", path.display()),
                "the system of a node needs it as it is; name a folder below or beside it",
            );
        }
        if taken.insert(path, attribute).is_some() {
            section.fault_at(attribute, format!("\"{}\" is named twice", path.display()), "each path once, in `writable` or in `volumes`");
        }
    }
}

fn command(value: &Expression) -> Result<Vec<String>, Complaint> {
    let hint = "a list of the program and its arguments, such as [\"/usr/bin/program\", \"--option\"]; the program is an absolute path";
    let command = list(text)(value).map_err(|_| Complaint::new("is no list of texts", hint))?;
    match command.first() {
        Some(program) if program.starts_with('/') => Ok(command),
        Some(program) => Err(Complaint::new(format!("begins with \"{program}\""), hint)),
        None => Err(Complaint::new("is empty", hint)),
    }
}

fn user(value: &Expression) -> Result<String, Complaint> {
    let user = text(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    if !user.is_empty() && user.chars().all(allowed) {
        return Ok(user);
    }
    Err(Complaint::new(format!("is \"{user}\""), "a user of the image by name, or `UID:GID`"))
}

fn host(value: &Expression) -> Result<String, Complaint> {
    let host = text(value)?;
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if host == "*" || (host.len() <= 253 && host.split('.').all(label)) {
        return Ok(host);
    }
    Err(Complaint::new(format!("is \"{host}\""), "a host name in lower case without port, such as \"www.example.com\", or \"*\" for any"))
}

fn url_path(value: &Expression) -> Result<String, Complaint> {
    let path = text(value)?;
    if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic() && c != '#') {
        return Ok(path);
    }
    Err(Complaint::new(format!("is \"{path}\""), "a path that begins with `/`, such as \"/healthz\""))
}

/// A number that was read within bounds that fit.
fn number(bounded: u64) -> u32 {
    u32::try_from(bounded).unwrap_or(u32::MAX)
}
