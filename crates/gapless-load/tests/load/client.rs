//! What one request comes to, case by case.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gapless_load::{Check, ClassPlan, Recording, probe};
use tokio::sync::Notify;

use crate::backend::{Answer, Backend, Request, response};
use crate::{causes, plan_of, run_plan};

/// Requests a second so far apart that none waits for the one before, even on a busy machine.
const SPARSE: u32 = 8;

fn get(check: Check) -> ClassPlan {
    ClassPlan::get("get", 1000, "/", check)
}

/// One GET answered like this, with a deadline of 300 ms.
async fn one(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Recording {
    let backend = Backend::start(answer).await;
    let mut plan = plan_of(&backend.url(), get(Check::Complete), 10, 1);
    plan.deadline_ms = 300;
    let recording = run_plan(plan).await;
    assert_eq!(recording.report.requests, 1);
    recording
}

#[tokio::test]
async fn a_refused_connection() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let recording = run_plan(plan_of(&url, get(Check::Complete), 100, 3)).await;
    assert_eq!(causes(&recording), [("connect-refused", 3)]);
    assert!(recording.samples.samples.iter().all(|sample| sample.from_send_us.is_none()));
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let mut plan = plan_of("http://nowhere.invalid", get(Check::Complete), 10, 1);
    plan.deadline_ms = 2000;
    assert_eq!(causes(&run_plan(plan).await), [("dns", 1)]);
}

#[tokio::test]
async fn a_full_accept_queue() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _filling: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))).collect();
    let mut plan = plan_of(&format!("http://{address}"), get(Check::Complete), 10, 1);
    plan.deadline_ms = 300;
    assert_eq!(causes(&run_plan(plan).await), [("connect-timeout", 1)]);
}

/// A name, what the backend does, and the failures it has to come to.
type Case = (&'static str, Answer, &'static [(&'static str, u64)]);

#[tokio::test]
async fn each_way_to_end_a_response_has_its_cause() {
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes();
    let cases: Vec<Case> = vec![
        ("whole", Answer::Keep(response(200, b"content")), &[]),
        ("no answer", Answer::Hang, &[("deadline", 1)]),
        ("half an answer, then nothing", Answer::Keep(head("Content-Length: 5\r\n\r\nhe")), &[("deadline", 1)]),
        ("closed at once", Answer::Close(vec![]), &[("closed-before-response", 1)]),
        ("closed in the head", Answer::Close(head("Content-Le")), &[("truncated", 1)]),
        ("reset at once", Answer::Reset(vec![]), &[("reset", 1)]),
        ("short body", Answer::Close(head("Content-Length: 5\r\n\r\nhell")), &[("truncated", 1)]),
        ("chunks", Answer::Keep(head("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")), &[]),
        ("unfinished chunks", Answer::Close(head("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")), &[("truncated", 1)]),
        (
            "chunks without their last line",
            Answer::Close(head("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")),
            &[("truncated", 1)],
        ),
        ("a wrong chunk", Answer::Keep(head("Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n")), &[("bad-framing", 1)]),
        ("until close, announced", Answer::Close(head("Connection: close\r\n\r\nhello")), &[]),
        ("until close in HTTP/1.0", Answer::Close(b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec()), &[]),
        ("until close, not announced", Answer::Close(head("\r\nhello")), &[("bad-framing", 1)]),
        ("bytes after the end", Answer::Keep(head("Content-Length: 5\r\n\r\nhelloHTTP")), &[("bad-framing", 1)]),
        ("not HTTP", Answer::Close(b"SSH-2.0-OpenSSH\r\n".to_vec()), &[("bad-framing", 1)]),
        ("an interim response first", Answer::Keep([b"HTTP/1.1 103 Hints\r\n\r\n".to_vec(), response(200, b"x")].concat()), &[]),
        ("502", Answer::Keep(response(502, b"")), &[("status-502", 1)]),
        ("503", Answer::Keep(response(503, b"busy")), &[("status-503", 1)]),
        ("504", Answer::Keep(response(504, b"")), &[("status-504", 1)]),
        ("404", Answer::Keep(response(404, b"")), &[("status-other", 1)]),
        ("a redirect", Answer::Keep(response(302, b"")), &[("status-other", 1)]),
        ("503 with a cut body", Answer::Close(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n".to_vec()), &[("status-503", 1)]),
    ];
    for (name, answer, expected) in cases {
        let answer = Mutex::new(Some(answer));
        let recording = one(move |_| answer.lock().unwrap().take().expect("a request is sent once")).await;
        assert_eq!(causes(&recording), expected, "{name}: {:?}", recording.report.failure_examples);
    }
}

#[tokio::test]
async fn a_reset_inside_the_body_is_a_reset() {
    let recording = one(|_| Answer::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nab".to_vec())).await;
    let (cause, _) = causes(&recording)[0];
    assert_eq!(cause, "reset");
}

#[tokio::test]
async fn release_node_and_status_stand_in_the_sample() {
    let recording = one(|_| {
        let head = "HTTP/1.1 503 No\r\nX-Gapless-Release: web-r7\r\nx-gapless-node: web-r7-2\r\n";
        Answer::Keep(format!("{head}Content-Length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let sample = &recording.samples.samples[0];
    assert_eq!(sample.release.as_ref().unwrap().as_str(), "web-r7");
    assert_eq!(sample.node.as_ref().unwrap().as_str(), "web-r7-2");
    assert_eq!(sample.status, Some(503));
    assert_eq!(recording.report.by_release["web-r7"].failed, 1);
}

#[tokio::test]
async fn an_upload_that_comes_back_wrong_is_corrupt() {
    let backend = Backend::start(|request| {
        let digest = match request.number {
            1 => crate::backend::hex(&request.body[1..]),
            _ => crate::backend::hex(&request.body),
        };
        Answer::Keep(response(200, digest.as_bytes()))
    })
    .await;
    let class = ClassPlan::upload("upload", 1000, "/upload", 300_000, 30);
    let recording = run_plan(plan_of(&backend.url(), class, 100, 5)).await;
    assert_eq!(causes(&recording), [("corrupt", 1)]);
}

#[tokio::test]
async fn an_answer_before_the_upload_s_end_names_the_cause() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &response(503, b"")).await.unwrap();
    });
    let class = ClassPlan::upload("upload", 1000, "/upload", 1_000_000, 100);
    let recording = run_plan(plan_of(&url, class, 10, 1)).await;
    server.await.unwrap();
    assert_eq!(causes(&recording), [("status-503", 1)]);
}

#[tokio::test]
async fn an_answer_to_an_upload_that_nobody_reads_names_the_cause() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &response(503, b"")).await.unwrap();
        std::future::pending::<()>().await;
    });
    // More than both sides' socket buffers hold.
    let class = ClassPlan::upload("upload", 1000, "/upload", 64 << 20, 10);
    let mut plan = plan_of(&url, class, 10, 1);
    plan.deadline_ms = 400;
    let recording = run_plan(plan).await;
    server.abort();
    assert_eq!(causes(&recording), [("status-503", 1)]);
}

#[tokio::test]
async fn kept_connections_are_used_again_and_closed_ones_are_not() {
    let closed = Arc::new(Mutex::new(BTreeSet::new()));
    let used_again = Arc::new(AtomicBool::new(false));
    let (said_close, misused) = (Arc::clone(&closed), Arc::clone(&used_again));
    let backend = Backend::start(move |request| {
        if said_close.lock().unwrap().contains(&request.connection) {
            misused.store(true, Ordering::SeqCst);
        }
        if request.number.is_multiple_of(2) {
            return Answer::Keep(response(200, b""));
        }
        said_close.lock().unwrap().insert(request.connection);
        // The connection stays open: only the announcement keeps the witness off it.
        Answer::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec())
    })
    .await;
    let recording = run_plan(plan_of(&backend.url(), get(Check::Complete), 50, 20)).await;
    assert_eq!((recording.report.failed, recording.report.stale_connections), (0, 0));
    assert!(!used_again.load(Ordering::SeqCst));
    assert!(backend.connections.load(Ordering::SeqCst) < 20, "none was used again");
}

#[tokio::test]
async fn a_connection_closed_while_it_rested_is_replaced() {
    let backend = Backend::start(|_| Answer::Close(response(200, b""))).await;
    let recording = run_plan(plan_of(&backend.url(), get(Check::Complete), SPARSE, 5)).await;
    assert_eq!((recording.report.failed, recording.report.stale_connections), (0, 4));
    assert_eq!(backend.requests(), 5);
}

#[tokio::test]
async fn a_connection_that_rested_too_long_is_left() {
    let backend = Backend::start(|_| Answer::Keep(response(200, b""))).await;
    let mut plan = plan_of(&backend.url(), get(Check::Complete), SPARSE, 4);
    plan.idle_limit_ms = 20;
    let recording = run_plan(plan).await;
    assert_eq!((recording.report.failed, recording.report.stale_connections), (0, 0));
    assert_eq!(backend.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_was_written_is_a_failure() {
    // The second request of each connection is read and then reset: to try again would be a retry.
    let backend = Backend::start(|request| match request.number {
        1 => Answer::Reset(vec![]),
        3 => Answer::Close(vec![]),
        _ => Answer::Keep(response(200, b"")),
    })
    .await;
    let recording = run_plan(plan_of(&backend.url(), get(Check::Complete), SPARSE, 5)).await;
    assert_eq!(causes(&recording), [("closed-before-response", 1), ("reset", 1)]);
    assert_eq!((backend.requests(), recording.report.stale_connections), (5, 0));
}

#[tokio::test]
async fn one_shot_requests_have_connections_of_their_own() {
    let alone = Arc::new(Notify::new());
    let said = Arc::clone(&alone);
    let backend = Backend::start(move |request| {
        if !request.one_shot {
            said.notify_one();
        }
        Answer::Keep(response(200, b""))
    })
    .await;
    let recording = run_plan(plan_of(&backend.url(), get(Check::Complete).one_shot(), 100, 10)).await;
    assert_eq!(recording.report.failed, 0);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 10);
    let unannounced = tokio::time::timeout(Duration::ZERO, alone.notified()).await;
    assert!(unannounced.is_err(), "a one-shot request did not say Connection: close");
}

#[tokio::test]
async fn a_probe_takes_redirects_as_answers() {
    let backend = Backend::start(|request| match request.path.as_str() {
        "/health?x" => Answer::Keep(response(301, b"elsewhere")),
        _ => Answer::Keep(response(500, b"")),
    })
    .await;
    let probe = probe(&format!("{}/health?x", backend.url()), 1, 20).await.unwrap();
    assert_eq!((probe.recording.report.requests, probe.recording.report.failed), (20, 0));
    assert_eq!(probe.quantiles.count, 20);
    assert!((40.0..500.0).contains(&probe.longest_gap_ms), "{}", probe.longest_gap_ms);
}
