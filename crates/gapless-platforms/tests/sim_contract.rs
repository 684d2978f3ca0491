//! The simulated platform keeps to what every platform keeps to, with and without its faults.

use async_trait::async_trait;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::policy::Policy;
use gapless_core::release::ArtifactVersion;
use gapless_engine::clock::Clock;
use gapless_engine::declaration::{CheckKind, HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use gapless_engine::platform::Platform;
use gapless_platforms::contract::{self, LAST_WORDS, Scene, Script, TaskScript};
use gapless_platforms::sim::{Behaviour, Exit, Sim, SimOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

struct SimScene(Sim);

impl SimScene {
    fn new(options: SimOptions) -> Self {
        let sim = Sim::new(options);
        let exit = Exit { after: Duration::ZERO, code: 7, output: LAST_WORDS.to_string() };
        sim.behave(ArtifactVersion(2), Behaviour { exit: Some(exit), ..Behaviour::default() });
        sim.behave(ArtifactVersion(3), Behaviour { task_fails: true, ..Behaviour::default() });
        sim.behave(ArtifactVersion(4), Behaviour { task: Duration::from_secs(2 * 3600), ..Behaviour::default() });
        Self(sim)
    }
}

#[async_trait]
impl Scene for SimScene {
    async fn platform(&self) -> Arc<dyn Platform> {
        Arc::new(self.0.again())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.0.clone())
    }

    fn declaration(&self, script: Script) -> ServiceDeclaration {
        let version = match script {
            Script::Serves | Script::Works | Script::Task(TaskScript::Passes) => 1,
            Script::Exits(_) => 2,
            Script::Task(TaskScript::Fails) => 3,
            Script::Task(TaskScript::Hangs) => 4,
        };
        let mut declaration = ServiceDeclaration {
            service: ServiceName::new("hello", "web").expect("a name"),
            artifact_name: "hello/web".to_string(),
            artifact_version: ArtifactVersion(version),
            image: Digest([7; 32]),
            nodes: 1,
            host: "*".to_string(),
            node: NodeSettings {
                port: Some(80),
                command: vec!["/bin/serve".to_string()],
                working_directory: "/".into(),
                user: "www-data".to_string(),
                environment: BTreeMap::new(),
                writable: Vec::new(),
                volumes: BTreeMap::new(),
                memory_bytes: 64 << 20,
                cpu_millicores: 500,
                outbound: false,
                stop_signal: StopSignal::Term,
            },
            health: HealthCheck {
                kind: CheckKind::Http { path: "/healthz".to_string() },
                interval: Duration::from_millis(50),
                timeout: Duration::from_secs(1),
            },
            policy: Policy {
                floor: 1,
                gate_passes: 2,
                gate_failures: 3,
                progress_deadline: Duration::from_secs(30),
                drain_deadline: Duration::from_secs(30),
                bake: Duration::ZERO,
                ..Policy::default()
            },
            tasks: Tasks::default(),
        };
        match script {
            Script::Works => {
                declaration.node.port = None;
                declaration.health.kind = CheckKind::Command { command: vec!["/bin/check".to_string()] };
            }
            Script::Task(_) => declaration.tasks.release_command = Some(vec!["/bin/migrate".to_string()]),
            Script::Serves | Script::Exits(_) => {}
        }
        declaration
    }

    async fn hold_request(&self) {
        let service = self.declaration(Script::Serves).service;
        assert!(self.0.hold_request(&service), "no node took the request");
    }
}

macro_rules! contract {
    ($($check:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $check() {
            for options in [
                SimOptions::default(),
                SimOptions { proxies: 3, apply_delay: Duration::from_millis(200), ..SimOptions::default() },
                SimOptions { twice: true, ..SimOptions::default() },
            ] {
                contract::$check(&SimScene::new(options)).await;
            }
        }
    )*};
}

contract!(
    ensure_group_is_idempotent_and_only_grows,
    destroyed_ordinals_never_come_back,
    routes_are_acknowledged_and_members_checked,
    older_generations_change_nothing,
    the_first_drain_deadline_stays,
    destroying_is_idempotent,
    late_effects_touch_nothing,
    a_host_is_answered_by_one_service,
    peeking_takes_no_change_away,
    observing_reads_the_world,
    an_exited_command_is_observed,
    a_worker_is_checked_and_drained_without_a_proxy,
    a_task_is_run_once,
    a_task_is_run_once_by_two_instances,
    a_failed_task_is_final,
    a_task_of_a_destroyed_group_never_begins,
    an_overtaken_task_never_begins,
    a_task_is_ended_at_its_deadline,
);
