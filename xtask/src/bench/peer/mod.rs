//! The proxies that are compared, each started with its own configuration from `bench/proxy`.

mod apache;
mod caddy;
mod gapless;
mod haproxy;
mod nginx;

pub use apache::{PROGRAM as APACHE, installed};
pub use nginx::backend;

use crate::bench::place::{Place, free_addresses};
use crate::bench::process::{Program, said_by};
use crate::bench::template::Values;
use crate::bench::{http, interrupt, usage};
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a proxy may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long old nodes and old processes may stay in use.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// Nodes by name, and where they listen.
pub type Members = Vec<(String, SocketAddr)>;

/// A proxy that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours.
    Gapless,
    /// With an access log, as all below that do not say otherwise.
    Haproxy,
    Nginx,
    Caddy,
    Apache,
    /// Without an access log: shows what the log costs.
    HaproxyUnlogged,
    /// The same of nginx.
    NginxUnlogged,
}

impl Kind {
    /// All, in the order in which they are measured and shown.
    pub const ALL: [Kind; 7] =
        [Kind::Gapless, Kind::Haproxy, Kind::Nginx, Kind::Caddy, Kind::Apache, Kind::HaproxyUnlogged, Kind::NginxUnlogged];

    /// As it stands in the results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gapless => "gapless",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Caddy => "caddy",
            Kind::Apache => "apache",
            Kind::HaproxyUnlogged => "haproxy-unlogged",
            Kind::NginxUnlogged => "nginx-unlogged",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What the program says of its version, in one line.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn version(self) -> Result<String, String> {
        let (program, argument) = match self {
            Kind::Gapless => return Ok(env!("CARGO_PKG_VERSION").to_string()),
            Kind::Haproxy | Kind::HaproxyUnlogged => ("haproxy", "-v"),
            // nginx prints its version on standard error alone.
            Kind::Nginx | Kind::NginxUnlogged => ("sh", "-c"),
            Kind::Caddy => ("caddy", "version"),
            Kind::Apache => (apache::PROGRAM, "-v"),
        };
        let mut command = tool(program);
        command.arg(argument);
        if program == "sh" {
            command.arg("nginx -v 2>&1");
        }
        let said = said_by(&mut command, START_PATIENCE)?;
        Ok(said.lines().next().unwrap_or_default().trim().to_string())
    }
}

/// What every proxy is given.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// The repository.
    pub root: &'a Path,
    /// The folder of the run.
    pub place: &'a Place,
    /// Our program.
    pub program: &'a Path,
    /// A PEM file with a certificate and its key.
    pub certificate: &'a Path,
    /// The nodes that get the traffic.
    pub members: Members,
    /// Nodes that may get it later. Only proxies that want to know them from the start are told.
    pub standby: Members,
    /// Ours may send again and hold.
    pub retry_and_hold: bool,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Which it is.
    pub kind: Kind,
    /// Its processes.
    pub program: Program,
    /// Whether it listens with TLS; if not: not yet.
    pub tls: bool,
    /// What it was given.
    site: Site,
    /// Ours counts its routes.
    generation: u64,
    /// And the releases behind it.
    release: u64,
}

impl Running {
    /// Where it speaks HTTP/1.1.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// Where it speaks HTTP/1.1 and HTTP/2 with TLS.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.then_some(self.site.tls_address)
    }

    /// Gives the traffic of the nodes `from` to the nodes `to`, which answer, in the way that its documentation recommends. When this returns nothing needs the old ones.
    ///
    /// # Errors
    /// When it refuses, or the old nodes are still in use after half a minute.
    pub fn switch(&mut self, from: &Members, to: &Members) -> Result<(), String> {
        match self.kind {
            Kind::Gapless => gapless::switch(self, from, to),
            Kind::Haproxy | Kind::HaproxyUnlogged => haproxy::switch(self, from, to),
            Kind::Nginx | Kind::NginxUnlogged => nginx::switch(self, to),
            Kind::Caddy => caddy::switch(self, to),
            Kind::Apache => apache::switch(self, from, to),
        }
    }

    /// The same without waiting for anything, as somebody does who has read nothing: HAProxy only.
    ///
    /// # Errors
    /// When it refuses.
    pub fn switch_naively(&mut self, from: &Members, to: &Members) -> Result<(), String> {
        haproxy::switch_naively(self, from, to)
    }

    /// Replaces the processes that serve by fresh ones, and waits until the old ones are gone.
    ///
    /// # Errors
    /// When it refuses, or old ones stay for half a minute.
    pub fn upgrade(&mut self) -> Result<(), String> {
        match self.kind {
            Kind::Gapless => gapless::upgrade(self),
            Kind::Haproxy | Kind::HaproxyUnlogged => self.replace_children(Signal::USR2),
            Kind::Nginx | Kind::NginxUnlogged => self.replace_children(Signal::HUP),
            Kind::Caddy => caddy::load(self, &self.site.members.clone()),
            Kind::Apache => self.replace_children(Signal::USR1),
        }
    }

    /// What ours recorded of requests that were sent again or held; none of others.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn record(&self) -> Result<Option<Value>, String> {
        if self.kind == Kind::Gapless { gapless::record(self).map(Some) } else { Ok(None) }
    }

    /// Sends a signal that makes the first process replace its children.
    fn replace_children(&self, signal: Signal) -> Result<(), String> {
        let first = self.program.pid();
        let old: Vec<i32> = self.program.processes().into_iter().filter(|pid| *pid != first).collect();
        self.program.signal(signal)?;
        let gone = || Ok((!old.iter().any(|pid| self.program.has(*pid))).then_some(()));
        interrupt::wait_for("the end of the old processes", DRAIN_PATIENCE, gone)
    }
}

/// Starts a proxy and waits until it answers from a node.
///
/// # Errors
/// When it cannot be started, or does not answer in time.
pub fn start(kind: Kind, setup: &Setup) -> Result<Running, String> {
    let [address, tls_address] = free_addresses()?;
    let site = Site {
        root: setup.root.to_path_buf(),
        folder: setup.place.fresh_folder(kind.name())?,
        program: setup.program.to_path_buf(),
        certificate: setup.certificate.to_path_buf(),
        members: setup.members.clone(),
        standby: setup.standby.clone(),
        retry_and_hold: setup.retry_and_hold,
        logged: !matches!(kind, Kind::HaproxyUnlogged | Kind::NginxUnlogged),
        address,
        tls_address,
    };
    let program = match kind {
        Kind::Gapless => gapless::start(&site)?,
        Kind::Haproxy | Kind::HaproxyUnlogged => haproxy::start(&site)?,
        Kind::Nginx | Kind::NginxUnlogged => nginx::start(&site)?,
        Kind::Caddy => caddy::start(&site)?,
        Kind::Apache => apache::start(&site)?,
    };
    let mut running = Running { kind, program, tls: true, site, generation: 0, release: 1 };
    if kind == Kind::Gapless {
        gapless::begin(&mut running)?;
    }
    interrupt::wait_for(kind.name(), START_PATIENCE, || {
        if !running.program.is_running() {
            return Err(format!("{} ended at once: {}", kind.name(), last_lines(&running.site.log())));
        }
        Ok(http::get(address, "/healthz").ok().filter(|answer| answer.status == 200))
    })?;
    match kind {
        Kind::Haproxy | Kind::HaproxyUnlogged => haproxy::rest_standby(&running)?,
        Kind::Apache => apache::rest_standby(&running)?,
        _ => {}
    }
    Ok(running)
}

/// What one proxy is given: its folder and its addresses.
#[derive(Clone, Debug)]
struct Site {
    root: PathBuf,
    folder: PathBuf,
    program: PathBuf,
    certificate: PathBuf,
    members: Members,
    standby: Members,
    retry_and_hold: bool,
    logged: bool,
    address: SocketAddr,
    tls_address: SocketAddr,
}

impl Site {
    /// Where what it prints goes.
    fn log(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    /// The values that all templates use, with these members.
    fn values(&self, members: &[(String, SocketAddr)]) -> Values {
        let members = members.iter().map(|(name, address)| (name.clone(), address.to_string()));
        Values::default()
            .with("folder", self.folder.display())
            .with("address", self.address)
            .with("tls_address", self.tls_address)
            .with("certificate", self.certificate.display())
            .with("threads", usage::cores())
            .members(members.collect())
    }

    /// Those that get the traffic, and those that may later.
    fn all(&self) -> Members {
        self.members.iter().chain(&self.standby).cloned().collect()
    }

    fn write(&self, template: &str, values: &Values) -> Result<PathBuf, String> {
        crate::bench::template::write(&self.root, template, values, &self.folder)
    }
}

/// A program, also one that stands where only root's PATH has it.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// The end of what a program printed.
pub fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
