//! The local platform: nodes are containers of an OCI runtime on this host, behind gapless's own proxies.
//!
//! Nothing is believed that the host itself can tell: which nodes exist is read from their folders, whether they run from the kernel, who knows which route from the
//! proxies. What is decided is on disk before it is done, so a platform that was killed anywhere is opened again and goes on. Nodes outlive it.

mod bundle;
pub mod cgroup;
mod file;
mod group;
pub mod helpers;
pub mod leftovers;
mod machine;
pub mod names;
mod network;
mod node;
mod observe;
mod process;
mod proxies;
pub mod requirements;
mod rootfs;
mod route;
mod sandbox;
mod seccomp;
mod workbench;

use self::cgroup::Cgroups;
use self::group::Making;
use self::helpers::Helpers;
use self::machine::{Ground, MachineRemains, STOP_GRACE, on_threads};
use self::names::{Key, Marks};
use self::network::Network;
use self::node::Nodes;
use self::observe::Looked;
use self::process::Process;
use self::proxies::{Proxies, WorkerSeen};
use self::route::{Routes, Treatment, milliseconds, service_route};
use async_trait::async_trait;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::{NodeSeen, Observation};
use gapless_core::route::Route;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::Images;
use gapless_engine::platform::{Declarations, Platform};
use gapless_wire::route::DrainRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, watch};

/// The longest single question to a proxy for news: proxies come and go, and a question to one that is gone must end.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often the list of workers is looked at while waiting for news: a holder does not tell by itself that it has a new worker.
const LISTING_INTERVAL: Duration = Duration::from_millis(500);

/// How long an ended child may wait for whoever started it. The platform inherits orphans of all kinds; one that is still there after this long is one of them.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(300);

/// How a local platform is opened.
#[derive(Clone)]
pub struct LocalOptions {
    /// The installation's state folder; the platform keeps its own in `platform` and `volumes` below.
    pub state: PathBuf,
    /// The installation's id: 6 hexadecimal digits, made once and kept.
    pub installation: String,
    /// The admin sockets of the proxies' holders.
    pub proxies: Vec<PathBuf>,
    /// Gives the images.
    pub images: Arc<dyn Images>,
    /// The OCI runtime's program.
    pub runtime: String,
    /// Whether proxies may send an idempotent request again to another node.
    pub retry: bool,
    /// How long proxies hold a request when no node is ready.
    pub hold: Duration,
}

impl LocalOptions {
    /// The usual ones: runc, with retries, requests held for at most 5 seconds.
    #[must_use]
    pub fn new(state: PathBuf, installation: String, proxies: Vec<PathBuf>, images: Arc<dyn Images>) -> Self {
        Self { state, installation, proxies, images, runtime: "runc".to_string(), retry: true, hold: Duration::from_secs(5) }
    }
}

/// The platform's folder in an installation's state.
#[must_use]
pub fn platform_folder(state: &Path) -> PathBuf {
    state.join("platform")
}

/// The local platform and workbench of one installation.
#[derive(Clone)]
pub struct LocalPlatform {
    shared: Arc<Shared>,
}

impl fmt::Debug for LocalPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPlatform").field("ground", &self.shared.ground).finish_non_exhaustive()
    }
}

type GroupLocks = BTreeMap<(ServiceName, GroupId), Arc<tokio::sync::Mutex<()>>>;

struct Shared {
    ground: Ground,
    nodes: Nodes,
    volumes: PathBuf,
    images: Arc<dyn Images>,
    proxies: Proxies,
    routes: Routes,
    treatment: Treatment,
    /// One change at a time for each group, so that an effect that is delivered twice at once does its work once.
    groups: Mutex<GroupLocks>,
    /// The engine's last look at each service.
    looked: Mutex<BTreeMap<ServiceName, Looked>>,
    /// Counts ends of nodes.
    exits: watch::Sender<u64>,
}

impl LocalPlatform {
    /// Opens the platform of an installation: ends what an earlier server left half done, and makes the network.
    ///
    /// # Errors
    /// When the host lacks something, or something left over cannot be ended.
    pub async fn open(options: LocalOptions) -> Result<Self, Error> {
        let opened = blocking(move || Shared::open(options)).await.context(|| "opening the local platform".into())?;
        let platform = Self { shared: Arc::new(opened) };
        let shared = Arc::clone(&platform.shared);
        let running = blocking(move || shared.running()).await.context(|| "looking for nodes of an earlier server".into())?;
        running.into_iter().for_each(|(key, process)| platform.watch(key, process));
        tokio::spawn(bury_orphans(Arc::downgrade(&platform.shared)));
        Ok(platform)
    }

    /// The output of a node, as a file: while the node exists, and for some time after.
    #[must_use]
    pub fn output(&self, service: &ServiceName, node: NodeId) -> Option<PathBuf> {
        self.shared.nodes.kept_log(&Key::node(service, node))
    }

    /// Every node of a service whose output is kept, those that are gone included, in order.
    ///
    /// # Errors
    /// When the platform's folders cannot be read.
    pub fn outputs(&self, service: &ServiceName) -> Result<Vec<NodeId>, Error> {
        Ok(self.shared.nodes.kept_logs(service)?.into_iter().collect())
    }

    /// Where a node of this service is reached, if it exists.
    #[must_use]
    pub fn address(&self, service: &ServiceName, node: NodeId) -> Option<std::net::SocketAddr> {
        let record = self.shared.nodes.record(&Key::node(service, node)).ok()??;
        Some((record.address, record.port).into())
    }

    /// Runs helpers of this installation: they end with the server.
    #[must_use]
    pub fn helpers(&self) -> &Helpers {
        &self.shared.ground.helpers
    }

    /// The ordinals of a group that were never made. One that runs although nobody wrote it down is taken over.
    fn missing(&self, service: &ServiceName, group: GroupId, size: u32) -> Result<Vec<NodeId>, Error> {
        let mut missing = Vec::new();
        for node in (0..size).map(|ordinal| group.node(ordinal)) {
            let key = Key::node(service, node);
            if self.shared.nodes.was_made(&key)? {
                continue;
            }
            match self.shared.nodes.adopt(&self.shared.ground, &key)? {
                Some(process) => self.watch(key, process),
                None => missing.push(node),
            }
        }
        Ok(missing)
    }

    /// Notices a node's end and writes it down.
    fn watch(&self, key: Key, process: Process) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            process.ended().await;
            let settled = Arc::clone(&shared);
            let settle = move || if settled.nodes.is_buried(&key) { Ok(()) } else { settled.nodes.settle(&key, &process).map(drop) };
            if let Err(error) = blocking(settle).await {
                tracing::warn!(%error, "the end of a node could not be written down");
            }
            shared.exits.send_modify(|count| *count += 1);
        });
    }
}

impl Shared {
    fn open(options: LocalOptions) -> Result<Self, Error> {
        requirements::check_for_nodes(&options.runtime)?;
        let marks = Marks::new(&options.installation)?;
        let folder = platform_folder(&options.state);
        file::make_folder(&folder, 0o700)?;
        let cgroups = Cgroups::detect();
        let helpers = Helpers::new(&marks, &cgroups)?;
        helpers.end_all().context(|| "ending the helpers of an earlier server".into())?;
        // The runtime leaves each machine's first process to the next one above; as that one, the platform learns how it ended.
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
            .map_err(std::io::Error::from)
            .context(|| "becoming the parent of orphans".into())?;
        // First whose it is, then the thing itself: whatever carries the marks can be found when the state is gone.
        leftovers::claim(&marks, &options.state)?;
        let network = Network::open(&marks, &helpers, &folder.join("network.json"))?;
        for chain in network::foreign_forward_policies(&helpers) {
            tracing::warn!(%chain, "a firewall of this host drops what it does not know: nodes reach nothing outside until it accepts the bridge {}", marks.bridge());
        }
        let ground = Ground::new(marks, folder.clone(), options.runtime, helpers, network, cgroups);
        file::make_folder(&ground.runtime_root(), 0o700)?;
        let nodes = Nodes::open(&folder)?;
        for (service, node) in nodes.list()? {
            nodes.address(&Key::node(&service, node)).into_iter().for_each(|address| ground.addresses().take(address));
        }
        workbench::remove_all(&ground)?;
        Ok(Self {
            ground,
            nodes,
            volumes: options.state.join("volumes"),
            images: options.images,
            proxies: Proxies::new(options.proxies),
            routes: Routes::open(folder.join("routes.json"))?,
            treatment: Treatment { retry: options.retry, hold: options.hold },
            groups: Mutex::default(),
            looked: Mutex::default(),
            exits: watch::Sender::new(0),
        })
    }

    async fn lock(&self, service: &ServiceName, groups: BTreeSet<GroupId>) -> Vec<OwnedMutexGuard<()>> {
        let mut held = Vec::new();
        for group in groups {
            let mutex = Arc::clone(lock(&self.groups).entry((service.clone(), group)).or_default());
            held.push(mutex.lock_owned().await);
        }
        held
    }

    /// The nodes whose command was started.
    fn running(&self) -> Result<Vec<(Key, Process)>, Error> {
        let mut running = Vec::new();
        for (service, node) in self.nodes.list()? {
            let key = Key::node(&service, node);
            running.extend(self.nodes.running(&key)?.map(|process| (key, process)));
        }
        Ok(running)
    }

    /// Addresses that some proxy knows under the name of a node: none of these may be given to another.
    fn listed(&self, workers: &[WorkerSeen]) -> BTreeSet<Ipv4Addr> {
        let statuses = workers.iter().filter_map(|worker| worker.status.as_ref());
        let listed = statuses.flat_map(|status| &status.nodes).flat_map(|(service, nodes)| nodes.keys().map(move |node| (service, node)));
        let keys = listed.filter_map(|(service, node)| Some(Key::node(&service.parse().ok()?, node.parse().ok()?)));
        keys.filter_map(|key| self.nodes.address(&key)).collect()
    }

    fn observation(&self, service: &ServiceName, workers: &[WorkerSeen]) -> Result<Observation, Error> {
        let mut nodes = BTreeMap::new();
        for node in self.nodes.of(service)? {
            nodes.extend(self.seen(service, node, workers)?.map(|seen| (node, seen)));
        }
        Ok(Observation { nodes, proxies: observe::generations(workers, service) })
    }

    fn seen(&self, service: &ServiceName, node: NodeId, workers: &[WorkerSeen]) -> Result<Option<NodeSeen>, Error> {
        let key = Key::node(service, node);
        // Without a record nothing of it was ever made: its folder was being written when the server ended.
        let Some(record) = self.nodes.record(&key)? else { return Ok(None) };
        self.nodes.bound_log(&key)?;
        Ok(Some(NodeSeen {
            condition: self.nodes.condition(&key)?,
            image: record
                .image
                .parse()
                .map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt).context(format!("reading the record of {key}")))?,
            health: observe::health(workers, service, node, &record.check),
            requests_in_flight: observe::in_flight(workers, service, node),
        }))
    }

    /// Ends these nodes, removes everything of them and writes their tombstones.
    fn destroy(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        let keys: Vec<Key> = nodes.iter().map(|node| Key::node(service, *node)).collect();
        let standing: Vec<Key> = keys.iter().filter(|key| self.nodes.folder(key).exists()).cloned().collect();
        let remains: Vec<MachineRemains> =
            standing.iter().map(|key| MachineRemains { key: key.clone(), address: self.nodes.address(key), grace: STOP_GRACE }).collect();
        let removed = self.ground.remove(&remains);
        let removed: Vec<(&Key, Result<(), Error>)> = standing.iter().zip(removed).collect();
        let buried = on_threads(&removed, |(key, removed)| removed.clone().and_then(|()| self.nodes.bury(key)));
        // Those that were never made must not be made by an effect that arrives late.
        keys.iter().filter(|key| !standing.contains(key)).try_for_each(|key| self.nodes.bury(key))?;
        self.nodes.forget_logs()?;
        buried.into_iter().collect()
    }
}

#[async_trait]
impl Platform for LocalPlatform {
    async fn ensure_group(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, size: u32) -> Result<(), Error> {
        let at = format!("making group {group} of {}", declaration.service);
        let held = self.shared.lock(&declaration.service, BTreeSet::from([group])).await;
        let (platform, wanted) = (self.clone(), Arc::clone(&declaration));
        let look = move || Ok((platform.missing(&wanted.service, group, size)?, held));
        let (missing, held) = blocking(look).await.context(|| at.clone())?;
        if missing.is_empty() {
            return Ok(());
        }
        let (image, workers) = tokio::join!(self.shared.images.unpacked(declaration.image), self.shared.proxies.look());
        let image = image.context(|| at.clone())?;
        let platform = self.clone();
        let make = move || {
            // Held until the work is done, even if nobody waits for it any more.
            let _held = held;
            let shared = &platform.shared;
            let listed = shared.listed(&workers);
            let making = Making {
                ground: &shared.ground,
                nodes: &shared.nodes,
                declaration: &declaration,
                image: &image,
                volumes: &shared.volumes,
                listed: &listed,
            };
            let made = making.make(&missing);
            made.running.into_iter().for_each(|(key, process)| platform.watch(key, process));
            made.result
        };
        blocking(make).await.context(|| at)
    }

    async fn route(&self, service: &ServiceName, route: &Route, declarations: &Declarations) -> Result<(), Error> {
        let (shared, name, wanted, declarations) = (Arc::clone(&self.shared), service.clone(), route.clone(), declarations.clone());
        let generation = route.generation.0;
        let keep = move || {
            let address = |node: NodeId| shared.nodes.record(&Key::node(&name, node)).ok().flatten().map(|record| record.address);
            let build = |present: Option<&_>| service_route(&name, &wanted, &declarations, shared.treatment, present, address);
            shared.routes.keep(&name, generation, build)
        };
        blocking(keep).await.context(|| format!("keeping route {} of {service}", route.generation))?;
        self.shared.proxies.apply(&service.to_string(), generation, || self.shared.routes.latest()).await
    }

    async fn drain(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Result<(), Error> {
        let nodes = nodes.iter().map(NodeId::to_string).collect();
        self.shared.proxies.drain(&DrainRequest { service: service.to_string(), nodes, deadline_ms: milliseconds(deadline) }).await
    }

    async fn destroy_nodes(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        let held = self.shared.lock(service, nodes.iter().map(|node| node.group).collect()).await;
        let (shared, name, nodes) = (Arc::clone(&self.shared), service.clone(), nodes.clone());
        let destroy = move || {
            let _held = held;
            shared.destroy(&name, &nodes)
        };
        blocking(destroy).await.context(|| format!("destroying nodes of {service}"))
    }

    async fn run_task(&self, _declaration: Arc<ServiceDeclaration>, group: GroupId, task: Task, _deadline: Duration) -> Result<(), Error> {
        Err(Error::new(format!("{task} of {group} cannot be run on this platform")).kind(ErrorKind::Invalid))
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, Error> {
        let exits = *self.shared.exits.borrow();
        let workers = self.shared.proxies.look().await;
        lock(&self.shared.looked).insert(service.clone(), Looked::new(exits, &workers));
        let (shared, name) = (Arc::clone(&self.shared), service.clone());
        blocking(move || shared.observation(&name, &workers)).await.context(|| format!("looking at {service}"))
    }

    async fn peek(&self, service: &ServiceName) -> Result<Observation, Error> {
        let workers = self.shared.proxies.look().await;
        let (shared, name) = (Arc::clone(&self.shared), service.clone());
        blocking(move || shared.observation(&name, &workers)).await.context(|| format!("looking at {service}"))
    }

    async fn changed(&self, service: &ServiceName, at_most: Duration) {
        let Some(looked) = lock(&self.shared.looked).get(service).cloned() else { return };
        let mut exits = self.shared.exits.subscribe();
        tokio::select! {
            _ = exits.wait_for(|count| *count != looked.exits) => {}
            () = proxies::newer(&looked.revisions, at_most.min(LONGEST_WAIT)) => {}
            () = self.workers_changed(&looked.workers) => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }
}

impl LocalPlatform {
    async fn workers_changed(&self, known: &[String]) {
        loop {
            tokio::time::sleep(LISTING_INTERVAL).await;
            if observe::names(&self.shared.proxies.workers().await) != known {
                return;
            }
        }
    }
}

/// Waits for the orphans that the platform inherits, so that they do not fill the table of processes.
async fn bury_orphans(shared: std::sync::Weak<Shared>) {
    let mut before: Vec<Process> = Vec::new();
    while shared.strong_count() > 0 {
        tokio::time::sleep(ORPHAN_PATIENCE).await;
        let now = process::unclaimed();
        for orphan in now.iter().filter(|process| before.contains(process)) {
            let _nobody_asks = orphan.end();
        }
        before = now;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::new(format!("the work broke off: {error}"))))
}
