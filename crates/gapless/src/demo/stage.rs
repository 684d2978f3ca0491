//! What a demo runs on: its folders, its processes, and the certainty that they end.

use super::api::Api;
use super::family::Family;
use super::fault;
use super::folders::Folders;
use super::janitor::{self, Janitor};
use super::programs;
use gapless_engine::error::{Context, Error};
use gapless_wire::api::SERVER_SOCKET;
use gapless_wire::client::UnixClient;
use gapless_wire::record::Record;
use gapless_wire::route::ProxyStatus;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a process may take from its start to its first answer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How often a process that was just started is asked whether it is ready.
const READY_AGAIN: Duration = Duration::from_millis(10);

/// How long the proxy may take to answer: it has everything in memory.
const PROXY_WITHIN: Duration = Duration::from_secs(10);

/// How many lines of a dead process's output are shown.
const LAST_LINES: usize = 8;

/// The stage.
pub struct Stage {
    /// Its folders.
    pub folders: Folders,
    /// The program that runs.
    pub program: PathBuf,
    /// Where the proxy listens.
    pub address: SocketAddr,
    /// The server.
    pub api: Api,
    family: Family,
    server: Option<Child>,
    others: Vec<Child>,
    janitor: Option<Janitor>,
    _lock: File,
}

impl Stage {
    /// Takes the folders, cleans up what an earlier demo left, and has the janitor wait.
    ///
    /// # Errors
    /// When another demo runs there, or what it left cannot be removed.
    pub fn open(folders: Folders) -> Result<Stage, Error> {
        folders.check()?;
        let lock = lock(&folders)?;
        janitor::clean(&folders)?;
        folders.make()?;
        let program = programs::own()?;
        Ok(Stage {
            address: programs::free_address()?,
            api: Api::new(&folders.server().join(SERVER_SOCKET)),
            family: Family::open(&folders.root)?,
            janitor: Some(Janitor::start(&program, &folders)?),
            server: None,
            others: Vec::new(),
            program,
            folders,
            _lock: lock,
        })
    }

    /// Starts the proxy and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn start_proxy(&mut self) -> Result<(), Error> {
        let command = programs::proxy(&self.program, &self.folders.proxy(), self.address);
        let child = self.start("proxy", command, &self.folders.proxy_socket()).await?;
        self.others.push(child);
        Ok(())
    }

    /// Starts a process that answers on a socket, writes it down, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn start(&mut self, role: &str, mut command: Command, socket: &Path) -> Result<Child, Error> {
        let log = self.folders.logs().join(format!("{role}.log"));
        programs::beside(&mut command, &log)?;
        let mut child = command.spawn().context(|| format!("start the {role}"))?;
        self.family.add(role, child.id())?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if tokio::net::UnixStream::connect(socket).await.is_ok() {
                return Ok(child);
            }
            if let Some(status) = child.try_wait().context(|| format!("wait for the {role}"))? {
                return Err(Error::new(format!("the {role} ended with {status}:\n{}", last_lines(&log))));
            }
            if Instant::now() >= deadline {
                return Err(Error::new(format!("the {role} does not answer after {} s", READY_WITHIN.as_secs()))
                    .hint(format!("its output is in {}", log.display())));
            }
            tokio::time::sleep(READY_AGAIN).await;
        }
    }

    /// A process beside the others that ends with the demo.
    pub fn adopt(&mut self, child: Child) {
        self.others.push(child);
    }

    /// Writes a process down that was started elsewhere, so that it is ended with the demo.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn write_down(&mut self, role: &str, pid: Option<u32>) -> Result<(), Error> {
        let pid = pid.ok_or_else(|| Error::new(format!("the {role} ended as soon as it was started")))?;
        self.family.add(role, pid)
    }

    /// Starts the server and waits until it answers. With `hold` it stops for ever at that effect.
    ///
    /// # Errors
    /// When it ends or does not answer.
    pub async fn start_server(&mut self, hold: Option<&str>) -> Result<(), Error> {
        let command = programs::server(&self.program, &self.folders, hold);
        let socket = self.folders.server().join(SERVER_SOCKET);
        self.server = Some(self.start("server", command, &socket).await?);
        self.api.server().await.map(|_| ())
    }

    /// Kills the server at once and without warning (SIGKILL). Answers with its process id.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_server(&mut self) -> Result<u32, Error> {
        let mut server = self.server.take().ok_or_else(|| Error::new("there is no server to kill"))?;
        server.kill().and_then(|()| server.wait()).context(|| "kill the server".to_owned())?;
        Ok(server.id())
    }

    /// Everything goes on running.
    ///
    /// # Errors
    /// When the janitor is not there any more.
    pub fn keep(mut self) -> Result<(), Error> {
        self.janitor.take().map_or(Ok(()), Janitor::keep)
    }

    /// Everything is ended and removed. Answers with what was done.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn clean(mut self) -> Result<Vec<String>, Error> {
        let done = self.janitor.take().map_or(Ok(Vec::new()), Janitor::clean);
        for child in self.others.iter_mut().chain(self.server.iter_mut()) {
            // The janitor ended it; this only takes its exit status away.
            let _ = child.wait();
        }
        done
    }
}

/// What every worker of the proxy behind this socket recorded since it began.
///
/// # Errors
/// When one does not answer.
pub async fn records(socket: &Path) -> Result<(Vec<Record>, ProxyStatus), Error> {
    let status: ProxyStatus = UnixClient::new(socket).timeout(PROXY_WITHIN).get("/v1/proxy").await.map_err(fault::of_client)?;
    let mut records = Vec::new();
    for worker in &status.workers {
        let client = UnixClient::new(&worker.socket).timeout(PROXY_WITHIN);
        records.push(client.get("/v1/record?since=0").await.map_err(fault::of_client)?);
    }
    Ok((records, status))
}

/// One demo at a time in a folder. The lock is beside the folder, since the folder itself is removed.
fn lock(folders: &Folders) -> Result<File, Error> {
    std::fs::create_dir_all(&folders.cache).context(|| format!("make the folder {}", folders.cache.display()))?;
    let path = folders.cache.join("demo.lock");
    let file = File::create(&path).context(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::new(format!("another demo runs with the cache {}", folders.cache.display()))
            .hint("wait for it, or name other folders with --state and --cache")
    })?;
    Ok(file)
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
