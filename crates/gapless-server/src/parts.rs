//! What the server stands on, and what it needs of the machine beside the engine.

use crate::prune::{Freed, Kept};
use crate::record::RecordKeeper;
use async_trait::async_trait;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_engine::error::Error;
use gapless_engine::platform::Platform;
use gapless_engine::store::{Artifact, Journal, Records};
use gapless_engine::{Engine, clock::Clock};
use gapless_wire::backup::Backup;
use gapless_wire::build::BuildLine;
use gapless_wire::doctor::Finding;
use gapless_wire::log::Log;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a server is made of.
#[derive(Clone)]
pub struct Parts {
    /// It moves nodes and traffic.
    pub engine: Engine,
    /// The engine's journal, read for stories and receipts; only the engine writes to it.
    pub journal: Arc<dyn Journal>,
    /// Artifacts, receipts and values.
    pub records: Arc<dyn Records>,
    /// Looked at for the status of nodes; never steered from here.
    pub platform: Arc<dyn Platform>,
    /// The time, the engine's own.
    pub clock: Arc<dyn Clock>,
    /// It makes images.
    pub builder: Arc<dyn Builder>,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// The admin sockets of the proxies' holders.
    pub proxies: Vec<PathBuf>,
    /// What these recorded. The engine's analyst reads the same.
    pub keeper: Arc<RecordKeeper>,
    /// The state folder.
    pub state: PathBuf,
    /// The installation's short unique id.
    pub installation: String,
}

/// One image of one commit that shall be built.
#[derive(Clone, Debug)]
pub struct BuildJob {
    /// The build's number.
    pub number: u64,
    /// The folder of the project's repository.
    pub repository: PathBuf,
    /// The full commit id.
    pub commit: String,
    /// `project/image`.
    pub artifact: String,
    /// What the image is made of.
    pub image: crate::project::ImageSettings,
    /// A folder for the build's own use, which exists and is empty.
    pub workspace: PathBuf,
}

/// Takes the lines of a build as they come.
pub type BuildSink = Arc<dyn Fn(BuildLine) + Send + Sync>;

/// Makes images.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Builds an image and publishes it. Phases and output go to `sink`; begin and end of the whole are told by the server.
    ///
    /// # Errors
    /// When a step fails; the error carries the tool's own message.
    async fn build(&self, job: BuildJob, sink: BuildSink) -> Result<Artifact, Error>;
}

/// The machine, as far as the API tells of it.
#[async_trait]
pub trait Host: Send + Sync {
    /// The logs of the service's nodes, those that are kept of nodes that are gone included; of one node if it is named.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn logs(&self, service: &ServiceName, node: Option<&str>) -> Result<Vec<Log>, Error>;

    /// Whether the image is there to make nodes from.
    ///
    /// # Errors
    /// When nobody can tell.
    async fn has_image(&self, image: Digest) -> Result<bool, Error>;

    /// Makes everything ready that nodes of this image need, which takes more time the less of it was there before.
    ///
    /// # Errors
    /// When the image is not there, or is not what its digest says; or there is no room.
    async fn make_ready(&self, image: Digest) -> Result<(), Error>;

    /// Frees every image and blob that is not kept and that no build would use again, or only counts them. Nothing is built or declared meanwhile.
    ///
    /// # Errors
    /// When something could not be read or removed.
    async fn prune(&self, kept: Kept, dry_run: bool) -> Result<Freed, Error>;

    /// What is not as it should be: missing tools, leftovers, tampered trees.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    async fn examine(&self) -> Result<Vec<Finding>, Error>;

    /// Removes leftovers that no live node explains, and says what it removed.
    ///
    /// # Errors
    /// When something could not be removed.
    async fn remove_leftovers(&self) -> Result<Vec<String>, Error>;

    /// Makes a backup of the installation: all that an empty machine needs to go on with it.
    ///
    /// # Errors
    /// When there is such a file, when there is no room, when something is damaged. Nothing is left then.
    async fn back_up(&self, file: &Path) -> Result<Backup, Error>;
}
