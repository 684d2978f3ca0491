//! Tasks: release commands and hooks, on real nodes and a real HTTP server.

use crate::service::{SlowOnce, group, serving, task_command, with_release_command};
use crate::support::{Installation, marks_on_host};
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_engine::declaration::{Hook, ServiceDeclaration};
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Platform;
use gapless_platforms::local::LocalPlatform;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const A_WHILE: Duration = Duration::from_secs(60);

fn service() -> ServiceName {
    "hello/web".parse().unwrap()
}

async fn run(platform: &LocalPlatform, declaration: &ServiceDeclaration, task: Task) -> Result<(), Error> {
    platform.run_task(Arc::new(declaration.clone()), group(1), task, A_WHILE).await
}

/// Starts a release command that waits, and gives when it has begun.
async fn begun(installation: &Installation, platform: &LocalPlatform, how: &str) -> tokio::task::JoinHandle<Result<(), Error>> {
    let (platform, declaration) = (platform.clone(), with_release_command(how));
    let running = tokio::spawn(async move { run(&platform, &declaration, Task::ReleaseCommand).await });
    let end = Instant::now() + Duration::from_secs(60);
    while installation.lines("runs") == 0 {
        assert!(Instant::now() < end && !running.is_finished(), "the task was never begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running
}

/// What is left of tasks on the host and in the state, but what came of them and what they wrote.
fn left(installation: &Installation) -> Vec<String> {
    let mut left: Vec<String> = marks_on_host(&installation.id).into_iter().filter(|mark| mark.contains("task")).collect();
    let folder = installation.state().join("platform");
    for name in ["tasks", "runc"] {
        left.extend(std::fs::read_dir(folder.join(name)).unwrap().map(|entry| entry.unwrap().path().display().to_string()));
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_tells_its_status_and_its_last_output_and_leaves_that_alone() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let declaration = with_release_command("7");
    let error = run(&platform, &declaration, Task::ReleaseCommand).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    let text = error.to_string();
    let name = "r1-i1-task-release-command";
    assert!(text.contains("ended with status 7") && text.contains("the last words"), "{text}");
    assert!(text.contains(&format!("begun as web-{name}")), "the task's node has another name: {text}");
    assert!(error.hint_text().unwrap().contains(&format!("gapless logs {name}")), "{:?}", error.hint_text());
    assert_eq!(left(&installation), Vec::<String>::new());
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
    let outputs = platform.outputs(&service()).unwrap();
    assert_eq!(outputs.iter().map(|output| (output.of.as_str(), output.exists)).collect::<Vec<_>>(), [(name, false)]);
    assert!(std::fs::read_to_string(&outputs[0].path).unwrap().ends_with("the last words\n"));
    let again = installation.open().await;
    let repeated = run(&again, &declaration, Task::ReleaseCommand).await.unwrap_err();
    assert_eq!(repeated.to_string(), text);
    assert_eq!(installation.lines("runs"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_left_of_a_task_that_ended_is_gone_when_its_outcome_is_told() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let declaration = with_release_command("0");
    run(&platform, &declaration, Task::ReleaseCommand).await.unwrap();
    let folder = installation.state().join("platform/tasks/hello.web.r1-i1-task-release-command");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("exit"), "0").unwrap();
    run(&platform, &declaration, Task::ReleaseCommand).await.unwrap();
    assert_eq!(left(&installation), Vec::<String>::new());
    assert_eq!(installation.lines("runs"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_be_started_may_be_tried_again() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut declaration = with_release_command("0");
    declaration.tasks.release_command = Some(vec!["/no/such/program".to_string()]);
    let error = run(&platform, &declaration, Task::ReleaseCommand).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Failed, "{error}");
    assert!(error.to_string().contains("`/no/such/program` could not be started"), "{error}");
    assert_eq!(left(&installation), Vec::<String>::new());
    run(&platform, &with_release_command("0"), Task::ReleaseCommand).await.unwrap();
    assert_eq!(installation.lines("runs"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_beside_the_group_and_see_what_its_nodes_see() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut declaration = with_release_command("0");
    declaration.tasks.before_shift = Some(Hook::Command(task_command("0")));
    declaration.tasks.after_shift = Some(Hook::Command(task_command("0")));
    platform.ensure_group(Arc::new(declaration.clone()), group(1), 1).await.unwrap();
    for task in Task::ALL {
        run(&platform, &declaration, task).await.unwrap();
    }
    assert_eq!(installation.lines("runs"), 3);
    let seen = platform.observe(&service()).await.unwrap();
    assert_eq!(seen.nodes.into_keys().collect::<Vec<_>>(), [group(1).node(0)]);
    run(&platform, &serving(), Task::AfterShift).await.unwrap();
    assert_eq!(installation.lines("runs"), 3, "a hook that is not declared, or that ended, was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_ends_with_its_group() {
    let installation = Installation::new();
    let platform = installation.open().await;
    platform.ensure_group(Arc::new(with_release_command("hang")), group(1), 2).await.unwrap();
    let running = begun(&installation, &platform, "hang").await;
    platform.destroy_nodes(&service(), &BTreeSet::from([group(1).node(0)])).await.unwrap();
    assert!(!running.is_finished(), "a task was ended although its group stands");
    platform.destroy_nodes(&service(), &BTreeSet::from([group(1).node(1)])).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("its group was destroyed"), "{error}");
    assert_eq!(left(&installation), Vec::<String>::new());
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
    run(&platform, &with_release_command("0"), Task::ReleaseCommand).await.unwrap_err();
    run(&platform, &with_release_command("0"), Task::BeforeShift).await.unwrap();
    assert_eq!(installation.lines("runs"), 1, "an effect that arrived late ran a task of a group that is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_task_of_a_service_runs_at_a_time() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let first = begun(&installation, &platform, "wait").await;
    let (other, declaration) = (platform.clone(), Arc::new(with_release_command("0")));
    let second = tokio::spawn(async move { other.run_task(declaration, group(2), Task::ReleaseCommand, A_WHILE).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(installation.lines("runs"), 1, "two migrations run at once");
    installation.put("let-end");
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(installation.lines("runs"), 2);
}

/// Asks for the release command of a group in the background.
fn asked(platform: &LocalPlatform, instance: u64, how: &str) -> tokio::task::JoinHandle<Result<(), Error>> {
    let (platform, declaration) = (platform.clone(), Arc::new(with_release_command(how)));
    tokio::spawn(async move { platform.run_task(declaration, group(instance), Task::ReleaseCommand, A_WHILE).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_rollout_was_given_up_before_it_began_never_begins() {
    let installation = Installation::new();
    let images = Arc::new(SlowOnce::new(installation.image()));
    let platform = installation.open_from(Vec::new(), images.clone()).await;
    let given_up = asked(&platform, 1, "0");
    images.begun.notified().await;
    platform.destroy_nodes(&service(), &BTreeSet::from([group(1).node(0)])).await.unwrap();
    images.let_end.notify_one();
    let error = given_up.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("group r1-i1 was destroyed"), "{error}");
    assert_eq!(installation.lines("runs"), 0, "a task ran whose group is gone");
    assert_eq!(left(&installation), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_later_one_has_overtaken_never_begins() {
    let installation = Installation::new();
    let images = Arc::new(SlowOnce::new(installation.image()));
    let platform = installation.open_from(Vec::new(), images.clone()).await;
    let overtaken = asked(&platform, 1, "0");
    images.begun.notified().await;
    let later = asked(&platform, 2, "wait");
    until_runs(&installation, 1).await;
    images.let_end.notify_one();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(installation.lines("runs"), 1, "it ran beside the later one");
    installation.put("let-end");
    later.await.unwrap().unwrap();
    for error in [overtaken.await.unwrap().unwrap_err(), asked(&platform, 1, "0").await.unwrap().unwrap_err()] {
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("a later release's command has begun: the release-command of group r1-i2"), "{error}");
    }
    assert_eq!(installation.lines("runs"), 1);
    assert_eq!(left(&installation), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tasks_that_wait_for_a_third_one_begins() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let first = asked(&platform, 1, "1500ms");
    until_runs(&installation, 1).await;
    let (second, third) = (asked(&platform, 2, "wait"), asked(&platform, 3, "wait"));
    first.await.unwrap().unwrap();
    until_runs(&installation, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(installation.lines("runs"), 2, "two migrations run at once");
    installation.put("let-end");
    third.await.unwrap().unwrap();
    // It ran before the third one, or was overtaken by it.
    let second = second.await.unwrap();
    assert_eq!(installation.lines("runs"), if second.is_ok() { 3 } else { 2 }, "{second:?}");
}

/// The disk takes nothing more in this folder, as one that a task has filled itself.
struct Full(PathBuf);

impl Full {
    fn folder(path: PathBuf) -> Self {
        let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).arg(&path).status().unwrap().success());
        mount(&["--bind", path.to_str().unwrap()]);
        mount(&["-o", "remount,ro,bind"]);
        Self(path)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_time_is_over_has_not_done_its_work_although_it_ends_well_and_the_disk_is_full() {
    for how in ["hang", "oblige"] {
        let installation = Installation::new();
        let platform = installation.open().await;
        let (first, other) = (Arc::new(with_release_command(how)), platform.clone());
        let deadline = Duration::from_millis(700);
        let first = tokio::spawn(async move { other.run_task(first, group(1), Task::ReleaseCommand, deadline).await });
        until_runs(&installation, 1).await;
        let processes = || processes_in(&installation, "hello.web.r1-i1-task-release-command");
        assert_ne!(processes(), "");
        let full = Full::folder(installation.state().join("platform/tasks/hello.web.r1-i1-task-release-command"));
        let error = first.await.unwrap().unwrap_err();
        assert!(error.error_kind() == ErrorKind::Invalid && error.to_string().contains("it ran longer than 700ms"), "{how}: {error}");
        assert_eq!(processes(), "", "it still runs");
        drop(full);
        asked(&platform, 2, "0").await.unwrap().unwrap();
        assert_eq!(installation.lines("runs"), 2);
        let error = asked(&platform, 1, "0").await.unwrap().unwrap_err();
        assert!(error.to_string().contains("it ran longer than"), "{how}: {error}");
        assert_eq!(installation.lines("runs"), 2, "it is not run again");
    }
}

/// The processes in a control group of the installation, one a line; none: there is no such group any more.
fn processes_in(installation: &Installation, name: &str) -> String {
    let group = format!("/sys/fs/cgroup/unified/gapless/{}/{name}", installation.id);
    let group = if Path::new("/sys/fs/cgroup/unified").exists() { group } else { group.replace("/unified", "") };
    std::fs::read_to_string(format!("{group}/cgroup.procs")).unwrap_or_default()
}

async fn until_runs(installation: &Installation, runs: u32) {
    let end = Instant::now() + Duration::from_secs(60);
    while installation.lines("runs") < runs {
        assert!(Instant::now() < end, "the task was never begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_which_nobody_can_know_how_it_ended_is_not_run_again() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let running = begun(&installation, &platform, "hang").await;
    // The keeper first, or it would write the status down.
    let keeper = processes_in(&installation, "hello.web.r1-i1-task-release-command.keeper");
    assert!(keeper.lines().count() >= 2, "the keeper is a shell and the runtime: {keeper}");
    // As if the runtime had been killed after the start, before it wrote the number down.
    let _ = std::fs::remove_file(format!("/run/gapless/{}/hello.web.r1-i1-task-release-command/task.pid", installation.id));
    keeper.lines().for_each(kill);
    let state = format!("platform/runc/gl{}.hello.web.r1-i1-task-release-command/state.json", installation.id);
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(installation.state().join(state)).unwrap()).unwrap();
    kill(&state["init_process_pid"].to_string());
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("nobody knows how") && error.hint_text().unwrap().contains("may have run partly"), "{error}");
    run(&platform, &with_release_command("0"), Task::ReleaseCommand).await.unwrap_err();
    assert_eq!(installation.lines("runs"), 1);
    assert_eq!(left(&installation), Vec::<String>::new());
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A receiver of hooks that answers with these statuses, one after the other, and keeps what it was asked.
struct Receiver {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&receiver.asked);
        std::thread::spawn(move || {
            for (status, stream) in statuses.iter().zip(listener.incoming()) {
                let request = answer(stream.unwrap(), *status);
                asked.lock().unwrap().push(request);
            }
        });
        receiver
    }

    fn hook(&self) -> ServiceDeclaration {
        let mut declaration = serving();
        declaration.tasks.before_shift = Some(Hook::Http { url: format!("http://{}/hook?x=1", self.address) });
        declaration
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads a request, keeps its head and body as text, and answers.
fn answer(stream: TcpStream, status: u16) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.push_str(&String::from_utf8(body).unwrap());
    write!(&stream, "HTTP/1.1 {status} Whatever\r\ncontent-length: 6\r\n\r\nnot so").unwrap();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_over_http_is_posted_until_it_is_answered_and_then_never_again() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let receiver = Receiver::start(&[503, 204, 500]);
    let declaration = receiver.hook();
    let error = run(&platform, &declaration, Task::BeforeShift).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Failed, "{error}");
    assert!(error.to_string().contains("503: not so"), "{error}");
    run(&platform, &declaration, Task::BeforeShift).await.unwrap();
    run(&platform, &declaration, Task::BeforeShift).await.unwrap();
    run(&installation.open().await, &declaration, Task::BeforeShift).await.unwrap();
    let asked = receiver.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for request in asked {
        assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
        let (id, content) = (&installation.id, declaration.content());
        let key = format!("idempotency-key: {id}-hello/web-r1-i1-before-shift-{}\r\n", content.hex());
        assert!(request.contains(&key), "{request}");
        let body = format!(
            r#"{{"content":"{content}","group":"r1-i1","installation":"{id}","release":"web-r1","service":"hello/web","task":"before-shift"}}"#
        );
        assert!(request.ends_with(&body), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_refused_is_final_and_one_that_nobody_hears_is_not() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let receiver = Receiver::start(&[409, 200]);
    for _ in 0..2 {
        let error = run(&platform, &receiver.hook(), Task::BeforeShift).await.unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("answered with 409") && error.to_string().contains("not so"), "{error}");
    }
    assert_eq!(receiver.asked().len(), 1);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut declaration = serving();
    declaration.tasks.after_shift = Some(Hook::Http { url: format!("http://{closed}/") });
    let error = run(&platform, &declaration, Task::AfterShift).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Failed, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_heard_and_not_answered_is_final() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut declaration = serving();
    declaration.tasks.after_shift = Some(Hook::Http { url: format!("http://{}/", silent.local_addr().unwrap()) });
    for _ in 0..2 {
        let asked = platform.run_task(Arc::new(declaration.clone()), group(1), Task::AfterShift, Duration::from_millis(300));
        let error = asked.await.unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("was not answered within 300ms"), "{error}");
    }
    silent.set_nonblocking(true).unwrap();
    silent.accept().unwrap();
    assert!(silent.accept().is_err(), "it was asked again");
}
