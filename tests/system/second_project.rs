//! A project that shares nothing with the bundled one: another server, port, check and Puppet module. No line of Rust knows it.

use crate::installation::{Installation, ServerSettings, assert_no_failure};
use crate::project::Project;
use gapless_load::plan::{Check, ClassPlan, Plan, Target};

/// Requests a second; two small nodes bear it easily.
const RATE: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn init_build_deploy_and_rollback_by_the_command_line_alone() {
    let installation = Installation::start("second", &ServerSettings::default()).await;
    let folder = installation.root.join("shelf");
    let command = |folder: &std::path::Path, arguments: &[&str]| {
        let (status, text) = installation.run(folder, arguments);
        assert_eq!(status, 0, "gapless {arguments:?}:\n{text}");
        text
    };
    command(&installation.root, &["init", "shelf"]);
    for made in ["app", "packer", "puppet", "terraform"] {
        std::fs::remove_dir_all(folder.join(made)).unwrap_or_else(|error| panic!("init made no {made}: {error}"));
    }
    let project = Project::copied("tests/projects/shelf", &folder);
    project.commit("Edition 1");

    command(&folder, &["build"]);
    let text = command(&folder, &["deploy"]);
    assert!(text.lines().last().is_some_and(|line| line.starts_with("live ")), "{text}");

    let classes = vec![
        ClassPlan::get("small", 600, "/check.txt", Check::SelfDigest),
        ClassPlan::get("small-one-shot", 400, "/check.txt", Check::SelfDigest).one_shot(),
    ];
    let mut plan = Plan::new(Target::address(installation.address, "books.test"), classes);
    plan.rate_per_second = RATE;
    let witness = installation.witness_of(&plan).await;

    project.edit("app/index.html", "Edition 1", "Edition 2");
    project.commit("Edition 2");
    let text = command(&folder, &["deploy", "--plan"]);
    assert!(text.contains("r2"), "{text}");
    command(&folder, &["deploy"]);
    assert!(installation.status("shelf/books").await.live.is_some_and(|release| release.name == "books-r2"));

    command(&folder, &["rollback"]);
    assert!(installation.status("shelf/books").await.live.is_some_and(|release| release.name == "books-r1"));
    for listing in ["status", "releases", "artifacts", "receipt", "explain"] {
        let text = command(&folder, &[listing, "--json"]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{listing} --json: {error}\n{text}"));
    }

    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 100);
}
