//! What the tests of faults share: versions under load, instants that failures are held against, and a look at the machine when all is over.

use crate::installation::{Ended, Installation, until};
use crate::project::Project;
use gapless_load::{Recording, Sample};
use gapless_platforms::local::leftovers::Leftovers;
use gapless_wire::build::BuildLine;
use gapless_wire::doctor::Examination;
use gapless_wire::rollout::Outcome;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const SERVICE: &str = "hello/web";

/// How long processes that lost their parent may take to notice it and end.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(40);

/// From the witness's last look at a kept connection, past the instant that it notes as the sending, to its first byte on it, in microseconds: on a busy machine the kernel lets others
/// run in between.
const SENDING_US: u64 = 10_000;

/// The bundled project, without a bake window, so that a rollout ends when the old nodes are gone.
pub fn hello(installation: &Installation) -> Project {
    let project = Project::copied("examples/hello", &installation.root.join("project"));
    project.edit("gapless.hcl", "bake     = \"5m\"", "bake     = \"0s\"");
    project
}

/// Commits a version whose pages differ from the one before.
pub fn next_version(project: &Project, version: u32) -> String {
    project.edit("app/public/version", &(version - 1).to_string(), &version.to_string());
    project.commit(&format!("Version {version}"))
}

/// Builds and declares a commit, and waits until it is live.
pub async fn go_live(installation: &Installation, project: &Project, commit: &str) -> Ended {
    let declared = installation.declare(project, commit).await;
    let ended = installation.ended(SERVICE, declared.rollout.expect("a rollout")).await;
    assert_eq!(ended.outcome, Outcome::Live, "{:?}", ended.reason);
    ended
}

/// The project's first version, live.
pub async fn first_version(installation: &Installation) -> Project {
    let project = hello(installation);
    let commit = project.commit("Version 1");
    go_live(installation, &project, &commit).await;
    project
}

/// Why a build that must fail failed: what, and the hint.
pub fn failure(told: &[BuildLine]) -> (String, String) {
    match told.last() {
        Some(BuildLine::Failed { problem, .. }) => (problem.what.clone(), problem.hint.clone().unwrap_or_default()),
        _ => panic!("the build did not fail: {told:#?}"),
    }
}

/// What is said of a fault must name all of these.
pub fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
    }
}

/// The names of the nodes that get traffic, once there are so many.
pub async fn serving(installation: &Installation, count: usize) -> Vec<String> {
    let names = || async {
        let nodes = installation.status(SERVICE).await.nodes;
        let with_traffic = nodes.into_iter().filter(|node| node.weight.unwrap_or(0) > 0 && node.condition == "running");
        with_traffic.map(|node| node.name).collect::<Vec<_>>()
    };
    until(&format!("{count} nodes serve"), || async { names().await.len() == count }).await;
    names().await
}

/// Waits until the witness has started this many requests more.
pub async fn under_load(witness: &gapless_load::Witness, requests: u64) {
    let mut progress = witness.progress();
    let aim = progress.borrow().requests + requests;
    progress.wait_for(|progress| progress.requests >= aim).await.expect("the witness runs");
}

/// The process id of a node's command, on the host.
pub fn node_process(installation: &Installation, node: &str) -> u32 {
    let path = installation.state().join("platform/nodes").join(format!("hello.web.{node}")).join("running.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    let process: serde_json::Value = serde_json::from_slice(&text).expect("the record of a running node");
    process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id")
}

/// Now, in microseconds since the Unix epoch, as samples count.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_micros()).expect("a clock of this age")
}

/// SIGKILL for a process; the instant from which nothing of it is left.
pub async fn kill_process(pid: u32) -> u64 {
    send(pid, rustix::process::Signal::KILL);
    until("a killed process is gone", || async { is_gone(pid) }).await;
    now_us()
}

/// A process whose parent has not asked for its end yet is a zombie: its sockets are closed when its last thread has ended, and not when the first has.
fn is_gone(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    threads == 0 || threads == 1 && status.contains("State:\tZ")
}

pub fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("sending a signal");
}

/// Failures, each of which must have been under way in the span that a fault took.
pub fn failures_during(recording: &Recording, from_us: u64, until_us: u64) -> Vec<&Sample> {
    let failed: Vec<&Sample> = recording.samples.samples.iter().filter(|sample| !sample.is_ok()).collect();
    for sample in &failed {
        let sent = sample.sent_us().unwrap_or(sample.scheduled_us);
        let in_flight = sent <= until_us + SENDING_US && sample.ended_us() >= from_us;
        assert!(
            in_flight,
            "a failure that the fault does not explain ({from_us} to {until_us}): {sample:#?}\n{:#?}",
            recording.report.failure_examples
        );
    }
    failed
}

/// The name of a sample's class.
pub fn class<'a>(recording: &'a Recording, sample: &Sample) -> &'a str {
    &recording.samples.classes[usize::from(sample.class)]
}

/// Removes the installation, and looks whether anything of it is left on the machine: by the doctor, and past him.
pub fn leaves_nothing(mut installation: Installation) {
    installation.remove();
    let name = installation.name().to_string();
    let left = Leftovers::of(&name, &installation.state()).and_then(|leftovers| leftovers.find()).expect("looking for leftovers");
    assert!(left.is_empty(), "{left:#?}");

    let (_, printed, said) = installation.run(&installation.root, "doctor", &["--json"]);
    let found: Examination = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("doctor --json: {error}\n{printed}{said}"));
    let ours: Vec<_> = found.findings.iter().filter(|finding| finding.kind == "leftover" && finding.what.contains(&name)).collect();
    assert!(ours.is_empty(), "{ours:#?}");

    for looked in
        [&["ip", "-o", "link"][..], &["ip", "netns"], &["nft", "list", "tables"], &["cat", "/proc/self/mounts", "/proc/self/cgroup"]]
    {
        let output = Command::new(looked[0]).args(&looked[1..]).output().expect("looking at the machine");
        let text = String::from_utf8_lossy(&output.stdout);
        let marked: Vec<&str> = text.lines().filter(|line| line.contains(&name)).collect();
        assert!(marked.is_empty(), "{looked:?}: {marked:#?}");
    }
    let ended = Instant::now() + ORPHAN_PATIENCE;
    while let Some(process) = process_of(&installation.root) {
        assert!(Instant::now() < ended, "a process is left: {process}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process whose command line or environment names a folder.
pub fn process_of(folder: &Path) -> Option<String> {
    let folder = folder.to_str().expect("a folder's name");
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("reading /proc").flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for pid in processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own) {
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            if text.contains(folder) {
                return Some(format!("{pid}: {text}"));
            }
        }
    }
    None
}
