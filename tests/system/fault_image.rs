//! Images that are not what their digests say: no node ever starts from them, and what is live stays.

use crate::fault::{SERVICE, assert_says, first_version, kill_process, leaves_nothing, next_version, node_process, serving, under_load};
use crate::installation::{Ended, Installation, ServerSettings, assert_no_failure, until};
use crate::project::Project;
use gapless_load::{Check, ClassPlan, Plan, Target};
use gapless_wire::artifact::Artifact;
use gapless_wire::build::BuildLine;
use gapless_wire::doctor::Examination;
use gapless_wire::rollout::Outcome;
use std::fs;
use std::path::{Path, PathBuf};

const RATE: u32 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_blob_or_a_tampered_tree_never_becomes_a_node() {
    let installation = Installation::start("image", &ServerSettings::default()).await;
    let project = first_version(&installation).await;
    let live = serving(&installation, 3).await;
    let witness = installation.witness_of(&gets(&installation)).await;
    under_load(&witness, 100).await;
    let second = next_version(&project, 2);
    let artifact = published(&installation, &project, &second).await;

    for digest in [&artifact.image, &artifact.metadata["layer.application"]] {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        // The layer was verified and unpacked when it was built: without its tree the blob is needed again.
        let tree = tree(&installation, hex);
        let _ = fs::remove_dir_all(tree);
        let blob = installation.state().join("images/blobs/sha256").join(hex);
        flip_a_byte(&blob);
        let ended = rejected(&installation, &project, &second).await;
        let advice = "remove this file and build the artifact again from its commit";
        assert_says(&ended.reason.expect("a reason").text, &["EnsureGroup", hex, advice]);
        assert_eq!(serving(&installation, 3).await, live, "the live nodes were touched");
        fs::remove_file(&blob).expect("following the advice");
        assert_eq!(published(&installation, &project, &second).await, artifact, "the same artifact again");
    }

    tampered(&installation, &artifact, &project, &second).await;
    let declared = installation.declare_built(&project, &second).await;
    let ended = installation.ended(SERVICE, declared.rollout.expect("a rollout")).await;
    assert_eq!(ended.outcome, Outcome::Live, "what was mended is used again: {:?}", ended.reason);
    replacement(&installation, &artifact).await;
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 300);
    leaves_nothing(installation);
}

/// Small GETs only: a node that is killed makes them be sent again, so none may fail.
fn gets(installation: &Installation) -> Plan {
    let small = ClassPlan::get("small", 600, "/check.txt", Check::SelfDigest);
    let one_shot = ClassPlan::get("small-one-shot", 400, "/check.txt", Check::SelfDigest).one_shot();
    let mut plan = Plan::new(Target::address(installation.address, "localhost"), vec![small, one_shot]);
    plan.rate_per_second = RATE;
    plan
}

async fn published(installation: &Installation, project: &Project, commit: &str) -> Artifact {
    let told = installation.build(project, commit).await;
    let published =
        told.iter().find_map(|line| if let BuildLine::Published { artifact, .. } = line { Some(artifact.clone()) } else { None });
    published.unwrap_or_else(|| panic!("the build failed: {told:#?}"))
}

async fn rejected(installation: &Installation, project: &Project, commit: &str) -> Ended {
    let declared = installation.declare_built(project, commit).await;
    let ended = installation.ended(SERVICE, declared.rollout.expect("a rollout")).await;
    assert_eq!(ended.outcome, Outcome::Rejected);
    let status = installation.status(SERVICE).await;
    let started: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).filter(|name| !name.starts_with("r1-")).collect();
    assert!(started.is_empty(), "nodes of a broken image: {started:?}");
    ended
}

fn tree(installation: &Installation, hex: &str) -> PathBuf {
    installation.state().join("images/trees").join(hex)
}

/// Changes one byte in the middle; what the file held before.
fn flip_a_byte(path: &Path) -> Vec<u8> {
    let whole = fs::read(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    fs::write(path, broken).expect("writing a changed file");
    whole
}

/// A tree that was changed after it was unpacked: the rollout is refused, and the doctor sees it too.
async fn tampered(installation: &Installation, artifact: &Artifact, project: &Project, commit: &str) {
    let file = application_file(installation, artifact);
    let whole = flip_a_byte(&file);
    let ended = rejected(installation, project, commit).await;
    let place = file.to_str().expect("a path");
    assert_says(&ended.reason.expect("a reason").text, &[place, "its content changed"]);
    let (status, printed, said) = installation.run(&installation.root, "doctor", &["--json"]);
    let found: Examination = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}{said}"));
    assert!(status != 0 && found.findings.iter().any(|finding| finding.what.contains(place)), "{printed}");
    fs::write(file, whole).expect("mending the tree");
}

/// A file of the application that no request of these tests asks for.
fn application_file(installation: &Installation, artifact: &Artifact) -> PathBuf {
    let hex = artifact.metadata["layer.application"].strip_prefix("sha256:").expect("a digest");
    tree(installation, hex).join("root/srv/app/public/icon.svg")
}

/// The live image's tree is changed and a node dies: it is not replaced before the tree is whole again.
async fn replacement(installation: &Installation, artifact: &Artifact) {
    let before = serving(installation, 3).await;
    let file = application_file(installation, artifact);
    flip_a_byte(&file);
    kill_process(node_process(installation, &before[0])).await;
    until("the replacement is refused", || async { installation.status(SERVICE).await.trouble.is_some() }).await;
    assert_eq!(serving(installation, 2).await, before[1..], "the others go on");
    let (_, printed, said) = installation.run(&installation.root, "status", &[]);
    let place = file.to_str().expect("a path");
    assert_says(
        &format!("{printed}{said}"),
        &["does not get on: EnsureGroup", place, "its content changed", "it is tried again by itself"],
    );
    // As the hint says: the nodes that run keep the old tree, the next one gets a new one from the blob.
    let hex = artifact.metadata["layer.application"].strip_prefix("sha256:").expect("a digest");
    let tree = tree(installation, hex);
    fs::rename(&tree, tree.with_extension("damaged")).expect("renaming the damaged tree");
    let after = serving(installation, 3).await;
    assert!(before[1..].iter().all(|node| after.contains(node)), "{before:?} became {after:?}");
    assert_eq!(installation.status(SERVICE).await.trouble, None);
}
