//! The worker: accepts on the holder's sockets and forwards. Its main thread answers the admin socket and obeys the holder; each core has a thread, and
//! the checks have one.
//!
//! A worker never ends because of SIGTERM or SIGINT: these reach a whole process group, and only the holder knows whether another worker serves. It
//! ends when the holder says so, or when the holder is gone (the end of its standard input): then it takes the connections that wait, finishes its
//! requests and ends, so that a new holder finds the port free. Until there is a new holder, nobody listens: a service manager restarts it at once.

use crate::access_log::AccessLog;
use crate::admin::{self, AdminAnswer};
use crate::certificate::{Certificates, HTTP_1, HTTP_2, Sources, Watch, server_config};
use crate::control::{Order as HolderOrder, OrderNumber, Report, START};
use crate::core::{self, CoreParts, Order, Shared};
use crate::drain;
use crate::error::ProxyError;
use crate::kernel;
use crate::listener;
use crate::metrics;
use crate::node::{Node, NodeKey};
use crate::record::{self, Recorder, now_ms};
use crate::route::{Change, validate};
use crate::settings;
use crate::snapshot;
use crate::sync::lock;
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::record::{Record, SLICE_MS};
use gapless_wire::route::{Applied, DrainRequest, Snapshot, WorkerStatus};
use gapless_wire::settings::Settings;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;

/// Where a worker finds its state folder.
pub(crate) const STATE_VARIABLE: &str = "GAPLESS_PROXY_STATE";
/// Where a worker finds the descriptors of its listening sockets.
pub(crate) const LISTENERS_VARIABLE: &str = "GAPLESS_PROXY_LISTENERS";
/// Where a worker finds the admin socket of the worker that serves and that it is to take over from. Absent: there is none.
pub(crate) const PREDECESSOR_VARIABLE: &str = "GAPLESS_PROXY_PREDECESSOR";

/// The longest that a status may be waited for.
const STATUS_WAIT_LIMIT: Duration = Duration::from_secs(60);
/// How long passing a snapshot on to the newer worker, or taking one from the older, may take: writing it to a busy disk included.
pub(crate) const RELAY_LIMIT: Duration = Duration::from_secs(10);

/// How long telling clients that they were cut may take before the worker ends.
const CUT_LIMIT: Duration = Duration::from_secs(3);

/// How patient a leaving worker is.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// So long connections may wait for one more request.
    idle: Duration,
    /// So long requests may run.
    requests: Duration,
}

/// Another worker serves, so there is time: closing an idle connection may cross its next request, and downloads may be long.
const LEAVING: Patience = Patience { idle: Duration::from_secs(30), requests: Duration::from_secs(300) };
/// Nobody serves, and somebody waits for the end: the drain deadline's default for requests, and a moment for those that were on their way.
const STOPPING: Patience = Patience { idle: Duration::from_secs(1), requests: Duration::from_secs(30) };

/// What a worker is started with.
#[derive(Debug)]
pub struct WorkerOptions {
    state: PathBuf,
    listeners: Vec<Vec<TcpListener>>,
    predecessor: Option<PathBuf>,
}

impl WorkerOptions {
    /// Reads what the holder left in the environment. May be called once in a process, at its start.
    ///
    /// # Errors
    /// When this process was not started by a holder.
    pub fn from_environment() -> Result<Self, ProxyError> {
        let read = |name: &str| {
            std::env::var(name).map_err(|_| {
                ProxyError::new(format!("a worker without {name} in its environment"))
                    .hint("workers are started by `gapless proxy`, never by hand")
            })
        };
        Ok(Self {
            state: PathBuf::from(read(STATE_VARIABLE)?),
            listeners: listener::inherit(&read(LISTENERS_VARIABLE)?)?,
            predecessor: std::env::var_os(PREDECESSOR_VARIABLE).map(PathBuf::from),
        })
    }
}

/// The admin socket of a worker.
pub(crate) fn socket_path(state: &Path, pid: u32) -> PathBuf {
    state.join(format!("worker-{pid}.sock"))
}

/// Runs a worker until its holder lets it end, and ends the process then.
///
/// # Errors
/// When it cannot be set up. The process should end then.
pub fn main(options: WorkerOptions) -> Result<(), ProxyError> {
    let client_limit = core::client_limit(raise_descriptor_limit());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ProxyError::new(format!("cannot set up the admin runtime: {error}")))?;
    LocalSet::new().block_on(&runtime, serve(options, client_limit))
}

/// Every request takes two descriptors, and the system's soft limit is meant for programs that use select. Returns how many there may be.
fn raise_descriptor_limit() -> u64 {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

async fn serve(options: WorkerOptions, client_limit: usize) -> Result<(), ProxyError> {
    let _ignored = ignore_signals()?;
    let orders = holder_orders().map_err(|error| ProxyError::new(format!("cannot read the holder's orders: {error}")))?;
    let socket = socket_path(&options.state, std::process::id());
    let listener = admin::open(&socket)?;
    let worker = Rc::new(Worker::start(options, client_limit)?);
    worker.load_settings().await;
    worker.load().await?;
    let answering = worker.clone();
    spawn_local(admin::serve(listener, Rc::new(move |request| answer(answering.clone(), request))));
    report(START, Report::Up);
    let patience = worker.obey(orders).await?;
    worker.finish(patience).await;
    worker.end()
}

fn ignore_signals() -> Result<[tokio::signal::unix::Signal; 2], ProxyError> {
    let ignore = |kind| signal(kind).map_err(|error| ProxyError::new(format!("cannot take signals over: {error}")));
    Ok([ignore(SignalKind::terminate())?, ignore(SignalKind::interrupt())?])
}

fn holder_orders() -> io::Result<tokio::io::Lines<BufReader<pipe::Receiver>>> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(BufReader::new(pipe::Receiver::from_owned_fd(input)?).lines())
}

fn report(answered: OrderNumber, report: Report) {
    let mut output = io::stdout().lock();
    // A holder that is gone is noticed by the end of its orders.
    let _ = output.write_all(report.line(answered).as_bytes()).and_then(|()| output.flush());
}

/// Where a worker's first routes are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// From the disk.
    Disk,
    /// From the worker before it: they need not stand on the disk.
    Predecessor,
    /// There are none.
    Nowhere,
}

/// A worker, as its main thread sees it.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cores: Vec<mpsc::UnboundedSender<Order>>,
    state: PathBuf,
    recorders: Vec<Arc<Mutex<Recorder>>>,
    checks: mpsc::UnboundedSender<Vec<Arc<Node>>>,
    /// Whoever applies a snapshot holds it. Inside: the newer worker's socket, once there is one.
    applying: tokio::sync::Mutex<Option<PathBuf>>,
    predecessor: Option<PathBuf>,
    settings: RefCell<Arc<Settings>>,
    certificates: RefCell<Option<Arc<Certificates>>>,
    access_log: RefCell<Option<Arc<AccessLog>>>,
    problem: RefCell<Option<String>>,
    settings_problem: RefCell<Option<String>>,
    metrics_task: RefCell<Option<(SocketAddr, JoinHandle<()>)>>,
    /// This worker itself wrote the snapshot in force, synced it, and knows of nobody who wrote since.
    durable: Cell<bool>,
    began_ms: u64,
    drops_before: Option<u64>,
}

impl Worker {
    fn start(options: WorkerOptions, client_limit: usize) -> Result<Self, ProxyError> {
        let shared = Arc::new(Shared::new(client_limit, &options.state));
        let (checks, members) = mpsc::unbounded_channel();
        thread("checks", move || crate::check::run(members))?;
        let mut cores = Vec::new();
        let mut recorders = Vec::new();
        for (number, listeners) in options.listeners.into_iter().enumerate() {
            let (order, orders) = mpsc::unbounded_channel();
            let recorder = Arc::new(Mutex::new(Recorder::default()));
            let seed = u64::from(std::process::id()) << 16 | number as u64;
            let parts = CoreParts { shared: shared.clone(), recorder: recorder.clone(), listeners, orders, seed };
            thread(&format!("core-{number}"), move || core::run(parts))?;
            cores.push(order);
            recorders.push(recorder);
        }
        let drops_before = kernel::listen_drops();
        let (applying, problem) = (tokio::sync::Mutex::new(None), RefCell::new(None));
        Ok(Self {
            shared,
            cores,
            state: options.state,
            recorders,
            checks,
            applying,
            predecessor: options.predecessor,
            settings: RefCell::new(Arc::new(settings::none())),
            certificates: RefCell::new(None),
            access_log: RefCell::new(None),
            settings_problem: RefCell::new(None),
            metrics_task: RefCell::new(None),
            problem,
            durable: Cell::new(false),
            began_ms: now_ms(),
            drops_before,
        })
    }

    /// Puts in force what stands on the disk, or else what the worker has that this one is to take over from: an upgrade must not lose the routes. With
    /// nobody to take over from, a damaged snapshot must not keep the worker from starting, again and again: it is told, the requests that it costs are
    /// counted as failed, and the next snapshot that is put replaces it.
    ///
    /// # Errors
    /// When there is a worker to take over from and its routes cannot be had.
    async fn load(&self) -> Result<Origin, ProxyError> {
        let on_disk = self.load_from_disk().await;
        if matches!(on_disk, Ok(true)) {
            return Ok(Origin::Disk);
        }
        if let Some(snapshot) = self.ask_predecessor().await? {
            self.put_in_force_unless_older(snapshot)?;
            return Ok(Origin::Predecessor);
        }
        if let Err(error) = on_disk {
            tracing::error!(%error, "began without routes");
            *self.problem.borrow_mut() = Some(error.to_string());
            self.shared.without_routes.store(true, Ordering::SeqCst);
        }
        Ok(Origin::Nowhere)
    }

    /// Puts the settings on the disk in force. Without them clients are served as by default, which is better than not at all.
    async fn load_settings(self: &Rc<Self>) {
        let state = self.state.clone();
        let loaded = blocking("reading the settings", move || settings::load(&state)).await;
        let applied = loaded.and_then(|settings| settings.map_or(Ok(()), |settings| self.put_settings_in_force(settings, true)));
        if let Err(error) = applied {
            tracing::error!(%error, "began without settings");
            *self.settings_problem.borrow_mut() = Some(error.to_string());
        }
    }

    /// Treats clients and services so from now on; what is under way ends as it began.
    ///
    /// # Errors
    /// When they make no sense, or a file that they name cannot be used; nothing has changed then.
    fn put_settings_in_force(self: &Rc<Self>, wanted: Settings, is_start: bool) -> Result<(), ProxyError> {
        settings::validate(&wanted)?;
        let access_log = self.open_access_log(&wanted)?;
        let metrics = self.metrics_listener(&wanted)?;
        self.take_certificates(&wanted, is_start)?;
        let change = self.shared.routes.treat(&wanted.services)?;
        self.tell_of(change);
        let wanted = Arc::new(wanted);
        for core in &self.cores {
            // A core that is gone takes the worker with it.
            let _ = core.send(Order::Settings(wanted.clone(), access_log.clone()));
        }
        *self.access_log.borrow_mut() = access_log;
        if let Some(listener) = metrics {
            let before = self.metrics_task.borrow_mut().take();
            before.iter().for_each(|(_, task)| task.abort());
            *self.metrics_task.borrow_mut() =
                listener.map(|(address, listener)| (address, spawn_local(self.clone().tell_metrics(listener))));
        }
        *self.settings.borrow_mut() = wanted;
        *self.settings_problem.borrow_mut() = None;
        Ok(())
    }

    /// Proves who it is with these certificates from now on; they are looked after while the worker runs. At a start it is too late to refuse what cannot be used: it goes on with the others.
    fn take_certificates(&self, wanted: &Settings, is_start: bool) -> Result<(), ProxyError> {
        let sources = settings::certificates(&self.state, wanted)?;
        if let Some(certificates) = &*self.certificates.borrow() {
            return certificates.replace_sources(sources).map(|_| ());
        }
        if sources == Sources::default() {
            return Ok(());
        }
        let certificates = if is_start {
            let (usable, broken) = Certificates::load_usable(sources);
            broken.iter().for_each(|error| tracing::error!(%error, "began without a certificate"));
            usable
        } else {
            Certificates::load(sources)?
        };
        let certificates = Arc::new(certificates);
        *lock(&self.shared.tls) = Some(server_config(certificates.clone(), &[HTTP_2, HTTP_1])?);
        spawn_local(Watch::new(certificates.clone()).run());
        *self.certificates.borrow_mut() = Some(certificates);
        Ok(())
    }

    /// The listener for metrics, if another one is wanted than before. Workers that take each other's place share the address.
    fn metrics_listener(&self, wanted: &Settings) -> Result<Option<Option<(SocketAddr, tokio::net::TcpListener)>>, ProxyError> {
        let before = self.metrics_task.borrow().as_ref().map(|(address, _)| *address);
        if before == wanted.metrics {
            return Ok(None);
        }
        let Some(address) = wanted.metrics else { return Ok(Some(None)) };
        let listener = listener::open_one(address).and_then(tokio::net::TcpListener::from_std);
        listener.map(|listener| Some(Some((address, listener)))).map_err(|error| listener::cannot_listen(address, &error))
    }

    fn open_access_log(&self, wanted: &Settings) -> Result<Option<Arc<AccessLog>>, ProxyError> {
        let Some(path) = &wanted.access_log else { return Ok(None) };
        let open = self.access_log.borrow().clone().filter(|log| log.path() == path);
        open.map_or_else(|| AccessLog::open(path, self.shared.log_lost.clone()).map(|log| Some(Arc::new(log))), |log| Ok(Some(log)))
    }

    /// Whether there was something.
    async fn load_from_disk(&self) -> Result<bool, ProxyError> {
        let state = self.state.clone();
        match blocking("reading the snapshot", move || snapshot::load(&state)).await? {
            Some(snapshot) => self.put_in_force_unless_older(snapshot).map(|()| true),
            None => Ok(false),
        }
    }

    /// What the worker before this one has in force, if anything was ever put to it.
    async fn ask_predecessor(&self) -> Result<Option<Snapshot>, ProxyError> {
        let Some(socket) = &self.predecessor else { return Ok(None) };
        let asked: Result<Snapshot, ClientError> = UnixClient::new(socket).timeout(RELAY_LIMIT).get("/v1/snapshot").await;
        let snapshot = asked.map_err(|error| {
            ProxyError::new(format!("neither the disk nor the serving worker has routes to begin with: {error}"))
                .hint("put a snapshot to the serving worker, and upgrade again")
        })?;
        Ok((snapshot.version != Snapshot::default().version).then_some(snapshot))
    }

    fn put_in_force_unless_older(&self, snapshot: Snapshot) -> Result<(), ProxyError> {
        match self.shared.routes.refuse_older(&snapshot) {
            Ok(()) => self.put_in_force(snapshot),
            Err(_) => Ok(()),
        }
    }

    fn put_in_force(&self, snapshot: Snapshot) -> Result<(), ProxyError> {
        self.durable.set(false);
        let change = self.shared.routes.apply(snapshot)?;
        *self.problem.borrow_mut() = None;
        self.shared.without_routes.store(false, Ordering::SeqCst);
        self.tell_of(change);
        Ok(())
    }

    fn tell_of(&self, change: Change) {
        for core in &self.cores {
            // As above.
            let _ = core.send(Order::Forget(change.without_idle.clone(), None));
        }
        let _ = self.checks.send(change.members);
    }

    /// Obeys the holder until this worker has to leave.
    ///
    /// # Errors
    /// When it cannot begin to serve. The process should end then.
    async fn obey(self: &Rc<Self>, mut orders: tokio::io::Lines<BufReader<pipe::Receiver>>) -> Result<Patience, ProxyError> {
        while let Ok(Some(line)) = orders.next_line().await {
            let Some((number, order)) = HolderOrder::parse(&line) else {
                tracing::error!(line, "the holder says something unknown");
                continue;
            };
            match order {
                HolderOrder::Serve => {
                    self.accept().await?;
                    report(number, Report::Serving);
                }
                HolderOrder::Succeed(newer) => {
                    self.be_succeeded_by(newer).await;
                    report(number, Report::Succeeded);
                }
                HolderOrder::Leave => {
                    // Those of an address that is given up are taken; of the others, another worker would take them as well.
                    self.begin_to_leave(true);
                    report(number, Report::Leaving);
                    spawn_local(self.clone().obey_while_leaving(orders));
                    return Ok(LEAVING);
                }
                HolderOrder::Stop => break,
            }
        }
        self.begin_to_leave(true);
        Ok(STOPPING)
    }

    /// From now on the newer worker persists; `None`: this one does.
    async fn be_succeeded_by(&self, newer: Option<PathBuf>) {
        *self.applying.lock().await = newer;
        // Somebody else may have written meanwhile.
        self.durable.set(false);
    }

    /// A leaving worker still hears of newer workers, and of the end.
    async fn obey_while_leaving(self: Rc<Self>, mut orders: tokio::io::Lines<BufReader<pipe::Receiver>>) {
        while let Ok(Some(line)) = orders.next_line().await {
            match HolderOrder::parse(&line) {
                Some((number, HolderOrder::Succeed(newer))) => {
                    self.be_succeeded_by(newer).await;
                    report(number, Report::Succeeded);
                }
                Some((_, HolderOrder::Stop)) => break,
                _ => {}
            }
        }
        self.finish(STOPPING).await;
        self.end()
    }

    /// Ends the process: its threads run until then.
    fn end(&self) -> ! {
        // Nobody can ask it any more; the holder removes what is left of a worker that was killed.
        let _ = std::fs::remove_file(socket_path(&self.state, std::process::id()));
        std::process::exit(0)
    }

    /// Another worker may have applied something since this one loaded. Now that it persists no more, routes that were taken from it are written down: who
    /// comes after this worker has to find them.
    async fn accept(&self) -> Result<(), ProxyError> {
        let _applying = self.applying.lock().await;
        if self.load().await? == Origin::Predecessor {
            self.write(self.shared.routes.snapshot()).await?;
            self.durable.set(true);
        }
        for core in &self.cores {
            let _ = core.send(Order::Serve);
        }
        Ok(())
    }

    fn begin_to_leave(&self, take_waiting: bool) {
        // The next worker tells metrics.
        self.metrics_task.borrow_mut().take().iter().for_each(|(_, task)| task.abort());
        self.shared.leaving.store(true, Ordering::SeqCst);
        for core in &self.cores {
            let _ = core.send(Order::Leave { take_waiting });
        }
    }

    /// Waits for the last client, and says what it had to cut.
    async fn finish(&self, patience: Patience) {
        let begun = Instant::now();
        if self.all_clients_gone(begun + patience.idle).await {
            return;
        }
        for core in &self.cores {
            let _ = core.send(Order::CloseIdle);
        }
        if self.all_clients_gone(begun + patience.requests).await {
            return;
        }
        // First the mark, for requests that wait for a node or are about to be sent; then the order, for those that were.
        self.shared.set_cut();
        let cut = self.cut(None).await;
        tracing::warn!(cut, after = ?patience.requests, "leaving, requests were cut");
        self.all_clients_gone(Instant::now() + CUT_LIMIT).await;
    }

    async fn all_clients_gone(&self, until: Instant) -> bool {
        let mut clients = self.shared.clients.subscribe();
        tokio::time::timeout_at(until, clients.wait_for(|clients| *clients == 0)).await.is_ok()
    }

    /// Cuts what runs on these nodes, or everywhere; how many requests that were.
    pub(crate) async fn cut(&self, nodes: Option<Vec<NodeKey>>) -> usize {
        let mut cut = 0;
        for core in &self.cores {
            let (done, told) = oneshot::channel();
            if core.send(Order::Cut(nodes.clone(), Some(done))).is_ok() {
                cut += told.await.unwrap_or(0);
            }
        }
        cut
    }

    /// Persists, applies, and only then acknowledges. A worker with a newer one lets that one persist and apply first: what any worker acknowledged,
    /// the newest has.
    async fn apply(&self, snapshot: Snapshot) -> AdminAnswer {
        if let Err(error) = validate(&snapshot) {
            return admin::refused(StatusCode::BAD_REQUEST, &error);
        }
        let newer = self.applying.lock().await;
        if let Err(applied) = self.shared.routes.refuse_older(&snapshot) {
            return admin::json(StatusCode::CONFLICT, &applied);
        }
        let kept = match &*newer {
            Some(socket) => relay(socket, &snapshot).await,
            None => self.persist(&snapshot).await.map_err(|error| admin::refused(StatusCode::INSUFFICIENT_STORAGE, &error)),
        };
        if let Err(refusal) = kept {
            return refusal;
        }
        match self.put_in_force(snapshot) {
            Ok(()) => {
                self.durable.set(newer.is_none());
                admin::json(StatusCode::OK, &self.shared.routes.applied())
            }
            Err(error) => admin::refused(StatusCode::BAD_REQUEST, &error),
        }
    }

    /// Makes sure that the snapshot is on the disk. What was only loaded may be in the kernel's memory alone, so it is written again.
    async fn persist(&self, snapshot: &Snapshot) -> Result<(), ProxyError> {
        if self.durable.get() && *snapshot == self.shared.routes.snapshot() && snapshot::path(&self.state).exists() {
            return Ok(());
        }
        self.durable.set(false);
        self.write(snapshot.clone()).await
    }

    async fn write(&self, snapshot: Snapshot) -> Result<(), ProxyError> {
        let state = self.state.clone();
        blocking("writing the snapshot", move || snapshot::persist(&state, &snapshot)).await
    }

    async fn status(&self, after: u64, wait: Duration) -> WorkerStatus {
        let mut changes = self.shared.changes.subscribe();
        // At the end of the wait the answer is what it is.
        let _ = tokio::time::timeout(wait, changes.wait_for(|revision| *revision > after)).await;
        WorkerStatus {
            revision: self.shared.changes.revision(),
            generations: self.shared.routes.applied().generations,
            nodes: self.shared.routes.status(),
            problem: self.problem.borrow().clone().or_else(|| self.settings_problem.borrow().clone()),
        }
    }

    /// Everything that a collector of metrics wants to know.
    fn metrics(&self) -> String {
        let totals = self.recorders.iter().map(|recorder| lock(recorder).totals(now_ms()));
        let expiries = self.certificates.borrow().as_ref().map(|certificates| certificates.expiries()).unwrap_or_default();
        metrics::render(&self.shared, totals, &self.shared.routes.status(), &expiries)
    }

    /// Tells metrics on this address from now on, and no longer on another one.
    async fn tell_metrics(self: Rc<Self>, listener: tokio::net::TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::task::yield_now().await;
                continue;
            };
            let worker = self.clone();
            spawn_local(async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = match request.uri().path() {
                        "/metrics" => admin::text(StatusCode::OK, &worker.metrics()),
                        _ => admin::text(StatusCode::NOT_FOUND, "metrics are told at /metrics"),
                    };
                    async move { Ok::<_, std::convert::Infallible>(answer) }
                });
                // Whether the collector took it is its own affair.
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    }

    /// Waits for the end of the slice in which it was asked, so that what is told is complete.
    ///
    /// # Errors
    /// When it was broken off.
    async fn record(&self, since_ms: u64) -> Result<Record, ProxyError> {
        let now = now_ms();
        let until_ms = now - now % SLICE_MS + SLICE_MS;
        while now_ms() < until_ms {
            tokio::time::sleep(Duration::from_millis(until_ms - now)).await;
        }
        let recorders = self.recorders.clone();
        let merged = blocking("merging the record", move || Ok(record::merged(&recorders, since_ms, until_ms))).await?;
        let record::Merged { slices, complete_from_ms } = merged;
        let listen_drops = kernel::drops_between(self.drops_before, kernel::listen_drops());
        Ok(Record {
            worker: std::process::id(),
            began_ms: self.began_ms,
            complete_from_ms: complete_from_ms.max(self.began_ms),
            until_ms,
            slices,
            listen_drops: listen_drops.unwrap_or(0),
            listen_drops_unknown: listen_drops.is_none(),
            refused: self.shared.refused.load(Ordering::Relaxed),
            client_gone: self.shared.client_gone.load(Ordering::Relaxed),
        })
    }
}

/// Starts a thread without which the worker is nothing: when it ends, the process does, and the holder replaces it.
fn thread(name: &str, run: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), ProxyError> {
    let own_name = name.to_string();
    let body = move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        tracing::error!(thread = own_name, ?ended, "a thread of the worker ended");
        std::process::abort();
    };
    std::thread::Builder::new()
        .name(name.to_string())
        .spawn(body)
        .map(|_| ())
        .map_err(|error| ProxyError::new(format!("cannot start the thread `{name}`: {error}")))
}

/// Does on a thread of its own what would keep the admin socket and the holder waiting.
async fn blocking<T: Send + 'static>(what: &str, act: impl FnOnce() -> Result<T, ProxyError> + Send + 'static) -> Result<T, ProxyError> {
    let done = tokio::task::spawn_blocking(act).await;
    done.unwrap_or_else(|error| Err(ProxyError::new(format!("{what} was broken off: {error}"))))
}

async fn relay(newer: &Path, snapshot: &Snapshot) -> Result<(), AdminAnswer> {
    let relayed: Result<Applied, ClientError> =
        UnixClient::new(newer).timeout(RELAY_LIMIT).send(Method::PUT, "/v1/snapshot", snapshot).await;
    match relayed {
        Ok(_) => Ok(()),
        Err(ClientError::Refused { status, body }) => Err(admin::text(status, &body)),
        Err(error) => Err(admin::text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("this worker leaves, and the newest has not applied the snapshot: {error}"),
        )),
    }
}

fn bad_request(error: ProxyError) -> AdminAnswer {
    admin::refused(StatusCode::BAD_REQUEST, &error)
}

async fn answer(worker: Rc<Worker>, request: Request<Incoming>) -> AdminAnswer {
    match route(worker, request).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn route(worker: Rc<Worker>, request: Request<Incoming>) -> Result<AdminAnswer, AdminAnswer> {
    let path = request.uri().path().to_string();
    match (request.method(), path.as_str()) {
        (&Method::PUT, "/v1/snapshot") => {
            let snapshot = admin::read(request).await?;
            // In a task of its own: a caller that goes away must not leave it persisted and not applied.
            let applied = spawn_local(async move { worker.apply(snapshot).await }).await;
            applied.map_err(|error| admin::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("applying broke off: {error}")))
        }
        (&Method::PUT, "/v1/settings") => {
            let settings: Settings = admin::read(request).await?;
            let _applying = worker.applying.lock().await;
            worker.put_settings_in_force(settings, false).map_err(bad_request)?;
            Ok(admin::json(StatusCode::OK, &**worker.settings.borrow()))
        }
        (&Method::GET, "/v1/metrics") => Ok(admin::text(StatusCode::OK, &worker.metrics())),
        (&Method::GET, "/v1/settings") => Ok(admin::json(StatusCode::OK, &**worker.settings.borrow())),
        // From the holder that follows a killed one: this worker takes no orders any more.
        (&Method::PUT, "/v1/successor") => {
            let newer: PathBuf = admin::read(request).await?;
            worker.be_succeeded_by(Some(newer)).await;
            Ok(admin::json(StatusCode::OK, &worker.shared.routes.applied()))
        }
        (&Method::GET, "/v1/snapshot") => Ok(admin::json(StatusCode::OK, &worker.shared.routes.snapshot())),
        (&Method::POST, "/v1/drain") => {
            let drain: DrainRequest = admin::read(request).await?;
            drain::begin(&worker, drain).await;
            Ok(admin::text(StatusCode::NO_CONTENT, ""))
        }
        (&Method::GET, "/v1/status") => {
            let after = admin::number(&request, "after").map_err(bad_request)?.unwrap_or(0);
            let wait = Duration::from_millis(admin::number(&request, "wait_ms").map_err(bad_request)?.unwrap_or(0)).min(STATUS_WAIT_LIMIT);
            Ok(admin::json(StatusCode::OK, &worker.status(after, wait).await))
        }
        (&Method::GET, "/v1/record") => {
            let since = admin::number(&request, "since").map_err(bad_request)?.unwrap_or(0);
            let record = worker.record(since).await.map_err(|error| admin::refused(StatusCode::INTERNAL_SERVER_ERROR, &error))?;
            Ok(admin::json(StatusCode::OK, &record))
        }
        (method, path) => Ok(admin::text(StatusCode::NOT_FOUND, &format!("a worker knows no {method} {path}"))),
    }
}
