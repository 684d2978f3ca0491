//! SIGKILL of the server before and after each effect of a rollout: the next one finishes it, and nobody notices.

use crate::installation::{Installation, ServerSettings, assert_no_failure};
use crate::project::Project;
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::Outcome;

const SERVICE: &str = "hello/web";
const RATE: u32 = 200;

/// Every effect of a blue/green rollout with a bake window of zero, in order.
const EFFECTS: &[&str] = &["EnsureGroup:1", "Route:1", "Route:2", "Drain:1", "DestroyNodes:1"];

/// What the proxies count of a rollout whose server was killed: the nodes were always ready, so nothing was sent again or waited.
fn assert_unnoticed(receipt: Option<Receipt>, place: &str) {
    let receipt = receipt.unwrap_or_else(|| panic!("no receipt after a kill at {place}"));
    let Some(measured) = receipt.measured else {
        assert!(!receipt.incomplete.is_empty(), "after a kill at {place} nothing was measured, and the receipt does not say why");
        return;
    };
    assert!(measured.requests > 0, "no request was measured after a kill at {place}: {:?}", receipt.incomplete);
    assert_eq!((measured.failed, measured.retried, measured.held), (0, 0, 0), "after a kill at {place}: {measured:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_be_killed_before_and_after_each_effect() {
    let mut installation = Installation::start("crash", &ServerSettings::default()).await;
    let project = Project::copied("examples/hello", &installation.root.join("project"));
    project.edit("gapless.hcl", "bake     = \"5m\"", "bake     = \"0s\"");
    let mut commit = project.commit("Version 1");
    let first = installation.declare(&project, &commit).await;
    assert_eq!(installation.ended(SERVICE, first.rollout.expect("a rollout")).await.outcome, Outcome::Live);
    let witness = installation.witness("localhost", RATE).await;

    let places = EFFECTS.iter().flat_map(|effect| ["before", "after"].map(|side| format!("{SERVICE}:*:{effect}:{side}")));
    for (place, version) in places.zip(2..) {
        installation.kill_server();
        let _ = std::fs::remove_file(installation.marker());
        let hold = ServerSettings { hold_at: Some(place.clone()), ..ServerSettings::default() };
        installation.start_server(&hold).await;
        project.edit("app/public/version", &(version - 1).to_string(), &version.to_string());
        commit = project.commit(&format!("Version {version}"));
        let declared = installation.declare(&project, &commit).await;

        installation.held().await;
        installation.kill_server();
        let (_, printed, _) = installation.run(&project.path, "doctor", &[]);
        let in_progress = format!("{SERVICE}: rollout {} to ", declared.rollout.expect("a rollout"));
        assert!(
            printed.contains(&in_progress) && printed.contains("a restart now would look at the world"),
            "at {place} the doctor says: {printed}"
        );
        installation.start_server(&ServerSettings::default()).await;

        let ended = installation.ended(SERVICE, declared.rollout.expect("a rollout")).await;
        assert_eq!(ended.outcome, Outcome::Live, "after a kill at {place}: {:?}", ended.reason);
        assert_unnoticed(ended.receipt, &place);
        let status = installation.status(SERVICE).await;
        assert_eq!(status.live.map(|release| release.name), Some(declared.release), "after a kill at {place}");
        assert_eq!(status.nodes.len(), 3, "after a kill at {place}: {:#?}", status.nodes);
    }

    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 1000);
}
