//! A project that shares nothing with the bundled one: another server, port, check and Puppet module. No line of Rust knows it.

use crate::installation::{Installation, ServerSettings, assert_no_failure, steady};
use crate::project::Project;
use gapless_load::{Check, ClassPlan, Plan, Target};

/// Requests a second; two small nodes bear it easily.
const RATE: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn init_build_deploy_and_rollback_by_the_command_line_alone() {
    let installation = Installation::start("second", &ServerSettings::default()).await;
    let folder = installation.root.join("shelf");
    let command = |name: &str, arguments: &[&str]| {
        let (status, printed, said) = installation.run(&folder, name, arguments);
        assert_eq!(status, 0, "gapless {name} {arguments:?}:\n{printed}{said}");
        printed
    };
    init(&installation);
    for made in ["app", "packer", "puppet", "terraform"] {
        std::fs::remove_dir_all(folder.join(made)).unwrap_or_else(|error| panic!("init made no {made}: {error}"));
    }
    let project = Project::copied("tests/projects/shelf", &folder);
    project.commit("Edition 1");

    command("build", &[]);
    let text = command("deploy", &[]);
    assert!(text.lines().last().is_some_and(|line| line.starts_with("live ")), "{text}");

    let classes = vec![
        ClassPlan::get("small", 600, "/check.txt", Check::SelfDigest),
        ClassPlan::get("small-one-shot", 400, "/check.txt", Check::SelfDigest).one_shot(),
    ];
    let mut plan = Plan::new(Target::address(installation.address, "books.test"), classes);
    plan.rate_per_second = RATE;
    let witness = installation.witness_of(&plan).await;
    steady(&witness, RATE).await;

    project.edit("app/index.html", "Edition 1", "Edition 2");
    project.commit("Edition 2");
    let text = command("deploy", &["--plan"]);
    assert!(text.contains("r2"), "{text}");
    command("deploy", &[]);
    assert!(installation.status("shelf/books").await.live.is_some_and(|release| release.name == "books-r2"));
    json("an unchanged deploy", &command("deploy", &["--json"]));

    command("rollback", &[]);
    assert!(installation.status("shelf/books").await.live.is_some_and(|release| release.name == "books-r1"));
    for listing in ["status", "releases", "artifacts", "receipt", "explain"] {
        json(listing, &command(listing, &["--json"]));
    }
    json("rollback", &command("rollback", &["books-r2", "--json"]));
    assert!(installation.status("shelf/books").await.live.is_some_and(|release| release.name == "books-r2"));

    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 100);
}

/// What `--json` printed is one document and nothing beside.
fn json(name: &str, text: &str) {
    serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|error| panic!("{name} --json: {error}\n{text}"));
}

fn init(installation: &Installation) {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_gapless")).args(["init", "shelf"]).current_dir(&installation.root).status();
    assert!(made.is_ok_and(|status| status.success()), "gapless init failed");
}
