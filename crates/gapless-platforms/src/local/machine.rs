//! Machines: what nodes, build nodes and sandboxes have in common. A machine is a container of the runtime with its own network namespace and its own
//! mounts, named by its key. All of this blocks; machines are made and ended side by side on threads.

use super::bundle::{Bundle, Confinement, Identity, Mount};
use super::cgroup::Cgroups;
use super::helpers::Helpers;
use super::lease::Lease;
use super::names::{Key, Marks};
use super::network::{self, Addresses, Network, Reserved};
use super::process::{self, Process};
use super::rootfs::{self, Places};
use super::{file, sandbox};
use gapless_engine::declaration::StopSignal;
use gapless_engine::error::{Context, Error};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a machine has between the signal that asks it to end and the one that ends it.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// How long a killed machine may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How long the keeper of a task may take to write down how the task ended: the runtime clears away, then one line is written.
const KEEPER_GRACE: Duration = Duration::from_secs(5);

/// What all machines of an installation share.
#[derive(Debug)]
pub struct Ground {
    /// The installation's marks.
    pub marks: Marks,
    /// This life of the server.
    pub lease: Lease,
    /// The platform's folder in the installation's state.
    pub folder: PathBuf,
    /// The OCI runtime's program.
    pub runtime: String,
    /// Runs helpers.
    pub helpers: Helpers,
    /// The installation's network.
    pub network: Network,
    /// The host's control groups.
    pub cgroups: Cgroups,
    addresses: Mutex<Addresses>,
}

/// A machine that is wanted.
#[derive(Clone, Debug)]
pub struct MachineRequest {
    /// Its key.
    pub key: Key,
    /// Where the bundle goes.
    pub folder: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// How it gets its root file system.
    pub root: Root,
    /// How tightly it is held.
    pub confinement: Confinement,
    /// Its host name.
    pub hostname: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where the command starts.
    pub working_directory: PathBuf,
    /// Whom it runs as.
    pub identity: Identity,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// More mounts.
    pub mounts: BTreeMap<PathBuf, Mount>,
    /// The host's id of its user 0.
    pub owner_shift: u32,
    /// The most memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The most CPU time in thousandths of a core.
    pub cpu_millicores: Option<u32>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// How a machine gets its root file system.
#[derive(Clone, Debug)]
pub enum Root {
    /// An overlay of these trees, the lowest first; writable with an upper tree and its work folder.
    Overlay {
        /// The trees.
        trees: Vec<PathBuf>,
        /// The tree that takes the changes, and a folder beside it for the kernel.
        upper: Option<(PathBuf, PathBuf)>,
    },
    /// The host's own programs and libraries, only read, with mount points at these paths.
    Host(Vec<PathBuf>),
}

/// How a machine came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its command was started.
    Running(Process),
    /// The runtime could not start the command; its words.
    Refused(String),
}

/// A machine that shall go.
#[derive(Clone, Debug)]
pub struct MachineRemains {
    /// Its key.
    pub key: Key,
    /// Its address, if it has a link.
    pub address: Option<Ipv4Addr>,
    /// The signal that asks its command to end.
    pub signal: StopSignal,
    /// How long it may take to end by itself after that.
    pub grace: Duration,
}

impl MachineRemains {
    /// A machine that is ended without being asked.
    #[must_use]
    pub fn at_once(key: Key, address: Option<Ipv4Addr>) -> Self {
        Self { key, address, signal: StopSignal::Term, grace: Duration::ZERO }
    }
}

impl Ground {
    /// The ground of an installation.
    pub fn new(marks: Marks, lease: Lease, folder: PathBuf, runtime: String, helpers: Helpers, network: Network, cgroups: Cgroups) -> Self {
        Self { marks, lease, folder, runtime, helpers, network, cgroups, addresses: Mutex::default() }
    }

    /// Which addresses are in use.
    pub fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free address, none of `not`.
    ///
    /// # Errors
    /// When all are in use.
    pub fn reserve_address(&self, outbound: bool, not: &BTreeSet<Ipv4Addr>) -> Result<Reserved<'_>, Error> {
        Reserved::next(&self.addresses, &self.network.subnet, outbound, not)
    }

    /// The machine that had this address is gone, and no record names it any more: it may be given to another.
    pub fn free(&self, address: Option<Ipv4Addr>) {
        address.into_iter().for_each(|address| self.addresses().free(address));
    }

    /// How many addresses are free, none of `not` among them.
    pub fn free_addresses(&self, outbound: bool, not: &BTreeSet<Ipv4Addr>) -> u32 {
        self.addresses().free_count(&self.network.subnet, outbound, not)
    }

    /// The same, once `leaving` are free, too.
    pub fn free_addresses_without(&self, outbound: bool, not: &BTreeSet<Ipv4Addr>, leaving: &BTreeSet<Ipv4Addr>) -> u32 {
        let mut addresses = self.addresses().clone();
        leaving.iter().for_each(|address| addresses.free(*address));
        addresses.free_count(&self.network.subnet, outbound, &(not - leaving))
    }

    /// Where the runtime keeps its own records.
    #[must_use]
    pub fn runtime_root(&self) -> PathBuf {
        self.folder.join("runc")
    }

    /// Makes the file systems and the network namespace of a machine, and its bundle. Whatever was left of an earlier try is removed first.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn prepare(&self, request: &MachineRequest) -> Result<(), Error> {
        let places = Places::make(&self.marks.mounts(&request.key), request.owner_shift)?;
        let root = match &request.root {
            Root::Host(mount_points) => {
                sandbox::build_tree(&places.root, mount_points)?;
                places.root
            }
            Root::Overlay { trees, upper } => {
                rootfs::mount_overlay(&places.root, trees, upper.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path())))?;
                places.root
            }
        };
        self.network.make_namespace(&request.key, &places.sys)?;
        let sys = (request.confinement != Confinement::Sandbox).then_some(places.sys);
        let config = self.bundle(request, root, sys).config(&self.cgroups);
        file::make_folder(&request.folder, 0o700)?;
        let path = request.folder.join("config.json");
        fs::write(&path, config.to_string()).context(|| format!("writing {}", path.display()))
    }

    fn bundle(&self, request: &MachineRequest, root: PathBuf, sys: Option<PathBuf>) -> Bundle {
        let request = request.clone();
        Bundle {
            confinement: request.confinement,
            root,
            sys,
            hostname: request.hostname,
            command: request.command,
            working_directory: request.working_directory,
            identity: request.identity,
            environment: request.environment,
            mounts: request.mounts,
            owner_shift: request.owner_shift,
            network_namespace: self.marks.network_namespace(&request.key),
            cgroup: self.marks.cgroup(&request.key),
            memory_bytes: request.memory_bytes,
            cpu_millicores: request.cpu_millicores,
            annotations: self.marks.annotations(&request.key, &self.lease),
        }
    }

    /// Links prepared machines to the bridge, all in one go.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn link(&self, requests: &[MachineRequest]) -> Result<(), Error> {
        let links: String = requests.iter().map(|request| self.network.link_commands(&request.key, request.address)).collect();
        if links.is_empty() {
            return Ok(());
        }
        self.helpers.run(Command::new("ip").args(["-batch", "-"]), &links).map(drop)
    }

    /// Sets the inner end of a machine's link up.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn connect(&self, request: &MachineRequest) -> Result<(), Error> {
        let commands = self.network.interface_commands(request.address);
        network::in_namespace(&self.helpers, &self.network.namespace(&request.key), &commands)
    }

    /// Starts a machine that was prepared and linked.
    ///
    /// # Errors
    /// When the runtime itself cannot be run.
    pub fn start(&self, request: &MachineRequest) -> Result<Start, Error> {
        let name = self.marks.machine(&request.key);
        let output = open_log(&request.log, request.owner_shift + request.identity.user)?;
        let (pid_file, errors) = (request.folder.join("pid"), request.folder.join("runtime.log"));
        let _ = fs::remove_file(&errors);
        let mut command = self.runtime_command();
        command
            .arg("--log")
            .arg(&errors)
            .args(["--log-format", "json", "run", "--detach", "--no-new-keyring", "--pid-file"])
            .arg(&pid_file);
        command.arg("--bundle").arg(&request.folder).arg(&name);
        command.stdout(output.try_clone().context(|| "opening the log twice".into())?).stderr(output);
        let started = self.helpers.run_with_output(&mut command, "").context(|| format!("running `{}` for {name}", self.runtime))?;
        if !started {
            return Ok(Start::Refused(runtime_error(&errors)));
        }
        let pid = fs::read_to_string(&pid_file).context(|| format!("reading {}", pid_file.display()))?;
        let pid = pid.trim().parse().map_err(|_| Error::new(format!("`{pid}` is no process id")))?;
        // Gone already when somebody else waited for it: then it is known by a start that no process has.
        Ok(Start::Running(Process::of(pid).unwrap_or_else(|| Process { pid, start_ticks: 0, boot: String::new() })))
    }

    fn runtime_command(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.runtime_root());
        command
    }

    /// The process of a machine whose command was started, as the runtime recorded it: for one whose maker died in between.
    #[must_use]
    pub fn started(&self, key: &Key) -> Option<Process> {
        if self.was_started(key) { self.recorded(key).filter(Process::is_alive) } else { None }
    }

    /// Whether the runtime started the command of a machine that was not removed since.
    #[must_use]
    pub fn was_started(&self, key: &Key) -> bool {
        let folder = self.runtime_root().join(self.marks.machine(key));
        // As long as the pipe is there, the runtime has made the container and not started the command.
        folder.join("state.json").exists() && !folder.join("exec.fifo").exists()
    }

    fn recorded(&self, key: &Key) -> Option<Process> {
        let state: RuntimeState = file::read(&self.runtime_root().join(self.marks.machine(key)).join("state.json")).ok()??;
        let process = Process::of(state.init_process_pid)?;
        (process.start_ticks == state.init_process_start).then_some(process)
    }

    /// Ends these machines and removes everything of them but their folders, all at the same time. Removing one that is not there does nothing. Gives what came of
    /// each. Their addresses are not free before their records are gone, too: a removal that is done again takes the link of whoever has the address.
    pub fn remove(&self, machines: &[MachineRemains]) -> Vec<Result<(), Error>> {
        let addresses: Vec<Ipv4Addr> = machines.iter().filter_map(|machine| machine.address).collect();
        let stopped = on_threads(machines, |machine| self.stop(machine));
        // Nothing of them runs any more: their links, their containers and their mounts do not need each other.
        let (unlinked, cleared) = std::thread::scope(|scope| {
            let unlinking = scope.spawn(|| self.network.remove_links(&self.helpers, &addresses));
            let cleared = on_threads(machines, |machine| self.clear(&machine.key));
            (unlinking.join().unwrap_or_else(|_| Err(panicked())), cleared)
        });
        let gone = stopped.into_iter().zip(cleared).map(|(stopped, cleared)| stopped.and(cleared).and(unlinked.clone()));
        let finish = |(machine, gone): (&MachineRemains, Result<(), Error>)| {
            gone?;
            network::remove_namespace(&self.marks.network_namespace(&machine.key))
        };
        machines.iter().zip(gone).map(finish).collect()
    }

    /// As [`Self::remove`], for one.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove_one(&self, machine: MachineRemains) -> Result<(), Error> {
        self.remove(&[machine]).into_iter().collect()
    }

    /// Ends a machine's command, if it runs: asks it, and takes it away when its grace is over. Nothing is removed.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop(&self, machine: &MachineRemains) -> Result<(), Error> {
        let running = self.started(&machine.key).and_then(|process| Some((process.clone(), process.descriptor()?)));
        let Some((process, descriptor)) = running else { return Ok(()) };
        let grace = machine.grace;
        if !grace.is_zero() && process.ask_to_end(&descriptor, machine.signal) && process::wait(&descriptor, grace) {
            return Ok(());
        }
        process::kill(&descriptor);
        if process::wait(&descriptor, KILL_DEADLINE) {
            return Ok(());
        }
        Err(Error::new(format!("process {} cannot be ended", process.pid)).context(format!("ending {}", machine.key)))
    }

    fn clear(&self, key: &Key) -> Result<(), Error> {
        self.delete_container(key)?;
        rootfs::unmount_all(&self.marks.mounts(key))
    }

    fn delete_container(&self, key: &Key) -> Result<(), Error> {
        let name = self.marks.machine(key);
        let folder = self.runtime_root().join(&name);
        let process = self.recorded(key);
        if folder.exists() {
            let deleted = self.helpers.run(self.runtime_command().args(["delete", "--force"]).arg(&name), "");
            if folder.join("state.json").exists() {
                deleted.context(|| format!("removing the container {name}"))?;
            }
            // A runtime that was killed while it made the container leaves a folder without a state, which it does not know itself any more.
            file::remove_folder(&folder)?;
        }
        let group = self.marks.cgroup(key);
        super::helpers::end_processes(&self.cgroups.folders(&group))?;
        self.cgroups.remove(&group);
        // Inherited from the runtime: nobody else waits for it.
        process.and_then(|process| process.end());
        self.end_keeper(key)
    }

    /// Lets the keeper of a task whose command was ended write down how, and ends it when it does not come to it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn end_keeper(&self, key: &Key) -> Result<(), Error> {
        let group = self.marks.keeper_cgroup(key);
        let folders = self.cgroups.folders(&group);
        let members = folders.iter().flat_map(|folder| super::cgroup::processes(folder)).filter_map(Process::of);
        let descriptors: Vec<_> = members.filter_map(|process| process.descriptor()).collect();
        for descriptor in &descriptors {
            process::wait(descriptor, KEEPER_GRACE);
        }
        super::helpers::end_processes(&folders)?;
        self.cgroups.remove(&group);
        Ok(())
    }
}

/// How much is done at the same time: each takes some descriptors, and a helper of its own.
const THREADS: usize = 32;

/// Does one thing for each, many at the same time: the work is mostly waiting for other programs and for the disk. Gives what came of each, in their order.
pub fn on_threads<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R, Error> + Sync) -> Vec<Result<R, Error>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(all.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(at) else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| work(one))).unwrap_or_else(|_| Err(panicked()));
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn panicked() -> Error {
    Error::new("a thread panicked")
}

/// The part of the runtime's own record that is read (libcontainer's `state.json`).
#[derive(Deserialize)]
struct RuntimeState {
    init_process_pid: i32,
    init_process_start: u64,
}

/// Opens a machine's log for adding. It belongs to the command's user, because programs open their standard output again by its name (`/dev/stderr`).
pub fn open_log(path: &Path, owner: u32) -> Result<File, Error> {
    let open = || -> std::io::Result<File> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        chown(path, Some(owner), None)?;
        Ok(log)
    };
    open().context(|| format!("opening the log {}", path.display()))
}

/// The last error in the runtime's own log: a JSON object a line.
pub fn runtime_error(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let message =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).ok().and_then(|entry| entry["msg"].as_str().map(str::to_string));
    text.lines().rev().find_map(message).unwrap_or_else(|| "the runtime gave no reason".to_string())
}
