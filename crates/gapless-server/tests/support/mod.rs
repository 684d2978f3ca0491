//! A server over the simulated platform, with a project in a real repository and a proxy that only tells a record.
#![allow(dead_code, reason = "each test program uses its part")]

mod store;

use async_trait::async_trait;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_engine::checkpoint::{Checkpoint, EffectContext};
use gapless_engine::clock::Clock;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Artifact, NewArtifact, Records};
use gapless_engine::{Engine, Parts as EngineParts};
use gapless_platforms::sim::{Sim, SimOptions, SimTime};
use gapless_server::Server;
use gapless_server::analysis::RecordAnalyst;
use gapless_server::parts::{BuildJob, BuildSink, Builder, Host, Parts};
use gapless_server::prune::{Freed, Kept};
use gapless_server::record::RecordKeeper;
use gapless_wire::backup::Backup;
use gapless_wire::build::BuildLine;
use gapless_wire::client::UnixClient;
use gapless_wire::doctor::Finding;
use gapless_wire::log::Log;
use gapless_wire::record::{Record, Slice};
use gapless_wire::route::{ProxyStatus, Worker};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use store::TestStore;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// How long before the scene the proxy began, in milliseconds: longer than what a receipt compares with.
const BEFORE_MS: u64 = 5 * 60_000;

pub const PROJECT: &str = r#"project "hello" {}

image "web" {}

service "web" {
  image   = "web"
  host    = "localhost"
  nodes   = 2
  port    = 80
  command = ["/bin/serve"]
  health {
    interval = "50ms"
  }
  rollout {
    drain    = "1s"
    progress = "5s"
    bake     = "0s"
  }
}
"#;

/// What a test asks of the world around the server.
#[derive(Default)]
pub struct Wishes {
    /// How far the proxy's clock is ahead, in milliseconds.
    pub ahead_ms: AtomicU64,
    /// The engine decides nothing as long as this is true.
    pub hold: watch::Sender<bool>,
    /// Images that were made ready after their build.
    pub made_ready: Mutex<BTreeSet<Digest>>,
    /// Images that were freed.
    pub freed: Mutex<BTreeSet<Digest>>,
    /// How many images were built.
    pub built: Mutex<u8>,
    /// How many decisions were held.
    pub held: watch::Sender<u32>,
}

#[async_trait]
impl Checkpoint for Wishes {
    async fn before(&self, _context: &EffectContext) {}

    async fn after(&self, _context: &EffectContext) {}

    async fn decide(&self, _service: &ServiceName) {
        if *self.hold.borrow() {
            self.held.send_modify(|held| *held += 1);
        }
        let _ = self.hold.subscribe().wait_for(|hold| !*hold).await;
    }
}

/// The service that clients send requests to.
const SERVICE: &str = "hello/web";

/// Everything that a test has.
pub struct Scene {
    pub sim: Sim,
    pub wishes: Arc<Wishes>,
    pub store: Arc<TestStore>,
    pub client: UnixClient,
    pub project: PathBuf,
    /// The service has an outage here, as it declares: requests may fail.
    pub outage: bool,
    folder: TempDir,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Scene {
    pub async fn new() -> Scene {
        let folder = tempfile::tempdir().expect("folder");
        let project = folder.path().join("project");
        std::fs::create_dir(&project).expect("folder");
        git(&project, &["init", "-q"]);
        let sim = Sim::new(SimOptions { time: SimTime::Real, ..SimOptions::default() });
        sim.send_requests(&SERVICE.parse().expect("a name"));
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("folder");
        let wishes = Arc::new(Wishes::default());
        proxy(&state.join("proxy.sock"), &state.join("worker.sock"), now_ms() - BEFORE_MS, wishes.clone());
        let client = UnixClient::new(state.join("server.sock"));
        let mut scene = Scene { sim, wishes, store: Arc::new(TestStore::default()), client, project, outage: false, folder, running: None };
        scene.commit(PROJECT);
        scene.start().await;
        scene
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes `gapless.hcl` and commits. Answers with the commit.
    pub fn commit(&self, text: &str) -> String {
        std::fs::write(self.project.join("gapless.hcl"), text).expect("written");
        git(&self.project, &["add", "."]);
        git(&self.project, &["-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-q", "--allow-empty", "-m", "change"]);
        git(&self.project, &["rev-parse", "HEAD"])
    }

    /// Starts a server over the same world and store; ends the one that runs.
    pub async fn start(&mut self) {
        self.stop().await;
        let server = self.server().await;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            server.run(async move { drop(stopped.await) }).await.expect("served");
        });
        self.running = Some((stop, task));
        // Its name is there before anybody listens.
        while UnixStream::connect(self.state().join("server.sock")).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    /// A server over the same world and store that does not listen yet.
    pub async fn server(&self) -> Arc<Server> {
        let platform = Arc::new(self.sim.again());
        let clock: Arc<dyn Clock> = Arc::new(self.sim.clone());
        let proxies = vec![self.state().join("proxy.sock")];
        let keeper = Arc::new(RecordKeeper::new(proxies.clone()));
        let engine = EngineParts {
            journal: self.store.clone(),
            records: self.store.clone(),
            platform: platform.clone(),
            analyst: Arc::new(RecordAnalyst::new(keeper.clone())),
            clock: clock.clone(),
            checkpoint: self.wishes.clone(),
        };
        let parts = Parts {
            engine: Engine::start(engine).await.expect("engine"),
            journal: self.store.clone(),
            records: self.store.clone(),
            platform,
            clock: clock.clone(),
            builder: Arc::new(FakeBuilder { store: self.store.clone(), clock, wishes: self.wishes.clone() }),
            host: Arc::new(FakeHost { wishes: self.wishes.clone() }),
            proxies,
            keeper,
            state: self.state(),
            installation: "a1b2c3".into(),
        };
        Server::new(parts).expect("server")
    }

    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            let _ = stop.send(());
            task.await.expect("ended");
        }
    }
}

/// Traffic is in flight in every scene, and none of it may be lost.
impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let tally = self.sim.tally();
        assert!(self.outage || tally.failures() == 0, "requests failed: {tally:?}");
        assert_eq!(self.sim.violations(), Vec::<String>::new());
    }
}

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

pub fn now_ms() -> u64 {
    u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("time").as_millis()).expect("time")
}

/// Publishes an image without making one. An image with the base suite `broken` cannot be built; with `panics`, the builder breaks off.
struct FakeBuilder {
    store: Arc<TestStore>,
    clock: Arc<dyn Clock>,
    wishes: Arc<Wishes>,
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(&self, job: BuildJob, sink: BuildSink) -> Result<Artifact, Error> {
        sink(BuildLine::PhaseBegan { phase: "base".into(), at_ms: self.clock.now().0 });
        sink(BuildLine::Output { phase: "base".into(), text: "a line of output".into() });
        if job.image.base.suite == "broken" {
            return Err(Error::new("mmdebstrap says: no such suite").kind(ErrorKind::Invalid).hint("name a suite that the mirror has"));
        }
        assert!(job.image.base.suite != "panics", "the builder panics, as it was told to");
        let mut image = [0; 32];
        image[0] = u8::try_from(job.number).expect("few builds");
        *self.wishes.built.lock().expect("whole") = image[0];
        self.wishes.freed.lock().expect("whole").remove(&Digest(image));
        let metadata =
            BTreeMap::from([("commit".to_string(), job.commit), ("layer.base".to_string(), format!("sha256:{}", "0".repeat(64)))]);
        self.store.publish(NewArtifact {
            name: job.artifact,
            kind: "oci.image".into(),
            image: Digest(image),
            published: self.clock.now(),
            metadata,
        })
    }
}

struct FakeHost {
    wishes: Arc<Wishes>,
}

#[async_trait]
impl Host for FakeHost {
    async fn logs(&self, _service: &ServiceName, node: Option<&str>) -> Result<Vec<Log>, Error> {
        let of = node.unwrap_or("r1-i1-n0").to_string();
        Ok(vec![Log { of, text: "hello\n".into(), shortened: false, running: true }])
    }

    async fn has_image(&self, image: Digest) -> Result<bool, Error> {
        Ok(!self.wishes.freed.lock().expect("whole").contains(&image))
    }

    async fn make_ready(&self, image: Digest) -> Result<(), Error> {
        self.wishes.made_ready.lock().expect("whole").insert(image);
        Ok(())
    }

    async fn prune(&self, kept: Kept, dry_run: bool) -> Result<Freed, Error> {
        let mut freed = self.wishes.freed.lock().expect("whole");
        let built = u64::from(*self.wishes.built.lock().expect("whole"));
        // The images of the builder below are numbered.
        let image = |number: u64| Digest(std::array::from_fn(|at| if at == 0 { u8::try_from(number).expect("few builds") } else { 0 }));
        let unneeded: Vec<Digest> = (1..=built).map(image).filter(|image| !kept.images.contains(image) && !freed.contains(image)).collect();
        let count = unneeded.len() as u64;
        if !dry_run {
            freed.extend(unneeded);
        }
        Ok(Freed { trees: count, blobs: count, bytes: count * 1000 })
    }

    async fn examine(&self) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }

    async fn remove_leftovers(&self) -> Result<Vec<String>, Error> {
        Ok(vec!["a mount".into()])
    }

    async fn back_up(&self, file: &Path) -> Result<Backup, Error> {
        let installation = "0a1b2c".to_string();
        Ok(Backup { file: file.to_path_buf(), installation, made_ms: 1, files: 2, bytes: 3, without_image: Vec::new() })
    }
}

/// A proxy of one worker, which answered 10 small GETs of `hello/web` in each slice since `began_ms`.
fn proxy(holder: &Path, worker: &Path, began_ms: u64, wishes: Arc<Wishes>) {
    let status = ProxyStatus {
        holder: 1,
        listening: Vec::new(),
        workers: vec![Worker { pid: 2, socket: worker.display().to_string(), leaving: false }],
        ..ProxyStatus::default()
    };
    answer_with(holder, move |_| serde_json::to_vec(&status).expect("json"));
    answer_with(worker, move |query| serde_json::to_vec(&record(query, began_ms, wishes.ahead_ms.load(Ordering::SeqCst))).expect("json"));
}

fn record(query: &str, began_ms: u64, ahead_ms: u64) -> Record {
    let since: u64 = query.strip_prefix("since=").and_then(|since| since.parse().ok()).expect("since");
    let until_ms = (now_ms() + ahead_ms) / 100 * 100;
    let first = since.max(began_ms) / 100 * 100;
    let slice = |at_ms| Slice {
        at_ms,
        service: "hello/web".into(),
        release: "web-r1".into(),
        requests: 10,
        statuses: [0, 10, 0, 0, 0],
        latencies: vec![(900, 10)],
        small_ended: Some((at_ms, at_ms + 90)),
        small_gap_ms: 10,
        ..Slice::default()
    };
    Record { worker: 2, began_ms, until_ms, slices: (first..until_ms).step_by(100).map(slice).collect(), ..Record::default() }
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
