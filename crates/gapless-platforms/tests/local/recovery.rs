//! A server that is killed anywhere while it makes nodes: the next one finishes the work.

use crate::service::{group, serving};
use crate::support::{Installation, marks_on_host};
use gapless_core::name::ServiceName;
use gapless_core::observation::Condition;
use gapless_engine::platform::Platform;
use gapless_engine::workbench::Workbench;
use gapless_platforms::local::leftovers::Leftovers;
use gapless_platforms::local::names::RUNTIME_FOLDER;
use gapless_platforms::local::platform_folder;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The example that ensures a group of two; it is built beside the tests.
fn maker() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples/local_ensure_group")
}

/// Starts the maker and gives it when its platform is open.
fn start(installation: &Installation) -> Child {
    let mut command = Command::new(maker());
    command.arg(installation.state()).arg(&installation.id).arg(installation.image()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the example `local_ensure_group` is built with the tests");
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

/// How much there is when a maker has opened its platform, and when it has made its group.
fn traces_of_a_whole_making() -> (usize, usize) {
    let installation = Installation::new();
    let mut maker = start(&installation);
    let opened = traces(&installation);
    assert!(maker.wait().unwrap().success());
    (opened, traces(&installation))
}

/// Kills a maker once there is so much of its group, and lets the next platform finish. Gives whether the kill came before the end.
async fn kill_at(enough: usize) -> bool {
    let service: ServiceName = "hello/web".parse().unwrap();
    let installation = Installation::new();
    let mut maker = start(&installation);
    while traces(&installation) < enough && maker.try_wait().unwrap().is_none() {
        std::hint::spin_loop();
    }
    let in_time = maker.try_wait().unwrap().is_none();
    maker.kill().unwrap();
    maker.wait().unwrap();

    let platform = installation.open().await;
    let before = platform.observe(&service).await.unwrap();
    assert!(before.nodes.values().all(|node| !matches!(node.condition, Condition::Exited { .. })), "at {enough}: {before:?}");
    platform.ensure_group(Arc::new(serving()), group(1), 2).await.unwrap();
    let seen = platform.observe(&service).await.unwrap();
    assert_eq!(seen.nodes.len(), 2, "at {enough}: {seen:?}");
    assert!(seen.nodes.values().all(|node| node.condition == Condition::Running), "at {enough}: {seen:?}");
    assert_eq!(installation.leftovers().find().unwrap(), vec![], "at {enough}");
    platform.destroy_nodes(&service, &seen.nodes.into_keys().collect()).await.unwrap();
    assert_eq!(installation.leftovers().find().unwrap(), vec![], "at {enough}");
    in_time
}

/// How many places of a making are tried.
const PLACES: usize = 9;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_maker_was_killed_is_completed() {
    let (opened, made) = traces_of_a_whole_making();
    assert!(made > opened + PLACES, "a making leaves too few traces: {opened} and {made}");
    let mut in_time = 0;
    for place in 0..PLACES {
        in_time += usize::from(kill_at(opened + (made - opened) * place / PLACES).await);
    }
    assert!(in_time >= 5, "only {in_time} kills came in the middle");
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
    foreign.remove(&foreign.find().unwrap()).unwrap();
    assert_eq!(marks_on_host(&installation.id), Vec::<String>::new());
    assert!(Leftovers::foreign().unwrap().iter().all(|foreign| foreign.installation() != installation.id));
}
