//! Bad input on the command line: a clear error, its place, and what to do.

use crate::fault::{assert_says, first_version, leaves_nothing, serving, under_load};
use crate::installation::{Installation, ServerSettings, assert_no_failure, unique_folder};
use crate::project::Project;
use std::os::unix::process::CommandExt;
use std::process::Command;

const RATE: u32 = 100;

/// Debian's `nobody`.
const NOBODY: u32 = 65_534;

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_place_and_what_to_do() {
    let installation = Installation::start("input", &ServerSettings::default()).await;
    let project = first_version(&installation).await;
    let live = serving(&installation, 3).await;
    let witness = installation.witness("localhost", RATE).await;
    under_load(&witness, 50).await;

    not_a_repository(&installation);
    a_dirty_tree_is_not_built(&installation, &project);
    broken_settings(&installation, &project);
    a_command_that_ends_at_once(&installation, &project);
    assert_eq!(serving(&installation, 3).await, live, "the live nodes were touched");
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 100);
    leaves_nothing(installation);
}

/// What a deploy that must be refused says.
fn refused(installation: &Installation, folder: &std::path::Path, arguments: &[&str]) -> String {
    let (status, printed, said) = installation.run(folder, "deploy", arguments);
    assert_eq!(status, 1, "gapless deploy {arguments:?}:\n{printed}{said}");
    format!("{printed}{said}")
}

fn not_a_repository(installation: &Installation) {
    // Not below this tree, which is a repository itself.
    let folder = tempfile::tempdir().expect("a folder");
    let said = refused(installation, folder.path(), &[]);
    assert_says(
        &said,
        &[folder.path().to_str().expect("a path"), "is no Git repository", "hint: a project is a Git repository: `git init`"],
    );
    let said = refused(installation, folder.path(), &["--project", "/nowhere"]);
    assert_says(&said, &["/nowhere is no folder", "hint: name the project's folder"]);
}

fn a_dirty_tree_is_not_built(installation: &Installation, project: &Project) {
    project.edit("app/public/version", "1", "not committed");
    let (status, printed, said) = installation.run(&project.path, "deploy", &[]);
    assert_eq!(status, 0, "{printed}{said}");
    assert_says(&said, &["note: a commit is what is built", "your changes to app/public/version are not in it"]);
    assert_says(&printed, &["nothing changed, web-r1 is what is declared"]);
    project.edit("app/public/version", "not committed", "1");
    let said = refused(installation, &project.path, &["--commit", "no-such-branch"]);
    assert_says(&said, &["has no commit `no-such-branch`", "hint: commit first"]);
}

/// Each with line, column and a caret below what is wrong.
fn broken_settings(installation: &Installation, project: &Project) {
    for (good, bad, words) in [
        ("nodes = 3", "nodes = 0", ["gapless.hcl:28:11: ", "from 1 to 100"]),
        ("nodes = 3", "nodes = 101", ["gapless.hcl:28:11: ", "from 1 to 100"]),
        ("port  = 80", "prot  = 80", ["gapless.hcl:29:3: ", "`port`"]),
        ("drain    = \"30s\"", "drain    = 30", ["gapless.hcl:54:16: `drain` is 30 without a unit", "a time from"]),
        ("project \"hello\" {}", "project \"hello\" {", ["gapless.hcl:", " = "]),
    ] {
        project.edit("gapless.hcl", good, bad);
        project.commit(bad);
        let said = refused(installation, &project.path, &[]);
        assert_says(&said, &[&words[..], &["^", "hint: correct it and commit"]].concat());
        project.edit("gapless.hcl", bad, good);
    }
    project.commit("Without faults");
}

/// The rollout is rejected with the command's status and its last words.
fn a_command_that_ends_at_once(installation: &Installation, project: &Project) {
    let good = "command = [\"/usr/local/sbin/apache-foreground\"]";
    project.edit("gapless.hcl", good, "command = [\"/bin/sh\", \"-c\", \"echo there is no disk; exit 3\"]");
    project.commit("A command that ends");
    let said = refused(installation, &project.path, &[]);
    assert_says(
        &said,
        &["rejected: the command of node ", "ended by itself with status 3: there is no disk", "what was live is live, untouched"],
    );
    project.edit(
        "gapless.hcl",
        "command = [\"/bin/sh\", \"-c\", \"echo there is no disk; exit 3\"]",
        "command = [\"/usr/bin/no-such-program\"]",
    );
    project.commit("A command that is not there");
    let said = refused(installation, &project.path, &[]);
    assert_says(&said, &["rejected: ", "/usr/bin/no-such-program"]);
}

#[test]
fn who_is_not_root_or_lacks_a_tool_is_told_what_to_do() {
    let folder = unique_folder("requirements");
    // A copy that everybody may run: the folders above the build's may be closed.
    let open = tempfile::tempdir().expect("a folder");
    let program = open.path().join("gapless");
    std::fs::copy(env!("CARGO_BIN_EXE_gapless"), &program).expect("copying the program");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(open.path(), everybody).expect("opening the folder");
    let said = fails(Command::new(&program).arg("server").arg("--state").arg(open.path().join("state")).uid(NOBODY).gid(NOBODY));
    assert_says(&said, &["this host lacks root", "run it again as root, with `sudo`"]);

    let said = fails(Command::new(&program).arg("server").arg("--state").arg(folder.join("state")).env("PATH", &folder));
    for package in ["runc", "iproute2", "nftables"] {
        assert_says(&said, &[&format!("`apt-get install {package}`")]);
    }
    assert!(!folder.join("state").exists(), "nothing was begun");
    let build = || fails(Command::new(&program).arg("build").arg("--state").arg(folder.join("state")).env("PATH", &folder));
    assert_says(&build(), &["the program `setpriv` could not be started", "apt-get install util-linux"]);
    std::os::unix::fs::symlink("/usr/bin/setpriv", folder.join("setpriv")).expect("giving one of the two");
    assert_says(&build(), &["the program `git` could not be started", "apt-get install git"]);
    let doctor = Command::new(&program).args(["doctor", "--state"]).arg(&folder).env("PATH", &folder).output().expect("running the doctor");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    for package in ["packer", "mmdebstrap", "openssh-client", "git"] {
        assert_says(&said, &[&format!("`apt-get install {package}`")]);
    }
    std::fs::remove_dir_all(folder).expect("removing the test's folder");
}

fn fails(command: &mut Command) -> String {
    let output = command.output().expect("running gapless");
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
