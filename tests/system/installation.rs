//! One installation of a test: a proxy, a server, and a witness, each an own process; everything is gone when it is dropped.

use crate::project::Project;
use crate::provisioned;
use gapless_load::{Plan, Recording, Target, Witness};
use gapless_platforms::local::leftovers::Leftovers;
use gapless_wire::api::{ServerStatus, path};
use gapless_wire::build::{BuildLine, BuildRequest};
use gapless_wire::client::UnixClient;
use gapless_wire::receipt::Receipt;
use gapless_wire::rollout::{ArtifactChoice, Declared, DeployRequest, Outcome, Reason, RollbackRequest, RolloutLine};
use gapless_wire::route::ProxyStatus;
use gapless_wire::service::ServiceStatus;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine of two cores: only a fault reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a server of a test differs from one of a user.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// See `GAPLESS_HOLD_AT`.
    pub hold_at: Option<String>,
    /// Nothing is sent again and nothing is held.
    pub without_retry_and_hold: bool,
    /// Where base systems are kept, if not where those of all tests are.
    pub cache: Option<PathBuf>,
}

pub struct Installation {
    pub root: PathBuf,
    pub address: SocketAddr,
    state: PathBuf,
    name: Option<String>,
    proxy: Option<Child>,
    server: Option<Child>,
}

/// How a rollout went.
#[derive(Debug)]
pub struct Ended {
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    pub receipt: Option<Receipt>,
}

impl Installation {
    /// A running proxy and server in a fresh folder below the build's folder.
    pub async fn start(name: &str, settings: &ServerSettings) -> Installation {
        Installation::without_processes(name).started(settings).await
    }

    /// A running proxy and server on a state folder that a backup is put into first: a machine that knows nothing but the backup.
    pub async fn restored(name: &str, backup: &Path, settings: &ServerSettings) -> Installation {
        let mut installation = Installation::without_processes(name);
        let (status, printed, said) = installation.run(&installation.root, "restore", &[backup.to_str().expect("a name in UTF-8")]);
        assert_eq!(status, 0, "{printed}{said}");
        installation.start_proxy().await;
        installation.start_server(settings).await;
        installation
    }

    /// The same, with the server's state in a folder of the caller's.
    pub async fn start_with_state(name: &str, state: PathBuf, settings: &ServerSettings) -> Installation {
        let mut installation = Installation::without_processes(name);
        installation.state = state;
        installation.started(settings).await
    }

    async fn started(mut self, settings: &ServerSettings) -> Installation {
        provisioned::give(&self.state);
        self.start_proxy().await;
        self.start_server(settings).await;
        self
    }

    fn without_processes(name: &str) -> Installation {
        let root = unique_folder(name);
        let state = root.join("state");
        Installation { root, address: free_address(), state, name: None, proxy: None, server: None }
    }

    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// The id that everything of it on this machine carries.
    pub fn name(&self) -> &str {
        self.name.as_deref().expect("a server that was started")
    }

    fn proxy_socket(&self) -> PathBuf {
        self.root.join("proxy/proxy.sock")
    }

    pub fn marker(&self) -> PathBuf {
        self.root.join("held")
    }

    pub fn client(&self) -> UnixClient {
        UnixClient::new(self.state().join("server.sock")).timeout(PATIENCE)
    }

    /// A command of the `gapless` program with this installation's state folder.
    pub fn gapless(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapless"));
        command.arg(name).arg("--state").arg(self.state()).stdin(Stdio::null());
        command
    }

    /// Runs a command in a folder and gives its exit status, what it printed, and what it said beside.
    pub fn run(&self, folder: &Path, name: &str, arguments: &[&str]) -> (i32, String, String) {
        let output = self.gapless(name).args(arguments).current_dir(folder).output().expect("running gapless");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    pub async fn start_proxy(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapless"));
        command.arg("proxy").arg("--state").arg(self.root.join("proxy")).arg("--listen").arg(self.address.to_string());
        self.proxy = Some(self.spawn(command, "proxy.log"));
        let client = UnixClient::new(self.proxy_socket());
        until("the proxy answers", || async {
            client.get::<ProxyStatus>("/v1/proxy").await.is_ok_and(|status| !status.workers.is_empty())
        })
        .await;
    }

    pub async fn start_server(&mut self, settings: &ServerSettings) {
        let mut command = self.gapless("server");
        command
            .arg("--proxy")
            .arg(self.proxy_socket())
            .arg("--cache")
            .arg(settings.cache.clone().unwrap_or_else(|| target().join("cache")));
        if settings.without_retry_and_hold {
            command.args(["--no-retry", "--hold-ms", "0"]);
        }
        if let Some(place) = &settings.hold_at {
            command.env("GAPLESS_HOLD_AT", place).env("GAPLESS_HOLD_MARKER", self.marker());
        }
        self.server = Some(self.spawn(command, "server.log"));
        let client = self.client();
        until("the server answers", || async { client.get::<ServerStatus>(path::SERVER).await.is_ok() }).await;
        let status: ServerStatus = client.get(path::SERVER).await.expect("asking the server who it is");
        self.name = Some(status.installation);
    }

    fn spawn(&self, mut command: Command, log: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.root.join(log)).expect("opening a log");
        let errors = log.try_clone().expect("sharing a log");
        command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starting gapless")
    }

    /// SIGKILL, as a crash would have it.
    pub fn kill_server(&mut self) {
        let mut server = self.server.take().expect("a running server");
        server.kill().expect("killing the server");
        server.wait().expect("waiting for the server");
    }

    /// SIGKILL of the proxy's holder, as a crash would have it.
    pub fn kill_proxy(&mut self) {
        let mut proxy = self.proxy.take().expect("a running proxy");
        proxy.kill().expect("killing the proxy");
        proxy.wait().expect("waiting for the proxy");
    }

    /// The process id of the server.
    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("a running server").id()
    }

    /// Ends everything and removes it from the machine; its folders stay until it is dropped.
    pub fn remove(&mut self) {
        self.kill_processes();
        let removed = Leftovers::of(self.name(), &self.state).and_then(|leftovers| leftovers.remove_everything());
        removed.expect("removing the installation");
    }

    fn kill_processes(&mut self) {
        for mut child in [self.server.take(), self.proxy.take()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub async fn proxy_status(&self) -> ProxyStatus {
        UnixClient::new(self.proxy_socket()).get("/v1/proxy").await.expect("asking the proxy")
    }

    pub async fn status(&self, service: &str) -> ServiceStatus {
        self.client().get(&path::service(service)).await.expect("asking for the service")
    }

    /// Builds a commit; the lines of the build.
    pub async fn build(&self, project: &Project, commit: &str) -> Vec<BuildLine> {
        let request = BuildRequest { project: project.path.clone(), commit: commit.into(), image: None, unless_built: false };
        let mut lines = self.client().lines(hyper::Method::POST, path::BUILDS, &request).await.expect("asking for a build");
        let mut told = Vec::new();
        while let Some(line) = lines.next().await.expect("reading the build's lines") {
            told.push(line);
        }
        told
    }

    /// Builds a commit that must build, and declares it.
    pub async fn declare(&self, project: &Project, commit: &str) -> Declared {
        let told = self.build(project, commit).await;
        assert!(told.iter().any(|line| matches!(line, BuildLine::Published { .. })), "the build failed: {told:#?}");
        provisioned::keep(&self.state);
        self.declare_built(project, commit).await
    }

    pub async fn declare_built(&self, project: &Project, commit: &str) -> Declared {
        self.declare_all_built(project, commit).await.into_iter().next().expect("one service")
    }

    /// Declares every service of a commit that was built.
    pub async fn declare_all_built(&self, project: &Project, commit: &str) -> Vec<Declared> {
        let request = DeployRequest {
            project: project.path.clone(),
            commit: commit.into(),
            service: None,
            artifact: ArtifactChoice::OfCommit,
            built_for_this: true,
            urgent: false,
        };
        self.client().send(hyper::Method::POST, path::DEPLOYS, &request).await.expect("declaring the services")
    }

    pub async fn roll_back(&self, service: &str, to: Option<u32>) -> Declared {
        let request = RollbackRequest { to, force: false };
        self.client().send(hyper::Method::POST, &path::of_service(service, "rollback"), &request).await.expect("asking for a rollback")
    }

    /// Follows a rollout to its end.
    pub async fn ended(&self, service: &str, rollout: u32) -> Ended {
        let follow = self.follow(service, rollout, |line| match line {
            RolloutLine::End { outcome, reason, receipt } => Some(Ended { outcome, reason, receipt: receipt.map(|signed| signed.receipt) }),
            _ => None,
        });
        follow.await
    }

    /// Follows a rollout until it is in its bake window.
    pub async fn baking(&self, service: &str, rollout: u32) {
        self.follow(service, rollout, |line| matches!(line, RolloutLine::Baking { .. }).then_some(())).await;
    }

    /// Follows a rollout until its new nodes have the traffic for good: in its bake window, or at its end.
    pub async fn baking_or_ended(&self, service: &str, rollout: u32) {
        let over = |line| matches!(line, RolloutLine::Baking { .. } | RolloutLine::End { .. }).then_some(());
        self.follow(service, rollout, over).await;
    }

    /// Reads a rollout's lines until one is what is wanted.
    pub async fn follow<T>(&self, service: &str, rollout: u32, mut wanted: impl FnMut(RolloutLine) -> Option<T>) -> T {
        let address = path::of_rollout(service, rollout, "events");
        let read = async {
            let mut lines = self.client().lines(hyper::Method::GET, &address, &()).await.expect("following the rollout");
            while let Some(line) = lines.next().await.expect("reading the rollout's lines") {
                if let Some(found) = wanted(line) {
                    return found;
                }
            }
            panic!("the story of rollout {rollout} ended before what was waited for; see {}", self.root.display())
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("rollout {rollout} did not come to its end; see {}", self.root.display()))
    }

    /// Waits until the server holds where it was told to.
    pub async fn held(&self) {
        let marker = self.marker();
        until("the server holds", || async { marker.exists() }).await;
    }

    /// The standard mix at `rate` requests a second, from an own process.
    pub async fn witness(&self, host: &str, rate: u32) -> Witness {
        let mut plan = Plan::standard(Target::address(self.address, host));
        plan.rate_per_second = rate;
        self.witness_of(&plan).await
    }

    pub async fn witness_of(&self, plan: &Plan) -> Witness {
        let mut program = Command::new(env!("CARGO_BIN_EXE_gapless"));
        program.arg("load");
        Witness::spawn(program, plan, &self.root.join("witness.json")).await.expect("starting the witness")
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.kill_processes();
        let Some(name) = &self.name else { return };
        let removed = Leftovers::of(name, &self.state()).and_then(|leftovers| leftovers.remove_everything());
        match (removed, std::thread::panicking()) {
            (Ok(()), false) => drop(std::fs::remove_dir_all(&self.root)),
            (Ok(()), true) => eprintln!("what the processes said is in {}", self.root.display()),
            (Err(error), _) => eprintln!("the installation {name} could not be removed: {error}"),
        }
    }
}

/// No request failed, and the witness was fast enough to say so.
pub fn assert_no_failure(recording: &Recording, least: u64) {
    let report = &recording.report;
    assert_eq!(report.failed, 0, "{:?} {:#?}", report.failed_by_cause, report.failure_examples);
    assert!(report.requests >= least, "only {} requests: too few to prove anything", report.requests);
    assert_eq!(report.samples_dropped, 0);
}

/// Waits until the witness has seen the service at rest for two seconds, so that a rollout is held against something.
pub async fn steady(witness: &Witness, rate: u32) {
    let enough = u64::from(rate) * 2;
    witness.progress().wait_for(|progress| progress.requests >= enough).await.expect("the witness runs");
}

/// Waits until something is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The build's folder: nothing that a test makes is elsewhere.
pub fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_gapless"));
    program.ancestors().nth(2).expect("the program lies in target/debug").to_path_buf()
}

/// A fresh folder of a test.
pub fn unique_folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = target().join("test").join(unique);
    std::fs::create_dir_all(&folder).expect("making a test's folder");
    folder
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("asking for a free port");
    listener.local_addr().expect("a bound socket has an address")
}
