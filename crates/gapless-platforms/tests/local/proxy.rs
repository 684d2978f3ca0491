//! A proxy that serves nobody: it speaks the admin sockets' language, checks its members over real connections, and can be asked to hold a request. It lives in the test's process.

use bytes::Bytes;
use gapless_wire::route::{Applied, DrainRequest, NodeStatus, ProxyStatus, Snapshot, Worker, WorkerStatus};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[derive(Default)]
struct World {
    snapshot: Snapshot,
    nodes: BTreeMap<(String, String), NodeStatus>,
    deadlines: BTreeMap<(String, String), Instant>,
}

struct Shared {
    folder: PathBuf,
    world: Mutex<World>,
    revision: watch::Sender<u64>,
}

/// The proxy; it ends when it is dropped.
pub struct FakeProxy {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl FakeProxy {
    /// A proxy whose sockets are in this folder.
    pub fn start(folder: &Path) -> Self {
        let shared = Arc::new(Shared { folder: folder.to_path_buf(), world: Mutex::default(), revision: watch::Sender::new(1) });
        let mut tasks = vec![tokio::spawn(check(Arc::clone(&shared)))];
        for socket in ["holder.sock", "worker.sock"] {
            let listener = UnixListener::bind(folder.join(socket)).unwrap();
            tasks.push(tokio::spawn(listen(Arc::clone(&shared), listener)));
        }
        Self { shared, tasks }
    }

    /// The holder's socket.
    pub fn holder(&self) -> PathBuf {
        self.shared.folder.join("holder.sock")
    }

    /// Sends a request that does not end to the first member with weight.
    pub async fn hold_request(&self) {
        let (name, address) = {
            let world = self.shared.world.lock().unwrap();
            let members = world
                .snapshot
                .services
                .iter()
                .flat_map(|(service, route)| route.members.iter().map(move |(node, member)| (service, node, member)));
            let (service, node, member) = members.into_iter().find(|(_, _, member)| member.weight > 0).expect("no member has weight");
            ((service.clone(), node.clone()), member.address)
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        self.shared.change(|world| world.nodes.entry(name.clone()).or_default().requests_in_flight += 1);
        tokio::spawn(end_held(Arc::clone(&self.shared), name, stream));
    }
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn status(&self) -> WorkerStatus {
        let world = self.world.lock().unwrap();
        let mut nodes: BTreeMap<String, BTreeMap<String, NodeStatus>> = BTreeMap::new();
        for ((service, node), status) in &world.nodes {
            nodes.entry(service.clone()).or_default().insert(node.clone(), status.clone());
        }
        WorkerStatus { revision: *self.revision.borrow(), generations: world.generations(), nodes, ..WorkerStatus::default() }
    }
}

impl World {
    fn generations(&self) -> BTreeMap<String, u64> {
        self.snapshot.services.iter().map(|(service, route)| (service.clone(), route.generation)).collect()
    }

    fn apply(&mut self, snapshot: Snapshot) -> bool {
        let older = |(service, applied): (&String, &u64)| snapshot.services.get(service).is_some_and(|route| route.generation < *applied);
        if self.generations().iter().any(older) {
            return false;
        }
        self.snapshot = snapshot;
        let members = &self.snapshot.services;
        let is_member = |service: &str, node: &str| members.get(service).is_some_and(|route| route.members.contains_key(node));
        self.nodes.retain(|(service, node), status| is_member(service, node) || status.requests_in_flight > 0);
        true
    }
}

/// A held request ends when its node is drained and the deadline has passed.
async fn end_held(shared: Arc<Shared>, name: (String, String), mut stream: TcpStream) {
    let mut revision = shared.revision.subscribe();
    let deadline = loop {
        let armed = shared.world.lock().unwrap().deadlines.get(&name).copied();
        match armed {
            Some(deadline) => break deadline,
            None => drop(revision.changed().await),
        }
    };
    let mut rest = Vec::new();
    let _ = tokio::time::timeout_at(deadline, stream.read_to_end(&mut rest)).await;
    shared.change(|world| world.nodes.get_mut(&name).unwrap().requests_in_flight -= 1);
}

/// Checks all members over and over.
async fn check(shared: Arc<Shared>) {
    const INTERVAL: Duration = Duration::from_millis(50);
    loop {
        let members: Vec<((String, String), SocketAddr, String)> = {
            let world = shared.world.lock().unwrap();
            let services = world.snapshot.services.iter();
            services
                .flat_map(|(service, route)| {
                    route
                        .members
                        .iter()
                        .map(move |(node, member)| ((service.clone(), node.clone()), member.address, member.check.path.clone()))
                })
                .collect()
        };
        for (name, address, path) in members {
            let failure = failure(address, &path).await;
            shared.change(|world| {
                // It may have left the route while it was checked.
                if world.snapshot.services.get(&name.0).is_some_and(|route| route.members.contains_key(&name.1)) {
                    let status = world.nodes.entry(name).or_default();
                    (status.passes, status.failures) = if failure.is_none() { (status.passes + 1, 0) } else { (0, status.failures + 1) };
                    status.failure = failure;
                }
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Why a check of this node fails, if it does.
async fn failure(address: SocketAddr, path: &str) -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(5);
    match tokio::time::timeout(LIMIT, get(address, path)).await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => None,
        Ok(Ok(answer)) => Some(format!("answer {answer:?}")),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {LIMIT:?}")),
    }
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn listen(shared: Arc<Shared>, listener: UnixListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let answer = |request| answer(Arc::clone(&shared), request);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (status, text) = match (&head.method, head.uri.path()) {
        (&Method::GET, "/v1/proxy") => (StatusCode::OK, json(&proxy_status(&shared))),
        (&Method::PUT, "/v1/snapshot") => {
            let mut accepted = false;
            shared.change(|world| accepted = world.apply(serde_json::from_slice(&body).unwrap()));
            let applied = Applied { generations: shared.world.lock().unwrap().generations() };
            (if accepted { StatusCode::OK } else { StatusCode::CONFLICT }, json(&applied))
        }
        (&Method::POST, "/v1/drain") => {
            let drain: DrainRequest = serde_json::from_slice(&body).unwrap();
            let deadline = Instant::now() + Duration::from_millis(drain.deadline_ms);
            let names = drain.nodes.into_iter().map(|node| (drain.service.clone(), node));
            shared.change(|world| {
                names.for_each(|name| {
                    let _first_stays = world.deadlines.entry(name).or_insert(deadline);
                })
            });
            (StatusCode::NO_CONTENT, Bytes::new())
        }
        (&Method::GET, "/v1/status") => {
            wait_for_news(&shared, head.uri.query().unwrap_or_default()).await;
            (StatusCode::OK, json(&shared.status()))
        }
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    Ok(Response::builder().status(status).body(Full::new(text)).unwrap())
}

async fn wait_for_news(shared: &Shared, query: &str) {
    let number = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok());
    let (Some(after), Some(wait_ms)) = (number("after"), number("wait_ms")) else { return };
    let mut revision = shared.revision.subscribe();
    let _ = tokio::time::timeout(Duration::from_millis(wait_ms), revision.wait_for(|revision| *revision > after)).await;
}

fn proxy_status(shared: &Shared) -> ProxyStatus {
    let worker = Worker { pid: 1, socket: shared.folder.join("worker.sock").display().to_string(), leaving: false };
    ProxyStatus { holder: std::process::id(), listening: Vec::new(), workers: vec![worker], ..ProxyStatus::default() }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap())
}
