//! Workers: nodes without a port, checked and asked to end by the platform itself.

use crate::service::{PROGRAM, check_command, group, worker};
use crate::support::Installation;
use gapless_core::name::ServiceName;
use gapless_core::observation::{Condition, NodeSeen, Observation};
use gapless_core::route::{Generation, Route, Weight};
use gapless_engine::declaration::{CheckKind, ServiceDeclaration, StopSignal};
use gapless_engine::error::ErrorKind;
use gapless_engine::platform::{Declarations, Platform};
use gapless_platforms::local::LocalPlatform;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn service() -> ServiceName {
    "hello/web".parse().unwrap()
}

async fn make(platform: &LocalPlatform, declaration: ServiceDeclaration) {
    platform.ensure_group(Arc::new(declaration), group(1), 1).await.unwrap();
}

/// Waits until the only node is so. Only news ends a wait: what is no news is found out too late.
async fn until(platform: &LocalPlatform, what: &str, condition: impl Fn(&NodeSeen) -> bool) -> NodeSeen {
    let end = Instant::now() + PATIENCE;
    loop {
        let Observation { nodes, proxies } = platform.observe(&service()).await.unwrap();
        assert_eq!(proxies, BTreeMap::new(), "a worker waits for proxies");
        let seen = nodes[&group(1).node(0)].clone();
        if condition(&seen) {
            return seen;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited in vain until {what}: {seen:?}");
        platform.changed(&service(), left).await;
        assert!(Instant::now() < end, "that {what} was no news");
    }
}

async fn drain(platform: &LocalPlatform) {
    platform.drain(&service(), &BTreeSet::from([group(1).node(0)]), Duration::from_secs(60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stays_up_passes_its_gate_after_that_time_and_not_before() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let span = Duration::from_millis(1200);
    let begun = Instant::now();
    make(&platform, worker(CheckKind::StayUp { span })).await;
    let seen = until(&platform, "the worker runs", |seen| seen.condition == Condition::Running).await;
    assert_eq!(seen.health.passes, 0, "it passed before its time: {seen:?}");
    let seen = until(&platform, "the worker passes its gate", |seen| seen.health.passes > 0).await;
    assert!(begun.elapsed() >= span, "it passed after {:?}", begun.elapsed());
    assert_eq!((seen.health.passes, seen.is_healthy()), (2, true), "{seen:?}");
    let next = installation.open().await;
    let seen = until(&next, "the worker passes its gate", |_| true).await;
    assert_eq!(seen.health.passes, 2, "another server does not know that it stayed up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_checked_by_a_command_inside_its_node() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut declaration = worker(check_command());
    declaration.health.timeout = Duration::from_secs(2);
    installation.put("hang");
    make(&platform, declaration).await;
    let seen = until(&platform, "the check hangs", |seen| seen.health.failures >= 2).await;
    assert_eq!(seen.health.failures_after_answer, 0, "a check that says nothing is no answer: {seen:?}");
    let result = seen.health.evidence.unwrap().result;
    assert!(result.contains("no end within 2s"), "{result}");

    std::fs::remove_file(installation.in_volume("hang")).unwrap();
    let seen = until(&platform, "the check says no", |seen| seen.health.failures_after_answer >= 2).await;
    let evidence = seen.health.evidence.unwrap();
    assert_eq!(evidence.check, "`/program check /kept/ok /kept/hang`");
    assert_eq!(evidence.result, "status 3: there is no /kept/ok");
    assert!(evidence.times > 2 && seen.health.passes == 0, "{evidence:?}");

    installation.put("ok");
    let seen = until(&platform, "the check passes", |seen| seen.health.passes >= 2).await;
    assert_eq!((seen.health.failures, seen.health.failures_after_answer), (0, 0));
    let next = installation.open().await;
    let seen = until(&next, "the worker is known to be well", |_| true).await;
    assert!(seen.health.passes >= 2, "another server begins anew with a worker that is well: {seen:?}");

    std::fs::remove_file(installation.in_volume("ok")).unwrap();
    let seen = until(&next, "the check says no again", |seen| seen.health.failures >= 1).await;
    assert_eq!(seen.health.passes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_the_next_server_ends_says_nothing_against_its_worker() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut declaration = worker(check_command());
    declaration.health.timeout = PATIENCE;
    installation.put("ok");
    make(&platform, declaration).await;
    until(&platform, "the check passes", |seen| seen.health.passes >= 2).await;
    installation.put("hang");
    let end = Instant::now() + PATIENCE;
    while !installation.in_volume("hangs").exists() {
        assert!(Instant::now() < end, "the check does not hang");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _next = installation.open().await;
    until(&platform, "its check was ended", |seen| seen.health.failures >= 1).await;
    let third = installation.open().await;
    let seen = until(&third, "the worker is known to be well", |_| true).await;
    assert!(seen.health.passes >= 2, "an ended check counted against a worker that is well: {seen:?}");
    std::fs::remove_file(installation.in_volume("hang")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_writes_much_is_heard_to_its_end_and_its_last_words_are_kept() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut declaration = worker(CheckKind::Command { command: vec![PROGRAM.to_string(), "wordy".to_string()] });
    declaration.health.timeout = PATIENCE;
    make(&platform, declaration).await;
    let seen = until(&platform, "the check says no", |seen| seen.health.failures >= 1).await;
    let result = seen.health.evidence.unwrap().result;
    assert!(result.starts_with("status 3: line ") && result.ends_with("\nthe last words"), "{result}");
    assert!(result.len() < 300, "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_be_run_is_told_and_is_no_answer() {
    let installation = Installation::new();
    let platform = installation.open().await;
    make(&platform, worker(CheckKind::Command { command: vec!["/no/such/check".to_string()] })).await;
    let seen = until(&platform, "the check fails", |seen| seen.health.failures >= 1).await;
    assert_eq!(seen.health.failures_after_answer, 0);
    let result = seen.health.evidence.unwrap().result;
    assert!(result.contains("/no/such/check"), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_asked_to_end_once_by_its_own_signal_and_finishes_its_work() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let mut declaration = worker(CheckKind::StayUp { span: Duration::ZERO });
    declaration.node.stop_signal = StopSignal::Quit;
    make(&platform, declaration).await;
    let log = platform.output(&service(), group(1).node(0)).unwrap();
    let end = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&log).unwrap().contains("listens to TERM") {
        assert!(Instant::now() < end, "the worker never listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(until(&platform, "the worker runs", |_| true).await.requests_in_flight, 0);
    drain(&platform).await;
    drain(&platform).await;
    let seen = until(&platform, "the worker is ending", |seen| seen.requests_in_flight == 1).await;
    assert_eq!(seen.condition, Condition::Running);
    // The next server does not know it of its own, and must not ask again.
    let next = installation.open().await;
    drain(&next).await;
    until(&next, "the worker is ending", |seen| seen.requests_in_flight == 1).await;
    installation.put("let-end");
    let seen = until(&next, "the worker has ended", |seen| seen.condition != Condition::Running).await;
    assert!(matches!(seen.condition, Condition::Exited { ref output, .. } if output.ends_with("worked")), "{seen:?}");
    assert_eq!(seen.requests_in_flight, 0);
    assert_eq!(installation.lines("asked"), 1, "the worker was asked more than once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_end_is_gone_when_it_is_destroyed() {
    let installation = Installation::new();
    let platform = installation.open().await;
    make(&platform, worker(CheckKind::StayUp { span: Duration::ZERO })).await;
    drain(&platform).await;
    platform.destroy_nodes(&service(), &BTreeSet::from([group(1).node(0)])).await.unwrap();
    assert!(platform.observe(&service()).await.unwrap().nodes.is_empty());
    assert_eq!(installation.leftovers().find().unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_in_no_route_and_has_no_address() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let declaration = worker(CheckKind::StayUp { span: Duration::ZERO });
    make(&platform, declaration.clone()).await;
    let node = group(1).node(0);
    assert_eq!(platform.address(&service(), node), None);
    let route = Route { generation: Generation(1), members: BTreeMap::from([(node, Weight::EQUAL)]) };
    let declarations = Declarations::from([(node.group.release, Arc::new(declaration))]);
    let error = platform.route(&service(), &route, &declarations).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
    let mut wrong = worker(CheckKind::Http { path: "/".to_string() });
    wrong.nodes = 1;
    let error = platform.ensure_group(Arc::new(wrong), group(2), 1).await.unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_drained_while_it_is_being_made_is_asked_when_it_runs() {
    let installation = Installation::new();
    let platform = installation.open().await;
    let node = BTreeSet::from([group(1).node(0)]);
    let record = installation.state().join("platform/nodes/hello.web.r1-i1-n0/node.json");
    let (maker, declaration) = (platform.clone(), worker(CheckKind::StayUp { span: Duration::ZERO }));
    let making = tokio::spawn(async move { make(&maker, declaration).await });
    let end = Instant::now() + PATIENCE;
    while !record.exists() {
        assert!(Instant::now() < end && !making.is_finished(), "it was never decided");
        std::hint::spin_loop();
    }
    let mut refused = 0;
    while let Err(error) = platform.drain(&service(), &node, Duration::from_secs(60)).await {
        assert!(error.error_kind() == ErrorKind::Failed && error.to_string().contains("is being made"), "{error}");
        assert!(Instant::now() < end, "{error}");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(refused > 0, "it was drained as if it did not run");
    making.await.unwrap();
    until(&platform, "it is asked", |seen| seen.requests_in_flight == 1).await;
    while installation.lines("asked") == 0 {
        assert!(Instant::now() < end, "it never heard that it was asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_making_was_broken_off_holds_no_drain_up() {
    let installation = Installation::new();
    let platform = installation.open().await;
    make(&platform, worker(CheckKind::StayUp { span: Duration::ZERO })).await;
    let nodes = installation.state().join("platform/nodes");
    let other = nodes.join("hello.web.r1-i1-n1");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(nodes.join("hello.web.r1-i1-n0/node.json"), other.join("node.json")).unwrap();
    platform.drain(&service(), &BTreeSet::from([group(1).node(1)]), Duration::from_secs(60)).await.unwrap();
    assert_eq!(installation.lines("asked"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_although_a_runtime_left_a_process_inside() {
    let installation = Installation::new();
    installation.put("ok");
    let platform = installation.open().await;
    make(&platform, worker(check_command())).await;
    until(&platform, "the check passes", |seen| seen.health.passes >= 2).await;
    let state = format!("platform/runc/gl{}.hello.web.r1-i1-n0/state.json", installation.id);
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(installation.state().join(state)).unwrap()).unwrap();
    // What a runtime leaves that is killed while it starts a check: its child becomes one of this process, which is the next reaper above.
    let mut runtime = std::process::Command::new("nsenter");
    runtime.args(["--pid", "--target", &state["init_process_pid"].to_string(), "sleep", "1000"]);
    let mut runtime = runtime.spawn().unwrap();
    let left = |parent: u32| {
        let listed = std::process::Command::new("pgrep").args(["--parent", &parent.to_string(), "sleep"]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().trim().to_string()
    };
    let end = Instant::now() + PATIENCE;
    while left(runtime.id()).is_empty() {
        assert!(Instant::now() < end, "nothing was started inside");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let inside = left(runtime.id());
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    while left(std::process::id()) != inside {
        assert!(Instant::now() < end, "it is nobody's child");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drain(&platform).await;
    installation.put("let-end");
    let seen = until(&platform, "the worker has ended", |seen| matches!(seen.condition, Condition::Exited { .. })).await;
    assert!(matches!(seen.condition, Condition::Exited { code: Some(0), .. }), "{seen:?}");
}
