//! The proxies in front of the nodes: each a holder and its workers, asked and told over their admin sockets.

use gapless_engine::error::Error;
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::route::{Applied, DrainRequest, ProxyStatus, Snapshot, WorkerStatus};
use hyper::{Method, StatusCode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a proxy may take to answer a question: it answers from memory.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a worker may take to persist and apply a snapshot: it waits for the disk.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the list of workers is read again until all have applied: workers come and go only when a proxy is upgraded or a worker dies.
const LISTINGS: usize = 6;

/// The proxies' holders.
#[derive(Clone, Debug)]
pub struct Proxies {
    holders: Vec<PathBuf>,
}

/// A worker, or a proxy whose workers are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen {
    /// `HOLDER#PID`, or the holder's socket alone when the holder does not answer.
    pub name: String,
    /// Its admin socket; `None` when the holder does not answer.
    pub socket: Option<PathBuf>,
    /// It takes no new connections.
    pub leaving: bool,
    /// What it says; `None` when it does not answer.
    pub status: Option<WorkerStatus>,
}

impl Proxies {
    /// The proxies of these holders.
    pub fn new(holders: Vec<PathBuf>) -> Self {
        Self { holders }
    }

    /// Every worker with what it says, the silent ones too.
    pub async fn look(&self) -> Vec<WorkerSeen> {
        let mut asked = JoinSet::new();
        for mut worker in self.workers().await {
            asked.spawn(async move {
                if let Some(socket) = &worker.socket {
                    worker.status = UnixClient::new(socket).timeout(ASK_TIMEOUT).get("/v1/status").await.ok();
                }
                worker
            });
        }
        let mut workers = asked.join_all().await;
        workers.sort_by(|one, other| one.name.cmp(&other.name));
        workers
    }

    /// Every worker, not asked yet; a holder that does not answer stands for its own.
    pub async fn workers(&self) -> Vec<WorkerSeen> {
        let mut asked = JoinSet::new();
        for holder in self.holders.clone() {
            asked.spawn(async move {
                let answer = UnixClient::new(&holder).timeout(ASK_TIMEOUT).get::<ProxyStatus>("/v1/proxy").await;
                let name = holder.display().to_string();
                let Ok(proxy) = answer else { return vec![WorkerSeen { name, socket: None, leaving: false, status: None }] };
                let seen = |worker: gapless_wire::route::Worker| WorkerSeen {
                    name: format!("{name}#{}", worker.pid),
                    socket: Some(worker.socket.into()),
                    leaving: worker.leaving,
                    status: None,
                };
                proxy.workers.into_iter().map(seen).collect()
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Every worker has applied the service's generation, or a later one. `latest` gives the newest snapshot that was decided.
    ///
    /// # Errors
    /// When a proxy does not answer, or has a later generation than was ever decided here.
    pub async fn apply(&self, service: &str, generation: u64, latest: impl Fn() -> Snapshot) -> Result<(), Error> {
        self.tell_all("apply its route", |socket| {
            let snapshot = latest();
            async move { put(&socket, &snapshot, service, generation).await }
        })
        .await
    }

    /// Every worker knows that these nodes are to be drained.
    ///
    /// # Errors
    /// When a proxy does not answer.
    pub async fn drain(&self, request: &DrainRequest) -> Result<(), Error> {
        self.tell_all("drain nodes", |socket| async move {
            let client = UnixClient::new(&socket).timeout(ASK_TIMEOUT);
            client
                .send::<_, serde_json::Value>(Method::POST, "/v1/drain", request)
                .await
                .map(drop)
                .map_err(|error| Error::new(error.to_string()))
        })
        .await
    }

    /// Tells every worker, until a listing shows none that was not told. A worker that failed and is listed no more had ended.
    async fn tell_all<F, T>(&self, what: &str, tell: F) -> Result<(), Error>
    where
        F: Fn(PathBuf) -> T,
        T: Future<Output = Result<(), Error>>,
    {
        let mut told = BTreeSet::new();
        let mut failed = Error::new("its workers change too often");
        for _ in 0..LISTINGS {
            let mut missing = false;
            for worker in self.workers().await {
                let Some(socket) = worker.socket else { return Err(unreachable(&worker.name)) };
                if told.contains(&worker.name) {
                    continue;
                }
                missing = true;
                match tell(socket).await {
                    Ok(()) => drop(told.insert(worker.name)),
                    Err(error) => failed = error.context(format!("asking the proxy {} to {what}", worker.name)),
                }
            }
            if !missing {
                return Ok(());
            }
        }
        Err(failed)
    }
}

fn unreachable(holder: &str) -> Error {
    Error::new(format!("the proxy {holder} does not answer"))
        .hint("start it again: `gapless proxy`; until then nothing it may still send requests to is destroyed")
}

async fn put(socket: &PathBuf, snapshot: &Snapshot, service: &str, generation: u64) -> Result<(), Error> {
    let client = UnixClient::new(socket).timeout(APPLY_TIMEOUT);
    let answer: Result<Applied, ClientError> = client.send(Method::PUT, "/v1/snapshot", snapshot).await;
    let applied = match answer {
        Ok(applied) => applied,
        // Some service's generation is older than the applied one: of this service or of another whose newer route overtook this snapshot.
        Err(ClientError::Refused { status: StatusCode::CONFLICT, body }) => serde_json::from_str(&body).unwrap_or_default(),
        Err(error) => return Err(Error::new(error.to_string())),
    };
    let present = applied.generations.get(service).copied();
    if present.is_some_and(|present| present >= generation) {
        return Ok(());
    }
    Err(Error::new(format!("it applied {present:?} of {service}, not {generation}")))
}

/// Waits until one of these workers says something newer than its revision here, or does not answer.
pub async fn newer(revisions: &BTreeMap<PathBuf, u64>, at_most: Duration) {
    /// Until a worker that does not answer is asked again.
    const PAUSE: Duration = Duration::from_millis(100);
    let mut asked = JoinSet::new();
    for (socket, revision) in revisions.clone() {
        asked.spawn(async move {
            let path = format!("/v1/status?after={revision}&wait_ms={}", at_most.as_millis());
            let answer = UnixClient::new(&socket).timeout(at_most + ASK_TIMEOUT).get::<WorkerStatus>(&path).await;
            if answer.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    if asked.join_next().await.is_none() {
        tokio::time::sleep(at_most).await;
    }
}
