//! The holder: owns the listening sockets and the admin socket `<state>/proxy.sock`, and supervises the worker. It never reads a request, so there is
//! little that could end it.
//!
//! A worker that ends by itself is replaced at once on the same sockets. `POST /v1/upgrade` starts a second worker, and the first leaves when the second
//! serves. SIGTERM or SIGINT to the holder is an orderly stop. When the holder is killed, its workers notice, finish and end: see [`crate::worker`]. The next
//! holder tells of them until then: they are proxies like any other, and no node may be destroyed under their requests.

use crate::acme::{Acme, GroupStatus};
use crate::admin::{self, AdminAnswer};
use crate::control::{Order, OrderNumber, Report, START};
use crate::error::ProxyError;
use crate::handover::{self, HandedOn, HandedOnWorker};
use crate::listener::{self, Listeners};
use crate::settings;
use crate::sync::lock;
use crate::worker::{LISTENERS_VARIABLE, PREDECESSOR_VARIABLE, STATE_VARIABLE, socket_path};
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::route::{Applied, OrderedCertificate, ProxyStatus, Worker};
use gapless_wire::settings::Settings;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use rustix::fs::{FlockOperation, flock};
use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// How long a worker may take for each step of a change of workers. It takes some milliseconds, but a worker that is passing a snapshot on answers only
/// after that, so it is longer than [`crate::worker::RELAY_LIMIT`]. What takes longer undoes the change; it ends no worker that serves.
const STEP_LIMIT: Duration = Duration::from_secs(12);
/// A worker that ends sooner after its start than this did not really run.
const FAST_DEATH: Duration = Duration::from_secs(2);
/// So many fast deaths in a row are answered at once; more of them with a pause, so that a crash loop does not eat the machine.
const FAST_DEATHS_ALLOWED: u32 = 3;
/// The first pause; each further fast death doubles it.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const BACKOFF_LIMIT: Duration = Duration::from_secs(5);
/// How long stopping workers may take before they are killed: their own limit of 30 s, and some.
const STOP_LIMIT: Duration = Duration::from_secs(35);

/// How long the answer to whoever asked for a new holder may take to leave before the process goes on as that: a moment for a socket of this machine.
const REPLY_LIMIT: Duration = Duration::from_millis(20);

/// What a holder is started with.
#[derive(Clone, Debug)]
pub struct HolderOptions {
    /// The state folder: admin sockets, the snapshot. Made with mode 0700 when it is missing.
    pub state: PathBuf,
    /// Where to listen. Port 0 takes a free one, which the status tells.
    pub listen: Vec<SocketAddr>,
    /// The settings to begin with; `None`: those that the state folder has.
    pub settings: Option<Settings>,
    /// The program that workers are: this very executable.
    pub program: PathBuf,
    /// What the program takes to be a worker; it then calls `worker::main(WorkerOptions::from_environment()?)`.
    pub worker_arguments: Vec<String>,
}

/// The admin socket of the holder.
#[must_use]
pub fn socket(state: &Path) -> PathBuf {
    state.join("proxy.sock")
}

/// The settings that the state folder has: those that a holder would begin with. `None`: there are none, or they cannot be used.
#[must_use]
pub fn kept_settings(state: &Path) -> Option<Settings> {
    settings::load(state).ok().flatten()
}

/// Runs a proxy until it is stopped by SIGTERM or SIGINT.
///
/// # Errors
/// When the state folder, a port or the first worker cannot be had. What was begun is undone then.
pub fn main(options: HolderOptions) -> Result<(), ProxyError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ProxyError::new(format!("cannot set up the holder's runtime: {error}")))?;
    LocalSet::new().block_on(&runtime, run(options))
}

async fn run(mut options: HolderOptions) -> Result<(), ProxyError> {
    // The status names sockets to programs that run in other folders.
    options.state = std::path::absolute(&options.state).map_err(|error| ProxyError::path("find", &options.state, &error))?;
    let signal = |kind| signal(kind).map_err(|error| ProxyError::new(format!("cannot take signals over: {error}")));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut holder = match handover::taken()? {
        Some(handed_on) => Holder::take_over(options, handed_on)?,
        None => Holder::begin(options)?,
    };
    let admin_socket = socket(&holder.options.state);
    let admin_listener = admin::open(&admin_socket)?;
    let serving = if holder.workers.is_empty() { holder.replace_worker().await } else { Ok(()) };
    if let Err(error) = holder.order_certificates() {
        tracing::error!(%error, "no certificates are ordered");
    }
    if let Err(error) = serving {
        holder.stop().await;
        remove_socket(&admin_socket);
        return Err(error);
    }
    let (status, events) = (holder.status.clone(), holder.tell.clone());
    spawn_local(admin::serve(admin_listener, Rc::new(move |request| answer(status.clone(), events.clone(), request))));
    let (stop, stops) = (holder.tell.clone(), holder.stops.clone());
    spawn_local(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stops.set(true);
        // An order like any other: a change of workers that is under way comes to its end first, or nobody would know which of the two serves.
        let _ = stop.send(Event::Stop);
    });
    holder.supervise().await;
    holder.stop().await;
    remove_socket(&admin_socket);
    Ok(())
}

/// The settings that somebody gave, written down for the workers; else those that are written down. Damaged ones are no reason not to serve.
fn first_settings(options: &HolderOptions) -> Result<Settings, ProxyError> {
    if let Some(wanted) = &options.settings {
        settings::validate(wanted)?;
        settings::persist(&options.state, wanted)?;
        return Ok(wanted.clone());
    }
    let loaded = settings::load(&options.state);
    Ok(loaded
        .unwrap_or_else(|error| {
            tracing::error!(%error, "began without settings");
            None
        })
        .unwrap_or_else(settings::none))
}

/// All addresses to listen on: those of the command line first, each once.
fn addresses(of_command_line: &[SocketAddr], settings: &Settings) -> Vec<SocketAddr> {
    let more = settings.listeners.iter().map(|listener| listener.address).filter(|address| !of_command_line.contains(address));
    of_command_line.iter().copied().chain(more).collect()
}

fn remove_socket(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove an admin socket");
    }
}

/// Makes sure of the state folder, and that no other holder uses it. The lock ends with the process.
fn take_folder(state: &Path) -> Result<File, ProxyError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|error| ProxyError::path("make the state folder", state, &error))?;
    let path = state.join("proxy.lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| ProxyError::path("open", &path, &error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        ProxyError::new(format!("another proxy uses {}", state.display()))
            .hint("one proxy for each state folder: stop the other, or choose another folder")
    })?;
    Ok(file)
}

/// A worker whose holder was killed, and that finishes its requests.
struct Orphan {
    pid: u32,
    socket: PathBuf,
}

/// The workers of an earlier holder, but for those of `known`, that still answer. Those that were killed together with it leave their sockets behind.
fn orphans(state: &Path, known: &[u32]) -> Vec<Orphan> {
    let entries = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut alive = Vec::new();
    for socket in entries {
        let Some(pid) = worker_of(&socket).filter(|pid| !known.contains(pid)) else { continue };
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            alive.push(Orphan { pid, socket });
        } else {
            remove_socket(&socket);
        }
    }
    alive
}

/// The process id in the name of a worker's socket.
fn worker_of(socket: &Path) -> Option<u32> {
    socket.file_name()?.to_str()?.strip_prefix("worker-")?.split(".sock").next()?.parse().ok()
}

/// What the holder hears.
enum Event {
    Ended(u32, ExitStatus),
    OrphanEnded(u32),
    Upgrade(oneshot::Sender<Result<(), String>>),
    Settings(Box<Settings>, oneshot::Sender<Result<(), String>>),
    HandOn(oneshot::Sender<Result<(), String>>),
    Stop,
}

struct Holder {
    options: HolderOptions,
    lock: File,
    settings: Settings,
    listeners: Option<Listeners>,
    workers: Vec<Handle>,
    orphans: Vec<Orphan>,
    status: Arc<Mutex<ProxyStatus>>,
    tell: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    fast_deaths: u32,
    /// It was asked to stop, which comes after what is under way.
    stops: Rc<Cell<bool>>,
    /// Orders certificates, if any are wanted.
    orders: Option<JoinHandle<()>>,
}

/// A worker that has not ended.
struct Handle {
    pid: u32,
    socket: PathBuf,
    leaving: bool,
    begun: Instant,
    orders: pipe::Sender,
    last_order: OrderNumber,
    reports: mpsc::UnboundedReceiver<(OrderNumber, Report)>,
    /// Where the reports come from, for whoever takes over.
    output: OwnedFd,
    kill: Option<oneshot::Sender<()>>,
}

impl Holder {
    /// The first of its line: it has no worker yet.
    fn begin(mut options: HolderOptions) -> Result<Self, ProxyError> {
        let lock = take_folder(&options.state)?;
        let settings = first_settings(&options)?;
        let given = Listeners::of_service_manager(listener::cores())?;
        if let Some(given) = &given {
            options.listen = given.addresses();
        }
        let wanted = addresses(&options.listen, &settings);
        let listeners = given.unwrap_or_default().with(&wanted, listener::cores())?;
        // Those of the command line are known by the ports that they got from here on.
        let of_command_line = options.listen.len();
        options.listen = listeners.addresses()[..of_command_line].to_vec();
        let orphans = orphans(&options.state, &[]);
        Ok(Self::new(options, lock, settings, listeners, orphans))
    }

    /// The next one of the same process: everything is there already.
    fn take_over(mut options: HolderOptions, handed_on: HandedOn) -> Result<Self, ProxyError> {
        let settings = first_settings(&HolderOptions { settings: None, ..options.clone() })?;
        let listeners = Listeners::adopt(&handed_on.listeners)?;
        options.listen.clone_from(&handed_on.of_command_line);
        let known: Vec<u32> = handed_on.workers.iter().map(|worker| worker.pid).collect();
        let orphans = orphans(&options.state, &known);
        let mut holder = Self::new(options, File::from(handover::adopt(handed_on.lock)?), settings, listeners, orphans);
        for worker in &handed_on.workers {
            let (orders, output) = (handover::adopt(worker.orders)?, handover::adopt(worker.output)?);
            let mut handle = holder.handle(worker.pid, orders, output)?;
            (handle.leaving, handle.last_order) = (worker.leaving, worker.last_order);
            holder.workers.push(handle);
        }
        let mut status = lock(&holder.status);
        (status.replaced, status.handed_on) = (handed_on.replaced, handed_on.handed_on + 1);
        drop(status);
        holder.publish();
        Ok(holder)
    }

    fn new(options: HolderOptions, lock: File, settings: Settings, listeners: Listeners, orphans: Vec<Orphan>) -> Self {
        let status = ProxyStatus { holder: std::process::id(), listening: listeners.addresses(), ..ProxyStatus::default() };
        let (tell, events) = mpsc::unbounded_channel();
        for orphan in &orphans {
            spawn_local(wait_for_orphan(orphan.pid, tell.clone()));
        }
        Self {
            options,
            lock,
            settings,
            listeners: Some(listeners),
            workers: Vec::new(),
            orphans,
            status: Arc::new(Mutex::new(status)),
            tell,
            events,
            fast_deaths: 0,
            stops: Rc::default(),
            orders: None,
        }
    }

    /// Lets the program that stands on the disk now go on in this very process, with the same sockets, lock and workers. A worker of that program has to serve first: one that cannot is no holder
    /// either. Returns only when it could not.
    async fn hand_on(&mut self, reply: oneshot::Sender<Result<(), String>>) {
        if let Err(error) = self.replace_worker().await {
            let _ = reply.send(Err(told_with_hint(&error)));
            return;
        }
        let Some(listeners) = &self.listeners else { return };
        let status = lock(&self.status).clone();
        let worker = |worker: &Handle| HandedOnWorker {
            pid: worker.pid,
            orders: worker.orders.as_raw_fd(),
            output: worker.output.as_raw_fd(),
            leaving: worker.leaving,
            last_order: worker.last_order,
        };
        let handed_on = HandedOn {
            lock: self.lock.as_raw_fd(),
            listeners: listeners.places(),
            of_command_line: self.options.listen.clone(),
            workers: self.workers.iter().map(worker).collect(),
            replaced: status.replaced,
            handed_on: status.handed_on,
        };
        // Whoever asked hears of it before: afterwards nobody could answer on this connection.
        let _ = reply.send(Ok(()));
        tokio::time::sleep(REPLY_LIMIT).await;
        let error = handover::go_on_as(&self.options.program, &handed_on);
        tracing::error!(%error, "the holder goes on as it was");
    }

    async fn supervise(&mut self) {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Ended(pid, status) => self.bury(pid, status).await,
                Event::OrphanEnded(pid) => self.forget_orphan(pid),
                Event::Upgrade(reply) => {
                    let upgraded = self.replace_worker().await.map_err(|error| error.to_string());
                    // Who asked may have gone; the upgrade stands.
                    let _ = reply.send(upgraded);
                }
                Event::Stop => return,
                Event::HandOn(reply) => self.hand_on(reply).await,
                Event::Settings(wanted, reply) => {
                    let changed = self.change_settings(*wanted).await.map_err(|error| told_with_hint(&error));
                    // As above.
                    let _ = reply.send(changed);
                }
            }
        }
    }

    /// A worker has ended: expected of a leaving one; any other is replaced at once.
    async fn bury(&mut self, pid: u32, status: ExitStatus) {
        let Some(at) = self.workers.iter().position(|worker| worker.pid == pid) else { return };
        let worker = self.workers.remove(at);
        remove_socket(&worker.socket);
        self.publish();
        if worker.leaving {
            return;
        }
        tracing::error!(pid, %status, "a worker ended by itself and is replaced");
        lock(&self.status).replaced += 1;
        self.fast_deaths = if worker.begun.elapsed() < FAST_DEATH { self.fast_deaths + 1 } else { 0 };
        while !self.stops.get() {
            self.back_off().await;
            match self.replace_worker().await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "cannot start a worker"),
            }
            self.fast_deaths += 1;
        }
    }

    /// Serves with these settings from now on. The workers take them while they serve; only where addresses come or go, a new worker takes over. What is refused leaves everything as it was.
    async fn change_settings(&mut self, wanted: Settings) -> Result<(), ProxyError> {
        settings::validate(&wanted)?;
        let (before, after) = (addresses(&self.options.listen, &self.settings), addresses(&self.options.listen, &wanted));
        let fresh = match &self.listeners {
            Some(listeners) if before != after => Some(listeners.with(&after, listener::cores())?),
            _ => None,
        };
        self.put_settings(&wanted).await?;
        settings::persist(&self.options.state, &wanted)?;
        let settings_before = std::mem::replace(&mut self.settings, wanted);
        if self.settings.acme != settings_before.acme {
            self.order_certificates()?;
        }
        let Some(fresh) = fresh else { return Ok(()) };
        let listening = fresh.addresses();
        let listeners_before = self.listeners.replace(fresh);
        if let Err(error) = self.replace_worker().await {
            self.listeners = listeners_before;
            self.put_settings(&settings_before).await?;
            settings::persist(&self.options.state, &settings_before)?;
            self.settings = settings_before;
            return Err(error);
        }
        lock(&self.status).listening = listening;
        Ok(())
    }

    /// Orders what the settings say from now on, in the place of what was ordered before.
    fn order_certificates(&mut self) -> Result<(), ProxyError> {
        if let Some(before) = self.orders.take() {
            before.abort();
            lock(&self.status).certificates.clear();
        }
        if let Some(wanted) = &self.settings.acme {
            let acme = Acme::new(&self.options.state, settings::order(wanted))?;
            spawn_local(tell_orders(acme.status(), self.status.clone()));
            self.orders = Some(spawn_local(acme.run()));
        }
        Ok(())
    }

    /// Tells the serving worker; those that leave go on as they are.
    async fn put_settings(&self, wanted: &Settings) -> Result<(), ProxyError> {
        let Some(socket) = self.serving_socket() else { return Ok(()) };
        let told: Result<Settings, ClientError> =
            UnixClient::new(socket).timeout(STEP_LIMIT).send(Method::PUT, "/v1/settings", wanted).await;
        told.map(|_| ()).map_err(|error| match error {
            ClientError::Refused { body, .. } => ProxyError::new(body),
            error => ProxyError::new(format!("the worker does not take the settings: {error}")),
        })
    }

    fn forget_orphan(&mut self, pid: u32) {
        for orphan in self.orphans.extract_if(.., |orphan| orphan.pid == pid) {
            remove_socket(&orphan.socket);
        }
        self.publish();
    }

    async fn back_off(&self) {
        if self.fast_deaths > FAST_DEATHS_ALLOWED {
            let doublings = (self.fast_deaths - FAST_DEATHS_ALLOWED - 1).min(16);
            tokio::time::sleep(BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LIMIT)).await;
        }
    }

    /// Brings a new worker up, and lets those before it leave once it serves. At no moment does nobody accept, and at no moment can an older worker
    /// acknowledge what the newest does not have.
    async fn replace_worker(&mut self) -> Result<(), ProxyError> {
        let mut newest = self.spawn()?;
        if let Err(error) = newest.expect(START, Report::Up).await {
            newest.discard();
            return Err(error);
        }
        self.publish_with(Some(&newest));
        let introduced = self.introduce(&newest.socket).await;
        let served = match introduced {
            Ok(()) => newest.order_and_expect(&Order::Serve, Report::Serving).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            newest.discard();
            self.restore().await;
            self.publish();
            return Err(error);
        }
        for older in self.workers.iter_mut().filter(|worker| !worker.leaving) {
            older.leaving = true;
            if let Err(error) = older.order_and_expect(&Order::Leave, Report::Leaving).await {
                // It has requests. The order stands in its input, and until it is obeyed there is one more worker that has to acknowledge.
                tracing::error!(%error, pid = older.pid, "a worker does not say that it leaves");
            }
        }
        self.workers.push(newest);
        self.publish();
        Ok(())
    }

    /// Tells the older workers who persists from now on. The serving one has to answer: before that it may still be persisting. Those that leave already
    /// pass everything on to one that was the newest once; so it reaches the serving one, and through it the newest, whenever they hear of it.
    async fn introduce(&mut self, newest: &Path) -> Result<(), ProxyError> {
        self.introduce_to_orphans(newest).await;
        let order = Order::Succeed(Some(newest.to_path_buf()));
        for older in &mut self.workers {
            if older.leaving {
                older.order_if_it_lives(&order).await;
            } else {
                older.order_and_expect(&order, Report::Succeeded).await?;
            }
        }
        Ok(())
    }

    /// An orphan takes no orders, but its admin socket is there until it ends: what it is told to apply, it passes on from now on, and does not write itself.
    async fn introduce_to_orphans(&mut self, newest: &Path) {
        for orphan in &self.orphans {
            let client = UnixClient::new(&orphan.socket).timeout(STEP_LIMIT);
            let told: Result<Applied, _> = client.send(Method::PUT, "/v1/successor", &newest).await;
            if let Err(error) = told {
                tracing::warn!(pid = orphan.pid, %error, "a worker of an earlier holder does not say that it passes its routes on");
            }
        }
    }

    /// A newest worker came to nothing: the serving one is the newest again, and those that leave pass on to it. Nobody is waited for: until an order is
    /// obeyed, a worker passes snapshots on to a socket that is gone, which refuses them and acknowledges nothing.
    async fn restore(&mut self) {
        let serving = self.serving_socket();
        for older in &mut self.workers {
            let newer = if older.leaving { serving.clone() } else { None };
            // Without a serving worker the next newest one is on its way.
            if !older.leaving || newer.is_some() {
                older.order_if_it_lives(&Order::Succeed(newer)).await;
            }
        }
    }

    /// The admin socket of the worker that serves.
    fn serving_socket(&self) -> Option<PathBuf> {
        self.workers.iter().rev().find(|worker| !worker.leaving).map(|worker| worker.socket.clone())
    }

    fn spawn(&self) -> Result<Handle, ProxyError> {
        let Some(listeners) = &self.listeners else { return Err(ProxyError::new("the holder has stopped")) };
        let descriptors = listeners.descriptors();
        let mut command = Command::new(&self.options.program);
        command.args(&self.options.worker_arguments).env(STATE_VARIABLE, &self.options.state).env(LISTENERS_VARIABLE, listeners.names());
        if let Some(predecessor) = self.serving_socket() {
            command.env(PREDECESSOR_VARIABLE, predecessor);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: between fork and exec it only changes flags of descriptors, without a lock or an allocation.
        unsafe { command.pre_exec(move || listener::leave_open(&descriptors)) };
        let mut child = command.spawn().map_err(|error| ProxyError::path("start a worker from", &self.options.program, &error))?;
        let (pid, parts) = (child.id(), child.stdin.take().zip(child.stdout.take()));
        let Some((orders, output)) = parts else { return Err(ProxyError::new("a worker ended before it began")) };
        self.handle(pid, orders.into(), output.into())
    }

    /// Takes charge of a worker: of its orders, its reports and its end.
    fn handle(&self, pid: u32, orders: OwnedFd, output: OwnedFd) -> Result<Handle, ProxyError> {
        let unusable = |error: std::io::Error| ProxyError::new(format!("worker {pid} cannot be talked to: {error}"));
        let orders = pipe::Sender::from_owned_fd(orders).map_err(unusable)?;
        let heard = output.try_clone().and_then(pipe::Receiver::from_owned_fd).map_err(unusable)?;
        let (kill, killed) = oneshot::channel();
        let (report, reports) = mpsc::unbounded_channel();
        spawn_local(wait(pid, killed, self.tell.clone()));
        spawn_local(async move {
            let mut lines = BufReader::new(heard).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(heard) = Report::parse(&line) {
                    let _ = report.send(heard);
                }
            }
        });
        let socket = socket_path(&self.options.state, pid);
        let begun = Instant::now();
        Ok(Handle { pid, socket, leaving: false, begun, orders, last_order: START, reports, output, kill: Some(kill) })
    }

    fn publish(&self) {
        self.publish_with(None);
    }

    /// A worker that is about to serve is told of before it does: whoever destroys nodes has to wait for it too.
    fn publish_with(&self, newest: Option<&Handle>) {
        lock(&self.status).workers =
            self.orphans.iter().map(Orphan::told).chain(self.workers.iter().chain(newest).map(Handle::told)).collect();
    }

    /// Lets all workers finish, and then closes the sockets.
    async fn stop(&mut self) {
        // The workers hold them too, and take what waits there before they let go.
        self.listeners = None;
        for worker in &mut self.workers {
            worker.leaving = true;
            if worker.order(&Order::Stop).await.is_err() {
                worker.kill();
            }
        }
        self.publish();
        let until = tokio::time::Instant::now() + STOP_LIMIT;
        while !self.workers.is_empty() {
            match tokio::time::timeout_at(until, self.events.recv()).await {
                Ok(Some(Event::Ended(pid, status))) => self.bury(pid, status).await,
                Ok(Some(Event::OrphanEnded(pid))) => self.forget_orphan(pid),
                Ok(Some(Event::Stop)) => {}
                Ok(Some(Event::HandOn(reply))) => drop(reply.send(Err("the proxy is being stopped".to_string()))),
                Ok(Some(Event::Settings(_, reply))) => drop(reply.send(Err("the proxy is being stopped".to_string()))),
                Ok(Some(Event::Upgrade(reply))) => drop(reply.send(Err("the proxy is being stopped".to_string()))),
                Ok(None) | Err(_) => break,
            }
        }
        for worker in &mut self.workers {
            tracing::error!(pid = worker.pid, "a worker does not end and is killed");
            worker.kill();
            remove_socket(&worker.socket);
        }
    }
}

/// Waits for the end of a worker, which is a child of this process.
async fn wait(pid: u32, killed: oneshot::Receiver<()>, tell: mpsc::UnboundedSender<Event>) {
    let Some(raw) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return };
    tokio::select! {
        () = ended(raw) => {}
        // A kill that was dropped with its handle is one too: nobody could tell the worker anything any more.
        _ = killed => {
            // It may have ended in this very moment; until it is waited for, the number is its own.
            let _ = rustix::process::kill_process(raw, rustix::process::Signal::KILL);
            ended(raw).await;
        }
    }
    // One that ended just as the holder went on as a newer program was waited for by the older one.
    let waited = rustix::process::waitpid(Some(raw), rustix::process::WaitOptions::empty()).ok().flatten();
    let status = waited.map_or(0, |(_, status)| status.as_raw());
    let _ = tell.send(Event::Ended(pid, ExitStatus::from_raw(status)));
}

/// Returns when this process has ended.
async fn ended(pid: rustix::process::Pid) {
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK) else { return };
    // SAFETY: the descriptor is owned, so it stays open and the same as long as what waits for it.
    let registered = unsafe { tokio::io::unix::AsyncFd::register_with_interest(process, tokio::io::Interest::READABLE) };
    match registered {
        Ok(process) => drop(process.readable().await.map(|_| ())),
        Err(error) => tracing::error!(?pid, %error, "cannot wait for a worker"),
    }
}

/// Keeps the status up to date with what is ordered, until nothing is any more.
async fn tell_orders(mut told: watch::Receiver<Vec<GroupStatus>>, status: Arc<Mutex<ProxyStatus>>) {
    let ms = |moment: SystemTime| moment.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let ordered = |group: &GroupStatus| OrderedCertificate {
        hosts: group.names.clone(),
        valid_until_ms: group.not_after.map(ms),
        failures: group.failures,
        failure: group.error.clone(),
        next_order_ms: ms(group.next_order),
    };
    loop {
        let certificates = told.borrow_and_update().iter().map(ordered).collect();
        lock(&status).certificates = certificates;
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// Waits for the end of a worker that is no child of this process.
async fn wait_for_orphan(pid: u32, tell: mpsc::UnboundedSender<Event>) {
    if let Some(raw) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        ended(raw).await;
    }
    let _ = tell.send(Event::OrphanEnded(pid));
}

impl Orphan {
    fn told(&self) -> Worker {
        Worker { pid: self.pid, socket: self.socket.display().to_string(), leaving: true }
    }
}

impl Handle {
    async fn order(&mut self, order: &Order) -> Result<OrderNumber, ProxyError> {
        self.last_order += 1;
        let sent = self.orders.write_all(order.line(self.last_order).as_bytes()).await;
        sent.map_err(|error| ProxyError::new(format!("worker {} takes no orders: {error}", self.pid)))?;
        Ok(self.last_order)
    }

    /// Orders without waiting for the answer.
    async fn order_if_it_lives(&mut self, order: &Order) {
        if let Err(error) = self.order(order).await {
            // Its end is told by the system.
            tracing::warn!(%error, "a worker is about to end");
        }
    }

    async fn order_and_expect(&mut self, order: &Order, report: Report) -> Result<(), ProxyError> {
        let number = self.order(order).await?;
        self.expect(number, report).await
    }

    async fn expect(&mut self, answered: OrderNumber, wanted: Report) -> Result<(), ProxyError> {
        let (pid, word) = (self.pid, wanted.word());
        match tokio::time::timeout(STEP_LIMIT, self.answer_to(answered)).await {
            Ok(Some(report)) if report == wanted => Ok(()),
            Ok(Some(other)) => Err(ProxyError::new(format!("worker {pid} said `{}` instead of `{word}`", other.word()))),
            Ok(None) => Err(ProxyError::new(format!("worker {pid} ended before it said `{word}`; its error output tells why"))),
            Err(_) => Err(ProxyError::new(format!("worker {pid} did not say `{word}` within {STEP_LIMIT:?}"))
                .hint("it may be waiting for a slow disk: try again when that is over")),
        }
    }

    /// The answer to this order; late answers to earlier ones are passed over. `None`: the worker has ended.
    async fn answer_to(&mut self, number: OrderNumber) -> Option<Report> {
        loop {
            let (answered, report) = self.reports.recv().await?;
            if answered == number {
                return Some(report);
            }
        }
    }

    fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            // Whoever waits for it may have seen it end already.
            let _ = kill.send(());
        }
    }

    /// Ends a worker that never served.
    fn discard(&mut self) {
        self.kill();
        remove_socket(&self.socket);
    }

    fn told(&self) -> Worker {
        Worker { pid: self.pid, socket: self.socket.display().to_string(), leaving: self.leaving }
    }
}

/// What went wrong, and what to do, in one text.
fn told_with_hint(error: &ProxyError) -> String {
    let hint = error.hint_text().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{error}{hint}")
}

async fn answer(status: Arc<Mutex<ProxyStatus>>, tell: mpsc::UnboundedSender<Event>, request: Request<Incoming>) -> AdminAnswer {
    let (reply, told) = oneshot::channel();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/proxy") => admin::json(StatusCode::OK, &*lock(&status)),
        (&Method::POST, "/v1/upgrade") => {
            let sent = tell.send(Event::Upgrade(reply)).is_ok();
            answer_to(
                sent,
                told,
                || admin::json(StatusCode::OK, &*lock(&status)),
                "the old worker goes on: ",
                StatusCode::INTERNAL_SERVER_ERROR,
            )
            .await
        }
        (&Method::POST, "/v1/hand-on") => {
            let sent = tell.send(Event::HandOn(reply)).is_ok();
            answer_to(
                sent,
                told,
                || admin::json(StatusCode::ACCEPTED, &*lock(&status)),
                "the holder goes on as it was: ",
                StatusCode::INTERNAL_SERVER_ERROR,
            )
            .await
        }
        (&Method::PUT, "/v1/settings") => {
            let settings: Settings = match admin::read(request).await {
                Ok(settings) => settings,
                Err(refusal) => return refusal,
            };
            let sent = tell.send(Event::Settings(Box::new(settings.clone()), reply)).is_ok();
            answer_to(sent, told, || admin::json(StatusCode::OK, &settings), "", StatusCode::BAD_REQUEST).await
        }
        (method, path) => admin::text(StatusCode::NOT_FOUND, &format!("a holder knows no {method} {path}")),
    }
}

async fn answer_to(
    sent: bool,
    told: oneshot::Receiver<Result<(), String>>,
    done: impl FnOnce() -> AdminAnswer,
    before_error: &str,
    refused: StatusCode,
) -> AdminAnswer {
    match told.await {
        Ok(Ok(())) if sent => done(),
        Ok(Err(error)) => admin::text(refused, &format!("{before_error}{error}")),
        _ => admin::text(StatusCode::SERVICE_UNAVAILABLE, "the proxy is being stopped"),
    }
}
