//! Declarations in version 1: what the core needs of one, and the whole.

use super::parse;
use gapless_core::{policy, release};
use gapless_engine::declaration as engine;
use gapless_engine::error::Error;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Deserialize)]
pub(super) struct Declaration {
    content: String,
    artifact: u32,
    image: String,
    nodes: u32,
    policy: Policy,
}

#[derive(Deserialize)]
struct Policy {
    floor: u32,
    gate_passes: u32,
    gate_failures: u32,
    progress_deadline: u64,
    drain_deadline: u64,
    bake: u64,
}

/// The whole declaration of a service.
#[derive(Deserialize)]
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

#[derive(Deserialize)]
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

#[derive(Deserialize)]
struct HealthCheck {
    path: String,
    interval: u64,
    timeout: u64,
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
