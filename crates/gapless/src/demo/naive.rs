//! The way without gapless: what a plain `create_before_destroy` amounts to. New nodes are created, the route is swapped, the old nodes are destroyed at once. No gate, no drain.
//!
//! It uses the platform and a proxy of its own directly. Neither the core nor the engine knows of it.

use super::leftover::RUNTIME;
use super::project::SERVICE;
use super::seen::{Stretch, now_ms};
use super::witness::Observer;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::route::{Generation, Route, Weight};
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Context, Error};
use gapless_engine::platform::{Declarations, Platform};
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::{LocalOptions, LocalPlatform};
use gapless_server::project::Project;
use gapless_wire::artifact::Artifact;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the first nodes may take until they answer: they are not part of the comparison.
const FIRST_WITHIN: Duration = Duration::from_secs(60);

/// The longest single wait for news of the first nodes.
const NEWS_WITHIN: Duration = Duration::from_secs(1);

/// A service that is moved without any care.
pub struct Naive {
    platform: LocalPlatform,
    service: ServiceName,
    declarations: Declarations,
    generation: Generation,
}

/// Where a naive run finds what it needs.
pub struct Ground<'a> {
    /// The state folder of its platform.
    pub state: PathBuf,
    /// Its proxy's admin socket.
    pub proxy: PathBuf,
    /// The images of the server.
    pub images: PathBuf,
    /// The text of the project's `gapless.hcl`.
    pub settings: &'a str,
}

impl Naive {
    /// A platform of its own, on the images that the server has. Like a plain load balancer, its proxy neither sends a request again nor holds one.
    ///
    /// # Errors
    /// When the platform cannot be opened, or the settings are not the demo's.
    pub async fn open(ground: Ground<'_>, artifacts: &[Artifact]) -> Result<Naive, Error> {
        let images = Arc::new(ImageStore::open(&ground.images)?);
        let usual = LocalOptions::new(ground.state, installation()?, vec![ground.proxy], images);
        let options = LocalOptions { retry: false, hold: Duration::ZERO, runtime: RUNTIME.to_owned(), ..usual };
        let declarations =
            (1..).zip(artifacts).map(|(number, artifact)| Ok((ReleaseNumber(number), declaration(ground.settings, artifact)?)));
        Ok(Naive {
            declarations: declarations.collect::<Result<Declarations, Error>>()?,
            platform: LocalPlatform::open(options).await?,
            service: SERVICE.parse::<ServiceName>().map_err(|error| Error::new(error.to_string()))?,
            generation: Generation::default(),
        })
    }

    /// The first release, brought up with care: there has to be something to lose.
    ///
    /// # Errors
    /// When its nodes do not come up.
    pub async fn begin(&mut self) -> Result<(), Error> {
        let nodes = self.create(ReleaseNumber(1)).await?;
        self.route(&nodes).await?;
        let deadline = Instant::now() + FIRST_WITHIN;
        loop {
            let seen = self.platform.observe(&self.service).await?;
            if nodes.iter().all(|node| seen.nodes.get(node).is_some_and(|node| node.is_healthy())) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::new("the nodes of the naive run do not answer"));
            }
            self.platform.changed(&self.service, NEWS_WITHIN).await;
        }
    }

    /// Creates the new nodes, swaps the route, destroys the old nodes.
    ///
    /// # Errors
    /// When the platform cannot do it.
    pub async fn swap(&mut self) -> Result<(), Error> {
        let new = self.create(ReleaseNumber(2)).await?;
        self.route(&new).await?;
        let old = self.nodes(ReleaseNumber(1))?;
        self.platform.destroy_nodes(&self.service, &old).await
    }

    async fn create(&self, release: ReleaseNumber) -> Result<BTreeSet<NodeId>, Error> {
        let declaration = self.declaration(release)?;
        self.platform.ensure_group(declaration.clone(), group(release), declaration.nodes).await?;
        self.nodes(release)
    }

    async fn route(&mut self, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        self.generation = self.generation.next();
        let members = nodes.iter().map(|node| (*node, Weight::EQUAL)).collect();
        let route = Route { generation: self.generation, members };
        self.platform.route(&self.service, &route, &self.declarations).await
    }

    fn nodes(&self, release: ReleaseNumber) -> Result<BTreeSet<NodeId>, Error> {
        let count = self.declaration(release)?.nodes;
        Ok((0..count).map(|ordinal| group(release).node(ordinal)).collect())
    }

    fn declaration(&self, release: ReleaseNumber) -> Result<&Arc<ServiceDeclaration>, Error> {
        self.declarations.get(&release).ok_or_else(|| Error::new(format!("the naive run has no artifact for {release}")))
    }
}

/// Swaps under the eyes of the witness. Answers with the stretch of the swap: from the first new node to the last old one gone.
///
/// # Errors
/// When the swap cannot be done, or the witness sees no traffic.
pub async fn swap_watched(naive: &mut Naive, observer: &mut Observer) -> Result<Stretch, Error> {
    observer.quiet().await?;
    let from_ms = now_ms();
    naive.swap().await?;
    let swap = Stretch { from_ms, until_ms: now_ms() };
    observer.quiet().await?;
    Ok(swap)
}

fn group(release: ReleaseNumber) -> GroupId {
    GroupId { release, instance: InstanceId(u64::from(release.0)) }
}

fn declaration(settings: &str, artifact: &Artifact) -> Result<Arc<ServiceDeclaration>, Error> {
    let project = Project::parse("gapless.hcl", settings).map_err(|faults| Error::new(faults.to_string()))?;
    let (name, service) = project.services.first_key_value().ok_or_else(|| Error::new("the project has no service"))?;
    let image = artifact.image.parse().map_err(|_| Error::new(format!("{} is no digest", artifact.image)))?;
    let declared = service.declaration(&project.name, name, ArtifactVersion(artifact.version), image);
    declared.map(Arc::new).map_err(|error| Error::new(error.to_string()))
}

/// An id for the naive run's own nodes and networks.
fn installation() -> Result<String, Error> {
    let mut bytes = [0; 3];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .context(|| "choose an id for the naive run".to_owned())?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}

/// The project's settings as they are in its repository.
///
/// # Errors
/// When they cannot be read.
pub fn settings(project: &Path) -> Result<String, Error> {
    let path = project.join("gapless.hcl");
    std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))
}
