//! A backup of a running installation, restored on an empty machine: the live release serves again, and rollouts go on.

use crate::installation::{Installation, ServerSettings, assert_no_failure, steady, until};
use crate::project::Project;
use gapless_wire::api::path;
use gapless_wire::receipt::SignedReceipt;
use gapless_wire::rollout::Outcome;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const SERVICE: &str = "hello/web";
const RATE: u32 = 200;

fn edit_version(project: &Project, from: &str, to: &str) -> String {
    project.edit("app/public/version", from, to);
    project.commit(&format!("Version {to}"))
}

fn copy(project: &Project, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(project.path.join(".")).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_goes_on_from_its_backup_on_an_empty_machine() {
    let mut installation = Installation::start("backup", &ServerSettings::default()).await;
    let project = Project::copied("examples/hello", &installation.root.join("project"));
    project.edit("gapless.hcl", "bake     = \"5m\"", "bake     = \"0s\"");
    let first = project.commit("Version 1");
    let rollout = installation.declare(&project, &first).await.rollout.expect("a rollout");
    assert_eq!(installation.ended(SERVICE, rollout).await.outcome, Outcome::Live);
    let witness = installation.witness("localhost", RATE).await;
    steady(&witness, RATE).await;
    let second = edit_version(&project, "1", "2");
    let rollout = installation.declare(&project, &second).await.rollout.expect("a rollout");
    let ended = installation.ended(SERVICE, rollout).await;
    assert_eq!(ended.outcome, Outcome::Live);
    let receipt = ended.receipt.expect("a receipt");

    // Outside of the installation's folder, which is gone when the second one begins.
    let file = crate::installation::unique_folder("backup-file").join("backup.tar");
    let name = file.to_str().expect("a name in UTF-8").to_string();
    let (status, printed, said) = installation.run(&project.path, "backup", &[&name]);
    assert_eq!(status, 0, "{printed}{said}");
    assert!(printed.contains("keep it where only you can read it"), "{printed}");
    assert_eq!(fs::metadata(&file).expect("the backup").permissions().mode() & 0o777, 0o600);
    let (status, _, said) = installation.run(&project.path, "backup", &[&name]);
    assert!(status != 0 && said.contains("there is such a file already"), "{said}");
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 500);
    let before = installation.status(SERVICE).await;
    let (_, _, said) = installation.run(&project.path, "restore", &[&name]);
    assert!(said.contains("is not empty"), "{said}");
    let project_copy = crate::installation::unique_folder("backup-project");
    copy(&project, &project_copy);
    let id = installation.name().to_string();
    installation.remove();
    drop(installation);

    let restored = Installation::restored("restored", &file, &ServerSettings::default()).await;
    assert_eq!(restored.name(), id);
    until("the live release's nodes serve again", || async {
        let status = restored.status(SERVICE).await;
        status.nodes.iter().filter(|node| node.weight.is_some_and(|weight| weight > 0)).count() == before.nodes.len()
    })
    .await;
    let after = restored.status(SERVICE).await;
    assert_eq!(after.live.map(|release| release.name), before.live.map(|release| release.name));
    let kept: SignedReceipt = restored.client().get(&path::of_rollout(SERVICE, rollout, "receipt")).await.expect("a receipt");
    assert_eq!(kept.receipt, receipt, "the receipt is another one");

    let project = Project { path: project_copy.clone() };
    let witness = restored.witness("localhost", RATE).await;
    steady(&witness, RATE).await;
    let third = edit_version(&project, "2", "3");
    let declared = restored.declare(&project, &third).await;
    assert_eq!(restored.ended(SERVICE, declared.rollout.expect("a rollout")).await.outcome, Outcome::Live);
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 500);
    let status = restored.status(SERVICE).await;
    assert_eq!(status.live.map(|release| release.name), Some(declared.release));
    drop(restored);
    for folder in [project_copy.as_path(), file.parent().expect("a folder")] {
        fs::remove_dir_all(folder).expect("removing what the test made");
    }
}
