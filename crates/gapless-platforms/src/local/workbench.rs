//! Build nodes and sandboxes. They belong to a build that a running server does: what an earlier server left of them is removed when the platform is opened.

use super::blueprint::DEFAULT_PATH;
use super::bundle::{Confinement, Identity, Mount};
use super::capacity::meminfo_bytes;
use super::lease::Lease;
use super::machine::{Ground, MachineRemains, MachineRequest, Root, Start};
use super::names::Key;
use super::process::{End, Process};
use super::rootfs::{Skeleton, Surroundings, declared_path};
use super::sandbox::{self, SANDBOX_SHIFT, SANDBOX_USER};
use super::{LocalPlatform, Shared, blocking, file, network};
use async_trait::async_trait;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::OWNER_SHIFT;
use gapless_engine::workbench::{Bench, BenchRequest, SandboxEnd, SandboxRequest, Workbench};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// How long a build node has to end by itself: nothing in it is worth waiting for.
const BENCH_GRACE: Duration = Duration::from_secs(1);

/// The most memory of a build node in bytes: package managers and compilers that images are built with seldom take more.
const BENCH_MEMORY: u64 = 8 * 1024 * 1024 * 1024;

/// The most memory of a sandbox in bytes: Packer and its plugins need some hundred million.
const SANDBOX_MEMORY: u64 = 2 * 1024 * 1024 * 1024;

/// Which part of the host's memory a build node may have at most, and a sandbox: both at once leave a quarter to the nodes, the proxy and the server.
const BENCH_PART: u64 = 2;

/// As [`BENCH_PART`], for a sandbox.
const SANDBOX_PART: u64 = 4;

/// A limit of memory in bytes: `most`, or one part in `part` of the host's if that is less.
fn memory_limit(most: u64, part: u64, host: Option<u64>) -> u64 {
    host.map_or(most, |host| most.min(host / part))
}

/// The host's memory in bytes (proc(5), `MemTotal` in KiB).
fn host_memory() -> Option<u64> {
    meminfo_bytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")
}

/// What is decided of a bench or a sandbox before anything of it exists.
#[derive(Serialize, Deserialize)]
struct BenchRecord {
    address: Ipv4Addr,
    /// The kernel's folder beside a bench's upper tree.
    work: Option<PathBuf>,
    /// The life of the server that made it.
    #[serde(default)]
    lease: Option<Lease>,
}

fn folder(ground: &Ground, key: &Key) -> PathBuf {
    ground.folder.join("benches").join(key.as_str())
}

fn record(ground: &Ground, key: &Key) -> Result<Option<BenchRecord>, Error> {
    file::read(&folder(ground, key).join("bench.json"))
}

fn decide(ground: &Ground, key: &Key, outbound: bool, work: Option<PathBuf>) -> Result<Ipv4Addr, Error> {
    let reserved = ground.reserve_address(outbound, &BTreeSet::new())?;
    let address = reserved.address();
    file::make_folder(&folder(ground, key), 0o700)?;
    let record = BenchRecord { address, work, lease: Some(ground.lease.clone()) };
    let written = reserved.keep_if(file::write(&folder(ground, key).join("bench.json"), &record), || self::record(ground, key));
    if written.is_err() && matches!(self::record(ground, key), Ok(None)) {
        // Without it nothing was decided, and the name is free for the next try.
        file::remove_folder(&folder(ground, key))?;
    }
    written.map(|()| address)
}

/// Removes everything of a bench or a sandbox.
fn remove(ground: &Ground, key: &Key, grace: Duration) -> Result<(), Error> {
    let record = record(ground, key)?;
    let address = record.as_ref().map(|record| record.address);
    ground.remove_one(MachineRemains { grace, ..MachineRemains::at_once(key.clone(), address) })?;
    if let Some(work) = record.and_then(|record| record.work) {
        file::remove_folder(&work)?;
    }
    file::remove_folder(&folder(ground, key))?;
    ground.free(address);
    Ok(())
}

/// Which benches and sandboxes of this platform the life of this server answers for, and of which nobody's life does any more.
pub fn leases(platform: &Path, life: Option<&Lease>) -> Result<(BTreeSet<String>, BTreeSet<String>), Error> {
    let mut held = BTreeSet::new();
    let mut over = BTreeSet::new();
    let is_held = life.is_none_or(Lease::is_held);
    for name in file::names(&platform.join("benches"))?.into_iter().filter(|name| Key::parse(name).is_some()) {
        let record: Option<BenchRecord> = file::read(&platform.join("benches").join(&name).join("bench.json"))?;
        // Without a record it is just being decided, or was when the server ended.
        let held_by_life = record.is_none_or(|record| record.lease.as_ref() == life);
        if is_held && held_by_life {
            held.insert(name)
        } else {
            over.insert(name)
        };
    }
    Ok((held, over))
}

/// Removes the folders of a bench of which nothing else is left.
pub fn remove_folders(bench: &Path) -> Result<(), Error> {
    let record: Option<BenchRecord> = file::read(&bench.join("bench.json"))?;
    if let Some(work) = record.and_then(|record| record.work) {
        file::remove_folder(&work)?;
    }
    file::remove_folder(bench)
}

/// Removes all benches and sandboxes.
pub fn remove_all(ground: &Ground) -> Result<(), Error> {
    for name in file::names(&ground.folder.join("benches"))? {
        let Some(key) = Key::parse(&name) else { continue };
        remove(ground, &key, Duration::ZERO).context(|| format!("removing {key}, which an earlier server left"))?;
    }
    Ok(())
}

fn open_bench(ground: &Ground, request: &BenchRequest) -> Result<Bench, Error> {
    let key = Key::bench(&request.name)?;
    if folder(ground, &key).exists() {
        return Err(Error::new(format!("a build node `{}` is open already", request.name)).kind(ErrorKind::Invalid));
    }
    let work = beside(&request.upper);
    let address = decide(ground, &key, true, Some(work.clone()))?;
    let opened = start_bench(ground, request, &key, address, work);
    if opened.is_err() {
        remove(ground, &key, Duration::ZERO)?;
    }
    opened.context(|| format!("opening the build node `{}`", request.name))
}

fn start_bench(ground: &Ground, request: &BenchRequest, key: &Key, address: Ipv4Addr, work: PathBuf) -> Result<Bench, Error> {
    dress_upper(&request.upper, &request.layers)?;
    file::remove_folder(&work)?;
    file::make_folder(&work, 0o700)?;
    let skeleton = Skeleton::new(folder(ground, key).join("skeleton"), &request.layers)?;
    skeleton.surroundings(&Surroundings { hostname: &request.name, address, outbound: true })?;
    let mounts = bench_mounts(&skeleton, &request.files)?;
    let mut trees = request.layers.clone();
    trees.push(skeleton.folder().to_path_buf());
    let machine = MachineRequest {
        key: key.clone(),
        folder: folder(ground, key).join("bundle"),
        address,
        root: Root::Overlay { trees, upper: Some((request.upper.clone(), work)) },
        confinement: Confinement::Bench,
        hostname: request.name.clone(),
        command: request.command.clone(),
        working_directory: PathBuf::from("/"),
        identity: Identity::default(),
        environment: BTreeMap::from([("PATH".to_string(), DEFAULT_PATH.to_string()), ("HOME".to_string(), "/root".to_string())]),
        mounts,
        owner_shift: OWNER_SHIFT,
        memory_bytes: Some(memory_limit(BENCH_MEMORY, BENCH_PART, host_memory())),
        cpu_millicores: None,
        log: request.log.clone(),
    };
    ground.prepare(&machine)?;
    ground.link(std::slice::from_ref(&machine)).context(|| "linking it to the bridge".into())?;
    ground.connect(&machine)?;
    match ground.start(&machine)? {
        Start::Running(_) => Ok(Bench { name: request.name.clone(), address: address.into() }),
        Start::Refused(reason) => Err(Error::new(reason)),
    }
}

/// The upper tree's own owner and mode become those of the node's `/`: they must be the image's, or sshd trusts nothing below.
fn dress_upper(upper: &Path, layers: &[PathBuf]) -> Result<(), Error> {
    let image = layers.last().and_then(|layer| fs::metadata(layer).ok());
    let (user, group, mode) =
        image.map_or((OWNER_SHIFT, OWNER_SHIFT, 0o755), |root| (root.uid(), root.gid(), root.permissions().mode() & 0o7777));
    lchown(upper, Some(user), Some(group)).context(|| format!("setting the owner of {}", upper.display()))?;
    file::set_mode(upper, mode)
}

/// The kernel's work folder must be on the file system of the upper tree.
fn beside(upper: &Path) -> PathBuf {
    let mut name = upper.as_os_str().to_os_string();
    name.push(".work");
    PathBuf::from(name)
}

/// What is never part of the image: what runs and what is temporary, and the given files, as copies that belong to the node's root.
fn bench_mounts(skeleton: &Skeleton, files: &BTreeMap<PathBuf, PathBuf>) -> Result<BTreeMap<PathBuf, Mount>, Error> {
    let memory = |mode| Mount::Writable { user: 0, group: 0, mode };
    let mut mounts: BTreeMap<PathBuf, Mount> = [("/run", 0o755), ("/run/sshd", 0o755), ("/run/lock", 0o1777), ("/tmp", 0o1777)]
        .map(|(path, mode)| (PathBuf::from(path), memory(mode)))
        .into();
    for path in ["/run", "/tmp"].map(Path::new) {
        skeleton.folder_at(path)?;
    }
    for (path, source) in files {
        declared_path(path)?;
        let copy = skeleton.copy(path, source)?;
        mounts.insert(path.clone(), Mount::Bind { source: copy, writable: false });
    }
    Ok(mounts)
}

/// A sandboxed program that was started. Dropping it ends the program and removes everything of it.
struct Running {
    shared: Arc<Shared>,
    /// `None` once all is removed.
    key: Option<Key>,
    process: Option<Process>,
}

impl Running {
    /// Ends the program, if it runs, and removes everything.
    fn close(mut self) -> Result<(), Error> {
        self.key.take().map_or(Ok(()), |key| remove(&self.shared.ground, &key, Duration::ZERO))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            if let Err(error) = remove(&shared.ground, &key, Duration::ZERO) {
                tracing::warn!(%error, "a sandbox could not be removed");
            }
        });
    }
}

fn start_sandbox(shared: Arc<Shared>, request: &SandboxRequest) -> Result<Running, Error> {
    let key = Key::sandbox(&request.name)?;
    if folder(&shared.ground, &key).exists() {
        return Err(Error::new(format!("a sandbox `{}` is open already", request.name)).kind(ErrorKind::Invalid));
    }
    let address = decide(&shared.ground, &key, false, None)?;
    let mut running = Running { shared: Arc::clone(&shared), key: Some(key.clone()), process: None };
    let machine = sandbox_machine(&shared.ground, request, &key, address)?;
    request.writable.values().try_for_each(|folder| sandbox::give(folder))?;
    shared.ground.prepare(&machine)?;
    connect_sandbox(&shared.ground, request, &key, address)?;
    match shared.ground.start(&machine)? {
        Start::Running(process) => running.process = Some(process),
        Start::Refused(reason) => return Err(Error::new(reason)),
    }
    Ok(running)
}

fn sandbox_machine(ground: &Ground, request: &SandboxRequest, key: &Key, address: Ipv4Addr) -> Result<MachineRequest, Error> {
    let mut mounts = sandbox::host_mounts();
    let memory = Mount::Writable { user: 0, group: 0, mode: 0o1777 };
    mounts.insert(PathBuf::from("/tmp"), memory);
    let folders = request.readable.iter().map(|named| (named, false)).chain(request.writable.iter().map(|named| (named, true)));
    let mut mount_points = Vec::new();
    for ((path, source), writable) in folders {
        declared_path(path)?;
        mount_points.push(path.clone());
        mounts.insert(path.clone(), Mount::Bind { source: source.clone(), writable });
    }
    let mut environment = request.environment.clone();
    environment.entry("PATH".to_string()).or_insert_with(|| DEFAULT_PATH.to_string());
    Ok(MachineRequest {
        key: key.clone(),
        folder: folder(ground, key).join("bundle"),
        address,
        root: Root::Host(mount_points),
        confinement: Confinement::Sandbox,
        hostname: "sandbox".to_string(),
        command: request.command.clone(),
        working_directory: request.working_directory.clone(),
        identity: Identity { user: SANDBOX_USER, group: SANDBOX_USER, groups: Vec::new() },
        environment,
        mounts,
        owner_shift: SANDBOX_SHIFT,
        memory_bytes: Some(memory_limit(SANDBOX_MEMORY, SANDBOX_PART, host_memory())),
        cpu_millicores: None,
        log: request.log.clone(),
    })
}

/// Loopback alone, or loopback and the bench: there is no way to anything else.
fn connect_sandbox(ground: &Ground, request: &SandboxRequest, key: &Key, address: Ipv4Addr) -> Result<(), Error> {
    let Some(name) = &request.bench else {
        return network::in_namespace(&ground.helpers, &ground.network.namespace(key), "link set lo up\n");
    };
    let bench = Key::bench(name)?;
    let closed = || Error::new(format!("no build node `{name}` is open")).kind(ErrorKind::NotFound);
    let other = record(ground, &bench)?.ok_or_else(closed)?.address;
    ground.network.link_sandbox(&ground.helpers, (key, address), (&bench, other))
}

async fn wait(process: &Process, deadline: Duration) -> SandboxEnd {
    if tokio::time::timeout(deadline, process.ended()).await.is_err() {
        return SandboxEnd::DeadlinePassed;
    }
    match process.end() {
        Some(End::Exited(code)) => SandboxEnd::Exited(code),
        Some(End::Killed(_)) | None => SandboxEnd::Killed,
    }
}

#[async_trait]
impl Workbench for LocalPlatform {
    async fn open(&self, request: BenchRequest) -> Result<Bench, Error> {
        let shared = Arc::clone(&self.shared);
        blocking(move || open_bench(&shared.ground, &request)).await
    }

    async fn close(&self, name: &str) -> Result<(), Error> {
        let key = Key::bench(name)?;
        let (shared, at) = (Arc::clone(&self.shared), format!("closing the build node `{name}`"));
        let close = move || if folder(&shared.ground, &key).exists() { remove(&shared.ground, &key, BENCH_GRACE) } else { Ok(()) };
        blocking(close).await.context(|| at)
    }

    async fn run(&self, request: SandboxRequest) -> Result<SandboxEnd, Error> {
        let (shared, deadline) = (Arc::clone(&self.shared), request.deadline);
        let at = format!("running `{}` in the sandbox `{}`", request.command.first().map_or("nothing", String::as_str), request.name);
        let running = blocking(move || start_sandbox(shared, &request)).await.context(|| at.clone())?;
        let end = match &running.process {
            Some(process) => wait(process, deadline).await,
            None => SandboxEnd::Killed,
        };
        blocking(move || running.close()).await.context(|| at)?;
        Ok(end)
    }

    fn adopt(&self, command: &mut Command) -> Result<(), Error> {
        self.shared.ground.helpers.enter(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_leaves_the_host_some_memory() {
        const GIB: u64 = 1024 * 1024 * 1024;
        for (host, bench, sandbox) in [(Some(64 * GIB), 8 * GIB, 2 * GIB), (Some(4 * GIB), 2 * GIB, GIB), (None, 8 * GIB, 2 * GIB)] {
            assert_eq!(memory_limit(BENCH_MEMORY, BENCH_PART, host), bench);
            assert_eq!(memory_limit(SANDBOX_MEMORY, SANDBOX_PART, host), sandbox);
        }
    }
}
