//! The analyst over the records of a proxy, as the engine asks it.

use bytes::Bytes;
use gapless_core::analysis::{AnalysisPolicy, Judgement, Verdict};
use gapless_core::release::ReleaseNumber;
use gapless_core::time::Instant;
use gapless_engine::analysis::{AnalysisRequest, Analyst};
use gapless_server::analysis::RecordAnalyst;
use gapless_server::record::RecordKeeper;
use gapless_wire::record::{Record, Slice};
use gapless_wire::route::{ProxyStatus, Worker};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::UnixListener;

const SINCE: u64 = 1_000_000;
const UNTIL: u64 = 1_030_000;

/// A proxy whose workers tell what a test says.
struct Proxy {
    folder: TempDir,
    workers: Arc<Mutex<BTreeMap<u32, Record>>>,
    analyst: RecordAnalyst,
}

impl Proxy {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let workers: Arc<Mutex<BTreeMap<u32, Record>>> = Arc::default();
        let (holder, told) = (folder.path().join("proxy.sock"), workers.clone());
        let place = folder.path().to_path_buf();
        answer_with(&holder, move |_| {
            let worker = |pid: &u32| Worker { pid: *pid, socket: socket(&place, *pid).display().to_string(), leaving: false };
            let workers = told.lock().expect("workers").keys().map(worker).collect();
            serde_json::to_vec(&ProxyStatus { holder: 1, listening: Vec::new(), workers, ..ProxyStatus::default() }).expect("json")
        });
        let analyst = RecordAnalyst::new(Arc::new(RecordKeeper::new(vec![holder])));
        Self { folder, workers, analyst }
    }

    /// From now on, a worker tells these slices, and that they are all there until an instant.
    fn tells(&self, pid: u32, began_ms: u64, until_ms: u64, slices: Vec<Slice>) {
        let record = Record { worker: pid, began_ms, until_ms, slices, ..Record::default() };
        if self.workers.lock().expect("workers").insert(pid, record).is_some() {
            return;
        }
        let told = self.workers.clone();
        answer_with(&socket(self.folder.path(), pid), move |query| {
            let since: u64 = query.strip_prefix("since=").and_then(|since| since.parse().ok()).expect("since");
            let mut record = told.lock().expect("workers")[&pid].clone();
            record.slices.retain(|slice| slice.at_ms >= since);
            serde_json::to_vec(&record).expect("json")
        });
    }

    fn ends(&self, pid: u32) {
        self.workers.lock().expect("workers").remove(&pid);
    }

    async fn analyse(&self) -> Judgement {
        let request = AnalysisRequest {
            service: "hello/web".parse().expect("a name"),
            old: ReleaseNumber(7),
            new: ReleaseNumber(8),
            since: Instant(SINCE),
            until: Instant(UNTIL),
            policy: AnalysisPolicy { minimum_requests: 1_000, error_margin: 50, latency_margin: 20 },
        };
        self.analyst.analyse(&request).await.expect("a judgement")
    }
}

fn socket(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("{pid}.sock"))
}

fn answer_with(socket: &Path, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).expect("socket");
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let body = answer(request.uri().query().unwrap_or_default());
                async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)))) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// `requests` in each slice between two instants, of which so many fail.
fn slices(service: &str, release: &str, from_ms: u64, until_ms: u64, requests: u64, failed: u64) -> Vec<Slice> {
    let slice = |at_ms| Slice {
        at_ms,
        service: service.into(),
        release: release.into(),
        requests,
        statuses: [0, requests - failed, 0, 0, failed],
        latencies: vec![(900, requests / 2), (1_000, requests - requests / 2)],
        ..Slice::default()
    };
    (from_ms..until_ms).step_by(100).map(slice).collect()
}

/// Both releases over the whole span, equally good, and before it, after it and beside it what would abort.
fn good() -> Vec<Slice> {
    [
        slices("hello/web", "web-r8", SINCE - 30_000, SINCE, 40, 40),
        slices("hello/web", "web-r8", UNTIL, UNTIL + 5_000, 40, 40),
        slices("hello/other", "web-r8", SINCE, UNTIL, 40, 40),
        slices("hello/web", "web-r8", SINCE, UNTIL, 10, 0),
        slices("hello/web", "web-r7", SINCE, UNTIL, 40, 0),
    ]
    .concat()
}

fn bad() -> Vec<Slice> {
    [slices("hello/web", "web-r8", SINCE, UNTIL, 10, 1), slices("hello/web", "web-r7", SINCE, UNTIL, 40, 0)].concat()
}

fn said(verdict: Verdict, evidence: &str) -> Judgement {
    Judgement { verdict, evidence: evidence.into() }
}

#[tokio::test]
async fn exactly_the_slices_of_the_span_and_of_both_releases_are_compared() {
    let proxy = Proxy::new();
    proxy.tells(2, 0, UNTIL + 5_000, good());
    let expected = "web-r8: 0 of 3,000 requests failed (0 %), web-r7 in the same 30 s: 0 of 12,000 (0 %): not worse than the allowed 0.5 points (p < 0.001); \
                    p50 900 µs against 900 µs, p95 999 µs against 999 µs, p99 1.0 ms against 1.0 ms: within the allowed 20 %";
    assert_eq!(proxy.analyse().await, said(Verdict::Promote, expected));
    let proxy = Proxy::new();
    proxy.tells(2, 0, UNTIL, bad());
    let expected = "web-r8: 300 of 3,000 requests failed (10 %), web-r7 in the same 30 s: 0 of 12,000 (0 %): worse than the allowed 0.5 points (p < 0.001)";
    assert_eq!(proxy.analyse().await, said(Verdict::Abort, expected));
}

#[tokio::test]
async fn the_counts_of_all_workers_are_added_up() {
    let proxy = Proxy::new();
    proxy.tells(2, 0, UNTIL, bad());
    proxy.tells(3, SINCE + 10_000, UNTIL, slices("hello/web", "web-r8", SINCE + 10_000, UNTIL, 10, 1));
    let evidence = proxy.analyse().await.evidence;
    assert!(evidence.starts_with("web-r8: 500 of 5,000 requests failed (10 %), web-r7 in the same 30 s: 0 of 12,000"), "{evidence}");
}

#[tokio::test]
async fn what_is_not_told_in_time_or_was_lost_holds_however_good_or_bad_the_rest_is() {
    for slices in [good(), bad()] {
        let proxy = Proxy::new();
        assert_eq!(proxy.analyse().await.verdict, Verdict::Hold, "no worker answers");
        proxy.tells(2, 0, UNTIL - 100, slices.clone());
        let judgement = proxy.analyse().await;
        assert_eq!(judgement.verdict, Verdict::Hold);
        assert!(judgement.evidence.contains("the worker 2 has not told everything of that time yet"), "{judgement:?}");
        // It ends; another one goes on.
        proxy.ends(2);
        proxy.tells(3, UNTIL - 50, UNTIL, Vec::new());
        let judgement = proxy.analyse().await;
        assert_eq!(judgement.verdict, Verdict::Hold);
        assert!(judgement.evidence.contains("the worker 2 ended, and what it counted last is lost"), "{judgement:?}");
    }
}

#[tokio::test]
async fn a_release_without_requests_holds_and_is_named() {
    let proxy = Proxy::new();
    proxy.tells(2, 0, UNTIL, slices("hello/web", "web-r7", SINCE, UNTIL, 40, 0));
    let expected = "too few requests to compare: web-r8 answered 0 in 30 s, web-r7 answered 12,000; at least 1,000 each are needed";
    assert_eq!(proxy.analyse().await, said(Verdict::Hold, expected));
}
