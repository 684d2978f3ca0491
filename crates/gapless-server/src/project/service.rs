//! `service` blocks: nodes, port, resources, and what belongs to them in blocks of their own.

use super::task::command;
use super::{health, rollout, task};
use crate::hcl::{Complaint, Section, absolute, cores, list, map, number, place, size, suggestion, text, truth, whole};
use gapless_core::digest::Digest;
use gapless_core::name::{NotAServiceName, PART_LIMIT, ServiceName, is_part};
use gapless_core::policy::Policy;
use gapless_core::release::ArtifactVersion;
use gapless_engine::declaration::{HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use hcl_edit::expr::Expression;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The most nodes of one service: a local installation's subnet and one server's memory bear no more.
pub const NODES_LIMIT: u64 = 100;

/// The least memory of a node, in bytes: less starts no shell.
const MEMORY_LOWEST: u64 = 8 << 20;

/// The most memory of a node, in bytes: a bound against slips of the unit.
const MEMORY_HIGHEST: u64 = 1024 << 30;

/// The most CPU of a node, in thousandths of a core: a bound against slips of the point.
const CORES_HIGHEST: u32 = 1_024_000;

/// What a service declares, but for its artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// The image's name in this project.
    pub image: String,
    /// The `Host` that it answers, lower case, `*` for any; a path behind it restricts it to requests below that. Empty for a worker, which answers none.
    pub host: String,
    /// How many nodes serve.
    pub nodes: u32,
    /// How a node runs.
    pub node: NodeSettings,
    /// How a node is checked.
    pub health: HealthCheck,
    /// How it moves between releases.
    pub policy: Policy,
    /// What is run once for each release.
    pub tasks: Tasks,
    /// The name that it shares with the services of this file whose releases shift together with its own.
    pub together: Option<String>,
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
            tasks: self.tasks.clone(),
        })
    }
}

struct Resources {
    memory_bytes: u64,
    cpu_millicores: u32,
}

pub(super) fn read(section: &Section<'_>) -> ServiceSettings {
    let usual = if rollout::is_recreated(section) { 1 } else { 2 };
    let nodes = number(section.or("nodes", usual, whole(1, NODES_LIMIT)));
    let image = section.required("image", "add `image = \"NAME\"`, the name of an image of this file", text);
    let port = section.optional("port", whole(1, 65_535)).and_then(|port| u16::try_from(port).ok());
    let serves = section.has("port");
    let host = host_of(section, serves);
    let node = node(section, port);
    let tasks = task::read(section);
    let together = section.optional("together", together);
    let health = health::read(section, serves);
    let policy = rollout::read(section, nodes, &health, serves);
    rollout::check_strategy(section, &policy.strategy, nodes, &tasks);
    ServiceSettings { image, host, nodes, node, health: health.check, policy, tasks, together }
}

fn host_of(section: &Section<'_>, serves: bool) -> String {
    let host = section.optional("host", place);
    if !serves && section.has("host") {
        let what = "`host` is answered on a port, but this service has no `port`";
        section.fault_at("host", what, "add `port = 80`, where the command listens; without one it is a worker, and has no host");
    }
    host.unwrap_or_else(|| if serves { "*".into() } else { String::new() })
}

fn node(section: &Section<'_>, port: Option<u16>) -> NodeSettings {
    let resources = section.block("resources", resources).unwrap_or(Resources { memory_bytes: 256 << 20, cpu_millicores: 1000 });
    let settings = NodeSettings {
        port,
        command: section.required("command", "add `command = [\"/path/of/program\", \"argument\"]`", command),
        working_directory: section.or("working_directory", "/".into(), absolute),
        user: section.or("user", "root".into(), user),
        environment: section.or("environment", BTreeMap::new(), map(text)),
        writable: section.or("writable", Vec::new(), list(absolute)),
        volumes: section.or("volumes", BTreeMap::new(), map(absolute)),
        memory_bytes: resources.memory_bytes,
        cpu_millicores: resources.cpu_millicores,
        outbound: section.or("outbound", true, truth),
        stop_signal: section.or("stop_signal", StopSignal::default(), stop_signal),
    };
    check_names(section, &settings);
    check_mounts(section, &settings);
    settings
}

fn stop_signal(value: &Expression) -> Result<StopSignal, Complaint> {
    let shown = text(value)?;
    let name = shown.strip_prefix("SIG").unwrap_or(&shown);
    let hint = || suggestion(name, StopSignal::ALL.iter().map(|signal| signal.name()), "signals");
    StopSignal::ALL.into_iter().find(|signal| signal.name() == name).ok_or_else(|| Complaint::new(format!("is \"{shown}\""), hint()))
}

fn together(value: &Expression) -> Result<String, Complaint> {
    let name = text(value)?;
    let hint = format!("a name that the services share: at most {PART_LIMIT} lower-case letters, digits and dashes, a letter first");
    if is_part(&name) { Ok(name) } else { Err(Complaint::new(format!("is \"{name}\""), hint)) }
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

fn user(value: &Expression) -> Result<String, Complaint> {
    let user = text(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    if !user.is_empty() && user.chars().all(allowed) {
        return Ok(user);
    }
    Err(Complaint::new(format!("is \"{user}\""), "a user of the image by name, or `UID:GID`"))
}
