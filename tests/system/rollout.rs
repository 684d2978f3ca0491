//! Rollouts under load: planned ones, a rejected one, and the ways back.

use crate::installation::{Installation, ServerSettings, assert_no_failure, steady};
use crate::project::Project;
use gapless_load::Witness;
use gapless_wire::build::BuildLine;
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::Outcome;

/// Requests a second: enough that every switch meets some of every class.
const RATE: u32 = 300;

const SERVICE: &str = "hello/web";

fn edit_version(project: &Project, from: &str, to: &str) -> String {
    project.edit("app/public/version", from, to);
    project.commit(&format!("Version {to}"))
}

/// What a planned rollout must say of itself; a rejected one too.
fn assert_planned(receipt: Option<Receipt>) {
    let receipt = receipt.expect("a receipt");
    let measured = receipt.measured.expect("measured requests");
    assert!(measured.requests > 0, "no request was in flight");
    assert_eq!((measured.failed, measured.retried, measured.held, measured.cut), (0, 0, 0, 0), "{measured:#?}");
    assert!(receipt.incomplete.is_empty(), "{:?}", receipt.incomplete);
}

async fn live(installation: &Installation, rollout: Option<u32>) -> Option<Receipt> {
    let ended = installation.ended(SERVICE, rollout.expect("a rollout")).await;
    assert_eq!(ended.outcome, Outcome::Live, "{:?}", ended.reason);
    ended.receipt
}

async fn stop(witness: Witness) -> gapless_load::Recording {
    witness.stop().await.expect("the witness's recording")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_a_rejected_one_and_both_ways_back_lose_nothing() {
    let settings = ServerSettings { without_retry_and_hold: true, ..ServerSettings::default() };
    let installation = Installation::start("rollout", &settings).await;
    let project = Project::copied("examples/hello", &installation.root.join("project"));
    project.edit("gapless.hcl", "bake     = \"5m\"", "bake     = \"0s\"");
    let first = project.commit("Version 1");
    live(&installation, installation.declare(&project, &first).await.rollout).await;
    let witness = installation.witness("localhost", RATE).await;

    let second = edit_version(&project, "1", "2");
    let told = installation.build(&project, &second).await;
    let provision_cached =
        told.iter().any(|line| matches!(line, BuildLine::PhaseEnded { phase, cached: true, .. } if phase == "provision"));
    assert!(provision_cached, "a change of the application started Packer: {told:#?}");
    assert_planned(live(&installation, installation.declare_built(&project, &second).await.rollout).await);

    let again = installation.declare_built(&project, &second).await;
    assert!(!again.changed, "declaring the same again changed something: {again:?}");

    let before = installation.status(SERVICE).await;
    project.edit("app/cgi/healthz", "status=200", "status=500");
    let third = project.commit("Version 3, broken");
    let rejected = installation.declare(&project, &third).await;
    let ended = installation.ended(SERVICE, rejected.rollout.expect("a rollout")).await;
    assert_eq!(ended.outcome, Outcome::Rejected);
    assert_planned(ended.receipt);
    let reason = ended.reason.expect("a reason");
    assert_eq!(reason.check.as_deref(), Some("GET /healthz"), "{reason:?}");
    assert_eq!(reason.result.as_deref(), Some("status 500"), "{reason:?}");
    assert!(reason.times.is_some_and(|times| times >= 4), "{reason:?}");
    let names = |status: &gapless_wire::service::ServiceStatus| status.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&installation.status(SERVICE).await), "the live nodes were touched");

    let back = installation.roll_back(SERVICE, Some(1)).await;
    assert_planned(live(&installation, back.rollout).await);
    assert!(installation.status(SERVICE).await.pinned, "a rollback by hand pins the service");

    assert_no_failure(&stop(witness).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_the_bake_window_the_way_back_is_one_route() {
    let installation = Installation::start("bake", &ServerSettings::default()).await;
    let project = Project::copied("examples/hello", &installation.root.join("project"));
    let first = project.commit("Version 1");
    live(&installation, installation.declare(&project, &first).await.rollout).await;
    let witness = installation.witness("localhost", RATE).await;
    steady(&witness, RATE).await;
    let old: Vec<String> = installation.status(SERVICE).await.nodes.into_iter().map(|node| node.name).collect();

    let second = edit_version(&project, "1", "2");
    let rollout = installation.declare(&project, &second).await.rollout.expect("a rollout");
    installation.baking(SERVICE, rollout).await;
    let generation = installation.status(SERVICE).await.generation;

    let back = installation.roll_back(SERVICE, None).await.rollout;
    let receipt = live(&installation, back).await;
    let status = installation.status(SERVICE).await;
    let serving: Vec<String> = status.nodes.iter().filter(|node| node.weight.unwrap_or(0) > 0).map(|node| node.name.clone()).collect();
    assert_eq!(serving, old, "the old nodes serve again");
    let shifts = status.generation - generation;
    assert_eq!(shifts, 1, "the way back took {shifts} routes");
    assert_planned(receipt);

    assert_no_failure(&stop(witness).await, 500);
}
