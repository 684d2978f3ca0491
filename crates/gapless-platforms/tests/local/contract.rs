//! The contract that every platform keeps, on real nodes.

use crate::proxy::FakeProxy;
use crate::service::{check_command, declaration, serving, with_release_command, worker};
use crate::support::Installation;
use async_trait::async_trait;
use gapless_engine::clock::{Clock, SystemClock};
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::platform::Platform;
use gapless_platforms::contract::{self, LAST_WORDS, Scene, Script, TaskScript};
use std::sync::Arc;

struct LocalScene {
    // Dropped first: its sockets are in the installation's folder.
    proxy: FakeProxy,
    installation: Installation,
    clock: Arc<SystemClock>,
}

impl LocalScene {
    fn new() -> Self {
        let installation = Installation::new();
        // What the workers' checks look for.
        installation.put("ok");
        Self { proxy: FakeProxy::start(installation.folder.path()), installation, clock: Arc::default() }
    }
}

#[async_trait]
impl Scene for LocalScene {
    async fn platform(&self) -> Arc<dyn Platform> {
        Arc::new(self.installation.open_with(vec![self.proxy.holder()]).await)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn declaration(&self, script: Script) -> ServiceDeclaration {
        match script {
            Script::Serves => serving(),
            Script::Exits(code) => declaration(&["exit", &code.to_string(), LAST_WORDS]),
            Script::Works => worker(check_command()),
            Script::Task(TaskScript::Passes) => with_release_command("wait"),
            Script::Task(TaskScript::Fails) => with_release_command("7"),
            Script::Task(TaskScript::Hangs) => with_release_command("hang"),
        }
    }

    async fn hold_request(&self) {
        self.proxy.hold_request().await;
    }

    async fn let_end(&self) {
        self.installation.put("let-end");
    }

    async fn task_runs(&self) -> Option<u32> {
        Some(self.installation.lines("runs"))
    }

    async fn times_asked_to_end(&self) -> Option<u32> {
        Some(self.installation.lines("asked"))
    }
}

macro_rules! kept {
    ($($check:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            contract::$check(&LocalScene::new()).await;
        })+
    };
}

kept!(
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
