//! Operations, queues, freeze windows, revocations and strategies over the API, on a simulated platform with traffic in flight.

mod support;

use gapless_core::release::ArtifactVersion;
use gapless_core::time::WEEK_MINUTES;
use gapless_core::time::WeeklyWindow;
use gapless_platforms::sim::Behaviour;
use gapless_wire::api::{Problem, path};
use gapless_wire::artifact::Artifact;
use gapless_wire::build::{BuildLine, BuildRequest};
use gapless_wire::client::ClientError;
use gapless_wire::operation::Operation;
use gapless_wire::prune::{PruneRequest, Pruned};
use gapless_wire::receipt::Receipt;
use gapless_wire::release::Release;
use gapless_wire::replay::Replay;
use gapless_wire::revocation::{RevocationRequest, Revoked};
use gapless_wire::rollout::{
    ArtifactChoice, Declared, DeployRequest, Explanation, Fact, Outcome, Plan, RollbackRequest, RolloutKind, RolloutLine,
};
use gapless_wire::service::{ServiceStatus, Stage};
use hyper::{Method, StatusCode};
use std::time::Duration;
use support::{PROJECT, Scene, now_ms};

const SERVICE: &str = "hello/web";

/// How long anything may take before a test fails: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(30);

fn request(scene: &Scene) -> DeployRequest {
    let artifact = ArtifactChoice::OfCommit;
    DeployRequest { project: scene.project.clone(), commit: "HEAD".into(), service: None, artifact, built_for_this: true, urgent: false }
}

async fn build(scene: &Scene) {
    let wish = BuildRequest { project: scene.project.clone(), commit: "HEAD".into(), image: None, unless_built: true };
    let mut stream = scene.client.lines(Method::POST, path::BUILDS, &wish).await.expect("begun");
    while let Some(line) = stream.next::<BuildLine>().await.expect("a line") {
        assert!(!matches!(line, BuildLine::Failed { .. }), "{line:?}");
    }
}

/// Commits this file, builds it and declares what it says.
async fn declare(scene: &Scene, project: &str) -> Vec<Declared> {
    scene.commit(project);
    build(scene).await;
    scene.client.send(Method::POST, path::DEPLOYS, &request(scene)).await.expect("declared")
}

async fn deploy(scene: &Scene, project: &str) -> Declared {
    declare(scene, project).await.remove(0)
}

/// Declares and waits for the end, which must be a good one.
async fn live(scene: &Scene, project: &str) -> Receipt {
    let rollout = deploy(scene, project).await.rollout.expect("a rollout");
    let (outcome, receipt) = end(scene, SERVICE, rollout).await;
    assert_eq!(outcome, Outcome::Live, "{:?}", receipt.reason);
    receipt
}

async fn end(scene: &Scene, service: &str, rollout: u32) -> (Outcome, Receipt) {
    let followed = async {
        let mut stream = scene.client.lines(Method::GET, &path::of_rollout(service, rollout, "events"), &()).await.expect("stream");
        let mut last = None;
        while let Some(line) = stream.next::<RolloutLine>().await.expect("a line") {
            last = Some(line);
        }
        match last {
            Some(RolloutLine::End { outcome, receipt: Some(receipt), .. }) => (outcome, receipt.receipt),
            other => panic!("no end with a receipt: {other:?}"),
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.expect("it ends")
}

async fn operate(scene: &Scene, operation: Operation) -> Result<Declared, (StatusCode, Problem)> {
    operate_on(scene, SERVICE, operation).await
}

async fn operate_on(scene: &Scene, service: &str, operation: Operation) -> Result<Declared, (StatusCode, Problem)> {
    scene.client.send(Method::POST, &path::of_service(service, "operations"), &operation).await.map_err(refusal)
}

fn refusal(error: ClientError) -> (StatusCode, Problem) {
    match error {
        ClientError::Refused { status, body } => (status, serde_json::from_str(&body).expect("a problem")),
        other => panic!("no refusal: {other}"),
    }
}

async fn status(scene: &Scene) -> ServiceStatus {
    scene.client.get(&path::service(SERVICE)).await.expect("status")
}

/// The status, once it is so.
async fn until(scene: &Scene, is_so: impl Fn(&ServiceStatus) -> bool) -> ServiceStatus {
    let waiting = async {
        loop {
            let status = status(scene).await;
            if is_so(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to be so")
}

async fn facts(scene: &Scene, rollout: u32) -> Vec<Fact> {
    let story: Explanation = scene.client.get(&path::of_rollout(SERVICE, rollout, "explain")).await.expect("a story");
    story.steps.into_iter().map(|step| step.fact).collect()
}

/// A project whose `rollout` block says this.
fn project(rollout: &str) -> String {
    let text = PROJECT.replace("    bake     = \"0s\"\n", &format!("{rollout}\n"));
    assert_ne!(text, PROJECT);
    text
}

/// The second version's nodes take a while to answer.
fn slow(scene: &Scene, version: u32) {
    scene.sim.behave(ArtifactVersion(version), Behaviour { boot: Duration::from_millis(1_500), ..Behaviour::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_paused_resumed_and_what_makes_no_sense_changes_nothing() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    for operation in [Operation::Pause, Operation::Resume, Operation::Cancel, Operation::Promote, Operation::Retry] {
        let (status, problem) = operate(&scene, operation).await.expect_err("there is no rollout");
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(problem.hint.is_some(), "{problem:?}");
    }
    slow(&scene, 2);
    assert_eq!(deploy(&scene, PROJECT).await.rollout, Some(2));
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    assert_eq!(plan[0].lines, ["nothing: rollout 2 to r2 is in progress already"], "it is not live yet");
    let paused = operate(&scene, Operation::Pause).await.expect("paused");
    assert_eq!((paused.rollout, paused.release.as_str(), paused.changed), (Some(2), "web-r2", true));
    assert!(operate(&scene, Operation::Pause).await.expect_err("again").1.what.contains("paused already"));
    assert!(operate(&scene, Operation::Promote).await.expect_err("no canary").1.what.contains("canary"));
    // With its nodes long ready it still waits.
    let seen = until(&scene, |status| status.nodes.iter().filter(|node| node.release == "web-r2" && node.passes > 2).count() == 2).await;
    let rollout = seen.rollout.expect("in progress");
    assert!(rollout.paused_since_ms.is_some() && rollout.stage == Stage::Prepare, "{rollout:?}");
    assert_eq!(seen.live.expect("live").name, "web-r1");
    operate(&scene, Operation::Resume).await.expect("resumed");
    let (outcome, receipt) = end(&scene, SERVICE, 2).await;
    assert_eq!((outcome, receipt.measured.expect("measured").failed), (Outcome::Live, 0));
    let facts = facts(&scene, 2).await;
    assert!(facts.contains(&Fact::Paused) && facts.iter().any(|fact| matches!(fact, Fact::Resumed { .. })), "{facts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_rollout_leaves_what_was_live_and_can_be_tried_again() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    slow(&scene, 2);
    deploy(&scene, PROJECT).await;
    assert_eq!(operate(&scene, Operation::Cancel).await.expect("cancelled").rollout, Some(2));
    let (outcome, receipt) = end(&scene, SERVICE, 2).await;
    assert_eq!((outcome, receipt.reason.expect("a reason").kind.as_str()), (Outcome::Rejected, "cancelled"));
    let seen = status(&scene).await;
    assert_eq!(seen.live.expect("live").name, "web-r1");
    let again = operate(&scene, Operation::Retry).await.expect("tried again");
    assert_eq!((again.rollout, again.release.as_str()), (Some(3), "web-r2"));
    assert_eq!(end(&scene, SERVICE, 3).await.0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaration_during_a_rollout_waits_and_the_newest_wins() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    slow(&scene, 2);
    deploy(&scene, PROJECT).await;
    let third = deploy(&scene, PROJECT).await;
    assert_eq!((third.rollout, third.release.as_str()), (None, "web-r3"));
    let waiting = third.waiting.expect("it waits");
    assert_eq!((waiting.rollout, waiting.frozen_until_ms), (Some(2), None));
    let fourth = deploy(&scene, PROJECT).await;
    assert_eq!(fourth.waiting.expect("it waits").rollout, Some(2));
    assert_eq!(status(&scene).await.queued.expect("queued").release, "web-r4");
    assert_eq!(end(&scene, SERVICE, 2).await.0, Outcome::Live);
    let seen = until(&scene, |status| status.rollout.is_none() && status.queued.is_none()).await;
    assert_eq!(seen.live.expect("live").name, "web-r4", "the newest wins");
    let told = facts(&scene, 2).await;
    assert!(told.contains(&Fact::Dequeued { release: "web-r3".into() }), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_gives_way_where_the_next_declaration_replaces_it() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    slow(&scene, 2);
    deploy(&scene, PROJECT).await;
    let next = deploy(&scene, &project("    bake = \"0s\"\n    supersede = \"replace\"")).await;
    assert_eq!(next.release, "web-r3");
    let (outcome, receipt) = end(&scene, SERVICE, 2).await;
    assert_eq!((outcome, receipt.reason.expect("a reason").kind.as_str()), (Outcome::Rejected, "superseded"));
    let seen = until(&scene, |status| status.rollout.is_none() && status.queued.is_none()).await;
    assert_eq!(seen.live.expect("live").name, "web-r3");
}

/// A window that has begun and does not end while a test runs.
fn frozen_now() -> String {
    let minute = |of_epoch: u64| u16::try_from((of_epoch + 3 * 24 * 60) % WEEK_MINUTES).expect("a minute of the week");
    let now = now_ms() / 60_000;
    WeeklyWindow { from: minute(now - 60), until: minute(now + 120) }.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_freeze_window_only_what_is_urgent_begins() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    let frozen = project(&format!("    bake = \"0s\"\n    freeze = [\"{}\"]", frozen_now()));
    scene.commit(&frozen);
    build(&scene).await;
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    assert!(plan[0].changed && plan[0].lines[0].contains("freeze"), "{plan:?}");
    let waits = deploy(&scene, &frozen).await;
    assert_eq!(waits.rollout, None);
    let until = waits.waiting.expect("it waits").frozen_until_ms.expect("for the window's end");
    assert!(until > now_ms() + 60 * 60_000, "{until}");
    assert_eq!(status(&scene).await.queued.expect("queued").waiting.frozen_until_ms, Some(until));
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    assert!(!plan[0].changed && plan[0].lines[0].starts_with("nothing: r2 waits for the end of the freeze window"), "{plan:?}");
    // The same again, but now it cannot wait.
    let urgent = DeployRequest { urgent: true, ..request(&scene) };
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &urgent).await.expect("declared");
    assert_eq!(declared[0].waiting, None);
    assert_eq!(end(&scene, SERVICE, declared[0].rollout.expect("a rollout")).await.0, Outcome::Live);
    // A rollback is never frozen.
    let back: Declared =
        scene.client.send(Method::POST, &path::of_service(SERVICE, "rollback"), &RollbackRequest::default()).await.expect("back");
    assert_eq!(end(&scene, SERVICE, back.rollout.expect("a rollout")).await.0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_scaled_without_a_release() {
    let scene = Scene::new().await;
    live(&scene, &project("    bake = \"0s\"\n    floor = 1")).await;
    let declared = operate(&scene, Operation::Scale { nodes: 4 }).await.expect("scaled");
    assert_eq!((declared.rollout, declared.release.as_str(), declared.changed), (None, "web-r1", true));
    let serving = |count: usize| {
        move |status: &ServiceStatus| {
            status.nodes.len() == count && status.nodes.iter().all(|node| node.weight.is_some_and(|weight| weight > 0))
        }
    };
    let seen = until(&scene, serving(4)).await;
    let scaled = seen.scaled.expect("scaled");
    assert_eq!((scaled.declared, scaled.nodes), (2, 4));
    assert!(!operate(&scene, Operation::Scale { nodes: 4 }).await.expect("so already").changed);
    operate(&scene, Operation::Scale { nodes: 1 }).await.expect("scaled down");
    until(&scene, serving(1)).await;
    for nodes in [0, 101] {
        let refused = operate(&scene, Operation::Scale { nodes }).await.expect_err("impossible");
        assert!(refused.1.hint.is_some(), "{refused:?}");
    }
    operate(&scene, Operation::Scale { nodes: 2 }).await.expect("as declared");
    assert!(until(&scene, serving(2)).await.scaled.is_none());
}

async fn revoke(scene: &Scene, version: u32, reason: Option<&str>) -> Result<Revoked, (StatusCode, Problem)> {
    let artifact = "hello/web".to_string();
    let wish = RevocationRequest { artifact, version, reason: reason.map(str::to_string), lift: reason.is_none() };
    scene.client.send(Method::POST, path::REVOCATIONS, &wish).await.map_err(refusal)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_version_leaves_where_it_runs_and_is_not_deployed() {
    let mut scene = Scene::new().await;
    live(&scene, PROJECT).await;
    live(&scene, PROJECT).await;
    assert_eq!(revoke(&scene, 9, Some("is not there")).await.expect_err("unknown").0, StatusCode::NOT_FOUND);
    assert_eq!(revoke(&scene, 2, Some(" ")).await.expect_err("no reason").0, StatusCode::BAD_REQUEST);
    assert_eq!(revoke(&scene, 2, None).await.expect_err("nothing to lift").0, StatusCode::NOT_FOUND);
    let revoked = revoke(&scene, 2, Some("leaks a key")).await.expect("revoked");
    assert_eq!(revoked.revocation.expect("why").reason, "leaks a key");
    let [eviction] = &revoked.running[..] else { panic!("one service runs it: {:?}", revoked.running) };
    assert_eq!((eviction.service.as_str(), eviction.release.as_str()), (SERVICE, "web-r2"));
    let to = eviction.to.clone().expect("there is a good release");
    assert_eq!(to.release, "web-r1");
    let (outcome, receipt) = end(&scene, SERVICE, to.rollout.expect("a rollout")).await;
    assert_eq!((outcome, receipt.kind), (Outcome::Live, RolloutKind::Eviction));

    let artifacts: Vec<Artifact> = scene.client.get(path::ARTIFACTS).await.expect("artifacts");
    let marked: Vec<Option<&str>> =
        artifacts.iter().map(|artifact| artifact.revoked.as_ref().map(|revoked| revoked.reason.as_str())).collect();
    assert_eq!(marked, [None, Some("leaks a key")]);
    let releases: Vec<Release> = scene.client.get(&path::of_service(SERVICE, "releases")).await.expect("releases");
    assert!(releases.iter().any(|release| release.name == "web-r2" && release.revoked), "{releases:?}");
    let refused = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await.expect_err("refused");
    let (status, problem) = refusal(refused);
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.what.contains("leaks a key") && problem.hint.expect("a hint").contains("--lift"), "{}", problem.what);
    let to_it = RollbackRequest { to: Some(2), force: true };
    let back = scene.client.send::<_, Declared>(Method::POST, &path::of_service(SERVICE, "rollback"), &to_it).await;
    assert!(refusal(back.expect_err("refused, also by force")).1.what.contains("revoked"));

    scene.start().await;
    assert!(revoke(&scene, 2, None).await.expect("lifted after a restart").revocation.is_none());
    let again: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("it may run again");
    assert_eq!(end(&scene, SERVICE, again[0].rollout.expect("a rollout")).await.0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_a_service_was_declared_is_known_to_it() {
    let scene = Scene::new().await;
    scene.commit(PROJECT);
    build(&scene).await;
    assert!(revoke(&scene, 1, Some("was built wrong")).await.expect("revoked").running.is_empty());
    let refused = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await.expect_err("refused");
    assert!(refusal(refused).1.what.contains("was built wrong"));
    let second = DeployRequest { artifact: ArtifactChoice::Latest, ..request(&scene) };
    scene.commit(PROJECT);
    build(&scene).await;
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &second).await.expect("version 2 may run");
    assert_eq!(end(&scene, SERVICE, declared[0].rollout.expect("a rollout")).await.0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_says_where_it_is_and_goes_on_with_a_persons_word() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    let steps = "    bake = \"0s\"\n    strategy = \"canary\"\n    step {\n      percent = 5\n      pause   = \"100ms\"\n    }\n    step {\n      percent = 25\n      pause   = \"person\"\n    }";
    let rollout = deploy(&scene, &project(steps)).await.rollout.expect("a rollout");
    let waits = |status: &ServiceStatus| {
        let canary = status.rollout.as_ref().and_then(|rollout| rollout.canary.as_ref());
        canary.is_some_and(|canary| canary.step == 2 && canary.since_ms.is_some())
    };
    let seen = until(&scene, waits).await.rollout.expect("in progress");
    let canary = seen.canary.expect("a canary");
    assert_eq!((seen.stage, canary.steps, canary.percent, canary.person, canary.until_ms), (Stage::Canary, 2, 25, true, None));
    operate(&scene, Operation::Promote).await.expect("promoted");
    let (outcome, receipt) = end(&scene, SERVICE, rollout).await;
    assert_eq!(outcome, Outcome::Live);
    assert!(receipt.phases.canary.is_some_and(|took| took >= 100), "{:?}", receipt.phases);
    assert_eq!(status(&scene).await.strategy, "canary");
    let told = facts(&scene, rollout).await;
    let shares: Vec<u8> =
        told.iter().filter_map(|fact| if let Fact::CanaryStepBegan { percent, .. } = fact { Some(*percent) } else { None }).collect();
    assert_eq!(shares, [5, 25]);
    let story: Explanation = scene.client.get(&path::of_rollout(SERVICE, rollout, "explain")).await.expect("a story");
    let waits: Vec<bool> = story
        .steps
        .iter()
        .filter(|step| matches!(step.fact, Fact::CanaryStepBegan { .. }))
        .map(|step| step.text.contains("gapless promote"))
        .collect();
    assert_eq!(waits, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_service_counts_its_outage_and_its_tasks() {
    let mut scene = Scene::new().await;
    scene.outage = true;
    let recreate = project("    strategy = \"recreate\"")
        .replace("  nodes   = 2\n", "")
        .replace("  health {", "  release_command = [\"/bin/migrate\"]\n  health {");
    let first = live(&scene, &recreate).await;
    assert_eq!(first.outage_ms, None, "there was nothing that could be out");
    assert!(first.phases.release_command.is_some(), "{:?}", first.phases);
    let second = live(&scene, &recreate).await;
    let outage = second.outage_ms.expect("an outage");
    assert!(outage > 0 && outage <= second.ended_ms - second.started_ms, "{outage}");
    let told = facts(&scene, 2).await;
    let begins = |is_it: fn(&Fact) -> bool| told.iter().position(is_it).unwrap_or_else(|| panic!("it was told: {told:?}"));
    assert!(begins(|fact| *fact == Fact::OutageBegan) < begins(|fact| matches!(fact, Fact::TaskBegan { .. })));
    assert!(begins(|fact| matches!(fact, Fact::TaskEnded { .. })) < begins(|fact| matches!(fact, Fact::NodesBooted { .. })));
}

/// Declares what has no room, which must be refused, by the plan too.
async fn refused_without_room(scene: &Scene, project: &str) -> Problem {
    scene.commit(project);
    build(scene).await;
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(scene)).await.expect("plan");
    assert!(plan.iter().any(|plan| plan.refused && plan.lines.last().is_some_and(|line| line.contains("refused: no room"))), "{plan:?}");
    let refused = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(scene)).await;
    let (status, problem) = refusal(refused.expect_err("there is no room"));
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{problem:?}");
    assert!(problem.hint.is_some(), "{problem:?}");
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_service_without_room_is_not_touched() {
    let scene = Scene::new().await;
    let recreate = project("    strategy = \"recreate\"").replace("  nodes   = 2\n", "");
    let recreate = recreate.replace("  health {", "  release_command = [\"/bin/migrate\"]\n  health {");
    live(&scene, &recreate).await;
    let before = scene.sim.picture(&SERVICE.parse().expect("a name"));
    scene.sim.limit_nodes(0);
    let problem = refused_without_room(&scene, &recreate).await;
    assert!(problem.what.contains("hello/web: no room for 1 more") && problem.what.contains("memory"), "{problem:?}");
    assert_eq!(scene.sim.picture(&SERVICE.parse().expect("a name")), before, "the old node serves on");
    assert_eq!((scene.sim.carried_out("DestroyNodes"), scene.sim.carried_out("RunTask")), (0, 1));
    let now = status(&scene).await;
    assert_eq!((now.live.expect("live").name.as_str(), now.rollout.is_none()), ("web-r1", true));
    assert!(scene.sim.tally().failures() == 0, "{:?}", scene.sim.tally());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_service_does_not_go_back_into_no_room() {
    let mut scene = Scene::new().await;
    scene.outage = true;
    let recreate = project("    strategy = \"recreate\"").replace("  nodes   = 2\n", "");
    for _ in 0..2 {
        live(&scene, &recreate).await;
    }
    let before = scene.sim.picture(&SERVICE.parse().expect("a name"));
    scene.sim.limit_nodes(0);
    let (status, problem) = refusal(back(&scene, SERVICE).await.expect_err("there is no room"));
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{problem:?}");
    assert!(problem.what.contains("hello/web: no room for 1 more"), "{problem:?}");
    assert_eq!(scene.sim.picture(&SERVICE.parse().expect("a name")), before, "the node serves on");
    scene.sim.limit_nodes(1);
    let rollout = back(&scene, SERVICE).await.expect("there is room").rollout.expect("a rollout");
    assert_eq!(end(&scene, SERVICE, rollout).await.0, Outcome::Live);
    scene.sim.limit_nodes(0);
    let (status, _) = operate(&scene, Operation::Retry).await.expect_err("there is no room to go forward again either");
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_a_recreated_node_is_counted_as_free() {
    let mut scene = Scene::new().await;
    scene.outage = true;
    scene.sim.limit_nodes(1);
    let recreate = project("    strategy = \"recreate\"").replace("  nodes   = 2\n", "");
    for _ in 0..2 {
        live(&scene, &recreate).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_asked_for_the_whole_group_that_somebody_wanted() {
    let scene = Scene::new().await;
    scene.sim.limit_nodes(5);
    live(&scene, PROJECT).await;
    operate(&scene, Operation::Scale { nodes: 3 }).await.expect("scaled");
    until(&scene, |status| status.nodes.len() == 3 && status.nodes.iter().all(|node| node.weight > Some(0))).await;
    let command = PROJECT.replace("  health {", "  release_command = [\"/bin/migrate\"]\n  health {");
    let problem = refused_without_room(&scene, &command).await;
    assert!(problem.what.contains("no room for 3 more"), "{problem:?}");
    assert_eq!(scene.sim.carried_out("RunTask"), 0, "nothing was migrated for it");
    let declared: Vec<Declared> = {
        scene.commit(&PROJECT.replace("bake     = \"0s\"", "strategy = \"rolling\"\n    surge    = 1"));
        build(&scene).await;
        scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("one at a time has room")
    };
    assert_eq!(end(&scene, SERVICE, declared[0].rollout.expect("a rollout")).await.0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_at_once_is_asked_for_together() {
    let scene = Scene::new().await;
    let api = PROJECT.split("service \"web\"").nth(1).expect("a service").replace("\"localhost\"", "\"api.test\"");
    let both = format!("{PROJECT}\nservice \"api\"{api}");
    scene.sim.limit_nodes(3);
    let problem = refused_without_room(&scene, &both).await;
    assert!(problem.what.starts_with("hello/api and hello/web: no room for 4 more"), "{problem:?}");
    let services: Vec<ServiceStatus> = scene.client.get(path::SERVICES).await.expect("services");
    assert!(services.is_empty(), "{services:?}");
    scene.sim.limit_nodes(4);
    for one in declare(&scene, &both).await {
        assert_eq!(end(&scene, &one.service, one.rollout.expect("a rollout")).await.0, Outcome::Live);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_needs_no_room_and_what_waits_may_find_it() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    scene.sim.limit_nodes(4);
    slow(&scene, 2);
    assert_eq!(deploy(&scene, PROJECT).await.rollout, Some(2));
    let again: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("nothing to do");
    assert!(!again[0].changed);
    let queued = deploy(&scene, PROJECT).await;
    assert!(queued.waiting.is_some(), "the old nodes of the rollout in progress will have left: {queued:?}");
    assert_eq!(end(&scene, SERVICE, 2).await.0, Outcome::Live);
    assert_eq!(end(&scene, SERVICE, 3).await.0, Outcome::Live);
    scene.sim.limit_nodes(0);
    let again: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("nothing to do");
    assert!(!again[0].changed);
}

/// The project with a second service that moves together with the first one.
fn shop(host: &str) -> String {
    let both = PROJECT.replace("  nodes   = 2\n", "  nodes   = 2\n  together = \"shop\"\n");
    let api = both.split("service \"web\"").nth(1).expect("a service").replace("\"localhost\"", &format!("\"{host}\""));
    format!("{both}\nservice \"api\"{api}")
}

/// Both go live.
async fn both_live(scene: &Scene, project: &str) {
    let declared = declare(scene, project).await;
    assert_eq!(declared.len(), 2);
    for one in &declared {
        assert_eq!(end(scene, &one.service, one.rollout.expect("a rollout")).await.0, Outcome::Live, "{}", one.service);
    }
}

/// Both are at rest with this release.
async fn both_at(scene: &Scene, release: &str) {
    both_are(scene, |service| service.rollout.is_none() && service.live.as_ref().is_some_and(|live| live.name.ends_with(release))).await;
}

/// Both are so at once.
async fn both_are(scene: &Scene, is_so: impl Fn(&ServiceStatus) -> bool) {
    let waiting = async {
        loop {
            let services: Vec<ServiceStatus> = scene.client.get(path::SERVICES).await.expect("services");
            if services.len() == 2 && services.iter().all(&is_so) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("both come to be so");
}

async fn back(scene: &Scene, service: &str) -> Result<Declared, ClientError> {
    scene.client.send(Method::POST, &path::of_service(service, "rollback"), &RollbackRequest::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_together_goes_back_and_forward_together() {
    let scene = Scene::new().await;
    for _ in 0..2 {
        both_live(&scene, &shop("api.test")).await;
    }
    let gone = back(&scene, SERVICE).await.expect("granted");
    assert_eq!(gone.with, ["hello/api"]);
    let (status, problem) = operate(&scene, Operation::Retry).await.expect_err("it is on its way back");
    assert_eq!(status, StatusCode::CONFLICT, "{problem:?}");
    both_at(&scene, "-r1").await;
    let again = operate(&scene, Operation::Retry).await.expect("tried again");
    assert_eq!(again.with, ["hello/api"]);
    assert_eq!(end(&scene, SERVICE, again.rollout.expect("a rollout")).await.0, Outcome::Live);
    both_at(&scene, "-r2").await;
    assert!(scene.sim.tally().failures() == 0, "{:?}", scene.sim.tally());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_back_together_goes_forward_alone_by_no_declaration() {
    let scene = Scene::new().await;
    for _ in 0..2 {
        both_live(&scene, &shop("api.test")).await;
    }
    scene.sim.behave(ArtifactVersion(3), Behaviour { status: 500, ..Behaviour::default() });
    for one in declare(&scene, &shop("api.test")).await {
        assert_eq!(end(&scene, &one.service, one.rollout.expect("a rollout")).await.0, Outcome::Rejected);
    }
    assert_eq!(back(&scene, SERVICE).await.expect("granted").with, ["hello/api"]);
    both_at(&scene, "-r1").await;
    let again: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("nothing to do");
    let passed_over: Vec<&str> = again.iter().filter_map(|one| one.passed_over.as_deref()).collect();
    assert_eq!(passed_over, ["api-r3", "web-r3"], "{again:?}");
    assert!(again.iter().all(|one| !one.changed), "{again:?}");
    scene.sim.behave(ArtifactVersion(3), Behaviour::default());
    let again = operate(&scene, Operation::Retry).await.expect("tried again");
    assert_eq!(again.with, ["hello/api"]);
    both_at(&scene, "-r3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_its_turn_yet_is_left_by_nobody() {
    let scene = Scene::new().await;
    both_live(&scene, &shop("api.test")).await;
    slow(&scene, 2);
    scene.commit(&shop("api.test"));
    build(&scene).await;
    let alone = DeployRequest { service: Some("api".into()), ..request(&scene) };
    let _: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &alone).await.expect("declared");
    operate_on(&scene, "hello/api", Operation::Pause).await.expect("paused");
    let declared = declare(&scene, &shop("api.test")).await;
    assert!(declared[0].waiting.is_some() && declared[1].rollout == Some(2), "{declared:?}");
    until(&scene, |status| status.rollout.as_ref().is_some_and(|rollout| rollout.stage == Stage::Await)).await;
    operate(&scene, Operation::Cancel).await.expect("cancelled");
    assert_eq!(end(&scene, SERVICE, 2).await.0, Outcome::Rejected);
    let (status, problem) = operate(&scene, Operation::Retry).await.expect_err("the other one has its turn yet");
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.what.contains("hello/api, which moves together with others, is not at rest"), "{problem:?}");
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    assert_eq!(plan.iter().map(|plan| (plan.changed, plan.refused)).collect::<Vec<_>>(), [(true, false), (true, false)], "{plan:?}");
    let again: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("declared");
    assert!(again[0].release == "api-r3" && again[1].rollout == Some(3), "the one that waits comes along: {again:?}");
    operate_on(&scene, "hello/api", Operation::Resume).await.expect("resumed");
    assert_eq!(end(&scene, "hello/api", 2).await.0, Outcome::Live);
    assert_eq!(end(&scene, "hello/api", 3).await.0, Outcome::Live);
    both_at(&scene, "-r3").await;
    assert!(facts(&scene, 3).await.contains(&Fact::PartnersAwaited), "neither went alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_together_is_hurried_together() {
    let scene = Scene::new().await;
    both_live(&scene, &shop("api.test")).await;
    let frozen = shop("api.test").replace("bake     = \"0s\"", &format!("bake = \"0s\"\n    freeze = [\"{}\"]", frozen_now()));
    assert!(declare(&scene, &frozen).await.iter().all(|one| one.rollout.is_none() && one.waiting.is_some()));
    let alone = DeployRequest { service: Some("web".into()), urgent: true, ..request(&scene) };
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &alone).await.expect("plan");
    assert!(plan[0].refused && plan[0].lines.iter().any(|line| line.contains("moves together with hello/api")), "{plan:?}");
    let (status, problem) = refusal(scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &alone).await.expect_err("alone"));
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.hint.expect("a hint").contains("--urgent"));
    // One of them is declared otherwise: what takes its place moves with the other one all the same.
    let other = frozen.replacen("nodes   = 2", "nodes   = 3", 1);
    scene.commit(&other);
    let same = || DeployRequest { artifact: ArtifactChoice::Version(2), ..request(&scene) };
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &same()).await.expect("declared");
    let told = |one: &Declared| (one.release.clone(), one.changed, one.rollout.is_none());
    assert_eq!(declared.iter().map(told).collect::<Vec<_>>(), [("api-r2".into(), false, true), ("web-r3".into(), true, true)]);
    let urgent = DeployRequest { urgent: true, ..same() };
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &urgent).await.expect("declared");
    for one in &declared {
        assert_eq!(end(&scene, &one.service, one.rollout.expect("a rollout")).await.0, Outcome::Live);
    }
    assert!(facts(&scene, 2).await.contains(&Fact::PartnersAwaited));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_back_too_is_told_also_while_all_are_in_their_bake_window() {
    let scene = Scene::new().await;
    let bakes = shop("api.test").replace("bake     = \"0s\"", "bake     = \"20s\"");
    both_live(&scene, &shop("api.test")).await;
    declare(&scene, &bakes).await;
    both_are(&scene, |service| service.rollout.as_ref().is_some_and(|rollout| rollout.stage == Stage::Bake)).await;
    assert_eq!(back(&scene, SERVICE).await.expect("granted").with, ["hello/api"]);
    both_at(&scene, "-r1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_go_back_is_not_said_to_follow() {
    let scene = Scene::new().await;
    let breaks = shop("api.test").replacen("bake     = \"0s\"", "bake     = \"0s\"\n    backward_compatible = false", 2);
    let (web, api) = breaks.split_once("\nservice \"api\"").expect("two services");
    let breaks = format!("{}\nservice \"api\"{api}", web.replace("\n    backward_compatible = false", ""));
    both_live(&scene, &shop("api.test")).await;
    both_live(&scene, &breaks).await;
    assert!(back(&scene, SERVICE).await.expect("granted").with.is_empty(), "the other one stays where it is");
    let live = |service: &ServiceStatus| service.live.as_ref().map(|live| live.name.clone());
    both_are(&scene, |service| service.rollout.is_none() && [Some("web-r1".into()), Some("api-r2".into())].contains(&live(service))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_again_together_without_room_for_all_of_it() {
    let mut scene = Scene::new().await;
    scene.outage = true;
    let (web, api) = shop("api.test").split_once("\nservice \"api\"").map(|(web, api)| (web.to_string(), api.to_string())).expect("two");
    let api = api.replace("bake     = \"0s\"", "strategy = \"recreate\"").replace("  nodes   = 2\n", "");
    let shop = format!("{web}\nservice \"api\"{api}");
    both_live(&scene, &shop).await;
    scene.sim.behave(ArtifactVersion(2), Behaviour { status: 500, ..Behaviour::default() });
    for one in declare(&scene, &shop).await {
        assert_eq!(end(&scene, &one.service, one.rollout.expect("a rollout")).await.0, Outcome::Rejected);
    }
    scene.sim.limit_nodes(0);
    let (status, problem) = operate(&scene, Operation::Retry).await.expect_err("there is no room for the other one");
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(problem.what.contains("hello/api: no room for 1 more"), "{problem:?}");
    both_at(&scene, "-r1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_left_out_when_the_disk_was_full_joins_when_it_is_declared_again() {
    let scene = Scene::new().await;
    both_live(&scene, &shop("api.test")).await;
    scene.commit(&shop("api.test"));
    build(&scene).await;
    *scene.store.refuse_declarations.lock().expect("whole") = Some("hello/web".parse().expect("a name"));
    let half = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await;
    let (_, problem) = refusal(half.expect_err("there is no room"));
    assert!(problem.what.contains("(declared before it, and on their way: hello/api)"), "{problem:?}");
    *scene.store.refuse_declarations.lock().expect("whole") = None;
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("declared");
    let web = declared.iter().find(|declared| declared.service == SERVICE).expect("the other one");
    assert_eq!(end(&scene, SERVICE, web.rollout.expect("a rollout")).await.0, Outcome::Live);
    both_at(&scene, "-r2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_back_where_one_that_follows_has_lost_its_host() {
    let scene = Scene::new().await;
    both_live(&scene, &shop("api.test")).await;
    both_live(&scene, &shop("new.test")).await;
    let other = PROJECT.split("service \"web\"").nth(1).expect("a service").replace("\"localhost\"", "\"api.test\"");
    scene.commit(&format!("{}\nservice \"other\"{other}", shop("new.test")));
    build(&scene).await;
    let other = DeployRequest { service: Some("other".into()), ..request(&scene) };
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &other).await.expect("the host is free");
    assert_eq!(end(&scene, &declared[0].service, declared[0].rollout.expect("a rollout")).await.0, Outcome::Live);
    let (status, problem) = refusal(back(&scene, SERVICE).await.expect_err("refused"));
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.what.starts_with("hello/api wants the host \"api.test\", which hello/other"), "{problem:?}");
    let web = self::status(&scene).await;
    assert_eq!((web.live.expect("live").name.as_str(), web.rollout.is_none()), ("web-r2", true), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_together_shifts_together() {
    let scene = Scene::new().await;
    let both = shop("api.test");
    for _ in 0..2 {
        both_live(&scene, &both).await;
    }
    let told = facts(&scene, 2).await;
    assert!(told.contains(&Fact::PartnersAwaited), "{told:?}");
    let alone = DeployRequest { service: Some("web".into()), ..request(&scene) };
    scene.commit(&both);
    build(&scene).await;
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &alone).await.expect("declared");
    assert_eq!(end(&scene, SERVICE, declared[0].rollout.expect("a rollout")).await.0, Outcome::Live, "nobody to wait for");
    assert!(!facts(&scene, 3).await.contains(&Fact::PartnersAwaited));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_breaks_the_way_back_is_gone_back_past_only_by_force() {
    let scene = Scene::new().await;
    live(&scene, PROJECT).await;
    live(&scene, &project("    bake = \"0s\"\n    backward_compatible = false")).await;
    let back = |force| {
        let wish = RollbackRequest { to: None, force };
        let client = scene.client.clone();
        async move { client.send::<_, Declared>(Method::POST, &path::of_service(SERVICE, "rollback"), &wish).await }
    };
    let (_, problem) = refusal(back(false).await.expect_err("refused"));
    assert!(problem.hint.expect("a hint").contains("--force"), "{}", problem.what);
    let forced = back(true).await.expect("by force");
    assert_eq!(end(&scene, SERVICE, forced.rollout.expect("a rollout")).await.0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_run_again_and_every_decision_is_the_same() {
    let mut scene = Scene::new().await;
    live(&scene, PROJECT).await;
    slow(&scene, 2);
    deploy(&scene, PROJECT).await;
    operate(&scene, Operation::Pause).await.expect("paused");
    scene.start().await;
    operate(&scene, Operation::Resume).await.expect("resumed");
    assert_eq!(end(&scene, SERVICE, 2).await.0, Outcome::Live);
    let replay: Replay = scene.client.get(&path::of_rollout(SERVICE, 2, "replay")).await.expect("a replay");
    assert!(replay.agrees && replay.records >= replay.steps.len() as u64, "{replay:?}");
    let events: Vec<&str> = replay.steps.iter().map(|step| step.event.as_str()).collect();
    assert!(events[0].starts_with("declared: artifact v2"), "{}", events[0]);
    for wanted in ["somebody pauses", "the engine was started again", "somebody resumes", "a look at the world"] {
        assert!(events.iter().any(|event| event.starts_with(wanted)), "{wanted}: {events:?}");
    }
    let last = replay.steps.last().expect("steps");
    assert!(last.decided.iter().any(|decided| decided.contains("nothing else is left")), "{last:?}");
    assert!(last.state.starts_with("at rest · web-r2 live · route g"), "{}", last.state);
    assert!(replay.steps.iter().all(|step| step.recorded.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_images_that_no_rollback_could_need_are_freed() {
    let scene = Scene::new().await;
    let keep_one = project("    bake = \"0s\"\n    keep = 1");
    let prune = |dry_run| {
        let client = scene.client.clone();
        async move { client.send::<_, Pruned>(Method::POST, path::PRUNE, &PruneRequest { dry_run }).await.expect("pruned") }
    };
    live(&scene, &keep_one).await;
    // So many that in the end ten are newer than the first one, which is then kept only for as long as it may be gone back to.
    for _ in 2..=9 {
        scene.commit(&keep_one);
        build(&scene).await;
    }
    live(&scene, &keep_one).await;
    assert_eq!(scene.wishes.made_ready.lock().expect("whole").len(), 10, "what was built is ready before it is deployed");
    assert_eq!(prune(true).await.images, Vec::<String>::new(), "the one before may be gone back to");
    live(&scene, &keep_one).await;
    // The pass after the last rollout, or this one.
    prune(false).await;
    let freed = scene.wishes.freed.lock().expect("whole").len();
    assert_eq!(freed, 1, "the first one's image");
    assert_eq!(prune(false).await.blobs, 0);
    let first = DeployRequest { artifact: ArtifactChoice::Version(1), ..request(&scene) };
    let refused = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &first).await.expect_err("its image is gone");
    let (_, problem) = refusal(refused);
    assert!(problem.what.contains("not kept any more") && problem.hint.expect("a hint").contains("gapless build"), "{}", problem.what);
    let wish = RollbackRequest { to: Some(1), force: false };
    let back = scene.client.send::<_, Declared>(Method::POST, &path::of_service(SERVICE, "rollback"), &wish).await;
    assert!(refusal(back.expect_err("refused")).1.what.contains("not kept any more"));
    let back: Declared =
        scene.client.send(Method::POST, &path::of_service(SERVICE, "rollback"), &RollbackRequest::default()).await.expect("the kept one");
    assert_eq!(end(&scene, SERVICE, back.rollout.expect("a rollout")).await.0, Outcome::Live);
}

/// The ends of bake windows that a stream tells, until it ends or has told one.
async fn first_baking(scene: &Scene, rollout: u32) -> Option<u64> {
    let mut stream = scene.client.lines(Method::GET, &path::of_rollout(SERVICE, rollout, "events"), &()).await.expect("stream");
    let followed = async {
        while let Some(line) = stream.next::<RolloutLine>().await.expect("a line") {
            if let RolloutLine::Baking { until_ms, .. } = line {
                return Some(until_ms);
            }
        }
        None
    };
    tokio::time::timeout(PATIENCE, followed).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_told_of_the_present_bake_window_and_of_none_that_is_over() {
    let scene = Scene::new().await;
    let bakes = project("    bake = \"2s\"");
    live(&scene, &bakes).await;
    deploy(&scene, &bakes).await;
    let before = first_baking(&scene, 2).await.expect("it bakes");
    operate(&scene, Operation::Pause).await.expect("paused");
    let paused = until(&scene, |status| status.rollout.as_ref().is_some_and(|rollout| rollout.paused_since_ms.is_some())).await;
    let since = paused.rollout.expect("in progress").paused_since_ms.expect("paused");
    while now_ms() <= since + 50 {
        tokio::task::yield_now().await;
    }
    operate(&scene, Operation::Resume).await.expect("resumed");
    let after = first_baking(&scene, 2).await.expect("it bakes again");
    assert!(after > before, "the pause made it later: {before} {after}");
    assert_eq!(end(&scene, SERVICE, 2).await.0, Outcome::Live);
    assert_eq!(first_baking(&scene, 2).await, None, "its end is what there is to tell");
}
