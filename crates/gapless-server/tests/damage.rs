//! What lies behind a service is damaged: it is told, and nothing that lies before it is held up.

mod support;

use gapless_engine::store::{Journal, Records, Sequence};
use gapless_wire::api::path;
use gapless_wire::build::{BuildLine, BuildRequest};
use gapless_wire::client::ClientError;
use gapless_wire::doctor::Examination;
use gapless_wire::operation::Operation;
use gapless_wire::release::Release;
use gapless_wire::rollout::{Declared, DeployRequest, Explanation, Outcome, RollbackRequest, RolloutLine, RolloutSummary};
use gapless_wire::service::ServiceStatus;
use hyper::Method;
use support::{PROJECT, Scene};

const SERVICE: &str = "hello/web";

async fn deploy(scene: &Scene) -> u32 {
    scene.commit(PROJECT);
    let request = BuildRequest { project: scene.project.clone(), commit: "HEAD".into(), image: None, unless_built: true };
    let mut stream = scene.client.lines(Method::POST, path::BUILDS, &request).await.expect("begun");
    while stream.next::<BuildLine>().await.expect("a line").is_some() {}
    let request = DeployRequest {
        project: scene.project.clone(),
        commit: "HEAD".into(),
        service: None,
        artifact: Default::default(),
        built_for_this: false,
        urgent: false,
    };
    let declared: Vec<Declared> = scene.client.send(Method::POST, path::DEPLOYS, &request).await.expect("declared");
    declared[0].rollout.expect("a rollout")
}

/// The last line of a rollout's stream.
async fn last_line(scene: &Scene, rollout: u32) -> RolloutLine {
    let mut stream = scene.client.lines(Method::GET, &path::of_rollout(SERVICE, rollout, "events"), &()).await.expect("stream");
    let mut last = None;
    while let Some(line) = stream.next::<RolloutLine>().await.expect("a line") {
        last = Some(line);
    }
    last.expect("a line")
}

fn is_live(line: &RolloutLine) -> bool {
    matches!(line, RolloutLine::End { outcome: Outcome::Live, receipt: Some(_), .. })
}

/// Two rollouts, and a server over a journal whose second record is damaged since.
async fn damaged() -> Scene {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        let rollout = deploy(&scene).await;
        assert!(is_live(&last_line(&scene, rollout).await));
    }
    scene.stop().await;
    let service = SERVICE.parse().expect("a name");
    let (kept, ..) = scene.store.kept(&service).expect("read").expect("a server that stops in order keeps a state");
    assert!(kept > Sequence(2));
    *scene.store.damaged_record.lock().expect("whole") = Some((service, Sequence(2)));
    scene.start().await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_behind_a_service_is_told_by_status_and_doctor() {
    let scene = damaged().await;
    let all: Vec<ServiceStatus> = scene.client.get(path::SERVICES).await.expect("services");
    assert_eq!(all[0].trouble, None, "it gets on");
    let told = all[0].damage.as_ref().expect("damage");
    assert!(told.what.contains("record 2 is damaged"), "{told:?}");
    assert_eq!(all[0].live.as_ref().expect("live").name, "web-r2", "what is live is known all the same");
    let found: Examination = scene.client.get(path::DOCTOR).await.expect("examined");
    let journal: Vec<_> = found.findings.iter().filter(|finding| finding.kind == "journal").collect();
    assert!(journal.len() == 1 && journal[0].why.contains("record 2 is damaged"), "{found:?}");
    assert_eq!(found.restart.len(), 1, "a restart would go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_made_before_damage_that_nobody_can_look_behind_and_nothing_is_taken_for_settled() {
    let mut scene = damaged().await;
    scene.stop().await;
    scene.store.put_value("receipts/hello/web", "lost").expect("written");
    scene.start().await;
    let rollout = deploy(&scene).await;
    assert!(is_live(&last_line(&scene, rollout).await));
    assert_eq!(scene.store.value("receipts/hello/web").expect("read").as_deref(), Some("lost"), "who knows what is owed there");
    *scene.store.damaged_record.lock().expect("whole") = None;
    scene.start().await;
    let rollout = deploy(&scene).await;
    assert!(is_live(&last_line(&scene, rollout).await));
    let is_moved = async {
        while scene.store.value("receipts/hello/web").expect("read").as_deref() == Some("lost") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), is_moved).await.expect("it can be read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_on_although_what_lies_behind_it_is_damaged() {
    let scene = damaged().await;
    let rollout = deploy(&scene).await;
    assert_eq!(rollout, 3);
    assert!(is_live(&last_line(&scene, 3).await));
    let scale = Operation::Scale { nodes: 3 };
    let scaled: Declared = scene.client.send(Method::POST, &path::of_service(SERVICE, "operations"), &scale).await.expect("scaled");
    assert!(scaled.changed);
    let wish = RollbackRequest::default();
    let back: Declared = scene.client.send(Method::POST, &path::of_service(SERVICE, "rollback"), &wish).await.expect("declared");
    assert_eq!(back.rollout, Some(4));
    assert!(is_live(&last_line(&scene, 4).await));
    let releases: Vec<Release> = scene.client.get(&path::of_service(SERVICE, "releases")).await.expect("releases");
    assert_eq!(releases.len(), 3);
    let rollouts: Vec<RolloutSummary> = scene.client.get(&path::of_service(SERVICE, "rollouts")).await.expect("rollouts");
    assert_eq!(rollouts.iter().map(|rollout| rollout.number).collect::<Vec<_>>(), [3, 4], "what can be read of it");
    let story = scene.client.get::<Explanation>(&path::of_rollout(SERVICE, 1, "explain")).await;
    let Err(ClientError::Refused { body, .. }) = story else { panic!("it was told: {story:?}") };
    assert!(body.contains("record 2 is damaged"), "{body}");
}
