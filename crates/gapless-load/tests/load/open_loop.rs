//! The loop is open: a slow server changes nothing about when requests start.

use std::time::{Duration, Instant};

use gapless_load::{Check, ClassPlan, Control, run};

use crate::backend::{Answer, Backend, response};
use crate::{causes, plan_of, run_plan};

#[tokio::test]
async fn a_slow_server_does_not_slow_the_starts() {
    let backend = Backend::start(|_| Answer::Later(Duration::from_millis(600), Box::new(Answer::Keep(response(200, b""))))).await;
    let class = ClassPlan::get("slow", 1000, "/", Check::Complete);
    let recording = run_plan(plan_of(&backend.url(), class, 200, 100)).await;
    assert_eq!((recording.report.requests, recording.report.failed), (100, 0));
    let mut scheduled: Vec<u64> = recording.samples.samples.iter().map(|sample| sample.scheduled_us).collect();
    scheduled.sort_unstable();
    for pair in scheduled.windows(2) {
        assert!((4_990..=5_010).contains(&(pair[1] - pair[0])), "5 ms apart: {pair:?}");
    }
    let last_start = scheduled[99];
    let in_flight = recording.samples.in_flight_at(last_start + 50_000);
    assert!(in_flight["slow"] >= 95, "all were sent before the first came back: {in_flight:?}");
}

#[tokio::test]
async fn waiting_for_the_witness_itself_counts_as_latency() {
    let backend = Backend::start(|_| Answer::Keep(response(200, b""))).await;
    let class = ClassPlan::get("small", 1000, "/", Check::Complete);
    let plan = plan_of(&backend.url(), class, 200, 60);
    let control = Control::new();
    let running = run(plan, &control);
    // Holds up the only thread of this runtime, as an overloaded machine would.
    let held_up = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::thread::sleep(Duration::from_millis(150));
    };
    let (recording, ()) = tokio::join!(running, held_up);
    let recording = recording.unwrap();
    assert_eq!((recording.report.requests, recording.report.failed), (60, 0));
    assert!(recording.report.late_starts >= 10, "{}", recording.report.late_starts);
    let quantiles = recording.samples.quantiles(&[], gapless_load::Window::ALL);
    assert!(quantiles.max_ms >= 100.0, "{quantiles:?}");
}

#[tokio::test]
async fn stop_starts_no_more_and_awaits_what_is_in_flight() {
    let backend = Backend::start(|_| Answer::Later(Duration::from_millis(300), Box::new(Answer::Keep(response(200, b""))))).await;
    let class = ClassPlan::get("slow", 1000, "/", Check::Complete);
    let mut plan = plan_of(&backend.url(), class, 100, 1);
    plan.duration_ms = None;
    let control = Control::new();
    let mut progress = control.progress();
    let stopper = control.clone();
    let watching = tokio::spawn(async move {
        loop {
            progress.changed().await.unwrap();
            let snapshot = progress.borrow_and_update().clone();
            if snapshot.in_flight.get("slow").is_some_and(|count| *count > 0) && snapshot.finished > 0 {
                stopper.stop();
                return snapshot;
            }
        }
    });
    let started = Instant::now();
    let recording = run(plan, &control).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    let snapshot = watching.await.unwrap();
    assert!(recording.report.requests >= snapshot.requests);
    assert_eq!(recording.report.failed, 0);
    assert_eq!(recording.samples.samples.len() as u64, recording.report.requests);
    assert_eq!(backend.requests(), recording.report.requests);
    let last = control.progress().borrow().clone();
    assert_eq!((last.finished, last.in_flight["slow"]), (recording.report.requests, 0));
}

#[tokio::test]
async fn a_hung_server_ends_at_the_deadline() {
    let backend = Backend::start(|_| Answer::Hang).await;
    let class = ClassPlan::get("hung", 1000, "/", Check::Complete);
    let mut plan = plan_of(&backend.url(), class, 100, 20);
    plan.deadline_ms = 200;
    let started = Instant::now();
    let recording = run_plan(plan).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(causes(&recording), [("deadline", 20)]);
}
