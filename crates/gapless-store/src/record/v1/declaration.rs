//! Declarations in version 1: what the core needs of one, and the whole.

use super::{nanoseconds, parse};
use gapless_core::{policy, release};
use gapless_engine::declaration as engine;
use gapless_engine::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Serialize, Deserialize)]
pub(super) struct Declaration {
    content: String,
    artifact: u32,
    image: String,
    nodes: u32,
    policy: Policy,
}

#[derive(Serialize, Deserialize)]
struct Policy {
    floor: u32,
    gate_passes: u32,
    gate_failures: u32,
    progress_deadline: u64,
    drain_deadline: u64,
    bake: u64,
}

/// The whole declaration of a service.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::record) struct ServiceDeclaration {
    service: String,
    artifact_name: String,
    artifact_version: u32,
    image: String,
    nodes: u32,
    host: String,
    node: NodeSettings,
    health: HealthCheck,
    policy: Policy,
}

#[derive(Serialize, Deserialize)]
struct NodeSettings {
    port: u16,
    command: Vec<String>,
    working_directory: PathBuf,
    user: String,
    environment: BTreeMap<String, String>,
    writable: Vec<PathBuf>,
    volumes: BTreeMap<String, PathBuf>,
    memory_bytes: u64,
    cpu_millicores: u32,
    outbound: bool,
}

#[derive(Serialize, Deserialize)]
struct HealthCheck {
    path: String,
    interval: u64,
    timeout: u64,
}

impl From<&release::Declaration> for Declaration {
    fn from(declaration: &release::Declaration) -> Self {
        Self {
            content: declaration.content.to_string(),
            artifact: declaration.artifact.0,
            image: declaration.image.to_string(),
            nodes: declaration.nodes,
            policy: (&declaration.policy).into(),
        }
    }
}

impl TryFrom<Declaration> for release::Declaration {
    type Error = Error;

    fn try_from(declaration: Declaration) -> Result<Self, Error> {
        Ok(release::Declaration {
            content: parse(&declaration.content)?,
            artifact: release::ArtifactVersion(declaration.artifact),
            image: parse(&declaration.image)?,
            nodes: declaration.nodes,
            policy: declaration.policy.into(),
            serves: true,
            tasks: BTreeSet::new(),
        })
    }
}

impl From<&policy::Policy> for Policy {
    fn from(policy: &policy::Policy) -> Self {
        Self {
            floor: policy.floor,
            gate_passes: policy.gate_passes,
            gate_failures: policy.gate_failures,
            progress_deadline: nanoseconds(policy.progress_deadline),
            drain_deadline: nanoseconds(policy.drain_deadline),
            bake: nanoseconds(policy.bake),
        }
    }
}

impl From<Policy> for policy::Policy {
    fn from(policy: Policy) -> Self {
        Self {
            floor: policy.floor,
            gate_passes: policy.gate_passes,
            gate_failures: policy.gate_failures,
            progress_deadline: Duration::from_nanos(policy.progress_deadline),
            drain_deadline: Duration::from_nanos(policy.drain_deadline),
            bake: Duration::from_nanos(policy.bake),
            ..policy::Policy::default()
        }
    }
}

impl From<&engine::ServiceDeclaration> for ServiceDeclaration {
    fn from(declaration: &engine::ServiceDeclaration) -> Self {
        let engine::ServiceDeclaration { service, artifact_name, artifact_version, image, nodes, host, node, health, policy, tasks: _ } =
            declaration;
        Self {
            service: service.to_string(),
            artifact_name: artifact_name.clone(),
            artifact_version: artifact_version.0,
            image: image.to_string(),
            nodes: *nodes,
            host: host.clone(),
            node: node.into(),
            health: HealthCheck {
                path: health.path().to_string(),
                interval: nanoseconds(health.interval),
                timeout: nanoseconds(health.timeout),
            },
            policy: policy.into(),
        }
    }
}

impl TryFrom<ServiceDeclaration> for engine::ServiceDeclaration {
    type Error = Error;

    fn try_from(declaration: ServiceDeclaration) -> Result<Self, Error> {
        Ok(engine::ServiceDeclaration {
            service: parse(&declaration.service)?,
            artifact_name: declaration.artifact_name,
            artifact_version: release::ArtifactVersion(declaration.artifact_version),
            image: parse(&declaration.image)?,
            nodes: declaration.nodes,
            host: declaration.host,
            node: declaration.node.into(),
            health: engine::HealthCheck {
                kind: engine::CheckKind::Http { path: declaration.health.path },
                interval: Duration::from_nanos(declaration.health.interval),
                timeout: Duration::from_nanos(declaration.health.timeout),
            },
            policy: declaration.policy.into(),
            tasks: engine::Tasks::default(),
        })
    }
}

impl From<&engine::NodeSettings> for NodeSettings {
    fn from(node: &engine::NodeSettings) -> Self {
        Self {
            port: node.port.unwrap_or_default(),
            command: node.command.clone(),
            working_directory: node.working_directory.clone(),
            user: node.user.clone(),
            environment: node.environment.clone(),
            writable: node.writable.clone(),
            volumes: node.volumes.clone(),
            memory_bytes: node.memory_bytes,
            cpu_millicores: node.cpu_millicores,
            outbound: node.outbound,
        }
    }
}

impl From<NodeSettings> for engine::NodeSettings {
    fn from(node: NodeSettings) -> Self {
        Self {
            port: Some(node.port),
            command: node.command,
            working_directory: node.working_directory,
            user: node.user,
            environment: node.environment,
            writable: node.writable,
            volumes: node.volumes,
            memory_bytes: node.memory_bytes,
            cpu_millicores: node.cpu_millicores,
            outbound: node.outbound,
            stop_signal: engine::StopSignal::Term,
        }
    }
}
