//! A workbench for these tests alone: runc, one network namespace for each build node, and a container without network settings of its own for a program.
//! The workbench that users get is in gapless-platforms, with its own tests.

use async_trait::async_trait;
use gapless_engine::error::Error;
use gapless_engine::workbench::{Bench, BenchRequest, SandboxEnd, SandboxRequest, Workbench};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The user that sandboxed programs run as: `nobody`, which owns nothing.
const NOBODY: u32 = 65_534;

pub struct TestBench {
    folder: PathBuf,
    open: Mutex<BTreeMap<String, Node>>,
    /// Every command that was run in a sandbox.
    pub commands: Mutex<Vec<Vec<String>>>,
}

/// Everything of a node; gone when dropped.
struct Node {
    container: String,
    namespace: String,
    interface: String,
    table: String,
    merged: PathBuf,
}

impl TestBench {
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { folder: folder.into(), open: Mutex::default(), commands: Mutex::default() }
    }
}

/// Numbers that no other test process uses: two bytes of the process id and a count.
fn unique() -> (u8, u8) {
    use std::sync::atomic::{AtomicU8, Ordering};
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    ((std::process::id() % 250) as u8 + 1, count)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Error> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| Error::new(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

fn words(program: &str, line: &str) -> Result<(), Error> {
    run(program, &line.split(' ').collect::<Vec<_>>())
}

impl Node {
    fn start(request: &BenchRequest, folder: &Path) -> Result<(Self, String), Error> {
        let (high, low) = unique();
        let id = format!("{high}x{low}");
        let node = Node {
            container: format!("gi-{}-{id}", request.name),
            namespace: format!("gi{id}"),
            interface: format!("gi{id}v"),
            table: format!("gi{id}"),
            merged: folder.join(format!("merged-{id}")),
        };
        let net = format!("10.{}.{high}.{}", 232 + low / 64, (low % 64) * 4);
        let address = |last: u8| format!("10.{}.{high}.{}", 232 + low / 64, (low % 64) * 4 + last);
        let Node { namespace, interface, table, .. } = &node;
        words("sysctl", "-qw net.ipv4.ip_forward=1")?;
        words("ip", &format!("netns add {namespace}"))?;
        words("ip", &format!("link add {interface} mtu 1400 type veth peer name eth0 mtu 1400 netns {namespace}"))?;
        words("ip", &format!("addr add {}/30 dev {interface}", address(1)))?;
        words("ip", &format!("link set {interface} up"))?;
        words("ip", &format!("-n {namespace} addr add {}/30 dev eth0", address(2)))?;
        words("ip", &format!("-n {namespace} link set eth0 up"))?;
        words("ip", &format!("-n {namespace} link set lo up"))?;
        words("ip", &format!("-n {namespace} route add default via {}", address(1)))?;
        words("ip", &format!("netns exec {namespace} sysctl -qw net.ipv4.ip_unprivileged_port_start=0"))?;
        words("nft", &format!("add table ip {table}"))?;
        run("nft", &[&format!("add chain ip {table} post {{ type nat hook postrouting priority srcnat; }}")])?;
        run("nft", &[&format!("add rule ip {table} post ip saddr {net}/30 oifname != \"{interface}\" masquerade")])?;
        node.mount(request, folder, &id)?;
        node.run(request, folder, &id, &address(2))?;
        Ok((node, address(2)))
    }

    fn mount(&self, request: &BenchRequest, folder: &Path, id: &str) -> Result<(), Error> {
        let work = request.upper.with_file_name(format!("overlay-work-{id}"));
        for made in [&self.merged, &work, &folder.to_path_buf()] {
            fs::create_dir_all(made).unwrap();
        }
        std::os::unix::fs::chown(&request.upper, Some(100_000), Some(100_000)).unwrap();
        let lower: Vec<String> = request.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,volatile",
            lower.join(":"),
            request.upper.display(),
            work.display()
        );
        run("mount", &["-t", "overlay", "overlay", "-o", &options, &self.merged.display().to_string()])
    }

    fn run(&self, request: &BenchRequest, folder: &Path, id: &str, address: &str) -> Result<(), Error> {
        let bundle = folder.join(format!("bundle-{id}"));
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("hosts"), format!("127.0.0.1 localhost\n{address} build\n")).unwrap();
        let mut config = container(&request.command, &self.merged, "/");
        let capabilities = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETPCAP",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_SETFCAP",
            "CAP_AUDIT_WRITE",
        ];
        config["process"]["capabilities"] = json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
        config["process"]["noNewPrivileges"] = json!(false);
        config["root"]["readonly"] = json!(false);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] }),
        );
        mounts.push(json!({ "destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=755"] }));
        mounts.push(bind("/etc/resolv.conf", Path::new("/etc/resolv.conf"), "ro"));
        mounts.push(bind("/etc/hosts", &bundle.join("hosts"), "ro"));
        let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        namespaces.push(json!({ "type": "network", "path": format!("/var/run/netns/{}", self.namespace) }));
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let log = File::create(&request.log).unwrap();
        // Programs open /dev/stderr by its name.
        std::os::unix::fs::chown(&request.log, Some(100_000), None).unwrap();
        let status = Command::new("runc")
            .args(["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg(&self.container)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        if status.success() { Ok(()) } else { Err(Error::new(format!("runc: {}", fs::read_to_string(&request.log).unwrap_or_default()))) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = run("runc", &["delete", "--force", &self.container]);
        let _ = run("umount", &[&self.merged.display().to_string()]);
        let _ = run("nft", &["delete", "table", "ip", &self.table]);
        let _ = run("ip", &["netns", "del", &self.namespace]);
        let _ = run("ip", &["link", "del", &self.interface]);
    }
}

fn container(command: &[String], root: &Path, directory: &str) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": command, "cwd": directory, "noNewPrivileges": true,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
        },
        "root": { "path": root, "readonly": true },
        "hostname": "build",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }] },
    })
}

fn bind(destination: &str, source: &Path, mode: &str) -> Value {
    json!({ "destination": destination, "type": "none", "source": source, "options": ["rbind", mode] })
}

#[async_trait]
impl Workbench for TestBench {
    async fn open(&self, request: BenchRequest) -> Result<Bench, Error> {
        let (node, address) = Node::start(&request, &self.folder)?;
        self.open.lock().unwrap().insert(request.name.clone(), node);
        Ok(Bench { name: request.name, address: address.parse().unwrap() })
    }

    async fn close(&self, name: &str) -> Result<(), Error> {
        self.open.lock().unwrap().remove(name);
        Ok(())
    }

    async fn run(&self, request: SandboxRequest) -> Result<SandboxEnd, Error> {
        self.commands.lock().unwrap().push(request.command.clone());
        let (high, low) = unique();
        let bundle = self.folder.join(format!("sandbox-{high}-{low}"));
        let root = bundle.join("root");
        fs::create_dir_all(&root).unwrap();
        for made in ["usr", "etc", "proc", "dev", "tmp"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        for link in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let mut config = container(&request.command, &root, &request.working_directory.display().to_string());
        config["process"]["user"] = json!({ "uid": NOBODY, "gid": NOBODY });
        config["process"]["env"] = request.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(bind("/usr", Path::new("/usr"), "ro"));
        for (folders, mode) in [(&request.readable, "ro"), (&request.writable, "rw")] {
            for (inside, outside) in folders {
                fs::create_dir_all(root.join(inside.strip_prefix("/").unwrap())).unwrap();
                mounts.push(bind(&inside.display().to_string(), outside, mode));
                if mode == "rw" {
                    std::os::unix::fs::chown(outside, Some(NOBODY), Some(NOBODY)).unwrap();
                }
            }
        }
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let log = File::create(&request.log).unwrap();
        let mut child = tokio::process::Command::new("runc")
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(format!("gi-sandbox-{high}-{low}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let status = child.wait().await.unwrap();
        Ok(status.code().map_or_else(|| status.signal().map(|_| SandboxEnd::Killed).unwrap(), SandboxEnd::Exited))
    }
}
