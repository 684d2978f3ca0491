//! The server as a whole: what all handlers share, the tasks beside them, the socket.

use crate::api;
use crate::build::Builds;
use crate::git;
use crate::hosts::Hosts;
use crate::parts::Parts;
use crate::problem::Refused;
use crate::project::{self, Project};
use crate::prune;
use crate::receipt::SigningKey;
use crate::receipts;
use crate::record::RecordKeeper;
use crate::stories::Stories;
use gapless_core::name::ServiceName;
use gapless_engine::error::{Context, Error};
use gapless_engine::store::Artifact;
use gapless_wire::api::{SERVER_SOCKET, ServerStatus};
use gapless_wire::artifact::OCI_IMAGE;
use hyper_util::rt::TokioIo;
use rustix::fs::Mode;
use std::future::Future;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, RwLock, watch};
use tokio::task::JoinSet;

/// How long requests may still run when the server is told to stop. Streams of rollouts are among them, and their readers pick up again.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The first pause after a connection could not be taken: without one, a process without free descriptors would do nothing else. It doubles up to [`ACCEPT_PAUSE_LIMIT`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The longest such pause: how long descriptors may be free again before a client is answered.
const ACCEPT_PAUSE_LIMIT: Duration = Duration::from_secs(1);

/// The server.
pub struct Server {
    pub(crate) parts: Parts,
    pub(crate) key: SigningKey,
    pub(crate) keeper: Arc<RecordKeeper>,
    pub(crate) builds: Builds,
    pub(crate) hosts: Hosts,
    pub(crate) stories: Stories,
    pub(crate) stopping: watch::Sender<bool>,
    /// Held for reading by whoever builds or declares an image, for writing while images are freed.
    pub(crate) images_in_use: RwLock<()>,
    /// Held by whoever declares services or tries them again: what moves together is begun as a whole, and two of those never wait for each other crosswise.
    pub(crate) beginning: Mutex<()>,
    /// Held by whoever frees images: one after the other.
    pub(crate) pruning: Mutex<()>,
    /// Counts up with every receipt that was stored.
    pub(crate) receipts_made: watch::Sender<u64>,
    started_ms: u64,
}

impl Server {
    /// A server over these parts. The engine runs already; the state folder exists and belongs to this server alone (the store's lock sees to that).
    ///
    /// # Errors
    /// When the installation's key cannot be read or made.
    pub fn new(parts: Parts) -> Result<Arc<Server>, Error> {
        let key = SigningKey::open(&parts.state.join("keys")).map_err(|error| {
            Error::new(error.to_string()).hint("receipts are signed with it; without a backup, move it away and a new one is made")
        })?;
        let keeper = parts.keeper.clone();
        let started_ms = parts.clock.now().0;
        let builds = Builds::new(parts.state.join("builds"));
        let stories = Stories::new(&parts.engine, parts.journal.clone());
        Ok(Arc::new(Server {
            parts,
            key,
            keeper,
            builds,
            hosts: Hosts::default(),
            stories,
            stopping: watch::Sender::new(false),
            images_in_use: RwLock::default(),
            beginning: Mutex::default(),
            pruning: Mutex::default(),
            receipts_made: watch::Sender::new(0),
            started_ms,
        }))
    }

    /// Listens on `<state>/server.sock` until `until` is over, then ends in order. Nodes and proxies go on.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn run(self: Arc<Self>, until: impl Future<Output = ()>) -> Result<(), Error> {
        let listener = listen(&self.socket()).await?;
        let receipts = tokio::spawn(receipts::keep(self.clone()));
        let images = tokio::spawn(prune::keep(self.clone()));
        let mut conversations = JoinSet::new();
        let mut failures = 0;
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => break,
                stream = accept(&listener, &mut failures) => drop(conversations.spawn(converse(self.clone(), stream))),
                Some(_) = conversations.join_next() => {}
            }
        }
        drop(listener);
        let _ = std::fs::remove_file(self.socket());
        self.stopping.send_replace(true);
        self.parts.engine.stop().await;
        let rest = async {
            let _ = (receipts.await, images.await);
            while conversations.join_next().await.is_some() {}
        };
        if tokio::time::timeout(STOP_GRACE, rest).await.is_err() {
            tracing::warn!("requests that have not ended are broken off");
        }
        Ok(())
    }

    /// Ends when the server is told to stop.
    pub(crate) async fn stopped(&self) {
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.parts.state.join(SERVER_SOCKET)
    }

    pub(crate) fn status(&self) -> ServerStatus {
        ServerStatus {
            version: env!("CARGO_PKG_VERSION").to_string(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            state: self.parts.state.clone(),
            installation: self.parts.installation.clone(),
            proxies: self.parts.proxies.clone(),
            key: self.key.public(),
        }
    }

    /// A service whose journal cannot be used, by its full name, and why.
    pub(crate) fn lost(&self, name: &str) -> Option<(ServiceName, Error)> {
        self.parts.engine.lost_services().into_iter().find(|(service, _)| service.to_string() == name)
    }

    /// A service that was declared, by its full name.
    pub(crate) fn service(&self, name: &str) -> Result<ServiceName, Refused> {
        let unknown = || crate::problem::unknown_service(name, &self.parts.engine);
        if let Some((_, error)) = self.lost(name) {
            return Err(error.into());
        }
        let service: ServiceName = name.parse().map_err(|_| unknown())?;
        self.parts.engine.state(&service).map(|_| service).ok_or_else(unknown)
    }

    /// The project at a commit: the full commit id and what its `gapless.hcl` says.
    pub(crate) async fn project(&self, folder: &Path, commit: &str) -> Result<(String, Project), Refused> {
        if !folder.is_absolute() {
            return Err(Refused::bad_request(
                format!("{} is no absolute path", folder.display()),
                "name the project's folder from the root on",
            ));
        }
        let commit = git::resolve(folder, commit).await?;
        let text = git::text_of(folder, &commit, project::FILE).await?;
        Ok((commit, Project::parse(project::FILE, &text)?))
    }

    /// All artifacts, or those of one name.
    pub(crate) async fn artifacts(&self, name: Option<String>) -> Result<Vec<Artifact>, Error> {
        self.stored(move |records| records.artifacts(name.as_deref())).await.context(|| "reading the artifacts".to_string())
    }

    /// The artifacts of one name that nodes can be made from here. Other kinds of the same name are numbered apart.
    pub(crate) async fn images(&self, name: String) -> Result<Vec<Artifact>, Error> {
        let mut artifacts = self.artifacts(Some(name)).await?;
        artifacts.retain(|artifact| artifact.kind == OCI_IMAGE);
        Ok(artifacts)
    }

    /// A call to the store, where it holds nothing else up.
    pub(crate) async fn stored<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn gapless_engine::store::Records) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let records = self.parts.records.clone();
        let joined = tokio::task::spawn_blocking(move || call(records.as_ref())).await;
        joined.unwrap_or_else(|error| Err(Error::new(format!("a call to the store did not end: {error}"))))
    }
}

/// A socket that only this user may open from its first moment on.
async fn listen(path: &Path) -> Result<UnixListener, Error> {
    let context = || format!("listening on {}", path.display());
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(Error::new("something that is no socket has its name").hint("move it away").context(context()));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::new("another server answers there")
                .hint("one server per state folder: stop the other, or use another `--state`")
                .context(context()));
        }
        std::fs::remove_file(path).context(context)?;
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound.context(context)
}

/// The next connection. `failures` counts how often in a row one could not be taken.
async fn accept(listener: &UnixListener, failures: &mut u32) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                *failures = 0;
                return stream;
            }
            Err(error) => {
                let pause = accept_pause(*failures);
                tracing::error!(%error, ?pause, "a connection could not be taken");
                *failures = failures.saturating_add(1);
                // Nothing tells when a descriptor is free again.
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn accept_pause(failures: u32) -> Duration {
    ACCEPT_PAUSE.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(ACCEPT_PAUSE_LIMIT)
}

/// Answers on one connection. When the server stops, it ends with the answer that is on its way.
async fn converse(server: Arc<Server>, stream: UnixStream) {
    let service = hyper::service::service_fn(|request| api::answer(server.clone(), request));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = server.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client went away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_a_connection_that_could_not_be_taken_grows_to_its_limit() {
        let pauses: Vec<u128> = [0, 1, 6, 7, 40, u32::MAX].into_iter().map(|failures| accept_pause(failures).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 640, 1_000, 1_000, 1_000]);
    }
}
