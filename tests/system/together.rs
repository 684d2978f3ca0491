//! A web service and its worker that move together: neither goes anywhere before the other one can, and when somebody takes one of them back, the other one follows. The witness must count
//! no failure over all of it.

use crate::fault::{leaves_nothing, now_us, under_load};
use crate::installation::{Installation, ServerSettings, assert_no_failure, until};
use crate::project::Project;
use crate::provisioned;
use gapless_load::Recording;
use gapless_wire::api::path;
use gapless_wire::build::BuildLine;
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::{Fact, Outcome, RolloutKind, RolloutSummary};
use gapless_wire::service::{ServiceStatus, Stage};
use std::path::PathBuf;

const WEB: &str = "hello/web";
const WORKER: &str = "hello/worker";

/// Requests a second.
const RATE: u32 = 100;

/// The worker beside the bundled web service. A node of it is well once the check's file is there, in a volume that the test can write to.
const WORKER_BLOCK: &str = r#"
service "worker" {
  image    = "web"
  nodes    = 1
  together = "hello"
  command  = ["/bin/sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1 & wait; done"]
  volumes  = { signal = "/signal" }
  health {
    command  = ["/usr/bin/test", "-e", "/signal"]
    interval = "200ms"
    passes   = 2
    failures = 100
  }
  rollout {
    drain    = "10s"
    progress = "60s"
  }
}
"#;

/// The bundled project, whose web service moves together with a worker.
fn project(installation: &Installation) -> Project {
    let project = crate::fault::hello(installation);
    project.edit("gapless.hcl", "  host  = \"localhost\"", "  together = \"hello\"\n  host  = \"localhost\"");
    let file = project.path.join("gapless.hcl");
    let text = std::fs::read_to_string(&file).expect("reading the project's file");
    std::fs::write(&file, text + WORKER_BLOCK).expect("adding the worker");
    project
}

/// The file that the second version's worker waits for.
fn signal(installation: &Installation) -> PathBuf {
    installation.state().join("volumes/hello/signal/go")
}

/// Builds a commit and declares both services at once; the numbers of their rollouts, the web service's first.
async fn deploy_both(installation: &Installation, project: &Project, commit: &str) -> [u32; 2] {
    let told = installation.build(project, commit).await;
    assert!(matches!(told.last(), Some(BuildLine::Done)), "the build failed: {told:#?}");
    provisioned::keep(&installation.state());
    let declared = installation.declare_all_built(project, commit).await;
    assert_eq!(declared.len(), 2, "{declared:#?}");
    [WEB, WORKER].map(|service| {
        let own = declared.iter().find(|declared| declared.service == service);
        own.and_then(|declared| declared.rollout).unwrap_or_else(|| panic!("no rollout of {service}: {declared:#?}"))
    })
}

/// Follows a rollout that must end live.
async fn live(installation: &Installation, service: &str, rollout: u32) -> Receipt {
    let ended = installation.ended(service, rollout).await;
    assert_eq!(ended.outcome, Outcome::Live, "{service}: {:?}", ended.reason);
    ended.receipt.unwrap_or_else(|| panic!("no receipt of rollout {rollout} of {service}"))
}

/// A planned rollout that nobody noticed.
fn assert_unnoticed(receipt: &Receipt) {
    let measured = receipt.measured.as_ref().expect("measured requests");
    assert!(measured.requests > 0, "no request was in flight");
    assert_eq!((measured.failed, measured.retried, measured.held, measured.cut), (0, 0, 0, 0), "{measured:#?}");
    assert!(receipt.incomplete.is_empty(), "{:?}", receipt.incomplete);
}

fn stage(status: &ServiceStatus) -> Option<Stage> {
    status.rollout.as_ref().map(|rollout| rollout.stage)
}

/// The web service is ready, the worker is not: both wait, each with the other one in its status, and what was live is live.
async fn assert_both_wait(installation: &Installation) {
    for (service, partner, waiting, old) in [(WEB, WORKER, Stage::Await, "web-r1"), (WORKER, WEB, Stage::Prepare, "worker-r1")] {
        let status = installation.status(service).await;
        assert_eq!(stage(&status), Some(waiting), "{status:#?}");
        assert_eq!(status.live.as_ref().map(|release| release.name.as_str()), Some(old), "{status:#?}");
        assert_eq!(status.rollout.map(|rollout| rollout.together), Some(vec![partner.to_string()]));
    }
}

/// When a rollout's story says so for the first time, in milliseconds.
fn at(receipt: &Receipt, what: &str, is_it: impl Fn(&Fact) -> bool) -> u64 {
    let step = receipt.steps.iter().find(|step| step.rollout == Some(receipt.rollout) && is_it(&step.fact));
    step.unwrap_or_else(|| panic!("{what} is not in the receipt of {}: {:#?}", receipt.service, receipt.steps)).at_ms
}

/// By both receipts, neither began to shift before the other had passed its checks, and the one that was ready first waited for that.
fn assert_moved_together(web: &Receipt, worker: &Receipt) {
    let passed = |receipt| at(receipt, "the passed gate", |fact| matches!(fact, Fact::GatePassed { .. }));
    let shifting = |receipt| at(receipt, "the shift", |fact| matches!(fact, Fact::ShiftBegan { .. }));
    let awaiting = at(web, "the wait for the worker", |fact| matches!(fact, Fact::PartnersAwaited));
    assert!(web.phases.partners.is_some(), "{:?}", web.phases);
    assert!(awaiting <= passed(worker), "the web service did not wait for the worker");
    let ready = passed(web).max(passed(worker));
    for receipt in [web, worker] {
        assert!(shifting(receipt) >= ready, "{} shifted before the other was ready: {:#?}", receipt.service, receipt.steps);
    }
}

/// Both are at rest with these releases, and nodes of no other are there: by their status, and by the folders of the platform's nodes.
async fn assert_only(installation: &Installation, web: &str, worker: &str) {
    for (service, release, count) in [(WEB, web, 3), (WORKER, worker, 1)] {
        let status = installation.status(service).await;
        assert_eq!(stage(&status), None, "{status:#?}");
        assert_eq!(status.live.as_ref().map(|live| live.name.as_str()), Some(release), "{status:#?}");
        let of_release = status.nodes.iter().filter(|node| node.release == release && node.condition == "running").count();
        assert_eq!((of_release, status.nodes.len()), (count, count), "{:#?}", status.nodes);
        let mut named: Vec<String> = status.nodes.iter().map(|node| format!("{}.{}", service.replace('/', "."), node.name)).collect();
        let folders = std::fs::read_dir(installation.state().join("platform/nodes")).expect("reading the nodes' folders").flatten();
        let prefix = format!("{}.", service.replace('/', "."));
        let mut made: Vec<String> =
            folders.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(&prefix)).collect();
        named.sort();
        made.sort();
        assert_eq!(named, made, "nodes of {service} that its status does not name");
    }
}

/// Somebody takes the worker back, and the web service goes back by a rollout of its own; its receipt.
async fn take_the_worker_back(installation: &Installation) -> Receipt {
    let back = installation.roll_back(WORKER, None).await;
    assert_eq!(back.with, [WEB], "{back:#?}");
    live(installation, WORKER, back.rollout.expect("a rollout")).await;
    until("the web service has gone back, too", || async {
        let status = installation.status(WEB).await;
        status.rollout.is_none() && status.live.is_some_and(|release| release.name == "web-r1")
    })
    .await;
    let rollouts: Vec<RolloutSummary> = installation.client().get(&path::of_service(WEB, "rollouts")).await.expect("the rollouts");
    let last = rollouts.iter().max_by_key(|rollout| rollout.number).expect("a rollout");
    assert_eq!((last.from.as_deref(), last.to.as_str(), last.kind), (Some("web-r2"), "web-r1", RolloutKind::Rollback), "{rollouts:#?}");
    let receipt = live(installation, WEB, last.number).await;
    for service in [WEB, WORKER] {
        assert!(installation.status(service).await.pinned, "{service} was taken back by hand, and would move again by itself");
    }
    receipt
}

/// No answer came from a new web node while the worker was not ready, and answers of the second version came later.
fn assert_waited(recording: &Recording, until_us: u64) {
    let of = |release: &str| {
        let answers =
            recording.samples.samples.iter().filter(|sample| sample.release.as_ref().is_some_and(|name| name.as_str() == release));
        answers.map(|sample| sample.ended_us()).collect::<Vec<_>>()
    };
    let early = of("web-r2").into_iter().filter(|ended| *ended < until_us).count();
    assert_eq!(early, 0, "answers of the new web nodes while the worker was not ready");
    assert!(!of("web-r1").is_empty() && !of("web-r2").is_empty(), "{:#?}", recording.report.by_release);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_service_and_its_worker_move_together_under_load_and_come_back_together() {
    let installation = Installation::start("together", &ServerSettings::default()).await;
    let project = project(&installation);
    let first = project.commit("Version 1");
    let [web, worker] = deploy_both(&installation, &project, &first).await;
    live(&installation, WEB, web).await;
    live(&installation, WORKER, worker).await;
    assert_only(&installation, "web-r1", "worker-r1").await;
    let witness = installation.witness("localhost", RATE).await;
    under_load(&witness, 200).await;

    project.edit("gapless.hcl", "\"-e\", \"/signal\"", "\"-e\", \"/signal/go\"");
    let second = crate::fault::next_version(&project, 2);
    let [web, worker] = deploy_both(&installation, &project, &second).await;
    until("the web service waits for the worker", || async { stage(&installation.status(WEB).await) == Some(Stage::Await) }).await;
    assert_both_wait(&installation).await;
    under_load(&witness, 100).await;
    assert_both_wait(&installation).await;
    let opened = now_us();
    std::fs::write(signal(&installation), "").expect("letting the worker pass its check");
    let moved = [live(&installation, WEB, web).await, live(&installation, WORKER, worker).await];
    assert_moved_together(&moved[0], &moved[1]);
    assert_unnoticed(&moved[0]);
    assert_only(&installation, "web-r2", "worker-r2").await;
    under_load(&witness, 100).await;

    let back = take_the_worker_back(&installation).await;
    assert_unnoticed(&back);
    let follows = back.steps.iter().find(|step| matches!(step.fact, Fact::FollowsBack { .. })).expect("why it goes back");
    assert!(follows.text.starts_with("web-r2 goes back to web-r1: ") && follows.text.contains("worker"), "{}", follows.text);
    assert_only(&installation, "web-r1", "worker-r1").await;
    under_load(&witness, 100).await;

    let recording = witness.stop().await.expect("the witness's recording");
    assert_no_failure(&recording, 500);
    assert_waited(&recording, opened);
    leaves_nothing(installation);
}
