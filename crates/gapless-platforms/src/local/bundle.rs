//! The bundle of a machine: the configuration that the OCI runtime specification (1.0.2) asks for.

use super::cgroup::Cgroups;
use super::seccomp;
use gapless_engine::images::OWNER_COUNT;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The most processes and threads of a machine: a fork bomb in one node must not take the host's.
const PROCESSES: u64 = 4096;

/// The most open files of a process of a machine.
const OPEN_FILES: u64 = 65_536;

/// The period of CPU limits in microseconds, the kernel's default.
const CPU_PERIOD: u64 = 100_000;

/// The most that a writable path in memory may hold, in bytes, where no limit of memory says less. tmpfs counts against the machine's memory: with half
/// of it, a path that fills up gives "no space left" before the kernel starts to kill.
const WRITABLE_BYTES: u64 = 1024 * 1024 * 1024;

/// What Apache and its like need to serve on a low port and to give up root for their workers.
const NODE_CAPABILITIES: [&str; 8] =
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"];

/// What installing packages and logging in over SSH needs besides.
const BENCH_CAPABILITIES: [&str; 6] =
    ["CAP_AUDIT_WRITE", "CAP_DAC_READ_SEARCH", "CAP_MKNOD", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_SYS_CHROOT"];

/// How tightly a machine is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// Serves: read-only root, few capabilities, no new privileges.
    Node,
    /// Is being built: writable root, the capabilities that installing needs.
    Bench,
    /// Runs other people's programs: read-only root, no capability at all.
    Sandbox,
}

/// The numeric identity of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// A mount of a machine, besides those that all have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// An empty file system in memory, with the owner and mode that the path has in the image.
    Writable {
        /// Owner (as the machine sees it).
        user: u32,
        /// Group.
        group: u32,
        /// Permission bits.
        mode: u32,
    },
    /// A file or folder of the host.
    Bind {
        /// Where it is on the host.
        source: PathBuf,
        /// Whether the machine may change it.
        writable: bool,
    },
}

/// Everything that a bundle says.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// How tightly the machine is held.
    pub confinement: Confinement,
    /// Its root file system on the host.
    pub root: PathBuf,
    /// A read-only sysfs of its network namespace, if it has one.
    pub sys: Option<PathBuf>,
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
    /// More mounts, by path inside. A path comes after those above it.
    pub mounts: BTreeMap<PathBuf, Mount>,
    /// The host's id of its user 0.
    pub owner_shift: u32,
    /// Its network namespace.
    pub network_namespace: PathBuf,
    /// Its control group, from the hierarchy's root.
    pub cgroup: String,
    /// The most memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The most CPU time in thousandths of a core.
    pub cpu_millicores: Option<u32>,
    /// What the container tells about itself, for whoever finds it.
    pub annotations: BTreeMap<String, String>,
}

impl Bundle {
    /// The `config.json` for a host with these control groups.
    pub fn config(&self, cgroups: &Cgroups) -> Value {
        let mapping = json!([{"containerID": 0, "hostID": self.owner_shift, "size": OWNER_COUNT}]);
        let namespaces = json!([
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"},
            {"type": "network", "path": self.network_namespace},
        ]);
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": self.root, "readonly": self.confinement != Confinement::Bench},
            "hostname": self.hostname,
            "process": self.process(),
            "mounts": self.all_mounts(),
            "annotations": self.annotations,
            "linux": {
                "uidMappings": mapping, "gidMappings": mapping, "namespaces": namespaces,
                "cgroupsPath": self.cgroup,
                "resources": self.resources(cgroups),
                "rootfsPropagation": "private",
                "seccomp": seccomp::profile(self.confinement == Confinement::Bench),
                "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                    "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        })
    }

    fn process(&self) -> Value {
        let capabilities = self.capabilities();
        let environment: Vec<String> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "terminal": false,
            "user": {"uid": self.identity.user, "gid": self.identity.group, "additionalGids": self.identity.groups},
            "args": self.command,
            "env": environment,
            "cwd": self.working_directory,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": open_files(), "soft": open_files()}],
            "noNewPrivileges": self.confinement != Confinement::Bench,
        })
    }

    fn capabilities(&self) -> Vec<&'static str> {
        match self.confinement {
            Confinement::Node => NODE_CAPABILITIES.to_vec(),
            Confinement::Bench => [&NODE_CAPABILITIES[..], &BENCH_CAPABILITIES].concat(),
            Confinement::Sandbox => Vec::new(),
        }
    }

    fn resources(&self, cgroups: &Cgroups) -> Value {
        let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
        if let Some(limit) = self.memory_bytes.filter(|_| cgroups.has("memory")) {
            resources["memory"] = json!({"limit": limit});
        }
        if let Some(millicores) = self.cpu_millicores.filter(|_| cgroups.has("cpu")) {
            resources["cpu"] = json!({"quota": u64::from(millicores) * CPU_PERIOD / 1000, "period": CPU_PERIOD});
        }
        if cgroups.has("pids") {
            resources["pids"] = json!({"limit": PROCESSES});
        }
        resources
    }

    fn all_mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ];
        if let Some(sys) = &self.sys {
            mounts.push(mount("/sys", "none", &sys.to_string_lossy(), &["bind", "nosuid", "noexec", "nodev", "ro"]));
        }
        let most = self.memory_bytes.map_or(WRITABLE_BYTES, |memory| WRITABLE_BYTES.min(memory / 2));
        mounts.extend(self.mounts.iter().map(|(path, kind)| kind.json(path, most)));
        mounts
    }
}

impl Mount {
    fn json(&self, path: &Path, most: u64) -> Value {
        let path = path.to_string_lossy();
        match self {
            Mount::Writable { user, group, mode } => {
                let (mode, user, group) = (format!("mode={mode:o}"), format!("uid={user}"), format!("gid={group}"));
                mount(&path, "tmpfs", "tmpfs", &["nosuid", "nodev", &mode, &user, &group, &format!("size={most}")])
            }
            Mount::Bind { source, writable } => {
                let access = if *writable { "rw" } else { "ro" };
                mount(&path, "none", &source.to_string_lossy(), &["bind", "nosuid", "nodev", access])
            }
        }
    }
}

/// A limit of a user namespace cannot be higher than that of the process that makes it.
fn open_files() -> u64 {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    own.map_or(OPEN_FILES, |own| own.min(OPEN_FILES))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}
