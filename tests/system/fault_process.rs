//! Processes that die under load, and ones that must not begin: only what was in flight on the dead may fail.

use crate::fault::{
    SERVICE, assert_says, class, failures_during, first_version, go_live, kill_process, leaves_nothing, next_version, node_process, now_us,
    send, serving, under_load,
};
use crate::installation::{Installation, ServerSettings, assert_no_failure, until};
use gapless_load::Cause;
use gapless_wire::rollout::Outcome;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

const RATE: u32 = 200;

/// Connections that wait for a worker to accept them.
const WAITING: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_or_proxy_is_refused_and_a_killed_node_is_replaced() {
    let installation = Installation::start("node", &ServerSettings::default()).await;
    first_version(&installation).await;
    let witness = installation.witness("localhost", RATE).await;
    under_load(&witness, 100).await;
    second_server(&installation);
    second_proxy(&installation);
    assert_no_failure(&witness.stop().await.expect("the witness's recording"), 100);

    let witness = installation.witness("localhost", RATE).await;
    under_load(&witness, 300).await;
    let before = serving(&installation, 3).await;
    let killed = before[0].clone();
    let from = now_us();
    let gone = kill_process(node_process(&installation, &killed)).await;
    until("the killed node is taken out", || async { !names(&installation).await.contains(&killed) }).await;
    let after = serving(&installation, 3).await;
    assert!(before[1..].iter().all(|node| after.contains(node)), "{before:?} became {after:?}");
    under_load(&witness, 300).await;

    let recording = witness.stop().await.expect("the witness's recording");
    for sample in failures_during(&recording, from, gone) {
        let begun = sample.status == Some(200) || matches!(sample.failure, Some(Cause::Truncated | Cause::BadFraming));
        let once = class(&recording, sample) == "upload";
        assert!(begun || once, "it could have been sent to another node: {sample:#?}");
        let other = sample.node.as_ref().filter(|node| !node.as_str().contains(&killed));
        assert_eq!(other, None, "a failure on a node that lived: {sample:#?}");
    }
    leaves_nothing(installation);
}

fn second_server(installation: &Installation) {
    let (status, printed, said) = installation.run(&installation.root, "server", &[]);
    assert_eq!(status, 1, "a second server on one state folder:\n{printed}{said}");
    let first = format!("another gapless server (process {},", installation.server_pid());
    assert_says(&said, &[&first, " hint: stop that server first, or give this one another folder with --state"]);
}

/// On the folder of the first, and on its port.
fn second_proxy(installation: &Installation) {
    let address = installation.address.to_string();
    for (folder, words) in [
        ("proxy", ["another proxy uses", "hint: one proxy for each state folder"]),
        ("proxy-2", [&*format!("cannot listen on {address}"), "hint: another program listens there"]),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gapless"));
        command.arg("proxy").arg("--state").arg(installation.root.join(folder)).args(["--listen", &address]);
        let output = command.stdin(Stdio::null()).output().expect("running a second proxy");
        assert_eq!(output.status.code(), Some(1), "a second proxy in {folder}");
        assert_says(&String::from_utf8_lossy(&output.stderr), &words);
    }
}

async fn names(installation: &Installation) -> Vec<String> {
    installation.status(SERVICE).await.nodes.into_iter().map(|node| node.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_on_the_same_sockets_without_the_server() {
    let mut installation = Installation::start("worker", &ServerSettings::default()).await;
    let project = first_version(&installation).await;
    installation.kill_server();
    let hold = ServerSettings { hold_at: Some(format!("{SERVICE}:*:Drain:1:before")), ..ServerSettings::default() };
    installation.start_server(&hold).await;
    let witness = installation.witness("localhost", RATE).await;
    under_load(&witness, 300).await;
    let second = next_version(&project, 2);
    let declared = installation.declare(&project, &second).await;
    installation.held().await;
    installation.kill_server();

    let (from, gone) = kill_worker(&installation).await;
    under_load(&witness, 200).await;

    installation.start_server(&ServerSettings::default()).await;
    let ended = installation.ended(SERVICE, declared.rollout.expect("a rollout")).await;
    assert_eq!(ended.outcome, Outcome::Live, "{:?}", ended.reason);
    let receipt = ended.receipt.expect("a receipt");
    assert!(!receipt.incomplete.is_empty(), "what the dead worker counted is lost, and the receipt does not say so: {receipt:#?}");
    assert_eq!(receipt.server_restarts, 1);
    let third = next_version(&project, 3);
    let receipt = go_live(&installation, &project, &third).await.receipt.expect("a receipt");
    let measured = receipt.measured.expect("measured requests");
    assert_eq!((measured.failed, measured.retried, measured.held, measured.cut), (0, 0, 0, 0), "{measured:#?}");

    failures_during(&witness.stop().await.expect("the witness's recording"), from, gone);
    leaves_nothing(installation);
}

/// Kills the worker while connections wait in the accept queue: all of them are served by the next. The span from which failures are explained.
async fn kill_worker(installation: &Installation) -> (u64, u64) {
    let before = installation.proxy_status().await;
    let worker = before.workers[0].pid;
    let from = now_us();
    // A stopped worker accepts nothing, so these connections wait for whoever accepts next.
    send(worker, Signal::STOP);
    until("every thread of the worker has stopped", || async { is_stopped(worker) }).await;
    let waiting: Vec<TcpStream> = (0..WAITING).map(|_| ask(installation)).collect();
    let gone = kill_process(worker).await;
    until("the worker is replaced", || async {
        let now = installation.proxy_status().await;
        now.replaced == before.replaced + 1 && now.workers.iter().any(|other| other.pid != worker && !other.leaving)
    })
    .await;
    assert_eq!(installation.proxy_status().await.holder, before.holder, "the holder of the sockets is the same");
    for mut connection in waiting {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("the answer on a connection that waited");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    (from, gone)
}

fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running worker").flatten();
    threads
        .map(|thread| std::fs::read_to_string(thread.path().join("status")).unwrap_or_default())
        .all(|status| status.contains("State:\tT"))
}

/// A request on a connection of its own.
fn ask(installation: &Installation) -> TcpStream {
    let mut connection = TcpStream::connect(installation.address).expect("connecting to the proxy");
    connection.set_read_timeout(Some(Duration::from_secs(10))).expect("setting a time limit");
    let request = "GET /check.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).expect("sending a request");
    connection
}
