//! A server that is killed anywhere while it makes nodes: the next one finishes the work.

use crate::service::{OneTree, PROGRAM, group, serving, with_release_command};
use crate::support::{Installation, marks_on_host};
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::observation::Condition;
use gapless_engine::error::ErrorKind;
use gapless_engine::platform::Platform;
use gapless_engine::workbench::{BenchRequest, Workbench};
use gapless_platforms::local::leftovers::Leftovers;
use gapless_platforms::local::names::RUNTIME_FOLDER;
use gapless_platforms::local::{LocalOptions, LocalPlatform, platform_folder};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An example; it is built beside the tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// What is made and killed meanwhile.
#[derive(Clone, Copy)]
enum Maker {
    /// A group of two.
    Group,
    /// A build node.
    Bench,
    /// A release command that takes 300 ms.
    Task,
}

/// Starts a maker and gives it when its platform is open.
fn start(maker: Maker, installation: &Installation) -> Child {
    let name = match maker {
        Maker::Group => "local_ensure_group",
        Maker::Bench => "local_open_bench",
        Maker::Task => "local_run_task",
    };
    let upper = installation.folder.path().join("upper");
    std::fs::create_dir_all(&upper).unwrap();
    let mut command = Command::new(example(name));
    command.arg(installation.state()).arg(&installation.id).arg(installation.image()).arg(upper).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|_| panic!("the example `{name}` is built with the tests"));
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    child
}

/// How much of an installation there is: files and folders of its platform, on the disk and in `/run`, but not inside of root file systems.
fn traces(installation: &Installation) -> usize {
    fn below(folder: &Path, depth: usize) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| 1 + if depth > 0 { below(&entry.path(), depth - 1) } else { 0 }).sum()
    }
    below(&platform_folder(&installation.state()), 2) + below(&Path::new(RUNTIME_FOLDER).join(&installation.id), 1)
}

/// How much there is when a maker has opened its platform, and when it has made what it makes.
fn traces_of_a_whole_making(maker_kind: Maker) -> (usize, usize) {
    let installation = Installation::new();
    let mut maker = start(maker_kind, &installation);
    let opened = traces(&installation);
    assert!(maker.wait().unwrap().success());
    let made = traces(&installation);
    let least = if matches!(maker_kind, Maker::Group) { PLACES } else { LEAST_PLACES };
    assert!(made > opened + least, "a making leaves too few traces: {opened} and {made}");
    (opened, made)
}

/// Kills a maker once there is so much of what it makes. Gives the installation, and whether the kill came before the end.
fn kill_at(maker: Maker, enough: usize) -> (Installation, bool) {
    let installation = Installation::new();
    let mut maker = start(maker, &installation);
    while traces(&installation) < enough && maker.try_wait().unwrap().is_none() {
        std::hint::spin_loop();
    }
    let in_time = maker.try_wait().unwrap().is_none();
    maker.kill().unwrap();
    maker.wait().unwrap();
    (installation, in_time)
}

/// How many places of a making are tried.
const PLACES: usize = 9;
/// A build node and a task leave fewer traces than a group.
const LEAST_PLACES: usize = 5;

/// Every place of a making at which it is killed, as how much there is then.
fn places(maker: Maker) -> impl Iterator<Item = usize> {
    let (opened, made) = traces_of_a_whole_making(maker);
    let places = PLACES.min(made - opened);
    (0..places).map(move |place| opened + (made - opened) * place / places)
}

fn service() -> ServiceName {
    "hello/web".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_maker_was_killed_is_completed() {
    let mut in_the_middle = 0;
    for enough in places(Maker::Group) {
        let (installation, in_time) = kill_at(Maker::Group, enough);
        in_the_middle += usize::from(in_time);
        let platform = installation.open().await;
        let before = platform.observe(&service()).await.unwrap();
        assert!(before.nodes.values().all(|node| !matches!(node.condition, Condition::Exited { .. })), "at {enough}: {before:?}");
        platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
        let seen = platform.observe(&service()).await.unwrap();
        assert_eq!(seen.nodes.len(), 2, "at {enough}: {seen:?}");
        assert!(seen.nodes.values().all(|node| node.condition == Condition::Running), "at {enough}: {seen:?}");
        assert_eq!(installation.leftovers().find().unwrap(), vec![], "at {enough}");
        platform.destroy_nodes(&service(), &seen.nodes.into_keys().collect()).await.unwrap();
        assert_eq!(installation.leftovers().find().unwrap(), vec![], "at {enough}");
    }
    assert!(in_the_middle >= 5, "only {in_the_middle} kills came in the middle");
}

/// What there is of machines: marks on the host and folders in the state.
fn machines(installation: &Installation) -> Vec<String> {
    let is_a_machines = |mark: &String| ["hello.web", "bench", "gv"].iter().any(|part| mark.contains(part));
    let mut found: Vec<String> = marks_on_host(&installation.id).into_iter().filter(is_a_machines).collect();
    for folder in ["nodes", "tasks", "benches", "runc"] {
        let entries = std::fs::read_dir(platform_folder(&installation.state()).join(folder)).into_iter().flatten();
        found.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
    }
    let mounts = std::fs::read_dir(Path::new(RUNTIME_FOLDER).join(&installation.id)).into_iter().flatten().flatten();
    found.extend(mounts.filter(|entry| entry.path().is_dir()).map(|entry| entry.path().display().to_string()));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_given_up_after_its_maker_was_killed_leaves_nothing() {
    let mut in_the_middle = 0;
    for enough in places(Maker::Group) {
        let (installation, in_time) = kill_at(Maker::Group, enough);
        in_the_middle += usize::from(in_time);
        let platform = installation.open().await;
        let seen = platform.observe(&service()).await.unwrap();
        platform.destroy_nodes(&service(), &seen.nodes.into_keys().collect()).await.unwrap();
        assert_eq!(machines(&installation), Vec::<String>::new(), "at {enough}");
        assert_eq!(installation.leftovers().find().unwrap(), vec![], "at {enough}");
    }
    assert!(in_the_middle >= 5, "only {in_the_middle} kills came in the middle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_node_whose_maker_was_killed_is_gone_after_the_next_start_or_the_doctors_removal() {
    let mut in_the_middle = 0;
    for (place, enough) in places(Maker::Bench).enumerate() {
        let (installation, in_time) = kill_at(Maker::Bench, enough);
        in_the_middle += usize::from(in_time);
        if place % 2 == 0 {
            drop(installation.open().await);
        } else {
            let leftovers = installation.leftovers();
            leftovers.remove(&leftovers.find().unwrap()).unwrap();
        }
        assert_eq!(machines(&installation), Vec::<String>::new(), "at {enough}");
        assert!(!installation.folder.path().join("upper.work").exists(), "at {enough}: the kernel's folder is left");
        assert_eq!(installation.leftovers().find().unwrap(), vec![], "at {enough}");
    }
    assert!(in_the_middle >= 5, "only {in_the_middle} kills came in the middle");
}

/// How long after its platform is open the runner of a task is killed, in milliseconds: while its machine is made, while its command runs, and while what came of it is written down.
const TASK_KILLS: [u64; 12] = [0, 15, 30, 45, 60, 75, 90, 120, 250, 370, 400, 430];

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_server_was_killed_is_run_once_and_what_came_of_it_is_known() {
    let (mut unbegun, mut begun) = (0, 0);
    for after in TASK_KILLS {
        let installation = Installation::new();
        let mut runner = start(Maker::Task, &installation);
        std::thread::sleep(Duration::from_millis(after));
        runner.kill().unwrap();
        runner.wait().unwrap();
        let runs = installation.lines("runs");
        (unbegun, begun) = (unbegun + (1 - runs), begun + runs);
        let platform = installation.open().await;
        let declaration = Arc::new(with_release_command("300ms"));
        platform
            .run_task(declaration, group(1), Task::ReleaseCommand, Duration::from_secs(60))
            .await
            .unwrap_or_else(|error| panic!("killed after {after} ms: {error}"));
        assert_eq!(installation.lines("runs"), 1, "killed after {after} ms, the task was run again");
        assert_eq!(machines(&installation), Vec::<String>::new(), "killed after {after} ms");
        assert_eq!(installation.leftovers().find().unwrap(), vec![], "killed after {after} ms");
    }
    println!("{unbegun} kills before the command began, {begun} after");
    assert!(unbegun > 0 && begun > 0, "all kills came on one side: {unbegun} and {begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_failed_while_no_server_ran_is_known_to_have_failed() {
    let installation = Installation::new();
    let mut runner = start(Maker::Task, &installation);
    let end = Instant::now() + Duration::from_secs(10);
    while installation.lines("runs") == 0 {
        assert!(Instant::now() < end, "the task was never begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    runner.kill().unwrap();
    runner.wait().unwrap();
    let state = format!("platform/runc/gl{}.hello.web.r1-i1-task-release-command/state.json", installation.id);
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(installation.state().join(state)).unwrap()).unwrap();
    let command = rustix::process::Pid::from_raw(state["init_process_pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(command, rustix::process::Signal::KILL).unwrap();
    let exit = installation.state().join("platform/tasks/hello.web.r1-i1-task-release-command/exit");
    while !exit.exists() {
        assert!(Instant::now() < end, "nobody wrote down how the task ended");
        std::thread::sleep(Duration::from_millis(1));
    }
    let platform = installation.open().await;
    let declaration = Arc::new(with_release_command("300ms"));
    let error = platform.run_task(declaration, group(1), Task::ReleaseCommand, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("ended with status 137"), "{error}");
    assert_eq!(installation.lines("runs"), 1);
    assert_eq!(machines(&installation), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_build_node_of_a_dead_server_is_a_leftover_and_that_of_a_living_one_is_not() {
    let installation = Installation::new();
    assert!(start(Maker::Bench, &installation).wait().unwrap().success());
    let found = installation.leftovers().find().unwrap();
    let kinds: BTreeSet<String> = found.iter().map(|leftover| leftover.kind.to_string()).collect();
    let expected = ["container", "control group", "folder", "interface", "mount", "network namespace", "processes"];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{found:?}");
    let platform = installation.open().await;
    let upper = installation.folder.path().join("upper");
    let request = BenchRequest {
        name: "build-2".to_string(),
        layers: vec![installation.image()],
        log: upper.with_extension("log"),
        upper,
        command: [PROGRAM, "serve", "22"].map(str::to_string).to_vec(),
        files: BTreeMap::new(),
    };
    platform.open(request).await.unwrap();
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
    platform.close("build-2").await.unwrap();
}

/// Things on the host that somebody else made, with names that look like an installation's own.
struct Lookalikes {
    namespaces: Vec<String>,
    links: Vec<String>,
}

impl Lookalikes {
    fn new(id: &str) -> Self {
        let namespaces = vec![format!("gl{id}.mine"), format!("gl{id}x.hello.web.r1-i1-n0"), format!("gl{id}.hello.web.r01-i1-n0")];
        let links = vec![format!("gv{id}123"), format!("gv{id}12345"), format!("gv{id}wxyz")];
        // Whole before anything is made: what is made is removed, also when the next thing cannot be made.
        let made = Self { namespaces, links };
        made.namespaces.iter().for_each(|name| run("ip", &["netns", "add", name]));
        made.links.iter().for_each(|name| run("ip", &["link", "add", name, "type", "bridge"]));
        made
    }

    fn assert_present(&self) {
        let present = |folder: &str, name: &String| Path::new(folder).join(name).exists();
        assert!(self.namespaces.iter().all(|name| present("/run/netns", name)), "a namespace of somebody else is gone");
        assert!(self.links.iter().all(|name| present("/sys/class/net", name)), "an interface of somebody else is gone");
    }
}

impl Drop for Lookalikes {
    fn drop(&mut self) {
        self.namespaces.iter().for_each(|name| run("ip", &["netns", "del", name]));
        self.links.iter().for_each(|name| run("ip", &["link", "del", name]));
    }
}

fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).status().unwrap();
    assert!(ended.success() || std::thread::panicking(), "{program} {arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_takes_orphans_and_nothing_of_anybody_else() {
    let mut other = Installation::new();
    let installation = Installation::new();
    // As like each other as two installations can be.
    other.id = format!("{}{}", &installation.id[..5], if installation.id.ends_with('0') { '1' } else { '0' });
    let others = other.open().await;
    let platform = installation.open().await;
    for platform in [&others, &platform] {
        platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    }
    let lookalikes = Lookalikes::new(&installation.id);
    drop(platform);
    // Without its record, nothing explains the node any more.
    std::fs::remove_file(installation.state().join("platform/nodes/hello.web.r1-i1-n0/node.json")).unwrap();
    let platform = installation.open().await;
    let seen = platform.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes.len(), 1, "{seen:?}");
    assert_eq!(seen.nodes[&group(1).node(1)].condition, Condition::Running);
    let left = machines(&installation);
    assert!(left.iter().all(|mark| !mark.contains(&format!("gl{}.hello.web.r1-i1-n0", installation.id))), "{left:?}");
    let seen = others.observe(&service()).await.unwrap();
    assert!(seen.nodes.len() == 2 && seen.nodes.values().all(|node| node.condition == Condition::Running), "{seen:?}");
    lookalikes.assert_present();
    platform.destroy_nodes(&service(), &BTreeSet::from([group(1).node(1)])).await.unwrap();
    installation.leftovers().remove_everything().unwrap();
    lookalikes.assert_present();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_state_folder_does_not_take_the_machines_of_the_original() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let copy = installation.folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let images = Arc::new(OneTree(installation.image()));
    let error = LocalPlatform::open(LocalOptions::new(copy, installation.id.clone(), Vec::new(), images)).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains(&installation.state().display().to_string()), "{error}");
    let seen = platform.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes[&group(1).node(0)].condition, Condition::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn helpers_of_a_dead_server_are_ended_at_the_next_start() {
    let installation = Installation::new();
    let platform = installation.open().await;
    // The shell is killed as its server would be; what it had started goes on, as a helper of a dead server does.
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
    platform.adopt(&mut command).unwrap();
    let mut shell = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let helper = format!("/proc/{}/cmdline", line.trim());
    let runs = || std::fs::read(&helper).is_ok_and(|line| line.starts_with(b"sleep"));
    let end = Instant::now() + Duration::from_secs(10);
    while !runs() {
        assert!(Instant::now() < end, "the helper never ran");
        std::thread::sleep(Duration::from_millis(1));
    }
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert!(runs(), "the helper ended with its parent: this proves nothing");
    let _next = installation.open().await;
    assert!(!runs(), "the helper still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_whose_state_is_gone_is_found_by_its_marks() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    drop(platform);
    std::fs::remove_dir_all(installation.state()).unwrap();
    let foreign = Leftovers::foreign().unwrap().into_iter().find(|foreign| foreign.installation() == installation.id);
    let foreign = foreign.expect("it is found");
    assert!(!foreign.find().unwrap().is_empty(), "what it left is nothing");
    foreign.remove_everything().unwrap();
    assert_eq!(marks_on_host(&installation.id), Vec::<String>::new());
    assert!(Leftovers::foreign().unwrap().iter().all(|foreign| foreign.installation() != installation.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_record_is_damaged_keeps_its_address() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    let service = serving().service;
    let address = platform.address(&service, group(1).node(0)).expect("an address");
    drop(platform);
    std::fs::write(installation.state().join("platform/nodes/hello.web.r1-i1-n0/node.json"), "damaged").unwrap();
    let next = installation.open().await;
    next.ensure_group(Arc::new(serving()), group(2), 1).await.unwrap();
    assert_ne!(next.address(&service, group(2).node(0)), Some(address));
    next.destroy_nodes(&service, &[group(1).node(0), group(2).node(0)].into()).await.unwrap();
}

/// Writes down that this process is the server of the installation's latest life.
fn hand_lease_to(process: &Child, installation: &Installation) {
    let place = Path::new(RUNTIME_FOLDER).join(&installation.id).join("life.json");
    let mut lease: serde_json::Value = serde_json::from_slice(&std::fs::read(&place).unwrap()).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // The 22nd field (proc_pid_stat(5)); what follows the name begins with the third.
    let start: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    lease["server"]["pid"] = process.id().into();
    lease["server"]["start_ticks"] = start.into();
    std::fs::write(&place, lease.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_whose_server_runs_is_nobodys_leftover_although_its_state_cannot_be_seen() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(serving()), group(1), 1).await.unwrap();
    drop(platform);
    std::fs::remove_dir_all(installation.state()).unwrap();
    let is_found = || Leftovers::foreign().unwrap().iter().any(|foreign| foreign.installation() == installation.id);
    assert!(is_found(), "without a server it is a leftover");
    let mut server = Command::new("sleep").arg("1000").spawn().unwrap();
    hand_lease_to(&server, &installation);
    let while_it_runs = is_found();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!while_it_runs, "a live installation would be destroyed");
    assert!(is_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_may_open_as_many_files_as_the_host_lets_it() {
    let limits = || {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_string();
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        (words[3].clone(), words[4].clone())
    };
    if std::env::var_os("GAPLESS_TEST_LIMITED").is_none() {
        // The limit is the whole process's: this test alone, in one of its own.
        let mut alone = Command::new("prlimit");
        alone.arg("--nofile=512:").arg(std::env::current_exe().unwrap());
        alone.args(["recovery::the_platform_may_open_as_many_files_as_the_host_lets_it", "--exact"]);
        let output = alone.env("GAPLESS_TEST_LIMITED", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let installation = Installation::new();
    let (soft, hard) = limits();
    assert_eq!(soft, "512");
    let _platform = installation.open().await;
    assert_eq!(limits(), (hard.clone(), hard));
}
