//! What building an image needs of a platform: a node that may be changed, and a fenced place for other people's programs.

use crate::error::Error;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A build node that is wanted.
#[derive(Clone, Debug)]
pub struct BenchRequest {
    /// A name that is free, for people and for cleaning up: lower-case letters, digits and dashes, at most 32.
    pub name: String,
    /// Read-only trees, the lowest first, owners shifted.
    pub layers: Vec<PathBuf>,
    /// An empty folder that takes everything that the node changes (the overlay's upper directory).
    pub upper: PathBuf,
    /// The node's command, as root of its own user namespace.
    pub command: Vec<String>,
    /// Files put into the node before it starts, outside of `upper` (bind mounts, read-only): path in the node → file on the host.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Where the node's output goes.
    pub log: PathBuf,
}

/// An open build node.
#[derive(Clone, Debug)]
pub struct Bench {
    /// As requested.
    pub name: String,
    /// Where the host and sandboxed programs reach it.
    pub address: IpAddr,
}

/// A program that shall run fenced: as an ordinary user that owns nothing else, without any folder of the host but the system's programs and libraries
/// (read-only) and those named here, in its own process, mount and user namespace.
#[derive(Clone, Debug)]
pub struct SandboxRequest {
    /// A name that is free, as for a bench.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environment; nothing else is passed on.
    pub environment: BTreeMap<String, String>,
    /// Folders that the program sees read-only: path inside → folder on the host.
    pub readable: BTreeMap<PathBuf, PathBuf>,
    /// Folders that the program may write, made its own: path inside → folder on the host.
    pub writable: BTreeMap<PathBuf, PathBuf>,
    /// The folder that it starts in, a path inside.
    pub working_directory: PathBuf,
    /// Which bench it may reach over the network, if any; beside that one it reaches nothing of the host.
    pub bench: Option<String>,
    /// Where its output goes, both streams together, line by line as they come.
    pub log: PathBuf,
    /// It is ended then.
    pub deadline: Duration,
}

/// How a sandboxed program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxEnd {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal.
    Killed,
    /// At its deadline.
    DeadlinePassed,
}

/// Lends build nodes and sandboxes. After a crash, the next start of the installation ends and removes all that were left.
#[async_trait]
pub trait Workbench: Send + Sync {
    /// Starts a build node that reaches outward (package mirrors) and is reached only from the host and its sandboxes.
    ///
    /// # Errors
    /// When it cannot be made.
    async fn open(&self, request: BenchRequest) -> Result<Bench, Error>;

    /// Stops a build node and removes everything of it but `upper` and `log`. Closing one that is not there does nothing.
    ///
    /// # Errors
    /// When something of it could not be removed.
    async fn close(&self, name: &str) -> Result<(), Error>;

    /// Runs a program fenced, to its end. When the returned future is dropped, the program is ended.
    ///
    /// # Errors
    /// When it could not be started.
    async fn run(&self, request: SandboxRequest) -> Result<SandboxEnd, Error>;

    /// Makes a program that the caller runs itself (mmdebstrap, git) one of the server's helpers: should the server be killed, its next start ends it. To be called before the
    /// command is spawned.
    ///
    /// # Errors
    /// When it cannot be.
    fn adopt(&self, command: &mut std::process::Command) -> Result<(), Error> {
        let _ordinary_child = command;
        Ok(())
    }
}
