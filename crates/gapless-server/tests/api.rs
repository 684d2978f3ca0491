//! The whole API over a simulated platform: from a commit to a verified receipt.

mod support;

use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, RolloutNumber};
use gapless_core::release::ArtifactVersion;
use gapless_core::time::Instant;
use gapless_engine::store::{Journal, NewArtifact, Records, Sequence};
use gapless_platforms::sim::Behaviour;
use gapless_server::receipt::verify;
use gapless_wire::api::{Problem, ServerStatus, path};
use gapless_wire::artifact::Artifact;
use gapless_wire::backup::{Backup, BackupRequest};
use gapless_wire::build::{BuildLine, BuildRequest};
use gapless_wire::client::ClientError;
use gapless_wire::doctor::{Examination, Treatment};
use gapless_wire::log::Log;
use gapless_wire::receipt::SignedReceipt;
use gapless_wire::record::{KEPT_MS, Record};
use gapless_wire::release::Release;
use gapless_wire::revocation::{RevocationRequest, Revoked};
use gapless_wire::rollout::{Declared, DeployRequest, Explanation, Fact, Outcome, Plan, RollbackRequest, RolloutLine, RolloutSummary};
use gapless_wire::service::{ServiceStatus, Stage};
use hyper::{Method, StatusCode};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{PROJECT, Scene};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SERVICE: &str = "hello/web";

async fn build(scene: &Scene, unless_built: bool) -> Vec<BuildLine> {
    let request = BuildRequest { project: scene.project.clone(), commit: "HEAD".into(), image: None, unless_built };
    let mut stream = scene.client.lines(Method::POST, path::BUILDS, &request).await.expect("begun");
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await.expect("a line") {
        lines.push(line);
    }
    lines
}

fn request(scene: &Scene) -> DeployRequest {
    DeployRequest {
        project: scene.project.clone(),
        commit: "HEAD".into(),
        service: None,
        artifact: Default::default(),
        built_for_this: true,
        urgent: false,
    }
}

async fn deploy(scene: &Scene) -> Declared {
    build(scene, true).await;
    let mut declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request(scene)).await.expect("declared");
    assert_eq!(declared.len(), 1);
    declared.remove(0)
}

/// The whole stream of a rollout.
async fn follow(scene: &Scene, rollout: u32) -> Vec<RolloutLine> {
    let mut stream = scene.client.lines(Method::GET, &path::of_rollout(SERVICE, rollout, "events"), &()).await.expect("stream");
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await.expect("a line") {
        lines.push(line);
    }
    lines
}

fn end(lines: &[RolloutLine]) -> (Outcome, Option<String>, SignedReceipt) {
    match lines.last() {
        Some(RolloutLine::End { outcome, reason, receipt: Some(receipt) }) => {
            (*outcome, reason.as_ref().map(|reason| reason.text.clone()), (**receipt).clone())
        }
        other => panic!("no end with a receipt: {other:?}"),
    }
}

fn refusal(error: ClientError) -> (StatusCode, Problem) {
    match error {
        ClientError::Refused { status, body } => (status, serde_json::from_str(&body).expect("a problem")),
        other => panic!("no refusal: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_becomes_live_and_its_receipt_is_genuine() {
    let scene = Scene::new().await;
    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    assert!(plan[0].lines[0].starts_with("build hello/web") && plan[0].lines[1].contains("new release r1"), "{plan:?}");
    let lines = build(&scene, false).await;
    assert!(matches!(lines.first(), Some(BuildLine::Begun { build: 1, .. })), "{lines:?}");
    assert!(matches!(lines[lines.len() - 2], BuildLine::Published { .. }), "{lines:?}");
    assert_eq!(lines.last(), Some(&BuildLine::Done));

    let plan: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    assert!(plan[0].changed && plan[0].lines[0].contains("new release r1"), "{plan:?}");
    let declared = deploy(&scene).await;
    assert_eq!((declared.service.as_str(), declared.release.as_str(), declared.rollout), (SERVICE, "web-r1", Some(1)));

    let (outcome, _, receipt) = end(&follow(&scene, 1).await);
    assert_eq!(outcome, Outcome::Live);
    let status: ServerStatus = scene.client.get(path::SERVER).await.expect("status");
    let text = serde_json::to_string(&receipt).expect("json");
    assert_eq!(verify(&text, Some(&status.key)).expect("genuine"), receipt);
    let receipt = receipt.receipt;
    assert_eq!((receipt.to.release.as_str(), receipt.to.version, receipt.from), ("web-r1", 1, None));
    assert!(receipt.build_ms.is_some() && receipt.switch_ms.is_some() && receipt.gone_ms.is_none());
    let measured = receipt.measured.expect("measured");
    assert!(measured.requests >= 10 && measured.failed == 0, "{measured:?}");
    assert_eq!(receipt.incomplete, Vec::<String>::new());

    let again = deploy(&scene).await;
    assert_eq!((again.changed, again.release.as_str()), (false, "web-r1"), "the same declaration again does nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_rollout_tells_its_evidence_and_leaves_what_was_live() {
    let scene = Scene::new().await;
    deploy(&scene).await;
    follow(&scene, 1).await;
    scene.sim.behave(ArtifactVersion(2), Behaviour { status: 500, ..Behaviour::default() });
    scene.commit(PROJECT);
    assert_eq!(deploy(&scene).await.rollout, Some(2));
    let (outcome, reason, receipt) = end(&follow(&scene, 2).await);
    assert_eq!(outcome, Outcome::Rejected);
    assert!(reason.expect("a reason").contains("status 500"));
    assert_eq!(receipt.receipt.reason.expect("a reason").kind, "gate-failed");
    assert_eq!((receipt.receipt.switch_ms, receipt.receipt.phases.shift), (None, None));

    let status: ServiceStatus = scene.client.get(&path::service(SERVICE)).await.expect("status");
    assert_eq!(status.live.expect("live").name, "web-r1");
    assert!(status.nodes.iter().all(|node| node.release == "web-r1"), "{:?}", status.nodes);
    let story: Explanation = scene.client.get(&path::of_rollout(SERVICE, 2, "explain")).await.expect("story");
    let rejecting = story.steps.iter().find(|step| matches!(step.fact, Fact::Rejecting { .. })).expect("told");
    assert!(rejecting.text.contains("status 500") && !rejecting.rule.is_empty(), "{rejecting:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_tell_what_was_done_and_a_rollback_goes_back() {
    let scene = Scene::new().await;
    for rollout in 1..=2 {
        scene.commit(PROJECT);
        assert_eq!(deploy(&scene).await.rollout, Some(rollout));
        follow(&scene, rollout).await;
    }
    let wish = RollbackRequest::default();
    let back: Declared = scene.client.send(Method::POST, &path::of_service(SERVICE, "rollback"), &wish).await.expect("declared");
    assert_eq!((back.release.as_str(), back.rollout), ("web-r1", Some(3)));
    assert_eq!(end(&follow(&scene, 3).await).0, Outcome::Live);

    let releases: Vec<Release> = scene.client.get(&path::of_service(SERVICE, "releases")).await.expect("releases");
    let live: Vec<(&str, bool)> = releases.iter().map(|release| (release.name.as_str(), release.live)).collect();
    assert_eq!(live, [("web-r1", true), ("web-r2", false)]);
    assert!(releases.iter().all(|release| release.commit.is_some() && release.layers.contains_key("layer.base")));
    let rollouts: Vec<RolloutSummary> = scene.client.get(&path::of_service(SERVICE, "rollouts")).await.expect("rollouts");
    assert_eq!(rollouts.len(), 3);
    assert!(rollouts.iter().all(|rollout| rollout.receipt && rollout.outcome == Some(Outcome::Live)));
    let artifacts: Vec<Artifact> = scene.client.get("/v1/artifacts?name=hello%2Fweb").await.expect("artifacts");
    assert_eq!(artifacts.iter().map(|artifact| artifact.version).collect::<Vec<_>>(), [1, 2]);
    let log: Log = scene.client.get(&path::build_log(2)).await.expect("log");
    assert!(log.text.contains("a line of output") && !log.running, "{}", log.text);
    let status: ServiceStatus = scene.client.get(&path::service(SERVICE)).await.expect("status");
    assert!(status.pinned);
    let again = deploy(&scene).await;
    assert_eq!((again.changed, again.rollout, again.release.as_str()), (false, None, "web-r1"));
    assert_eq!(again.passed_over.as_deref(), Some("web-r2"), "what is declared is not what runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_changes_nothing() {
    let scene = Scene::new().await;
    let declared = deploy(&scene).await;
    assert_eq!(declared.rollout, Some(1));
    let mut stream = scene.client.lines(Method::GET, &path::of_rollout(SERVICE, 1, "events"), &()).await.expect("stream");
    let first: Option<RolloutLine> = stream.next().await.expect("a line");
    assert!(matches!(first, Some(RolloutLine::Step(_))));
    drop(stream);
    assert_eq!(end(&follow(&scene, 1).await).0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_makes_the_receipts_that_the_last_one_owed() {
    let mut scene = Scene::new().await;
    deploy(&scene).await;
    scene.stop().await;
    let half_done = scene.state().join("builds/1/workspace");
    std::fs::create_dir(&half_done).expect("folder");
    scene.start().await;
    assert!(!half_done.exists(), "what a dead server's build worked on is removed");
    let (outcome, _, receipt) = end(&follow(&scene, 1).await);
    assert_eq!((outcome, receipt.receipt.rollout), (Outcome::Live, 1));
    assert!(verify(&serde_json::to_string(&receipt).expect("json"), None).is_ok());
}

fn web() -> ServiceName {
    SERVICE.parse().expect("a name")
}

/// Waits for a receipt without asking the server, which would read the journal for an answer.
async fn stored(scene: &Scene, rollout: u32) {
    until("the receipt is stored", async || scene.store.receipt(&web(), RolloutNumber(rollout)).ok()).await;
}

/// The first and the last record of a rollout.
fn records_of(scene: &Scene, wanted: u32) -> (Sequence, Option<Sequence>) {
    let records = Journal::read(&*scene.store, &web()).expect("readable");
    let told = |is_it: fn(&Notice) -> Option<u32>| {
        let story = gapless_engine::engine::story(&records);
        story.iter().find(|(_, _, notice)| is_it(notice) == Some(wanted)).map(|(sequence, ..)| *sequence)
    };
    let first = told(|notice| if let Notice::RolloutStarted { rollout, .. } = notice { Some(rollout.0) } else { None });
    let last = told(|notice| if let Notice::RolloutEnded { rollout, .. } = notice { Some(rollout.0) } else { None });
    (first.expect("it began"), last)
}

/// The record from which on the next start looks for receipts that are owed.
fn mark(scene: &Scene) -> Sequence {
    let value = scene.store.value("receipts/hello/web").expect("readable").expect("a mark");
    let (record, _): (u64, u64) = serde_json::from_str(&value).expect("a place");
    Sequence(record)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_start_nor_a_rollout_reads_what_was_settled_before() {
    let mut scene = Scene::new().await;
    for rollout in 1..=3 {
        scene.commit(PROJECT);
        deploy(&scene).await;
        stored(&scene, rollout).await;
    }
    until("the mark is moved", async || (Some(mark(&scene)) >= records_of(&scene, 3).1).then_some(())).await;
    scene.stop().await;
    let settled = records_of(&scene, 3).1.expect("it ended");
    let reads = scene.store.journal_reads.load(Ordering::SeqCst);
    scene.store.read_from.lock().expect("whole").clear();
    scene.start().await;
    scene.commit(PROJECT);
    deploy(&scene).await;
    stored(&scene, 4).await;
    assert_eq!(scene.store.journal_reads.load(Ordering::SeqCst), reads, "no journal was read as a whole");
    let from = scene.store.read_from.lock().expect("whole").get(&web()).copied().expect("it was read");
    assert!(from >= settled, "record {} was read again, and all was settled up to {}", from.0, settled.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_is_owed_at_the_end_of_a_server_is_made_whatever_became_of_the_mark() {
    let mut scene = Scene::new().await;
    deploy(&scene).await;
    stored(&scene, 1).await;
    for (rollout, lost) in [(2, None), (3, Some("nonsense")), (4, Some("[99999,1]")), (5, Some("[2,1]"))] {
        scene.store.refuse_receipts.store(true, Ordering::SeqCst);
        scene.commit(PROJECT);
        deploy(&scene).await;
        let rollouts = path::of_service(SERVICE, "rollouts");
        let ended = until("the rollout ends", async || {
            let all: Vec<RolloutSummary> = scene.client.get(&rollouts).await.expect("rollouts");
            all.iter().any(|one| one.number == rollout && one.ended_ms.is_some()).then_some(())
        });
        ended.await;
        scene.stop().await;
        assert!(mark(&scene) < records_of(&scene, rollout).0, "the mark is past a rollout that owes a receipt");
        if let Some(lost) = lost {
            scene.store.put_value("receipts/hello/web", lost).expect("written");
        }
        scene.store.refuse_receipts.store(false, Ordering::SeqCst);
        scene.start().await;
        stored(&scene, rollout).await;
        until("the mark is moved", async || (Some(mark(&scene)) >= records_of(&scene, rollout).1).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_what_where_and_hint() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let deploy = |request: DeployRequest| async move {
        refusal(client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request).await.expect_err("refused"))
    };

    let (status, problem) = deploy(request(&scene)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem.what.contains("no artifact of commit") && problem.hint.expect("hint").contains("gapless build"));

    let (_, problem) = deploy(DeployRequest { service: Some("wep".into()), ..request(&scene) }).await;
    assert_eq!(
        (problem.what.as_str(), problem.hint.as_deref()),
        ("project hello has no service wep", Some("services of gapless.hcl: web"))
    );

    let (_, problem) = deploy(DeployRequest { commit: "no-such-branch".into(), ..request(&scene) }).await;
    assert!(problem.what.contains("has no commit `no-such-branch`"), "{problem:?}");
    let (_, problem) = deploy(DeployRequest { project: scene.state(), ..request(&scene) }).await;
    assert!(problem.what.contains("is no Git repository"), "{problem:?}");
    std::fs::create_dir(scene.project.join("app")).expect("folder");
    let (_, problem) = deploy(DeployRequest { project: scene.project.join("app"), ..request(&scene) }).await;
    assert!(problem.what.contains("lies inside a repository"), "{problem:?}");
    let (_, problem) = deploy(DeployRequest { project: "project".into(), ..request(&scene) }).await;
    assert!(problem.what.contains("is no absolute path"), "{problem:?}");

    scene.commit(&PROJECT.replace("nodes   = 2", "node    = 2"));
    let (status, problem) = deploy(request(&scene)).await;
    assert_eq!((status, problem.what.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "gapless.hcl has a fault"));
    let place = problem.place.expect("a place");
    assert!(place.starts_with("gapless.hcl:8:3: unknown attribute `node`") && place.contains("did you mean `nodes`?"), "{place}");

    let (status, problem) = refusal(scene.client.get::<ServiceStatus>("/v1/services/hello/none").await.expect_err("refused"));
    assert_eq!((status, problem.what.as_str()), (StatusCode::NOT_FOUND, "there is no service hello/none"));
    let (status, _) = refusal(scene.client.get::<ServiceStatus>("/v2/services").await.expect_err("refused"));
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = refusal(scene.client.send::<_, ()>(Method::POST, path::BUILDS, &"x".repeat(2 << 20)).await.expect_err("refused"));
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_says_why_and_its_log_stays() {
    let scene = Scene::new().await;
    scene.commit(&PROJECT.replace("image \"web\" {}", "image \"web\" {\n  base {\n    suite = \"broken\"\n  }\n}"));
    let lines = build(&scene, false).await;
    let Some(BuildLine::Failed { build: 1, problem }) = lines.last() else { panic!("{lines:?}") };
    assert!(problem.what.contains("no such suite") && problem.hint.is_some(), "{problem:?}");
    let log: Log = scene.client.get(&path::build_log(1)).await.expect("log");
    assert!(log.text.contains("a line of output") && log.text.contains("no such suite"), "{}", log.text);
    assert!(!scene.state().join("builds/1/workspace").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_opens_the_socket_and_a_second_listener_is_refused() {
    let scene = Scene::new().await;
    let socket = scene.state().join("server.sock");
    assert_eq!(std::fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
    let refused = scene.server().await.run(std::future::pending()).await.expect_err("refused").to_string();
    assert!(refused.contains("another server answers there"), "{refused}");
    let found: Examination = scene.client.get(path::DOCTOR).await.expect("examined");
    assert!(found.findings.is_empty() && found.removed.is_empty());
    let treated: Examination = scene.client.send(Method::POST, path::DOCTOR, &Treatment { remove_leftovers: true }).await.expect("treated");
    assert_eq!(treated.removed, ["a mount"]);
}

/// Asks again and again until there is an answer; without one after a generous time the test fails.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_could_not_be_stored_finds_all_it_needs_a_quarter_of_an_hour_later() {
    let scene = Scene::new().await;
    scene.store.refuse_receipts.store(true, Ordering::SeqCst);
    deploy(&scene).await;
    let of_rollouts = path::of_service(SERVICE, "rollouts");
    let ended = until("the rollout ends", async || {
        let rollouts: Vec<RolloutSummary> = scene.client.get(&of_rollouts).await.expect("rollouts");
        rollouts[0].ended_ms
    });
    ended.await;
    scene.wishes.ahead_ms.store(KEPT_MS + 120_000, Ordering::SeqCst);
    let forgotten = until("what is old is forgotten", async || {
        let records: Vec<Record> = scene.client.get("/v1/record?since=0").await.expect("records");
        records.iter().any(|record| record.complete_from_ms > record.began_ms).then_some(())
    });
    forgotten.await;
    scene.store.refuse_receipts.store(false, Ordering::SeqCst);
    let receipt =
        until("the receipt is made", async || scene.client.get::<SignedReceipt>(&path::of_rollout(SERVICE, 1, "receipt")).await.ok());
    let receipt = receipt.await.receipt;
    assert_eq!(receipt.incomplete, Vec::<String>::new());
    let measured = receipt.measured.expect("measured");
    assert!(measured.requests >= 10 && measured.before.count >= 5_000, "{measured:?}");
}

/// The project with a second service.
fn two_services() -> String {
    let web = &PROJECT[PROJECT.find("service").expect("a service")..];
    format!("{PROJECT}\n{}", web.replace("service \"web\"", "service \"two\"").replace("\"localhost\"", "\"two.localhost\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_does_not_cut_a_deploy_in_half() {
    let scene = Scene::new().await;
    scene.commit(&two_services());
    build(&scene, true).await;
    scene.wishes.hold.send_replace(true);
    let body = serde_json::to_string(&request(&scene)).expect("json");
    let mut client = UnixStream::connect(scene.state().join("server.sock")).await.expect("connected");
    let head = format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", path::DEPLOYS, body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await.expect("written");
    scene.wishes.held.subscribe().wait_for(|held| *held > 0).await.expect("held");
    drop(client);
    // Whoever is answered now was accepted after the server could see the other go.
    for _ in 0..10 {
        scene.client.get::<ServerStatus>(path::SERVER).await.expect("answered");
    }
    scene.wishes.hold.send_replace(false);
    let both = until("both services are declared", async || {
        let services: Vec<ServiceStatus> = scene.client.get(path::SERVICES).await.expect("services");
        (services.len() == 2).then_some(())
    });
    both.await;
    for service in ["hello/two", "hello/web"] {
        let remembered = async || scene.store.value(&format!("built/{service}/v1")).expect("a value");
        until("the build is remembered", remembered).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_belongs_to_one_service_whether_it_is_live_or_only_declared() {
    let scene = Scene::new().await;
    let refused = async |host: &str| {
        scene.commit(&PROJECT.replace("\"hello\"", "\"other\"").replace("localhost", host));
        build(&scene, true).await;
        refusal(scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await.expect_err("refused"))
    };
    deploy(&scene).await;
    follow(&scene, 1).await;
    scene.sim.behave(ArtifactVersion(2), Behaviour { status: 500, ..Behaviour::default() });
    scene.commit(&PROJECT.replace("localhost", "second"));
    deploy(&scene).await;
    assert_eq!(end(&follow(&scene, 2).await).0, Outcome::Rejected);
    for host in ["localhost", "second"] {
        let (status, problem) = refused(host).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(problem.what.contains("which hello/web answers"), "{problem:?}");
    }
}

/// The service was live with one host, and is with another one.
async fn on_its_second_host() -> Scene {
    let scene = Scene::new().await;
    deploy(&scene).await;
    follow(&scene, 1).await;
    scene.commit(&PROJECT.replace("localhost", "second"));
    deploy(&scene).await;
    follow(&scene, 2).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_takes_no_host_that_another_service_got_since() {
    let scene = on_its_second_host().await;
    scene.commit(&PROJECT.replace("\"hello\"", "\"other\""));
    assert_eq!(deploy(&scene).await.service, "other/web");
    let back = scene.client.send::<_, Declared>(Method::POST, &path::of_service(SERVICE, "rollback"), &RollbackRequest::default()).await;
    let (status, problem) = refusal(back.expect_err("refused"));
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.what.contains("which other/web answers"), "{problem:?}");

    // In its bake window a third one goes back to the second, whatever became of the first one's host.
    scene.commit(&PROJECT.replace("localhost", "third").replace("\"0s\"", "\"1h\""));
    deploy(&scene).await;
    let bakes = until("the third one bakes", async || {
        let status: ServiceStatus = scene.client.get(&path::service(SERVICE)).await.expect("status");
        status.rollout.filter(|rollout| rollout.stage == Stage::Bake)
    });
    assert_eq!(bakes.await.number, 3);
    scene.commit(&PROJECT.replace("\"hello\"", "\"another\"").replace("localhost", "second"));
    build(&scene, true).await;
    let declared = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await;
    let (status, problem) = refusal(declared.expect_err("its host may be needed again at once"));
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.what.contains("which hello/web may still go back to with web-r2"), "{problem:?}");
    let back = scene.client.send::<_, Declared>(Method::POST, &path::of_service(SERVICE, "rollback"), &RollbackRequest::default()).await;
    assert_eq!(back.expect("its host is free").release, "web-r2");
    assert_eq!(end(&follow(&scene, 4).await).0, Outcome::Live);
}

/// Declares a service of another project with this host, and waits until it is live.
async fn other_live(scene: &Scene, host: &str) {
    scene.commit(&PROJECT.replace("\"hello\"", "\"other\"").replace("localhost", host));
    let Declared { service, release, .. } = deploy(scene).await;
    let live = until("the other service is live", async || {
        let status: ServiceStatus = scene.client.get(&path::service(&service)).await.expect("status");
        status.live.filter(|live| live.name == release && status.rollout.is_none())
    });
    live.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_takes_no_host_that_another_service_got_since() {
    let scene = on_its_second_host().await;
    other_live(&scene, "localhost").await;
    let revocation = RevocationRequest { artifact: SERVICE.into(), version: 2, reason: Some("it leaks".into()), lift: false };
    scene.client.send::<_, Revoked>(Method::POST, path::REVOCATIONS, &revocation).await.expect("revoked");
    let (outcome, reason, _) = end(&follow(&scene, 3).await);
    assert_eq!(outcome, Outcome::Rejected);
    let reason = reason.expect("a reason");
    assert!(reason.contains("hello/web cannot answer the host \"localhost\", which other/web answers"), "{reason}");
    let status: ServiceStatus = scene.client.get(&path::service(SERVICE)).await.expect("status");
    assert_eq!(status.live.expect("live").name, "web-r2", "there is nothing better");
    // Neither of the two is held up.
    other_live(&scene, "localhost").await;
    scene.commit(&PROJECT.replace("localhost", "second"));
    assert_eq!(deploy(&scene).await.release, "web-r3");
    assert_eq!(end(&follow(&scene, 4).await).0, Outcome::Live);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_of_a_service_with_a_damaged_journal_is_given_to_nobody() {
    let mut scene = Scene::new().await;
    deploy(&scene).await;
    follow(&scene, 1).await;
    scene.stop().await;
    *scene.store.damaged.lock().expect("whole") = Some(SERVICE.parse().expect("a name"));
    scene.start().await;
    scene.commit(&PROJECT.replace("\"hello\"", "\"other\""));
    build(&scene, true).await;
    let declared = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await;
    let (status, problem) = refusal(declared.expect_err("refused"));
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(problem.what.contains("which the proxies know as that of hello/web"), "{problem:?}");
    other_live(&scene, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_another_kind_is_not_what_nodes_are_made_from() {
    let scene = Scene::new().await;
    let commit = scene.commit(PROJECT);
    let machine_image = NewArtifact {
        name: SERVICE.into(),
        kind: "amazon.ami".into(),
        image: Digest([9; 32]),
        published: Instant(1),
        metadata: BTreeMap::from([("commit".to_string(), commit.clone()), ("ami".to_string(), "ami-1".to_string())]),
    };
    scene.store.publish(machine_image).expect("published");
    let refused = scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await;
    assert_eq!(refusal(refused.expect_err("refused")).0, StatusCode::NOT_FOUND);
    assert_eq!(deploy(&scene).await.release, "web-r1");
    let releases: Vec<Release> = scene.client.get(&path::of_service(SERVICE, "releases")).await.expect("releases");
    assert!(releases[0].version == 1 && releases[0].layers.contains_key("layer.base"), "{releases:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_breaks_off_is_a_build_that_failed() {
    let scene = Scene::new().await;
    scene.commit(&PROJECT.replace("image \"web\" {}", "image \"web\" {\n  base {\n    suite = \"panics\"\n  }\n}"));
    let lines = tokio::time::timeout(Duration::from_secs(30), build(&scene, false)).await.expect("the stream ends");
    let Some(BuildLine::Failed { build: 1, problem }) = lines.last() else { panic!("{lines:?}") };
    assert!(problem.what.contains("broke off"), "{problem:?}");
    let log: Log = scene.client.get(&path::build_log(1)).await.expect("log");
    assert!(!log.running && log.text.contains("broke off"), "{}", log.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_conversations() {
    let mut scene = Scene::new().await;
    let mut client = UnixStream::connect(scene.state().join("server.sock")).await.expect("connected");
    client.write_all(format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", path::SERVER).as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
    scene.stop().await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await;
    read.expect("a conversation outlived its server").expect("it ended in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_is_read_from_its_journal_once() {
    let scene = Scene::new().await;
    deploy(&scene).await;
    follow(&scene, 1).await;
    let asked = async || {
        scene.client.get::<ServiceStatus>(&path::service(SERVICE)).await.expect("status");
        scene.client.get::<Vec<RolloutSummary>>(&path::of_service(SERVICE, "rollouts")).await.expect("rollouts");
        follow(&scene, 1).await.len()
    };
    asked().await;
    let before = scene.store.journal_reads.load(Ordering::SeqCst);
    for _ in 0..5 {
        asked().await;
    }
    assert_eq!(scene.store.journal_reads.load(Ordering::SeqCst), before);
    scene.commit(PROJECT);
    deploy(&scene).await;
    let story = end(&follow(&scene, 2).await);
    assert_eq!((story.0, story.2.receipt.rollout), (Outcome::Live, 2), "what is told is added");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_damaged_journal_says_so_and_the_others_are_as_they_are() {
    let mut scene = Scene::new().await;
    scene.commit(&two_services());
    build(&scene, true).await;
    scene.client.send::<_, Vec<Declared>>(Method::POST, path::DEPLOYS, &request(&scene)).await.expect("declared");
    follow(&scene, 1).await;
    scene.stop().await;
    *scene.store.damaged.lock().expect("whole") = Some("hello/two".parse().expect("a name"));
    scene.start().await;
    let services: Vec<ServiceStatus> = scene.client.get(path::SERVICES).await.expect("services");
    let troubled = |service: &ServiceStatus| (service.service.clone(), service.trouble.is_some());
    let troubled: BTreeMap<String, bool> = services.iter().map(troubled).collect();
    assert_eq!(troubled, BTreeMap::from([("hello/two".to_string(), true), (SERVICE.to_string(), false)]));
    let alone: ServiceStatus = scene.client.get(&path::service("hello/two")).await.expect("status");
    assert!(alone.trouble.expect("trouble").what.contains("damaged"));
    let plans: Vec<Plan> = scene.client.send(Method::POST, path::PLAN, &request(&scene)).await.expect("plan");
    let refused = |plan: &Plan| (plan.service.clone(), plan.refused && plan.lines[0].contains("damaged"));
    let refused: BTreeMap<String, bool> = plans.iter().map(refused).collect();
    assert_eq!(refused, BTreeMap::from([("hello/two".to_string(), true), (SERVICE.to_string(), false)]), "{plans:?}");
    let releases = scene.client.get::<Vec<Release>>(&path::of_service("hello/two", "releases")).await;
    assert!(refusal(releases.expect_err("refused")).1.what.contains("damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_where_it_is_wanted() {
    let scene = Scene::new().await;
    let wish = |file: &str| BackupRequest { file: file.into() };
    let made: Backup = scene.client.send(Method::POST, path::BACKUPS, &wish("/somewhere/backup.tar")).await.expect("made");
    assert_eq!(made.file, Path::new("/somewhere/backup.tar"));
    let refused = scene.client.send::<_, Backup>(Method::POST, path::BACKUPS, &wish("backup.tar")).await;
    assert!(refusal(refused.expect_err("it is relative")).1.what.contains("no absolute path"));
}
