//! A proxy as real processes, and snapshots for it.

use super::node::Node;
use super::{PATIENCE, eventually};
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::record::Record;
use gapless_wire::route::{
    Applied, Check, DrainRequest, Member, NodeStatus, ProxyStatus, SNAPSHOT_VERSION, ServiceRoute, Snapshot, WorkerStatus,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

pub const SERVICE: &str = "hello/web";

pub struct Proxy {
    pub state: PathBuf,
    pub address: SocketAddr,
    holder: Child,
    runtime: tokio::runtime::Runtime,
    _folder: Option<tempfile::TempDir>,
}

/// The program beside this test's own.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    let program = own.parent().and_then(|deps| deps.parent()).expect("the target folder").join("examples/proxy_alone");
    assert!(program.exists(), "{} is missing: `cargo build -p gapless-proxy --examples` makes it", program.display());
    program
}

impl Proxy {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut proxy = Self::start_in(folder.path().join("state"), "127.0.0.1:0".parse().expect("an address"));
        proxy._folder = Some(folder);
        proxy
    }

    pub fn start_in(state: PathBuf, listen: SocketAddr) -> Self {
        Self::start_program(&program(), state, listen)
    }

    pub fn start_program(program: &std::path::Path, state: PathBuf, listen: SocketAddr) -> Self {
        let mut command = Command::new(program);
        command.arg(&state).arg(listen.to_string());
        Self::start_command(command, state, listen)
    }

    pub fn start_command(mut command: Command, state: PathBuf, listen: SocketAddr) -> Self {
        let holder = command.spawn().expect("the proxy starts");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut proxy = Self { state, address: listen, holder, runtime, _folder: None };
        eventually("the proxy serves", || proxy.try_status().is_some_and(|status| !status.workers.is_empty()));
        proxy.address = proxy.proxy_status().listening[0];
        proxy
    }

    fn holder_client(&self) -> UnixClient {
        UnixClient::new(gapless_proxy::holder::socket(&self.state)).timeout(PATIENCE)
    }

    pub fn try_status(&self) -> Option<ProxyStatus> {
        self.runtime.block_on(self.holder_client().get("/v1/proxy")).ok()
    }

    pub fn proxy_status(&self) -> ProxyStatus {
        self.try_status().expect("the holder's status")
    }

    pub fn upgrade(&self) -> Result<ProxyStatus, ClientError> {
        self.runtime.block_on(self.holder_client().send(hyper::Method::POST, "/v1/upgrade", &()))
    }

    /// The newest worker's admin socket.
    /// Returns when the order is taken.
    pub fn hand_on(&self) -> Result<ProxyStatus, ClientError> {
        self.runtime.block_on(self.holder_client().send(hyper::Method::POST, "/v1/hand-on", &()))
    }

    pub fn worker(&self) -> UnixClient {
        let status = self.proxy_status();
        Self::client_of(&status.workers.last().expect("a worker").socket)
    }

    pub fn client_of(socket: &str) -> UnixClient {
        UnixClient::new(socket).timeout(PATIENCE)
    }

    pub fn worker_pid(&self) -> u32 {
        self.proxy_status().workers.last().expect("a worker").pid
    }

    pub fn try_put(&self, worker: &UnixClient, snapshot: &Snapshot) -> Result<Applied, ClientError> {
        self.runtime.block_on(worker.send(hyper::Method::PUT, "/v1/snapshot", snapshot))
    }

    /// To the newest worker.
    #[track_caller]
    pub fn put(&self, snapshot: &Snapshot) -> Applied {
        self.try_put(&self.worker(), snapshot).expect("the snapshot is applied")
    }

    pub fn status(&self) -> WorkerStatus {
        self.status_after(0, 0)
    }

    pub fn status_after(&self, revision: u64, wait_ms: u64) -> WorkerStatus {
        self.runtime.block_on(self.worker().get(&format!("/v1/status?after={revision}&wait_ms={wait_ms}"))).expect("the worker's status")
    }

    pub fn node_status(&self, node: &str) -> Option<NodeStatus> {
        self.status().nodes.get(SERVICE)?.get(node).cloned()
    }

    #[track_caller]
    pub fn wait_ready(&self, nodes: &[&str]) {
        eventually("the nodes pass", || nodes.iter().all(|node| self.node_status(node).is_some_and(|status| status.passes > 0)));
    }

    pub fn drain(&self, node: &str, deadline_ms: u64) {
        let request = DrainRequest { service: SERVICE.to_string(), nodes: vec![node.to_string()], deadline_ms };
        self.runtime.block_on(self.worker().send::<_, ()>(hyper::Method::POST, "/v1/drain", &request)).expect("the drain begins");
    }

    pub fn record(&self) -> Record {
        self.record_since(0)
    }

    pub fn record_since(&self, since: u64) -> Record {
        self.runtime.block_on(self.worker().get(&format!("/v1/record?since={since}"))).expect("the record")
    }

    pub fn kill_holder(&mut self) {
        self.holder.kill().expect("SIGKILL");
        self.holder.wait().expect("the holder's end");
    }

    pub fn terminate(&mut self) {
        signal(self.holder.id(), rustix::process::Signal::TERM);
    }

    pub fn wait_end(&mut self) -> std::process::ExitStatus {
        let mut ended = None;
        eventually("the holder ends", || {
            ended = self.holder.try_wait().expect("the holder's state");
            ended.is_some()
        });
        ended.expect("just seen")
    }
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the signal is sent");
}

pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The memory of a process that is in use.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let workers = self.try_status().map(|status| status.workers).unwrap_or_default();
        if !matches!(self.holder.try_wait(), Ok(Some(_))) {
            self.terminate();
        }
        let until = Instant::now() + std::time::Duration::from_secs(3);
        while Instant::now() < until && !matches!(self.holder.try_wait(), Ok(Some(_))) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for worker in workers.iter().filter(|worker| is_alive(worker.pid)) {
            signal(worker.pid, rustix::process::Signal::KILL);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub fn check() -> Check {
    Check { path: "/healthz".to_string(), interval_ms: 50, timeout_ms: 1000, passes: 2, failures: 2 }
}

pub fn member(address: SocketAddr, weight: u16, release: &str) -> Member {
    Member { address, weight, release: release.to_string(), check: check() }
}

/// One service for every host, retry on, no hold.
pub fn route(generation: u64, members: &[(&Node, u16)]) -> ServiceRoute {
    let members = members.iter().map(|(node, weight)| (node.inside.name.clone(), member(node.address, *weight, "web-r1"))).collect();
    ServiceRoute { generation, host: "*".to_string(), members, retry: true, hold_ms: 0 }
}

pub fn snapshot(generation: u64, members: &[(&Node, u16)]) -> Snapshot {
    of(route(generation, members))
}

pub fn of(route: ServiceRoute) -> Snapshot {
    Snapshot { version: SNAPSHOT_VERSION, services: BTreeMap::from([(SERVICE.to_string(), route)]) }
}

/// What a record adds up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub requests: u64,
    pub failed: u64,
    pub by_cause: BTreeMap<String, u64>,
    pub retried: u64,
    pub held: u64,
    pub cut: u64,
    pub statuses: [u64; 5],
    pub small: u64,
}

pub fn totals(record: &Record) -> Totals {
    let mut totals = Totals::default();
    for slice in &record.slices {
        totals.requests += slice.requests;
        totals.retried += slice.retried;
        totals.held += slice.held;
        totals.cut += slice.cut;
        totals.small += slice.latencies.iter().map(|(_, times)| times).sum::<u64>();
        for (cause, times) in &slice.failed {
            totals.failed += times;
            *totals.by_cause.entry(cause.clone()).or_default() += times;
        }
        for (mine, theirs) in totals.statuses.iter_mut().zip(slice.statuses) {
            *mine += theirs;
        }
    }
    totals
}

impl Proxy {
    /// Settings as a person would have them written: JSON without its version.
    pub fn try_settings(&self, settings: serde_json::Value) -> Result<(), ClientError> {
        let mut settings = settings;
        settings["version"] = 1.into();
        let told: Result<serde_json::Value, ClientError> =
            self.runtime.block_on(self.holder_client().send(hyper::Method::PUT, "/v1/settings", &settings));
        told.map(|_| ())
    }

    pub fn settings(&self, settings: serde_json::Value) {
        self.try_settings(settings).expect("settings that make sense");
    }
}
