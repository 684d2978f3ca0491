//! One core: a thread with a runtime, listeners, a pool and a recorder of its own; and what all cores of a worker share.

use crate::access_log::{self, AccessLog};
use crate::account::{Account, Closed};
use crate::acme::Challenges;
use crate::balancer::{self, Spoken};
use crate::buffer::{Buffers, Inlet};
use crate::certificate::HTTP_2;
use crate::exchange::Exchanges;
use crate::http1;
use crate::http1::node::Connection;
use crate::http2;
use crate::http2::node::Links;
use crate::limit::{Connected, Connections, Rates};
use crate::node::{Node, NodeKey};
use crate::pool::Pool;
use crate::record::Recorder;
use crate::request::{Client, Inbound};
use crate::route::{Choice, Dice, Routes, Wish};
use crate::settings;
use crate::stream::{Streams, prepare_client};
use crate::sync::{Changes, lock};
use crate::tcp;
use bytes::Bytes;
use gapless_wire::settings::{Listener, Settings, Speaks};
use h2::client::SendRequest;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// How often connections are looked through: for waits that have become too long, which may so be exceeded by this much, and for idle ones to nodes. With
/// [`crate::pool::IDLE_LIMIT`] it stays below the 5 s after which Apache closes.
const REAP_INTERVAL: Duration = Duration::from_millis(250);
/// How long accepting rests when the system has no descriptor left: the next one is freed by a connection that ends, which nothing tells.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// How long a client may take for what comes before its first request: TLS, or what a balancer says of it.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// How many places to write heads into a core keeps, and of what size in bytes: more than ever run at once between two waits.
const SCRATCH_COUNT_LIMIT: usize = 16;
/// See [`SCRATCH_COUNT_LIMIT`].
const SCRATCH_LIMIT: usize = 64 * 1024;

/// The most client connections that a worker serves at a time: at some 20 KB each, 1 GB. More wait in the sockets' queues; nobody is refused.
const CLIENT_LIMIT: u64 = 50_000;
/// Descriptors that are not for clients and their requests: the runtimes', the sockets', the admin's, checks and the snapshot.
const OWN_DESCRIPTORS: u64 = 64;

/// How many clients may be connected when the process may have so many descriptors: each takes a second one for its request to a node.
pub(crate) fn client_limit(descriptors: u64) -> usize {
    let room = (descriptors.saturating_sub(OWN_DESCRIPTORS) / 2).clamp(1, CLIENT_LIMIT);
    usize::try_from(room).unwrap_or(usize::MAX)
}

/// What all cores of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) routes: Routes,
    pub(crate) changes: Arc<Changes>,
    /// The worker takes no new connections, and every answer closes its connection.
    pub(crate) leaving: AtomicBool,
    /// Open client connections, and listeners that still accept.
    pub(crate) clients: watch::Sender<usize>,
    /// How many of these there may be before accepting pauses; each core may be one ahead.
    client_limit: usize,
    /// That it was reached stands in the log; once, or a crowd would fill it.
    limit_told: AtomicBool,
    /// The worker's patience is over: every request is cut, also one that no node has yet.
    cut: watch::Sender<bool>,
    /// The snapshot on disk could not be read and nothing was put since: what finds no service has lost it.
    pub(crate) without_routes: AtomicBool,
    pub(crate) refused: AtomicU64,
    pub(crate) client_gone: AtomicU64,
    /// Lines of the access log that could not be written.
    pub(crate) log_lost: Arc<AtomicU64>,
    /// What TLS needs, once there are listeners with it.
    pub(crate) tls: Mutex<Option<Arc<ServerConfig>>>,
    /// What proves to an authority that a host is this one.
    pub(crate) challenges: Challenges,
    connections: Arc<Connections>,
    /// By service name.
    rates: Mutex<HashMap<Arc<str>, Arc<Rates>>>,
}

impl Shared {
    pub(crate) fn new(client_limit: usize, state: &Path) -> Self {
        let changes = Arc::new(Changes::new());
        Self {
            routes: Routes::new(changes.clone()),
            changes,
            leaving: AtomicBool::new(false),
            clients: watch::Sender::new(0),
            client_limit,
            limit_told: AtomicBool::new(false),
            cut: watch::Sender::new(false),
            without_routes: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            client_gone: AtomicU64::new(0),
            log_lost: Arc::default(),
            tls: Mutex::default(),
            challenges: Challenges::new(state),
            connections: Arc::default(),
            rates: Mutex::default(),
        }
    }

    /// How many requests each client has sent to this service.
    pub(crate) fn rates(&self, service: &Arc<str>) -> Arc<Rates> {
        lock(&self.rates).entry(service.clone()).or_default().clone()
    }

    /// From now on no request is sent or waits any more. What nodes have already is cut by [`Order::Cut`], which has to follow.
    pub(crate) fn set_cut(&self) {
        self.cut.send_replace(true);
        // Requests that are held wait for a change.
        self.changes.bump();
    }

    pub(crate) fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Returns when every request is cut.
    pub(crate) async fn cut(&self) {
        // The sender is this object's own and cannot go.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }

    /// Returns when one more client may be accepted.
    async fn room_for_client(&self) {
        if *self.clients.borrow() < self.client_limit {
            return;
        }
        if !self.limit_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(limit = self.client_limit, "no more clients are accepted until some have gone; said once");
        }
        let _ = self.clients.subscribe().wait_for(|clients| *clients < self.client_limit).await;
    }
}

/// What a core is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Begin to accept.
    Serve,
    /// Accept no more. `take_waiting`: first everything that already waits, because the sockets will be closed.
    Leave {
        /// See above.
        take_waiting: bool,
    },
    /// Treat clients so from now on, and write this log.
    Settings(Arc<Settings>, Option<Arc<AccessLog>>),
    /// Close clients' connections that wait for a request, from now on.
    CloseIdle,
    /// Close the idle connections to these nodes.
    Forget(Vec<NodeKey>, Option<oneshot::Sender<()>>),
    /// Cut what still runs on these nodes, or everywhere.
    Cut(Option<Vec<NodeKey>>, Option<oneshot::Sender<usize>>),
}

/// Lines of the access log that are not handed over yet.
#[derive(Default)]
struct Lines {
    log: Option<Arc<AccessLog>>,
    bytes: Vec<u8>,
    count: u64,
}

impl Lines {
    fn hand_over(&mut self) {
        if let (Some(log), true) = (&self.log, self.count > 0) {
            log.send(std::mem::take(&mut self.bytes), std::mem::take(&mut self.count));
        }
    }
}

/// One thread's part of the proxy.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    pub(crate) exchanges: Rc<Exchanges>,
    pub(crate) streams: Rc<Streams>,
    pub(crate) buffers: Buffers,
    closes_idle: Cell<bool>,
    pub(crate) settings: RefCell<Arc<Settings>>,
    log: RefCell<Lines>,
    links: RefCell<Links>,
    scratch: RefCell<Vec<Vec<u8>>>,
    pool: RefCell<Pool>,
    dice: RefCell<Dice>,
}

impl Core {
    fn new(shared: Arc<Shared>, recorder: Arc<Mutex<Recorder>>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            shared,
            recorder,
            exchanges: Rc::default(),
            streams: Rc::default(),
            buffers: Buffers::default(),
            closes_idle: Cell::new(false),
            settings: RefCell::new(Arc::new(settings::none())),
            log: RefCell::default(),
            links: RefCell::default(),
            scratch: RefCell::default(),
            pool: RefCell::default(),
            dice: RefCell::new(Dice::new(seed)),
        })
    }

    /// Claims a node for a request.
    pub(crate) fn claim(&self, inbound: &Inbound, tried: &[NodeKey], wish: Wish<'_>) -> Choice {
        self.shared.routes.claim(&inbound.host, inbound.target(), tried, wish, &mut self.dice.borrow_mut())
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        lock(&self.shared.tls).clone().map(TlsAcceptor::from)
    }

    /// Claims a node for a connection to the service of this name.
    pub(crate) fn claim_named(&self, name: &str, tried: &[NodeKey]) -> Choice {
        self.shared.routes.claim_named(name, tried, &mut self.dice.borrow_mut())
    }

    /// Somebody wants to know of every request that ends.
    pub(crate) fn logs(&self) -> bool {
        self.log.borrow().log.is_some()
    }

    /// Tells of a request that ended.
    pub(crate) fn log(&self, client: &Client, inbound: &Inbound, closed: &Closed) {
        let mut lines = self.log.borrow_mut();
        access_log::write_line(&mut lines.bytes, client, inbound, closed);
        lines.count += 1;
        if lines.bytes.len() >= access_log::BATCH {
            lines.hand_over();
        }
    }

    /// An idle connection to this node.
    pub(crate) fn idle_connection(&self, node: &Node) -> Option<Connection> {
        self.pool.borrow_mut().take(node)
    }

    /// The connection of HTTP/2 to this node.
    pub(crate) fn link(&self, node: &Node) -> Option<SendRequest<Bytes>> {
        self.links.borrow().get(node)
    }

    /// Keeps it for the next requests.
    pub(crate) fn keep_link(&self, node: &Arc<Node>, link: &SendRequest<Bytes>) {
        self.links.borrow_mut().keep(node, link);
    }

    /// It has come to an end.
    pub(crate) fn forget_link(&self, node: &Node) {
        self.links.borrow_mut().forget(&[node.key]);
    }

    /// Keeps a connection for the next request: see [`Pool::keep`].
    pub(crate) fn keep(&self, node: &Arc<Node>, connection: Connection, is_asked_for: bool) {
        self.pool.borrow_mut().keep(node, connection, is_asked_for);
    }

    /// Clients' connections that wait for a request are to be closed.
    pub(crate) fn closes_idle(&self) -> bool {
        self.closes_idle.get()
    }

    /// An empty place to write a head into.
    pub(crate) fn scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps such a place for the next one.
    pub(crate) fn give_scratch(&self, mut scratch: Vec<u8>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < SCRATCH_COUNT_LIMIT && scratch.capacity() <= SCRATCH_LIMIT {
            scratch.clear();
            kept.push(scratch);
        }
    }

    /// An id for a request that has none.
    pub(crate) fn new_id(&self) -> u128 {
        let mut dice = self.dice.borrow_mut();
        u128::from(dice.draw()) << 64 | u128::from(dice.draw())
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.shared.leaving.load(Ordering::SeqCst)
    }

    pub(crate) fn account(self: &Rc<Self>, service: &Arc<str>, is_get: bool, begun: Instant) -> Account {
        Account::open(self.clone(), service, is_get, begun)
    }
}

/// What a core needs to begin.
pub(crate) struct CoreParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    pub(crate) listeners: Vec<std::net::TcpListener>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) seed: u64,
}

/// Runs a core until its orders end.
///
/// # Errors
/// When the runtime or a listener cannot be set up.
pub(crate) fn run(parts: CoreParts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, obey(parts))
}

async fn obey(parts: CoreParts) -> std::io::Result<()> {
    let CoreParts { shared, recorder, listeners, mut orders, seed } = parts;
    let core = Core::new(shared, recorder, seed);
    let mut listeners = Some(listeners);
    let leave = watch::Sender::new(None);
    spawn_local(reap(core.clone()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve => {
                for listener in listeners.take().unwrap_or_default() {
                    spawn_local(accept(core.clone(), TcpListener::from_std(listener)?, leave.subscribe()));
                }
            }
            Order::Leave { take_waiting } => {
                listeners = None;
                leave.send_replace(Some(take_waiting));
                // Those of HTTP/2 tell their clients at once.
                core.streams.wake_all();
            }
            Order::Settings(settings, log) => {
                *core.settings.borrow_mut() = settings;
                core.log.borrow_mut().hand_over();
                core.log.borrow_mut().log = log;
            }
            Order::CloseIdle => {
                core.closes_idle.set(true);
                core.streams.wake_all();
            }
            Order::Forget(nodes, done) => {
                core.pool.borrow_mut().forget(&nodes);
                core.links.borrow_mut().forget(&nodes);
                if let Some(done) = done {
                    let _ = done.send(());
                }
            }
            Order::Cut(nodes, done) => {
                let cut = core.exchanges.cut(nodes.as_deref());
                if let Some(done) = done {
                    let _ = done.send(cut);
                }
            }
        }
    }
    Ok(())
}

async fn reap(core: Rc<Core>) {
    let mut ticks = tokio::time::interval(REAP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.pool.borrow_mut().reap();
        core.streams.wake_late(Instant::now());
        core.log.borrow_mut().hand_over();
    }
}

async fn accept(core: Rc<Core>, listener: TcpListener, mut leave: watch::Receiver<Option<bool>>) {
    let here = listener.local_addr().ok();
    // A listener may have taken connections that are not seen yet: a leaving worker waits for it too.
    let _counted = Counted::new(&core.shared);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = leave.wait_for(Option::is_some) => break,
            accepted = accept_one(&core.shared, &listener) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => welcome(&core, stream, peer, here),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    let take_waiting = *leave.borrow() == Some(true);
    if take_waiting && let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = ready {
                welcome(&core, stream, peer, here);
            }
        }
    }
}

async fn accept_one(shared: &Shared, listener: &TcpListener) -> std::io::Result<(TcpStream, SocketAddr)> {
    shared.room_for_client().await;
    listener.accept().await
}

/// The client gave up before it was accepted: nothing is wrong with the listener.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::Interrupted)
}

/// One more open client connection, until it is dropped.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.clients.send_modify(|clients| *clients += 1);
        Self(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.send_modify(|clients| *clients -= 1);
    }
}

fn welcome(core: &Rc<Core>, stream: TcpStream, peer: SocketAddr, here: Option<SocketAddr>) {
    let settings = core.settings.borrow().clone();
    let listener = settings.listeners.iter().find(|listener| Some(listener.address) == here).cloned();
    let counted = Counted::new(&core.shared);
    let core = core.clone();
    spawn_local(async move {
        let _counted = counted;
        // Who is not let in is told nothing: it has not said what it speaks.
        if receive(&core, stream, peer.ip(), listener).await.is_none() {
            core.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Serves a connection as its listener's settings say; `None`: it was not let in.
async fn receive(core: &Rc<Core>, mut stream: TcpStream, peer: IpAddr, listener: Option<Listener>) -> Option<()> {
    let (balancers, speaks) = listener.map_or((Vec::new(), Speaks::Http), |listener| (listener.balancers, listener.speaks));
    let mut address = peer.to_canonical();
    if !balancers.is_empty() {
        balancers.contains(&address).then_some(())?;
        match tokio::time::timeout(GREETING_LIMIT, balancer::read(&mut stream)).await.ok()?.ok()? {
            Spoken::For(client) => address = client,
            Spoken::Itself => {}
        }
    }
    let _connected = may_connect(core, address)?;
    let mut client = Client::new(address);
    if speaks == Speaks::Https {
        prepare_client(&stream);
        let acceptor = core.acceptor()?;
        let stream = tokio::time::timeout(GREETING_LIMIT, acceptor.accept(stream)).await.ok()?.ok()?;
        client.set_secure();
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        let stream = core.streams.of_secure_client(stream);
        if speaks_http2 {
            http2::client::serve(core, &stream, Inlet::default(), client).await;
        } else {
            http1::client::serve(core, &stream, client).await;
        }
        return Some(());
    }
    let stream = core.streams.of_client(stream);
    match speaks {
        Speaks::Tcp(service) => tcp::serve(core, &stream, &client, &service).await,
        Speaks::RedirectToHttps(port) => {
            client.redirects_to = Some(port);
            http1::client::serve(core, &stream, client).await;
        }
        Speaks::Http | Speaks::Https => http1::client::serve(core, &stream, client).await,
    }
    Some(())
}

/// One more connection of this address, if it may have one.
fn may_connect(core: &Core, address: IpAddr) -> Option<Option<Connected>> {
    match core.settings.borrow().clients.connections_per_address {
        None => Some(None),
        Some(limit) => core.shared.connections.enter(address, limit).map(Some),
    }
}

/// A core that nobody gives orders to.
#[cfg(any(fuzzing, test))]
pub(crate) fn alone(shared: Arc<Shared>) -> Rc<Core> {
    Core::new(shared, Arc::default(), 1)
}
