//! What the tests' service is: an image made of one static program, and how its nodes run.

use async_trait::async_trait;
use gapless_core::digest::Digest;
use gapless_core::node::{GroupId, InstanceId};
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_engine::declaration::{CheckKind, HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use gapless_engine::error::Error;
use gapless_engine::images::{Images, UnpackedImage};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The digest that the tests' image goes by.
pub const IMAGE: Digest = Digest([7; 32]);

/// Where the program is in the image.
pub const PROGRAM: &str = "/program";

/// The port of the tests' nodes: a low one, because serving there must work.
pub const PORT: u16 = 80;

/// The tests' image: one tree.
pub struct OneTree(pub PathBuf);

#[async_trait]
impl Images for OneTree {
    async fn unpacked(&self, image: Digest) -> Result<UnpackedImage, Error> {
        Ok(UnpackedImage { image, layers: vec![self.0.clone()] })
    }
}

/// The same, whose first unpacking goes on until it is let end.
pub struct SlowOnce {
    pub images: OneTree,
    /// That it was begun.
    pub begun: Notify,
    pub let_end: Notify,
    pub is_slow: AtomicBool,
}

impl SlowOnce {
    pub fn new(tree: PathBuf) -> Self {
        Self { images: OneTree(tree), begun: Notify::new(), let_end: Notify::new(), is_slow: AtomicBool::new(true) }
    }
}

#[async_trait]
impl Images for SlowOnce {
    async fn unpacked(&self, image: Digest) -> Result<UnpackedImage, Error> {
        if self.is_slow.swap(false, Ordering::SeqCst) {
            self.begun.notify_one();
            self.let_end.notified().await;
        }
        self.images.unpacked(image).await
    }
}

/// A declaration of the tests' service whose nodes run this.
pub fn declaration(command: &[&str]) -> ServiceDeclaration {
    let service = "hello/web".parse().unwrap();
    ServiceDeclaration {
        service,
        artifact_name: "hello/web".to_string(),
        artifact_version: ArtifactVersion(1),
        image: IMAGE,
        nodes: 3,
        host: "*".to_string(),
        node: NodeSettings {
            port: Some(PORT),
            command: [PROGRAM].iter().chain(command).map(|part| (*part).to_string()).collect(),
            working_directory: PathBuf::from("/"),
            user: "root".to_string(),
            environment: BTreeMap::new(),
            writable: vec![PathBuf::from("/run"), PathBuf::from("/data"), PathBuf::from("/var/new")],
            volumes: BTreeMap::new(),
            memory_bytes: 64 * 1024 * 1024,
            cpu_millicores: 1000,
            outbound: true,
            stop_signal: StopSignal::Term,
        },
        health: HealthCheck {
            kind: CheckKind::Http { path: "/healthz".to_string() },
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
        },
        policy: Policy {
            floor: 3,
            gate_passes: 2,
            gate_failures: 4,
            progress_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            bake: Duration::ZERO,
            ..Policy::default()
        },
        tasks: Tasks::default(),
    }
}

/// Nodes that serve.
pub fn serving() -> ServiceDeclaration {
    declaration(&["serve", "80"])
}

/// Where the nodes have a volume that the tests look into.
pub const VOLUME: &str = "/kept";

/// A worker that works until it was asked to end and may, with this check.
pub fn worker(check: CheckKind) -> ServiceDeclaration {
    let mut worker = with_volume(declaration(&["work", VOLUME]));
    worker.node.port = None;
    worker.health.kind = check;
    worker
}

/// A check by the program: passes if there is a file `ok` in the volume; hangs if there is one `hang`.
pub fn check_command() -> CheckKind {
    CheckKind::Command { command: [PROGRAM, "check", "/kept/ok", "/kept/hang"].map(str::to_string).to_vec() }
}

/// The command of a task that behaves so: see the program.
pub fn task_command(how: &str) -> Vec<String> {
    [PROGRAM, "task", VOLUME, how].map(str::to_string).to_vec()
}

/// Nodes that serve, with a release command.
pub fn with_release_command(how: &str) -> ServiceDeclaration {
    let mut serving = with_volume(serving());
    serving.tasks.release_command = Some(task_command(how));
    serving
}

fn with_volume(mut declaration: ServiceDeclaration) -> ServiceDeclaration {
    declaration.node.volumes.insert("kept".to_string(), VOLUME.into());
    declaration
}

/// A group of release 1.
pub fn group(instance: u64) -> GroupId {
    GroupId { release: ReleaseNumber(1), instance: InstanceId(instance) }
}
