//! What every platform keeps to, as checks that each platform's tests run: one test per function here, each over a fresh [`Scene`]. A check panics with what it saw.

use async_trait::async_trait;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::observation::{Condition, Observation};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::{Generation, Route, Weight};
use gapless_engine::clock::Clock;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::{Declarations, Platform};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How a node of a check behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// It answers its health check with 200.
    Serves,
    /// Its command ends at once with this code, and its last output is [`LAST_WORDS`].
    Exits(i32),
    /// It is a worker's: it has no port, its check is a command that passes, and it ends with code 0 some time after it was asked to: with [`Scene::let_end`] at the
    /// latest.
    Works,
    /// As [`Script::Serves`], with a release command that behaves so.
    Task(TaskScript),
}

/// How a release command of a check behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskScript {
    /// It ends well, some time after it was begun: with [`Scene::let_end`] at the latest.
    Passes,
    /// It ends at once, badly.
    Fails,
    /// It does not end by itself within an hour.
    Hangs,
}

/// What a command of [`Script::Exits`] writes before it ends.
pub const LAST_WORDS: &str = "the last words";

/// A world for one check: proxies that run, an image, no nodes. It cleans up when it is dropped.
#[async_trait]
pub trait Scene: Send + Sync {
    /// A platform over this world. Each call gives a new instance, as after a crash of the one before.
    async fn platform(&self) -> Arc<dyn Platform>;

    /// The platform's time.
    fn clock(&self) -> Arc<dyn Clock>;

    /// A declaration of this scene's one service whose nodes behave so. Health checks at most every 200 ms; the drain deadline does not matter.
    fn declaration(&self, script: Script) -> ServiceDeclaration;

    /// Sends a request through a proxy to the service's only member, one that does not end by itself within a minute, and returns when the proxy has it in flight.
    async fn hold_request(&self);

    /// What waits for it ends: a worker that was asked to, a task. Where all ends by itself after a while, there is nothing to do.
    async fn let_end(&self) {}

    /// How often a release command was begun, where that can be told.
    async fn task_runs(&self) -> Option<u32> {
        None
    }

    /// How often a worker was asked to end, where that can be told.
    async fn times_asked_to_end(&self) -> Option<u32> {
        None
    }

    /// How long something may take that is expected to come.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// How long something is awaited that must not come.
    fn quiet(&self) -> Duration {
        Duration::from_millis(500)
    }
}

/// A deadline that no task of a check comes near.
const A_WHILE: Duration = Duration::from_secs(60);

const FIRST: GroupId = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) };
const SECOND: GroupId = GroupId { release: ReleaseNumber(2), instance: InstanceId(2) };

/// Ensuring a group twice makes it once; a smaller size takes nothing away, a larger one adds.
pub async fn ensure_group_is_idempotent_and_only_grows(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    stage.ensure(FIRST, 2).await;
    let made = stage.observe().await;
    assert_eq!(nodes(&made), set([FIRST.node(0), FIRST.node(1)]));
    stage.ensure(FIRST, 2).await;
    stage.ensure(FIRST, 1).await;
    assert_eq!(nodes(&stage.observe().await), nodes(&made));
    stage.ensure(FIRST, 3).await;
    assert_eq!(nodes(&stage.observe().await), set([FIRST.node(0), FIRST.node(1), FIRST.node(2)]));
    let running = stage.until("all nodes run", |seen| seen.nodes.values().all(|node| node.condition == Condition::Running)).await;
    let image = scene.declaration(Script::Serves).image;
    assert!(running.nodes.values().all(|node| node.image == image), "a node has another image than {image}: {running:?}");
    stage.clear().await;
}

/// A node that was destroyed does not come back, whoever asks for its group again; the group can still grow.
pub async fn destroyed_ordinals_never_come_back(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    stage.ensure(FIRST, 2).await;
    stage.destroy([FIRST.node(0)]).await;
    assert_eq!(nodes(&stage.observe().await), set([FIRST.node(1)]));
    stage.ensure(FIRST, 2).await;
    assert_eq!(nodes(&stage.observe().await), set([FIRST.node(1)]));
    stage.ensure(FIRST, 3).await;
    assert_eq!(nodes(&stage.observe().await), set([FIRST.node(1), FIRST.node(2)]));
    stage.clear().await;
}

/// A route is done when every proxy acknowledges it, and its members are checked from then on, those without weight too.
pub async fn routes_are_acknowledged_and_members_checked(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    stage.ensure(FIRST, 2).await;
    stage.route(1, [(FIRST.node(0), Weight::EQUAL), (FIRST.node(1), Weight::PROBED)]).await;
    let seen = stage.observe().await;
    assert!(!seen.proxies.is_empty(), "no proxy is seen");
    assert!(acknowledged(&seen, 1), "the route is done and not acknowledged: {:?}", seen.proxies);
    stage
        .until("both members pass their checks", |seen| seen.nodes.len() == 2 && seen.nodes.values().all(|node| node.health.passes >= 2))
        .await;
    stage.route(2, [(FIRST.node(1), Weight::EQUAL)]).await;
    assert!(acknowledged(&stage.observe().await, 2));
    stage.clear().await;
}

/// A route that is older than the applied one changes nothing (I5), whatever the answer.
pub async fn older_generations_change_nothing(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    stage.ensure(FIRST, 2).await;
    stage.route(5, [(FIRST.node(0), Weight::EQUAL)]).await;
    stage.until("the member passes its checks", |seen| passes(seen, FIRST.node(0)) >= 1).await;
    let older = Stage::a_route(4, [(FIRST.node(1), Weight::EQUAL)]);
    let _refused_or_done_before = stage.platform.route(&stage.declaration.service, &older, &stage.declarations).await;
    stage.wait(scene.quiet()).await;
    let seen = stage.observe().await;
    assert!(acknowledged(&seen, 5), "an older route was applied: {:?}", seen.proxies);
    assert_eq!(passes(&seen, FIRST.node(1)), 0, "a member of an older route is checked");
    assert!(passes(&seen, FIRST.node(0)) >= 1, "a member of the applied route was forgotten");
    stage.clear().await;
}

/// The first drain deadline of a node stays: a later call with a longer one does not lengthen it, and what runs at its end is cut.
pub async fn the_first_drain_deadline_stays(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    let (old, new) = (FIRST.node(0), SECOND.node(0));
    stage.ensure(FIRST, 1).await;
    stage.ensure(SECOND, 1).await;
    stage.route(1, [(old, Weight::EQUAL)]).await;
    stage.until("the node passes its check", |seen| passes(seen, old) >= 1).await;
    scene.hold_request().await;
    stage.until("the request is in flight", |seen| in_flight(seen, old) == 1).await;
    stage.route(2, [(new, Weight::EQUAL)]).await;
    assert_eq!(in_flight(&stage.observe().await, old), 1, "a request was lost when its node left the route");
    let begun = scene.clock().now();
    let (first, later) = (Duration::from_millis(800), Duration::from_secs(3600));
    stage.drain(old, first).await;
    stage.drain(old, later).await;
    stage.until("the request is cut", |seen| in_flight(seen, old) == 0).await;
    let took = scene.clock().now().since(begun);
    assert!(took >= first, "the request was cut after {took:?}, before the deadline of {first:?}");
    stage.clear().await;
}

/// Nodes are destroyed once: again, or never made at all, is no error; others stay.
pub async fn destroying_is_idempotent(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    stage.ensure(FIRST, 3).await;
    stage.destroy([FIRST.node(0), FIRST.node(1)]).await;
    stage.destroy([FIRST.node(0), FIRST.node(1)]).await;
    stage.destroy([SECOND.node(7)]).await;
    assert_eq!(nodes(&stage.observe().await), set([FIRST.node(2)]));
    stage.clear().await;
}

/// Effects of a group that arrive after it was destroyed touch nothing, a later group of the same release least of all.
pub async fn late_effects_touch_nothing(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    let again = GroupId { release: FIRST.release, instance: InstanceId(3) };
    stage.ensure(FIRST, 2).await;
    stage.route(1, [(FIRST.node(0), Weight::EQUAL)]).await;
    stage.ensure(again, 1).await;
    stage.route(2, [(again.node(0), Weight::EQUAL)]).await;
    stage.destroy([FIRST.node(0), FIRST.node(1)]).await;
    stage.until("the later group passes its checks", |seen| passes(seen, again.node(0)) >= 1).await;

    stage.ensure(FIRST, 2).await;
    let late = Stage::a_route(1, [(FIRST.node(0), Weight::EQUAL)]);
    let _refused_or_done_before = stage.platform.route(&stage.declaration.service, &late, &stage.declarations).await;
    stage.destroy([FIRST.node(0), FIRST.node(1)]).await;
    let seen = stage.observe().await;
    assert_eq!(nodes(&seen), set([again.node(0)]));
    assert!(acknowledged(&seen, 2), "a late route was applied: {:?}", seen.proxies);
    assert!(passes(&seen, again.node(0)) >= 1, "a late effect touched a later group");
    stage.clear().await;
}

/// Two services never have one host: neither a group nor a route that would lead there is taken, and nobody but the service that wants it is held up.
pub async fn a_host_is_answered_by_one_service(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    let (service, host) = (&stage.declaration.service, stage.declaration.host.clone());
    let (other, rival) = (stage.of_other("other.example"), stage.of_other(&host));
    stage.ensure(FIRST, 1).await;
    stage.route(1, [(FIRST.node(0), Weight::EQUAL)]).await;
    let refused = |done: Result<(), Error>| {
        let error = done.expect_err("a service got the host of another one");
        let text = error.to_string();
        assert!([service, &other.declaration.service].iter().all(|name| text.contains(&name.to_string())), "{text}");
        assert!(text.contains(&host), "{text}");
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{text}");
    };
    refused(rival.platform.ensure_group(rival.declaration.clone(), FIRST, 1).await);
    assert_eq!(nodes(&rival.observe().await), set([]), "nodes were made that can never have traffic");

    other.ensure(FIRST, 1).await;
    other.route(1, [(FIRST.node(0), Weight::EQUAL)]).await;
    let late = Stage::a_route(2, [(FIRST.node(0), Weight::EQUAL)]);
    refused(rival.platform.route(&rival.declaration.service, &late, &rival.declarations).await);
    rival.ensure(FIRST, 1).await;
    let hosts = [(service.clone(), host.clone()), (other.declaration.service.clone(), "other.example".to_string())];
    let next = scene.platform().await;
    assert_eq!(next.hosts().await.expect("hosts"), BTreeMap::from(hosts), "another instance does not know it");

    stage.route(2, [(FIRST.node(0), Weight::EQUAL)]).await;
    assert!(acknowledged(&stage.observe().await, 2), "a service is held up by what another one wants");
    other.route(3, [(FIRST.node(0), Weight::EQUAL)]).await;
    assert!(acknowledged(&other.observe().await, 3));
    other.clear().await;
    stage.clear().await;
}

/// A look that only tells is no mark: what changed since the engine's own look is still a change after it.
pub async fn peeking_takes_no_change_away(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    let service = &stage.declaration.service;
    stage.ensure(FIRST, 2).await;
    stage.route(1, [(FIRST.node(0), Weight::EQUAL)]).await;
    stage.until("the member passes its checks", |seen| passes(seen, FIRST.node(0)) >= 1).await;
    stage.route(2, []).await;
    let peeked = stage.platform.peek(service).await.unwrap_or_else(|error| panic!("peeking: {error}"));
    assert!(acknowledged(&peeked, 2), "a look that only tells sees something else: {peeked:?}");
    let begun = scene.clock().now();
    // Nothing is checked any more: only the change of the route, which is behind us, ends this.
    stage.platform.changed(service, scene.patience()).await;
    assert!(scene.clock().now().since(begun) < scene.patience() / 2, "the change was taken away by a look that only tells");
    stage.clear().await;
}

/// What is observed is the world: another instance of the platform sees the same, and can go on with it.
pub async fn observing_reads_the_world(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Serves).await;
    stage.ensure(FIRST, 2).await;
    stage.route(1, [(FIRST.node(0), Weight::EQUAL), (FIRST.node(1), Weight::EQUAL)]).await;
    stage.until("both nodes pass", |seen| seen.nodes.values().all(|node| node.health.passes >= 1)).await;
    let before = stage.observe().await;

    let next = Stage::new(scene, Script::Serves).await;
    let after = next.observe().await;
    assert_eq!(nodes(&after), nodes(&before));
    assert_eq!(after.proxies, before.proxies);
    for (id, node) in &after.nodes {
        assert_eq!(
            (&node.condition, node.image),
            (&before.nodes[id].condition, before.nodes[id].image),
            "{id} is seen otherwise by another instance"
        );
        assert!(node.health.passes >= 1, "{id} is not seen healthy by another instance");
    }
    next.ensure(FIRST, 2).await;
    assert_eq!(nodes(&next.observe().await), nodes(&before));
    next.route(2, [(FIRST.node(1), Weight::EQUAL)]).await;
    next.destroy([FIRST.node(0)]).await;
    assert_eq!(nodes(&next.observe().await), set([FIRST.node(1)]));
    next.clear().await;
}

/// A command that ends at once is no error of its effect: it is observed with its code and its last words.
pub async fn an_exited_command_is_observed(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Exits(7)).await;
    stage.ensure(FIRST, 1).await;
    let exited = |seen: &Observation| matches!(seen.nodes.get(&FIRST.node(0)).map(|node| &node.condition), Some(Condition::Exited { .. }));
    let seen = stage.until("the exit is seen", exited).await;
    let Condition::Exited { code, output } = &seen.nodes[&FIRST.node(0)].condition else { unreachable!("it was seen exited") };
    assert_eq!(*code, Some(7));
    assert!(output.contains(LAST_WORDS), "the last words are not in `{output}`");
    stage.ensure(FIRST, 1).await;
    assert!(exited(&stage.observe().await), "an exited node was started again");
    stage.clear().await;
}

/// A worker is checked without any proxy or route; it is asked to end once, is busy until it has ended, and its end is news.
pub async fn a_worker_is_checked_and_drained_without_a_proxy(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Works).await;
    let node = FIRST.node(0);
    stage.ensure(FIRST, 1).await;
    let gate = stage.declaration.policy.gate_passes;
    let healthy = |seen: &Observation| passes(seen, node) >= gate && seen.nodes.values().all(|node| node.is_healthy());
    let seen = stage.until("the worker passes its gate", healthy).await;
    assert!(seen.proxies.is_empty(), "a worker waits for proxies: {:?}", seen.proxies);
    assert_eq!(in_flight(&seen, node), 0, "a worker that nobody asked to end is drained");

    stage.drain(node, Duration::from_secs(3600)).await;
    let seen = stage.observe().await;
    assert_eq!(seen.nodes[&node].condition, Condition::Running, "a worker that was asked to end was ended");
    assert_eq!(in_flight(&seen, node), 1, "a worker that was asked to end and has not is drained");
    stage.drain(node, Duration::from_secs(1)).await;
    let next = Stage::new(scene, Script::Works).await;
    next.drain(node, Duration::from_secs(3600)).await;
    assert_eq!(in_flight(&next.observe().await, node), 1, "another instance does not see that the worker is ending");

    scene.let_end().await;
    let begun = scene.clock().now();
    let exited = |seen: &Observation| matches!(seen.nodes.get(&node).map(|node| &node.condition), Some(Condition::Exited { .. }));
    let seen = stage.until("the worker has ended", exited).await;
    assert!(scene.clock().now().since(begun) < scene.patience() / 2, "the worker's end was no news");
    // Of two instances at once, one may not hear how it ended.
    assert!(matches!(seen.nodes[&node].condition, Condition::Exited { code: None | Some(0), .. }), "it did not end by itself: {seen:?}");
    assert_eq!(in_flight(&seen, node), 0);
    assert!(scene.times_asked_to_end().await.is_none_or(|times| times == 1), "the worker was asked more than once");
    stage.clear().await;
}

/// A task is run once, however often it is asked for, and what it runs is no node.
pub async fn a_task_is_run_once(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
    let meanwhile = async {
        stage.until_task_begun().await;
        let seen = stage.observe().await;
        scene.let_end().await;
        seen
    };
    let (one, other, seen) = tokio::join!(stage.run_task(FIRST, A_WHILE), stage.run_task(FIRST, A_WHILE), meanwhile);
    one.and(other).unwrap_or_else(|error| panic!("running a task twice at once: {error}"));
    assert_eq!(nodes(&seen), set([]), "a task's machine is taken for a node");
    stage.run_task(FIRST, A_WHILE).await.unwrap_or_else(|error| panic!("running a task that ended: {error}"));
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 1), "the task was run more than once");

    stage.run_task(SECOND, A_WHILE).await.unwrap_or_else(|error| panic!("running the task of another group: {error}"));
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 2), "the task of another group was not run");
    stage.clear().await;
}

/// Another instance waits for the task that an earlier one began.
pub async fn a_task_is_run_once_by_two_instances(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
    let next = async {
        stage.until_task_begun().await;
        let next = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
        let ends = async {
            stage.wait(scene.quiet()).await;
            scene.let_end().await;
        };
        tokio::join!(next.run_task(FIRST, A_WHILE), ends).0
    };
    let (one, other) = tokio::join!(stage.run_task(FIRST, A_WHILE), next);
    one.unwrap_or_else(|error| panic!("running a task: {error}"));
    other.unwrap_or_else(|error| panic!("waiting for the task of another instance: {error}"));
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 1), "the task was run more than once");
    stage.clear().await;
}

/// A task that ends badly is never run again by itself.
pub async fn a_failed_task_is_final(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Task(TaskScript::Fails)).await;
    for _ in 0..2 {
        let error = stage.run_task(FIRST, A_WHILE).await.expect_err("a failed task passes");
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    }
    let next = Stage::new(scene, Script::Task(TaskScript::Fails)).await;
    assert!(next.run_task(FIRST, A_WHILE).await.is_err(), "another instance takes a failed task for one that passed");
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 1), "a failed task was run again");
    stage.clear().await;
}

/// A task whose group was destroyed before it began never begins, also when the group never had a node: its rollout was given up.
pub async fn a_task_of_a_destroyed_group_never_begins(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
    scene.let_end().await;
    stage.destroy([FIRST.node(0), FIRST.node(1)]).await;
    for _ in 0..2 {
        let error = stage.run_task(FIRST, A_WHILE).await.expect_err("a task runs whose group is gone");
        assert_eq!(error.error_kind(), ErrorKind::NotFound, "{error}");
    }
    let next = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
    assert!(next.run_task(FIRST, A_WHILE).await.is_err(), "another instance runs a task whose group is gone");
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 0), "a task ran whose group is gone");
    stage.run_task(SECOND, A_WHILE).await.unwrap_or_else(|error| panic!("running the task of another group: {error}"));
    stage.clear().await;
}

/// A task that has not begun when a later group's has never begins.
pub async fn an_overtaken_task_never_begins(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
    scene.let_end().await;
    stage.run_task(SECOND, A_WHILE).await.unwrap_or_else(|error| panic!("running a task: {error}"));
    let next = Stage::new(scene, Script::Task(TaskScript::Passes)).await;
    for stage in [&stage, &next] {
        let error = stage.run_task(FIRST, A_WHILE).await.expect_err("an earlier release's command runs after a later one's");
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
        stage.run_task(SECOND, A_WHILE).await.unwrap_or_else(|error| panic!("running a task that ended: {error}"));
    }
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 1), "an earlier release's command ran after a later one's");
    stage.clear().await;
}

/// A task is ended at its deadline, which is final too.
pub async fn a_task_is_ended_at_its_deadline(scene: &dyn Scene) {
    let stage = Stage::new(scene, Script::Task(TaskScript::Hangs)).await;
    let begun = scene.clock().now();
    let deadline = Duration::from_secs(1);
    let error = stage.run_task(FIRST, deadline).await.expect_err("a task that hangs passes");
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    let took = scene.clock().now().since(begun);
    assert!(took >= deadline, "the task was ended after {took:?}, before its deadline of {deadline:?}");
    let error = stage.run_task(FIRST, deadline).await.expect_err("a task that was ended passes when it is asked for again");
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(scene.task_runs().await.is_none_or(|runs| runs == 1), "a task that was ended was run again");
    stage.clear().await;
}

/// A scene with a platform and a declaration.
struct Stage<'a> {
    scene: &'a dyn Scene,
    platform: Arc<dyn Platform>,
    declaration: Arc<ServiceDeclaration>,
    declarations: Declarations,
}

impl<'a> Stage<'a> {
    async fn new(scene: &'a dyn Scene, script: Script) -> Self {
        Self::with(scene, scene.platform().await, scene.declaration(script))
    }

    /// The same platform, with another service that has this host.
    fn of_other(&self, host: &str) -> Self {
        let declaration = (*self.declaration).clone();
        let service = ServiceName::new(declaration.service.project(), "other").expect("a name");
        Self::with(self.scene, self.platform.clone(), ServiceDeclaration { service, host: host.to_string(), ..declaration })
    }

    fn with(scene: &'a dyn Scene, platform: Arc<dyn Platform>, declaration: ServiceDeclaration) -> Self {
        let declaration = Arc::new(declaration);
        let releases = [FIRST.release, SECOND.release];
        let declarations = releases.into_iter().map(|release| (release, declaration.clone())).collect();
        Self { scene, platform, declaration, declarations }
    }

    async fn ensure(&self, group: GroupId, size: u32) {
        let done = self.platform.ensure_group(self.declaration.clone(), group, size).await;
        done.unwrap_or_else(|error| panic!("ensuring {group} with {size} nodes: {error}"));
    }

    fn a_route(generation: u64, members: impl IntoIterator<Item = (NodeId, Weight)>) -> Route {
        Route { generation: Generation(generation), members: members.into_iter().collect::<BTreeMap<_, _>>() }
    }

    async fn route(&self, generation: u64, members: impl IntoIterator<Item = (NodeId, Weight)>) {
        let route = Self::a_route(generation, members);
        let done = self.platform.route(&self.declaration.service, &route, &self.declarations).await;
        done.unwrap_or_else(|error| panic!("routing to {route:?}: {error}"));
    }

    async fn drain(&self, node: NodeId, deadline: Duration) {
        let done = self.platform.drain(&self.declaration.service, &BTreeSet::from([node]), deadline).await;
        done.unwrap_or_else(|error| panic!("draining {node}: {error}"));
    }

    async fn destroy(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes: BTreeSet<_> = nodes.into_iter().collect();
        let done = self.platform.destroy_nodes(&self.declaration.service, &nodes).await;
        done.unwrap_or_else(|error| panic!("destroying {nodes:?}: {error}"));
    }

    async fn run_task(&self, group: GroupId, deadline: Duration) -> Result<(), Error> {
        self.platform.run_task(self.declaration.clone(), group, Task::ReleaseCommand, deadline).await
    }

    /// Waits until a release command was begun, or long enough where that cannot be told.
    async fn until_task_begun(&self) {
        const LOOK: Duration = Duration::from_millis(20);
        match self.scene.task_runs().await {
            None => self.wait(LOOK).await,
            Some(before) => {
                let deadline = self.scene.clock().now().after(self.scene.patience());
                while self.scene.task_runs().await == Some(before) {
                    assert!(self.scene.clock().now() < deadline, "the task was never begun");
                    self.wait(LOOK).await;
                }
            }
        }
    }

    async fn observe(&self) -> Observation {
        self.platform.observe(&self.declaration.service).await.unwrap_or_else(|error| panic!("observing: {error}"))
    }

    async fn until(&self, what: &str, condition: impl Fn(&Observation) -> bool) -> Observation {
        let deadline = self.scene.clock().now().after(self.scene.patience());
        loop {
            let seen = self.observe().await;
            if condition(&seen) {
                return seen;
            }
            let left = deadline.since(self.scene.clock().now());
            assert!(!left.is_zero(), "waited in vain until {what}: {seen:?}");
            self.platform.changed(&self.declaration.service, left).await;
        }
    }

    async fn wait(&self, span: Duration) {
        let until = self.scene.clock().now().after(span);
        while self.scene.clock().now() < until {
            self.observe().await;
            self.platform.changed(&self.declaration.service, until.since(self.scene.clock().now())).await;
        }
    }

    /// Leaves nothing: no member in any route, no node.
    async fn clear(&self) {
        if self.declaration.node.port.is_some() {
            self.route(1000, []).await;
        }
        let left = self.observe().await;
        self.destroy(left.nodes.into_keys()).await;
        let left = self.observe().await.nodes;
        assert!(left.is_empty(), "nodes are left: {left:?}");
    }
}

fn nodes(seen: &Observation) -> BTreeSet<NodeId> {
    seen.nodes.keys().copied().collect()
}

fn set<const COUNT: usize>(nodes: [NodeId; COUNT]) -> BTreeSet<NodeId> {
    BTreeSet::from(nodes)
}

fn passes(seen: &Observation, node: NodeId) -> u32 {
    seen.nodes.get(&node).map_or(0, |node| node.health.passes)
}

fn in_flight(seen: &Observation, node: NodeId) -> u32 {
    seen.nodes.get(&node).map_or(0, |node| node.requests_in_flight)
}

fn acknowledged(seen: &Observation, generation: u64) -> bool {
    seen.proxies.values().all(|applied| *applied == Some(Generation(generation)))
}
