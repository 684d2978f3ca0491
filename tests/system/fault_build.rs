//! Builds that are killed, and builds of what is wrong: helpers end with the server, and each tool's own words reach the person.

use crate::fault::{assert_says, failure, first_version, hello, leaves_nothing, process_of, under_load};
use crate::installation::{Installation, ServerSettings, assert_no_failure};
use crate::project::Project;
use gapless_wire::api::path;
use gapless_wire::artifact::Artifact;
use gapless_wire::build::{BuildLine, BuildRequest};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const RATE: u32 = 100;

/// What the template of a test says when it runs in the build node.
const REACHED: &str = "the-build-node-waits";

/// From a test's begin until its template waits no more: Packer gets to it, and the server is killed, well before.
const WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn helpers_of_a_killed_server_end_and_the_build_can_be_made_again() {
    let mut installation = Installation::start("build", &ServerSettings::default()).await;
    let project = first_version(&installation).await;
    let witness = installation.witness("localhost", RATE).await;
    under_load(&witness, 50).await;

    let until = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970") + WAIT;
    let wait = format!("\"echo {REACHED}; while [ $(date +%s) -lt {} ]; do sleep 1; done\", \"apt-get update -q\"", until.as_secs());
    project.edit("packer/hello.json", "\"apt-get update -q\"", &wait);
    let waiting = project.commit("A build that waits");
    until_told(&installation, &project, &waiting, |line| matches!(line, BuildLine::Output { text, .. } if text.contains(REACHED))).await;
    assert_ne!(machines_of_builds(&installation), Vec::<String>::new(), "a build node and Packer's sandbox run");
    installation.kill_server();
    installation.start_server(&ServerSettings::default()).await;
    assert_eq!(machines_of_builds(&installation), Vec::<String>::new(), "helpers of the killed server");
    for folder in ["build/work", "images/blobs/incoming"] {
        let left = std::fs::read_dir(installation.state().join(folder)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "what the killed build left in {folder}");
    }
    doctor_finds_nothing(&installation);

    let told = installation.build(&project, &waiting).await;
    assert!(matches!(told.last(), Some(BuildLine::Done)), "{told:#?}");
    let artifacts: Vec<Artifact> = installation.client().get(path::ARTIFACTS).await.expect("listing artifacts");
    assert_eq!(artifacts.iter().map(|artifact| artifact.version).collect::<Vec<_>>(), [1, 2], "no gap in the numbers");

    killed_mmdebstrap(&mut installation, &project, &waiting).await;
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 300);
    leaves_nothing(installation);
}

/// With an empty cache the base is made first: mmdebstrap is what the kill meets.
async fn killed_mmdebstrap(installation: &mut Installation, project: &Project, commit: &str) {
    let cache = installation.root.join("cache");
    installation.kill_server();
    installation.start_server(&ServerSettings { cache: Some(cache.clone()), ..ServerSettings::default() }).await;
    let is_mmdebstrap = |line: &BuildLine| matches!(line, BuildLine::Output { phase, .. } if phase == "base");
    until_told(installation, project, commit, is_mmdebstrap).await;
    assert!(helper(&cache).is_some(), "mmdebstrap runs");
    installation.kill_server();
    installation.start_server(&ServerSettings::default()).await;
    assert_eq!(helper(&cache), None, "mmdebstrap outlived its server");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reading the mounts");
    assert!(!mounts.contains(cache.to_str().expect("a path")), "{mounts}");
}

/// A process that works in the cache, but for the server, which names it too.
fn helper(cache: &Path) -> Option<String> {
    process_of(&cache.join("scratch"))
}

/// Begins a build and leaves it at a line.
async fn until_told(installation: &Installation, project: &Project, commit: &str, wanted: impl Fn(&BuildLine) -> bool) {
    let request = BuildRequest { project: project.path.clone(), commit: commit.into(), image: None, unless_built: false };
    let mut lines = installation.client().lines(hyper::Method::POST, path::BUILDS, &request).await.expect("asking for a build");
    let mut told = Vec::new();
    while let Some(line) = lines.next::<BuildLine>().await.expect("reading the build's lines") {
        if wanted(&line) {
            return;
        }
        told.push(line);
    }
    panic!("the build ended before what was waited for: {told:#?}");
}

/// The control groups of build nodes and sandboxes that processes are in.
fn machines_of_builds(installation: &Installation) -> Vec<String> {
    let ours = format!("/gapless/{}/", installation.name());
    let processes = std::fs::read_dir("/proc").expect("reading /proc").flatten();
    let groups = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup")).ok());
    let of_builds = groups.filter_map(|text| {
        let machines = text.lines().filter_map(|line| line.split_once(&ours).map(|(_, machine)| machine.to_string()));
        let of_builds = |machine: &String| machine.starts_with("bench.") || machine.starts_with("sandbox.");
        // A group can be removed only when all in it have ended: what is told of a removed one is a process that nobody has buried yet.
        machines.into_iter().find(|machine| of_builds(machine) && !machine.ends_with(" (deleted)"))
    });
    of_builds.collect()
}

fn doctor_finds_nothing(installation: &Installation) {
    let (status, printed, said) = installation.run(&installation.root, "doctor", &[]);
    assert_eq!((status, printed.trim().lines().last()), (0, Some("all is well")), "{printed}{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_project_are_told_in_the_words_of_the_tool_that_found_them() {
    let installation = Installation::start("project", &ServerSettings::default()).await;
    let project = hello(&installation);
    project.edit("packer/hello.json", "\"apt-get update -q\",", "");
    project.commit("Before");

    project.edit("packer/hello.json", "\"inline\": [", "\"inlined\": [");
    let (what, _) = fails(&installation, &project).await;
    assert_says(&what, &["`packer validate` refuses the template", "inlined"]);
    project.edit("packer/hello.json", "\"inlined\": [", "\"inline\": [,");
    let (what, _) = fails(&installation, &project).await;
    assert_says(&what, &["packer/hello.json", "line 2"]);
    project.edit("packer/hello.json", "\"inline\": [,", "\"inline\": [");

    let manifest = project.path.join("puppet/manifests/site.pp");
    std::fs::write(&manifest, "node default {\n  file { '/srv/one' ensure => file }\n}\n").expect("writing a manifest");
    let (what, hint) = fails(&installation, &project).await;
    assert_says(&what, &["Packer failed", "Syntax error at 'ensure'", "manifests/site.pp, line: 2, column: "]);
    assert_says(&hint, &["the whole output is in "]);

    let restless = "node default {\n  file { '/srv/one': ensure => file }\n  exec { 'restless': command => '/bin/true' }\n}\n";
    std::fs::write(&manifest, restless).expect("writing a manifest");
    let (what, hint) = fails(&installation, &project).await;
    assert_says(&what, &["changed 1 resource again", "Exec[restless]", "(manifests/site.pp:3)"]);
    assert!(!what.contains("/srv/one"), "{what}");
    assert_says(&hint, &["a manifest must describe a state"]);
    let artifacts: Vec<Artifact> = installation.client().get(path::ARTIFACTS).await.expect("listing artifacts");
    assert_eq!(artifacts, Vec::new(), "nothing of it was published");
    leaves_nothing(installation);
}

async fn fails(installation: &Installation, project: &Project) -> (String, String) {
    let commit = project.commit("A fault");
    failure(&installation.build(project, &commit).await)
}
