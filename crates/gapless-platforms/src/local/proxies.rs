//! The proxies in front of the nodes: each a holder and its workers, asked and told over their admin sockets.

use gapless_engine::error::Error;
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::route::{Applied, DrainRequest, ProxyStatus, Snapshot, Worker, WorkerStatus};
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

/// A worker, or a proxy without one that takes new connections: its next worker may begin from an older snapshot, so as long as it has none it has acknowledged nothing (I2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSeen {
    /// `HOLDER#PID`, or the holder's socket alone for a proxy.
    pub name: String,
    /// Its admin socket; `None` for a proxy.
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

    /// Every worker, not asked yet; a holder that does not answer, or has no worker that takes new connections, stands there itself.
    pub async fn workers(&self) -> Vec<WorkerSeen> {
        let mut asked = JoinSet::new();
        for holder in self.holders.clone() {
            asked.spawn(async move {
                let answer = UnixClient::new(&holder).timeout(ASK_TIMEOUT).get::<ProxyStatus>("/v1/proxy").await;
                workers_of(&holder.display().to_string(), answer.map(|proxy| proxy.workers).unwrap_or_default())
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Every worker has applied the service's generation, or a later one. `latest` gives the newest snapshot that was decided.
    ///
    /// # Errors
    /// When a proxy does not answer, has no worker, or has a later generation than was ever decided here.
    pub async fn apply(&self, service: &str, generation: u64, latest: impl Fn() -> Snapshot) -> Result<(), Error> {
        self.tell_all("apply its route", |socket| {
            let (snapshot, service) = (latest(), service.to_string());
            async move { put(&socket, &snapshot, &service, generation).await }
        })
        .await
    }

    /// Every worker knows that these nodes are to be drained.
    ///
    /// # Errors
    /// When a proxy does not answer or has no worker.
    pub async fn drain(&self, request: &DrainRequest) -> Result<(), Error> {
        self.tell_all("drain nodes", |socket| {
            let request = request.clone();
            async move {
                let client = UnixClient::new(&socket).timeout(ASK_TIMEOUT);
                let told = client.send::<_, serde_json::Value>(Method::POST, "/v1/drain", &request).await;
                told.map(drop).map_err(|error| Error::new(error.to_string()))
            }
        })
        .await
    }

    /// Tells every worker, until a listing shows none that was not told. A worker that failed and is listed no more had ended. Neither one that is silent nor a proxy without a
    /// worker keeps anybody else from being told.
    async fn tell_all<F, T>(&self, what: &str, tell: F) -> Result<(), Error>
    where
        F: Fn(PathBuf) -> T,
        T: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let mut told = BTreeSet::new();
        let mut failed = Error::new("its workers change too often");
        for _ in 0..LISTINGS {
            let (mut asked, mut absent) = (JoinSet::new(), None);
            for worker in self.workers().await {
                match worker.socket {
                    None => absent = Some(worker.name),
                    Some(_) if told.contains(&worker.name) => {}
                    Some(socket) => {
                        let telling = tell(socket);
                        asked.spawn(async move { (worker.name, telling.await) });
                    }
                }
            }
            if asked.is_empty() {
                return absent.map_or(Ok(()), |holder| Err(without_worker(&holder)));
            }
            for (name, result) in asked.join_all().await {
                match result {
                    Ok(()) => drop(told.insert(name)),
                    Err(error) => failed = error.context(format!("asking the proxy {name} to {what}")),
                }
            }
        }
        Err(failed)
    }
}

fn workers_of(holder: &str, workers: Vec<Worker>) -> Vec<WorkerSeen> {
    let absent = workers.iter().all(|worker| worker.leaving);
    let seen = |worker: Worker| WorkerSeen {
        name: format!("{holder}#{}", worker.pid),
        socket: Some(worker.socket.into()),
        leaving: worker.leaving,
        status: None,
    };
    let proxy = WorkerSeen { name: holder.to_string(), socket: None, leaving: false, status: None };
    workers.into_iter().map(seen).chain(absent.then_some(proxy)).collect()
}

fn without_worker(holder: &str) -> Error {
    Error::new(format!("the proxy {holder} has no worker that answers"))
        .hint("if it does not run, start it again: `gapless proxy`; until then nothing it may still send requests to is destroyed")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::observe;
    use bytes::Bytes;
    use gapless_core::observation::Observation;
    use gapless_core::route::Generation;
    use gapless_wire::route::{SNAPSHOT_VERSION, ServiceRoute};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use std::convert::Infallible;
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use tokio::net::UnixListener;
    use tokio::sync::watch;

    const SERVICE: &str = "hello/web";

    /// A proxy on two sockets of a folder, whose workers and applied generation the test sets.
    #[derive(Default)]
    struct Fake {
        workers: Mutex<Vec<Worker>>,
        generation: Mutex<Option<u64>>,
        drains: Mutex<u32>,
        /// Its worker takes orders and answers none as long as this is true.
        silent: watch::Sender<bool>,
        orders: watch::Sender<u32>,
    }

    impl Fake {
        fn start(folder: &Path, name: &str) -> (Arc<Self>, PathBuf) {
            let fake = Arc::new(Self::default());
            let (holder, worker) = (folder.join(format!("{name}.sock")), folder.join(format!("{name}-worker.sock")));
            *fake.workers.lock().unwrap() = vec![Worker { pid: 1, socket: worker.display().to_string(), leaving: false }];
            for socket in [&holder, &worker] {
                tokio::spawn(listen(UnixListener::bind(socket).unwrap(), Arc::clone(&fake)));
            }
            (fake, holder)
        }

        fn answer(&self, path: &str, body: &[u8]) -> Vec<u8> {
            let generations = || BTreeMap::from_iter(self.generation.lock().unwrap().map(|generation| (SERVICE.to_string(), generation)));
            let answer = match path {
                "/v1/proxy" => {
                    let workers = self.workers.lock().unwrap().clone();
                    serde_json::to_vec(&ProxyStatus { holder: 1, listening: Vec::new(), workers, ..ProxyStatus::default() })
                }
                "/v1/snapshot" => {
                    let snapshot: Snapshot = serde_json::from_slice(body).unwrap();
                    *self.generation.lock().unwrap() = Some(snapshot.services[SERVICE].generation);
                    serde_json::to_vec(&Applied { generations: generations() })
                }
                "/v1/drain" => {
                    *self.drains.lock().unwrap() += 1;
                    Ok(Vec::new())
                }
                _ => serde_json::to_vec(&WorkerStatus { generations: generations(), ..WorkerStatus::default() }),
            };
            answer.unwrap()
        }
    }

    async fn listen(listener: UnixListener, fake: Arc<Fake>) {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = Arc::clone(&fake);
            let service = service_fn(move |request: Request<Incoming>| {
                let fake = Arc::clone(&fake);
                async move {
                    let path = request.uri().path().to_string();
                    let is_order = request.method() != Method::GET;
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    if is_order {
                        fake.orders.send_modify(|orders| *orders += 1);
                        let _ = fake.silent.subscribe().wait_for(|silent| !*silent).await;
                    }
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(fake.answer(&path, &body)))))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    fn snapshot(generation: u64) -> Snapshot {
        let route = ServiceRoute { generation, host: "*".to_string(), members: BTreeMap::new(), retry: true, hold_ms: 0 };
        Snapshot { version: SNAPSHOT_VERSION, services: BTreeMap::from([(SERVICE.to_string(), route)]) }
    }

    async fn is_acknowledged(proxies: &Proxies, generation: u64) -> bool {
        let proxies = observe::generations(&proxies.look().await, &SERVICE.parse().unwrap());
        Observation { nodes: BTreeMap::new(), proxies }.is_acknowledged(Generation(generation))
    }

    #[tokio::test]
    async fn a_proxy_between_two_workers_has_acknowledged_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ((a, holder_a), (b, holder_b)) = (Fake::start(folder.path(), "a"), Fake::start(folder.path(), "b"));
        let proxies = Proxies::new(vec![holder_a.clone(), holder_b]);
        let drain = DrainRequest { service: SERVICE.to_string(), nodes: Vec::new(), deadline_ms: 0 };
        proxies.apply(SERVICE, 4, || snapshot(4)).await.unwrap();
        assert!(is_acknowledged(&proxies, 4).await);

        let workers = std::mem::take(&mut *a.workers.lock().unwrap());
        let refused = proxies.apply(SERVICE, 5, || snapshot(5)).await.unwrap_err();
        assert!(refused.to_string().contains("no worker"), "{refused}");
        assert_eq!(refused.error_kind(), gapless_engine::error::ErrorKind::Failed, "it is tried again");
        assert_eq!(*b.generation.lock().unwrap(), Some(5), "the other proxy was not told");
        assert!(proxies.drain(&drain).await.is_err());
        assert_eq!(*b.drains.lock().unwrap(), 1);
        assert!(!is_acknowledged(&proxies, 5).await, "the proxy's next worker begins with generation 4");

        let leaving = workers.iter().cloned().map(|worker| Worker { leaving: true, ..worker });
        *a.workers.lock().unwrap() = leaving.collect();
        assert!(proxies.apply(SERVICE, 5, || snapshot(5)).await.is_err(), "whoever comes after a leaving worker may not know it");
        assert!(!is_acknowledged(&proxies, 5).await);

        *a.workers.lock().unwrap() = workers;
        proxies.apply(SERVICE, 5, || snapshot(5)).await.unwrap();
        proxies.drain(&drain).await.unwrap();
        assert!(is_acknowledged(&proxies, 5).await);
    }

    /// The silent worker answers when the other one was told: told in turn, it would be given up and told again before that.
    #[tokio::test]
    async fn a_silent_worker_keeps_nobody_else_from_being_told() {
        let folder = tempfile::tempdir().unwrap();
        let ((a, holder), (b, _)) = (Fake::start(folder.path(), "a"), Fake::start(folder.path(), "b"));
        let second = b.workers.lock().unwrap()[0].clone();
        a.workers.lock().unwrap().push(Worker { pid: 2, ..second });
        a.silent.send_replace(true);
        let speak = async {
            b.orders.subscribe().wait_for(|orders| *orders > 0).await.unwrap();
            a.silent.send_replace(false);
        };
        let proxies = Proxies::new(vec![holder]);
        let (applied, ()) = tokio::join!(proxies.apply(SERVICE, 4, || snapshot(4)), speak);
        applied.unwrap();
        assert_eq!((*a.orders.borrow(), *b.orders.borrow()), (1, 1), "the second worker was told when the first was given up");
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_run_has_acknowledged_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (b, holder) = Fake::start(folder.path(), "b");
        let proxies = Proxies::new(vec![folder.path().join("a.sock"), holder]);
        assert!(proxies.apply(SERVICE, 4, || snapshot(4)).await.is_err());
        assert_eq!(*b.generation.lock().unwrap(), Some(4), "the other proxy was not told");
        assert!(!is_acknowledged(&proxies, 4).await);
    }
}
