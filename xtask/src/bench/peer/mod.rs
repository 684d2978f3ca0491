//! The proxies that are compared, each started with its own configuration from `bench/proxy`.

mod apache;
mod caddy;
mod gapless;
mod haproxy;
mod nginx;

pub use nginx::backend;

use crate::bench::place::{Place, free_addresses};
use crate::bench::process::{Program, said_by};
use crate::bench::template::Values;
use crate::bench::{http, interrupt, usage};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a proxy may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(10);

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
    /// The nodes.
    pub members: Members,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Which it is.
    pub kind: Kind,
    /// Its processes.
    pub program: Program,
    /// Where it speaks HTTP/1.1.
    pub address: SocketAddr,
    /// Where it speaks HTTP/1.1 and HTTP/2 with TLS; none: not yet.
    pub tls_address: Option<SocketAddr>,
}

/// Starts a proxy and waits until it answers from a node.
///
/// # Errors
/// When it cannot be started, or does not answer in time.
pub fn start(kind: Kind, setup: &Setup) -> Result<Running, String> {
    let folder = setup.place.folder(kind.name())?;
    let [address, tls_address] = free_addresses()?;
    let site = Site { setup, folder: &folder, address, tls_address };
    let (program, tls) = match kind {
        Kind::Gapless => gapless::start(&site)?,
        Kind::Haproxy => (haproxy::start(&site, true)?, true),
        Kind::HaproxyUnlogged => (haproxy::start(&site, false)?, true),
        Kind::Nginx => (nginx::start(&site, true)?, true),
        Kind::NginxUnlogged => (nginx::start(&site, false)?, true),
        Kind::Caddy => (caddy::start(&site)?, true),
        Kind::Apache => (apache::start(&site)?, true),
    };
    let mut running = Running { kind, program, address, tls_address: tls.then_some(tls_address) };
    interrupt::wait_for(kind.name(), START_PATIENCE, || {
        if !running.program.is_running() {
            return Err(format!("{} ended at once: {}", kind.name(), last_lines(&site.log())));
        }
        Ok(http::get(address, "/healthz").ok().filter(|answer| answer.status == 200))
    })?;
    Ok(running)
}

/// What one proxy is given: its folder and its addresses.
struct Site<'a> {
    setup: &'a Setup<'a>,
    folder: &'a Path,
    address: SocketAddr,
    tls_address: SocketAddr,
}

impl Site<'_> {
    /// Where what it prints goes.
    fn log(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    /// The values that all templates use.
    fn values(&self) -> Values {
        let members = self.setup.members.iter().map(|(name, address)| (name.clone(), address.to_string()));
        Values::default()
            .with("folder", self.folder.display())
            .with("address", self.address)
            .with("tls_address", self.tls_address)
            .with("certificate", self.setup.certificate.display())
            .with("threads", usage::cores())
            .members(members.collect())
    }

    fn write(&self, template: &str, values: &Values) -> Result<PathBuf, String> {
        crate::bench::template::write(self.setup.root, template, values, self.folder)
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
