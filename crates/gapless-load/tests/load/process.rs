//! The witness as a process: plan in, progress out, recording at the end.

use std::process::{Command, Stdio};
use std::time::Duration;

use gapless_load::{Check, ClassPlan, Plan, Recording, Witness};
use tokio::io::AsyncBufReadExt;

use crate::backend::{Answer, Backend, response};
use crate::plan_of;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gapless-load-witness"))
}

async fn endless(backend: &Backend) -> Plan {
    let mut plan = plan_of(&backend.url(), ClassPlan::get("small", 1000, "/", Check::Complete), 100, 1);
    plan.duration_ms = None;
    plan.deadline_ms = 2000;
    plan
}

#[tokio::test]
async fn a_spawned_witness_shows_progress_and_hands_over_its_recording() {
    let backend = Backend::start(|_| Answer::Keep(response(200, b""))).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("recording.json");
    let witness = Witness::spawn(program(), &endless(&backend).await, &output).await.unwrap();
    let mut progress = witness.progress();
    let seen = progress.wait_for(|progress| progress.finished > 10);
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("progress in time").unwrap();
    let recording = witness.stop().await.unwrap();
    assert!(recording.report.requests > 10);
    assert_eq!(recording.report.failed, 0);
    assert_eq!(recording.report.requests, backend.requests());
    assert_eq!(recording.samples.samples.len() as u64, backend.requests());
}

#[tokio::test]
async fn sigterm_ends_a_witness_that_reads_its_plan_from_a_file() {
    let backend = Backend::start(|_| Answer::Keep(response(200, b""))).await;
    let folder = tempfile::tempdir().unwrap();
    let (plan, output) = (folder.path().join("plan.json"), folder.path().join("recording.json"));
    std::fs::write(&plan, serde_json::to_vec(&endless(&backend).await).unwrap()).unwrap();
    let mut program = program();
    program.arg(&plan).arg(&output).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(program).kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("a line of progress");
        let progress: gapless_load::Progress = serde_json::from_str(&line).unwrap();
        if progress.finished > 0 {
            break;
        }
    }
    let process = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().await.unwrap().success());
    let recording: Recording = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(recording.report.requests, backend.requests());
    assert!(!folder.path().join("recording.json.partial").exists());
}

#[tokio::test]
async fn a_witness_ends_when_the_process_that_started_it_is_gone() {
    let backend = Backend::start(|_| Answer::Keep(response(200, b""))).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("recording.json");
    let mut program = program();
    program.arg("-").arg(&output).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = program.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    serde_json::to_writer(&mut input, &endless(&backend).await).unwrap();
    std::io::Write::write_all(&mut input, b"\n").unwrap();
    drop(input);
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let status = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it ends").unwrap();
    assert!(status.success());
    assert!(output.exists());
}

#[tokio::test]
async fn a_witness_that_cannot_work_says_why() {
    let backend = Backend::start(|_| Answer::Keep(response(200, b""))).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("missing-folder/recording.json");
    let witness = Witness::spawn(program(), &endless(&backend).await, &output).await.unwrap();
    let error = witness.stop().await.unwrap_err().to_string();
    assert!(error.contains("cannot write the recording"), "{error}");
    let absent = Witness::spawn(Command::new("/nowhere/gapless"), &endless(&backend).await, &output).await;
    assert!(absent.err().unwrap().to_string().contains("/nowhere/gapless"));
}
