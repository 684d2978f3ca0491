//! The local platform: nodes are containers of an OCI runtime on this host, behind gapless's own proxies.
//!
//! Nothing is believed that the host itself can tell: which nodes exist is read from their folders, whether they run from the kernel, who knows which route from the
//! proxies. What is decided is on disk before it is done, so a platform that was killed anywhere is opened again and goes on. Nodes outlive it.

mod blueprint;
mod bundle;
mod capacity;
pub mod cgroup;
mod check;
mod file;
mod group;
pub mod helpers;
mod lease;
pub mod leftovers;
mod machine;
pub mod names;
mod network;
mod node;
mod observe;
mod process;
mod proxies;
pub mod requirements;
mod room;
mod rootfs;
mod route;
mod sandbox;
mod seccomp;
mod task;
mod workbench;

pub use self::task::{RESULTS_FOLDER, begun_tasks, copy_results};

use self::blueprint::Blueprint;
use self::capacity::{Room, Wanted};
use self::cgroup::Cgroups;
use self::check::{Checks, ask_until_heard, check_until_end};
use self::group::Making;
use self::helpers::Helpers;
use self::lease::Lease;
use self::machine::{Ground, MachineRemains, STOP_GRACE, on_threads};
use self::names::{Key, Marks, Named, task_node};
use self::network::Network;
use self::node::{NodeRecord, Nodes};
use self::observe::Looked;
use self::process::Process;
use self::proxies::{Proxies, WorkerSeen};
use self::route::{Routes, Treatment, milliseconds, service_route};
use self::task::Tasks;
use async_trait::async_trait;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::Route;
use gapless_engine::declaration::{ServiceDeclaration, StopSignal};
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::Images;
use gapless_engine::platform::{Declarations, Newcomers, Platform};
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

/// A worker that was asked to end and does not listen to this signal yet.
type Unheard = (Key, Process, StopSignal);

/// Whom a drain has asked to end.
struct Asked {
    /// Those that do not listen yet.
    unheard: Vec<Unheard>,
    /// The nodes that are no workers'.
    others: BTreeSet<NodeId>,
    /// The first error: the others were asked all the same.
    result: Result<(), Error>,
}

struct Shared {
    ground: Ground,
    nodes: Nodes,
    tasks: Tasks,
    checks: Checks,
    volumes: PathBuf,
    images: Arc<dyn Images>,
    proxies: Proxies,
    routes: Routes,
    treatment: Treatment,
    /// One change at a time for each group, so that an effect that is delivered twice at once does its work once.
    groups: Mutex<GroupLocks>,
    /// The engine's last look at each service.
    looked: Mutex<BTreeMap<ServiceName, Looked>>,
    /// Counts ends of nodes, and what checks of workers have to tell.
    news: watch::Sender<u64>,
}

/// What a node or a task wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The node's name (`r7-i12-n0`) or the task's (`r7-i12-task-release-command`).
    pub of: String,
    /// Where it is: while its machine exists, and for some time after.
    pub path: PathBuf,
    /// Whether its machine exists.
    pub exists: bool,
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
        platform.take_tasks_over()?;
        tokio::spawn(bury_orphans(Arc::downgrade(&platform.shared)));
        Ok(platform)
    }

    /// The output of a node, as a file: while the node exists, and for some time after.
    #[must_use]
    pub fn output(&self, service: &ServiceName, node: NodeId) -> Option<PathBuf> {
        self.shared.output(&Key::node(service, node)).map(|output| output.path)
    }

    /// What every node and task of a service wrote, as far as it is kept, those that are gone included, in order.
    ///
    /// # Errors
    /// When the platform's folders cannot be read.
    pub fn outputs(&self, service: &ServiceName) -> Result<Vec<Output>, Error> {
        self.shared.outputs(service)
    }

    /// Where a node of this service is reached, if it exists and is no worker's.
    #[must_use]
    pub fn address(&self, service: &ServiceName, node: NodeId) -> Option<std::net::SocketAddr> {
        let record = self.shared.nodes.record(&Key::node(service, node)).ok()??;
        Some((record.address, record.port?).into())
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

    fn ask_again(&self, key: Key, process: Process, signal: StopSignal) {
        tokio::spawn(ask_until_heard(Arc::downgrade(&self.shared), key, process, signal));
    }

    /// Notices a node's end and writes it down, and checks it until then if it is a worker's.
    fn watch(&self, key: Key, process: Process) {
        if let Ok(Some(record)) = self.shared.nodes.record(&key)
            && let Some(check) = record.worker.clone()
        {
            if check::is_unheard(&self.shared.ground, &key) {
                self.ask_again(key.clone(), process.clone(), record.signal());
            }
            self.shared.checks.take_over(&self.shared.ground, &key, &check);
            tokio::spawn(check_until_end(Arc::downgrade(&self.shared), key.clone(), process.clone(), check));
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            process.ended().await;
            let settled = Arc::clone(&shared);
            let settle = move || {
                settled.checks.forget(&key);
                if settled.nodes.is_buried(&key)? { Ok(()) } else { settled.nodes.settle(&key, &process).map(drop) }
            };
            if let Err(error) = blocking(settle).await {
                tracing::warn!(%error, "the end of a node could not be written down");
            }
            shared.tell_news();
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
        process::raise_descriptor_limit();
        // First whose it is, then the thing itself: whatever carries the marks can be found when the state is gone, and nothing of another one's is ended.
        leftovers::claim(&marks, &options.state)?;
        // Before anything of an earlier life is ended: what fails because it was ended is then known to have been that life's.
        let lease = Lease::begin(&marks)?;
        let helpers = Helpers::new(&marks, &cgroups)?;
        helpers.end_all().context(|| "ending the helpers of an earlier server".into())?;
        // The runtime leaves each machine's first process to the next one above; as that one, the platform learns how it ended.
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
            .map_err(std::io::Error::from)
            .context(|| "becoming the parent of orphans".into())?;
        cgroups.make(&marks.cgroups());
        let network = Network::open(&marks, &helpers, &folder.join("network.json"))?;
        for chain in network::foreign_forward_policies(&helpers) {
            tracing::warn!(%chain, "a firewall of this host drops what it does not know: nodes reach nothing outside until it accepts the bridge {}", marks.bridge());
        }
        let ground = Ground::new(marks, lease, folder.clone(), options.runtime, helpers, network, cgroups);
        file::make_folder(&ground.runtime_root(), 0o700)?;
        let nodes = Nodes::open(&folder)?;
        let tasks = Tasks::open(&folder)?;
        for (service, node) in nodes.list()? {
            nodes.address(&Key::node(&service, node)).into_iter().for_each(|address| ground.addresses().take(address));
        }
        for key in tasks.standing()? {
            tasks.record(&key)?.into_iter().for_each(|record| ground.addresses().take(record.address));
        }
        workbench::remove_all(&ground)?;
        leftovers::reap(&options.installation, &options.state);
        // Also of a node whose record cannot be read: another one would take its link away.
        ground.network.linked()?.into_iter().for_each(|address| ground.addresses().take(address));
        Ok(Self {
            ground,
            nodes,
            tasks,
            checks: Checks::default(),
            volumes: options.state.join("volumes"),
            images: options.images,
            proxies: Proxies::new(options.proxies),
            routes: Routes::open(folder.join("routes.json"))?,
            treatment: Treatment { retry: options.retry, hold: options.hold },
            groups: Mutex::default(),
            looked: Mutex::default(),
            news: watch::Sender::new(0),
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

    /// Whether these machines have room on this host.
    fn check_room(&self, declaration: &ServiceDeclaration, machines: &[Key], listed: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        let count = |machines: usize| u32::try_from(machines).unwrap_or(u32::MAX);
        // One whose making was broken off has its address already.
        let without_address = machines.iter().filter(|key| self.nodes.address(key).is_none()).count();
        let machines = count(machines.len());
        let memory_bytes = declaration.node.memory_bytes.saturating_mul(machines.into());
        let wanted = Wanted { machines, memory_bytes, addresses: count(without_address) };
        let addresses = self.ground.free_addresses(declaration.node.outbound, listed);
        Room::of(&self.ground.folder, addresses)?.check(&wanted)
    }

    /// Whoever waits for a change looks again.
    fn tell_news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    fn output(&self, key: &Key) -> Option<Output> {
        let (of, standing) = match key.names()? {
            Named::Node(_, node) => (node.to_string(), self.nodes.log(key)),
            Named::Task(_, group, task) => (task_node(group, task), self.tasks.log(key)),
            Named::Bench(_) | Named::Sandbox(_) => return None,
        };
        let exists = standing.exists();
        let path = if exists { standing } else { self.nodes.buried_log(key) };
        path.exists().then_some(Output { of, path, exists })
    }

    fn outputs(&self, service: &ServiceName) -> Result<Vec<Output>, Error> {
        let nodes = self.nodes.of(service)?.into_iter().map(|node| Key::node(service, node));
        let tasks = self.tasks.of(service)?.into_iter().map(|(_, key)| key);
        let keys: BTreeSet<Key> = nodes.chain(tasks).chain(self.nodes.buried_logs(service)?).collect();
        let order = |key: &Key| match key.names() {
            Some(Named::Node(_, node)) => (node.group, Some(node.ordinal), None),
            Some(Named::Task(_, group, task)) => (group, None, Some(task)),
            _ => (GroupId { release: ReleaseNumber(0), instance: InstanceId(0) }, None, None),
        };
        let mut keys: Vec<Key> = keys.into_iter().collect();
        keys.sort_by_key(order);
        Ok(keys.iter().filter_map(|key| self.output(key)).collect())
    }

    fn observation(&self, service: &ServiceName, workers: &[WorkerSeen]) -> Result<Observation, Error> {
        let mut nodes = BTreeMap::new();
        let mut behind_proxies = false;
        for node in self.nodes.of(service)? {
            let key = Key::node(service, node);
            // Without a record nothing of it was ever made: its folder was being written when the server ended.
            let Some(record) = self.nodes.record(&key)? else { continue };
            behind_proxies |= record.worker.is_none();
            nodes.insert(node, self.seen(service, node, &record, workers)?);
        }
        self.tasks.of(service)?.iter().try_for_each(|(_, key)| node::bound_log(&self.tasks.log(key)))?;
        let only_workers = !nodes.is_empty() && !behind_proxies && !self.routes.has_members(service);
        let proxies = if only_workers { BTreeMap::new() } else { observe::generations(workers, service) };
        Ok(Observation { nodes, proxies })
    }

    fn seen(&self, service: &ServiceName, node: NodeId, record: &NodeRecord, workers: &[WorkerSeen]) -> Result<NodeSeen, Error> {
        let key = Key::node(service, node);
        node::bound_log(&self.nodes.log(&key))?;
        let condition = self.nodes.condition(&key)?;
        let (health, requests_in_flight) = match &record.worker {
            None => (observe::health(workers, service, node, &record.check), observe::in_flight(workers, service, node)),
            Some(check) => match self.nodes.running(&key)?.filter(|_| condition == Condition::Running) {
                // What it does is its own affair; what it was asked to end is not over before its command is.
                Some(process) => (self.checks.health(&key, check, &process), u32::from(check::was_asked_to_end(&self.ground, &key))),
                None => (Health::default(), 0),
            },
        };
        let image = record
            .image
            .parse()
            .map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt).context(format!("reading the record of {key}")))?;
        Ok(NodeSeen { condition, image, health, requests_in_flight })
    }

    /// Asks the workers among these nodes to end, those that were not asked yet.
    fn ask_workers_to_end(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Asked {
        let mut asked = Asked { unheard: Vec::new(), others: BTreeSet::new(), result: Ok(()) };
        for node in nodes {
            let key = Key::node(service, *node);
            let one = self.nodes.record(&key).and_then(|record| match record {
                Some(record) if record.worker.is_some() => {
                    self.assert_not_being_made(service, *node)?;
                    self.ask_to_end(&key, record.signal())
                }
                _ => {
                    asked.others.insert(*node);
                    Ok(None)
                }
            });
            match one {
                Ok(unheard) => asked.unheard.extend(unheard),
                Err(error) => asked.result = asked.result.and(Err(error)),
            }
        }
        asked
    }

    /// A worker that is just being made does not run yet and will: it has to be asked when it does.
    fn assert_not_being_made(&self, service: &ServiceName, node: NodeId) -> Result<(), Error> {
        let key = Key::node(service, node);
        if self.nodes.was_made(&key)? {
            return Ok(());
        }
        let making = Arc::clone(lock(&self.groups).entry((service.clone(), node.group)).or_default());
        match making.try_lock_owned() {
            // Whoever makes it has the group. Without such a one its making was broken off: it never runs, unless it was started right before.
            Ok(_group) => self.nodes.adopt(&self.ground, &key).map(drop),
            Err(_) if self.nodes.was_made(&key)? => Ok(()),
            Err(_) => Err(Error::new(format!("{key} is being made, and is asked to end when it runs"))),
        }
    }

    fn ask_to_end(&self, key: &Key, signal: StopSignal) -> Result<Option<Unheard>, Error> {
        let running = self.nodes.running(key)?.filter(Process::is_alive);
        let Some(process) = running.filter(|_| !check::was_asked_to_end(&self.ground, key)) else { return Ok(None) };
        let heard = check::ask_to_end(&self.ground, key, &process, signal)?;
        self.tell_news();
        if heard {
            return Ok(None);
        }
        tracing::warn!(node = %key, signal = signal.name(), "the worker does not listen to its stop signal yet; if it never does, it is ended at its deadline");
        Ok(Some((key.clone(), process, signal)))
    }

    /// Ends these nodes, removes everything of them and writes their tombstones.
    fn destroy(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        let keys: Vec<Key> = nodes.iter().map(|node| Key::node(service, *node)).collect();
        let mut standing = Vec::new();
        for key in &keys {
            if file::exists(&self.nodes.folder(key))? {
                standing.push(key.clone());
            }
        }
        let remains: Vec<MachineRemains> = standing.iter().map(|key| self.remains(key)).collect();
        let removed = self.ground.remove(&remains);
        let removed: Vec<(&MachineRemains, Result<(), Error>)> = remains.iter().zip(removed).collect();
        let buried = on_threads(&removed, |(machine, removed)| {
            removed.clone().and_then(|()| self.nodes.bury(&machine.key))?;
            self.ground.free(machine.address);
            Ok(())
        });
        // Those that were never made must not be made by an effect that arrives late.
        keys.iter().filter(|key| !standing.contains(key)).try_for_each(|key| self.nodes.bury(key))?;
        self.nodes.forget_logs()?;
        buried.into_iter().collect()
    }

    fn remains(&self, key: &Key) -> MachineRemains {
        // A node whose record cannot be read is destroyed all the same.
        let signal = self.nodes.record(key).ok().flatten().map(|record| record.signal()).unwrap_or_default();
        // A worker that was asked to end has had its time.
        let grace = if check::was_asked_to_end(&self.ground, key) { Duration::ZERO } else { STOP_GRACE };
        MachineRemains { key: key.clone(), address: self.nodes.address(key), signal, grace }
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
        // It could never be given traffic.
        self.shared.routes.refuse_taken(&declaration.service, &declaration.host).context(|| at.clone())?;
        let listed = self.shared.listed(&self.shared.proxies.look().await);
        // Before the image is unpacked, too: nothing at all is made of a group that does not fit.
        let machines: Vec<Key> = missing.iter().map(|node| Key::node(&declaration.service, *node)).collect();
        self.shared.check_room(&declaration, &machines, &listed).context(|| at.clone())?;
        let image = self.shared.images.unpacked(declaration.image).await.context(|| at.clone())?;
        let platform = self.clone();
        let make = move || {
            // Held until the work is done, even if nobody waits for it any more.
            let _held = held;
            let shared = &platform.shared;
            let blueprint = Blueprint { ground: &shared.ground, declaration: &declaration, image: &image, volumes: &shared.volumes };
            let making = Making { blueprint, nodes: &shared.nodes, listed: &listed };
            let made = making.make(&missing);
            made.running.into_iter().for_each(|(key, process)| platform.watch(key, process));
            made.result
        };
        blocking(make).await.context(|| at)
    }

    async fn has_room(&self, newcomers: &[Newcomers]) -> Result<(), Error> {
        let listed = self.shared.listed(&self.shared.proxies.look().await);
        let (shared, newcomers) = (Arc::clone(&self.shared), newcomers.to_vec());
        blocking(move || shared.check_room_for(&newcomers, &listed)).await
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
        let (shared, name, asked) = (Arc::clone(&self.shared), service.clone(), nodes.clone());
        let ask = move || Ok(shared.ask_workers_to_end(&name, &asked));
        let Asked { unheard, others, result } = blocking(ask).await?;
        unheard.into_iter().for_each(|(key, process, signal)| self.ask_again(key, process, signal));
        result.context(|| format!("asking workers of {service} to end"))?;
        // What never had a route is known to no proxy.
        if others.is_empty() || !self.shared.routes.is_known(service) {
            return Ok(());
        }
        let nodes = others.iter().map(NodeId::to_string).collect();
        self.shared.proxies.drain(&DrainRequest { service: service.to_string(), nodes, deadline_ms: milliseconds(deadline) }).await
    }

    async fn destroy_nodes(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        let groups: BTreeSet<GroupId> = nodes.iter().map(|node| node.group).collect();
        let held = self.shared.lock(service, groups.clone()).await;
        let (shared, name, nodes) = (Arc::clone(&self.shared), service.clone(), nodes.clone());
        let destroy = move || {
            let _held = held;
            shared.destroy(&name, &nodes)
        };
        let at = || format!("destroying nodes of {service}");
        blocking(destroy).await.context(at)?;
        self.end_tasks_of(service, &groups).await.context(at)
    }

    async fn run_task(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, task: Task, deadline: Duration) -> Result<(), Error> {
        self.run_task_once(declaration, group, task, deadline).await
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, Error> {
        let news = *self.shared.news.borrow();
        let workers = self.shared.proxies.look().await;
        lock(&self.shared.looked).insert(service.clone(), Looked::new(news, &workers));
        let (shared, name) = (Arc::clone(&self.shared), service.clone());
        blocking(move || shared.observation(&name, &workers)).await.context(|| format!("looking at {service}"))
    }

    async fn peek(&self, service: &ServiceName) -> Result<Observation, Error> {
        let workers = self.shared.proxies.look().await;
        let (shared, name) = (Arc::clone(&self.shared), service.clone());
        blocking(move || shared.observation(&name, &workers)).await.context(|| format!("looking at {service}"))
    }

    async fn hosts(&self) -> Result<BTreeMap<ServiceName, String>, Error> {
        let kept = self.shared.routes.hosts().into_iter();
        kept.map(|(name, host)| {
            let service =
                name.parse().map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt).context("reading the kept routes"))?;
            Ok((service, host))
        })
        .collect()
    }

    async fn changed(&self, service: &ServiceName, at_most: Duration) {
        let Some(looked) = lock(&self.shared.looked).get(service).cloned() else { return };
        let mut news = self.shared.news.subscribe();
        tokio::select! {
            _ = news.wait_for(|count| *count != looked.news) => {}
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
