//! What `gapless init` makes is a whole project: untouched it builds and serves, also beside a second project on the same proxy.

use crate::installation::{Installation, ServerSettings, assert_no_failure, steady};
use crate::project::Project;
use gapless_load::{Check, ClassPlan, Plan, Target, Witness};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Requests a second; two small nodes bear it easily.
const RATE: u32 = 50;

/// A host that no service names: only the service of `*` answers it.
const ANY_HOST: &str = "shop.test";

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_scaffold_serves_and_a_second_project_beside_it_has_its_own_host_and_environment() {
    let installation = Installation::start("scaffold", &ServerSettings::default()).await;
    let shop = scaffold(&installation);
    shop.commit("Begin");
    command(&installation, &shop, "build");
    deploy(&installation, &shop);
    assert_serves(&installation, ANY_HOST, "web-r1", &page(&shop));

    let witness = witness(&installation).await;
    steady(&witness, RATE).await;
    shop.edit("app/index.html", "<h1>shop</h1>", "<h1>The shop has moved</h1>");
    shop.commit("Move");
    deploy(&installation, &shop);
    assert_serves(&installation, ANY_HOST, "web-r2", &page(&shop));

    let shelf = Project::copied("tests/projects/shelf", &installation.root.join("shelf"));
    shelf.edit("gapless.hcl", "  writable = ", "  environment = { SHELF_OWNER = \"a reader\" }\n  writable = ");
    shelf.commit("Edition 1");
    deploy(&installation, &shelf);
    assert_serves(&installation, "books.test", "books-r1", &page(&shelf));
    assert_serves(&installation, ANY_HOST, "web-r2", &page(&shop));
    for environment in environments(&installation, "shelf", "books").await {
        let expected = ["SHELF_OWNER=a reader", "GAPLESS_RELEASE=books-r1"];
        assert!(expected.iter().all(|variable| environment.contains(&(*variable).to_string())), "{environment:?}");
    }
    for environment in environments(&installation, "shop", "web").await {
        assert!(!environment.iter().any(|variable| variable.starts_with("SHELF_OWNER=")), "{environment:?}");
    }

    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 200);
}

/// What `gapless init` makes, in a repository without a commit.
fn scaffold(installation: &Installation) -> Project {
    let path = installation.root.join("shop");
    let mut init = Command::new(env!("CARGO_BIN_EXE_gapless"));
    succeeds(init.args(["init", "shop"]).current_dir(&installation.root));
    succeeds(Command::new("git").args(["init", "-q"]).current_dir(&path));
    Project { path }
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("running {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn command(installation: &Installation, project: &Project, name: &str) -> String {
    let (status, printed, said) = installation.run(&project.path, name, &[]);
    assert_eq!(status, 0, "gapless {name} in {}:\n{printed}{said}", project.path.display());
    printed
}

/// The command line's deploy, which must end with live.
fn deploy(installation: &Installation, project: &Project) {
    let printed = command(installation, project, "deploy");
    assert!(printed.lines().last().is_some_and(|line| line.starts_with("live ")), "{printed}");
}

fn page(project: &Project) -> String {
    std::fs::read_to_string(project.path.join("app/index.html")).expect("the project's page")
}

/// Both classes ask for the page: on kept connections, and on connections of their own.
async fn witness(installation: &Installation) -> Witness {
    let page = |name, share| ClassPlan::get(name, share, "/", Check::Complete);
    let classes = vec![page("small", 600), page("small-one-shot", 400).one_shot()];
    let mut plan = Plan::new(Target::address(installation.address, ANY_HOST), classes);
    plan.rate_per_second = RATE;
    installation.witness_of(&plan).await
}

/// A GET through the proxy answers 200 with this page, from a node of this release.
fn assert_serves(installation: &Installation, host: &str, release: &str, page: &str) {
    let mut connection = TcpStream::connect(installation.address).expect("connecting to the proxy");
    connection.set_read_timeout(Some(Duration::from_secs(10))).expect("setting a time limit");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("sending a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("the answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{host} has no answer: {answer}"));
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{host}: {head}");
    assert!(head.lines().any(|line| line == format!("x-gapless-release: {release}")), "{host} is not answered by {release}: {head}");
    assert_eq!(body, page, "{host}");
}

/// The environment of the command of each of a service's nodes, as the kernel has it.
async fn environments(installation: &Installation, project: &str, service: &str) -> Vec<Vec<String>> {
    let nodes = installation.status(&format!("{project}/{service}")).await.nodes;
    assert!(nodes.len() >= 2, "{nodes:#?}");
    let folder = installation.state().join("platform/nodes");
    nodes.iter().map(|node| environment(&folder.join(format!("{project}.{service}.{}", node.name)))).collect()
}

fn environment(node: &Path) -> Vec<String> {
    let record = std::fs::read(node.join("running.json")).unwrap_or_else(|error| panic!("reading of {}: {error}", node.display()));
    let record: serde_json::Value = serde_json::from_slice(&record).expect("the record of a running node");
    let process = PathBuf::from("/proc").join(record["pid"].to_string()).join("environ");
    let text = std::fs::read(&process).unwrap_or_else(|error| panic!("reading {}: {error}", process.display()));
    String::from_utf8_lossy(&text).split_terminator('\0').map(str::to_string).collect()
}
