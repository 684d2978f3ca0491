//! The way from a commit to an image, readable from top to bottom: base, provision, application, image.

use crate::application;
use crate::base::{Base, BaseCache};
use crate::commit::Commit;
use crate::manifest::Manifest;
use crate::progress::{Listener, Phase, Step};
use crate::provision::{self, Provision, Provisioned, blocking};
use crate::spec::ImageSpec;
use crate::unpack::ImageStore;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error};
use gapless_engine::workbench::Workbench;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Builds images for an installation.
#[derive(Clone)]
pub struct Builder {
    images: ImageStore,
    cache: BaseCache,
    folder: PathBuf,
    workbench: Arc<dyn Workbench>,
}

/// An image that was built, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The digest of its manifest.
    pub image: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<BuiltLayer>,
    /// What the first run of Puppet changed, such as `Package[apache2]`; also when the layer was reused.
    pub changes: Vec<String>,
    /// Commit, layers and provenance, for the artifact.
    pub metadata: BTreeMap<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// A layer of an image that was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltLayer {
    /// The phase that makes it.
    pub phase: Phase,
    /// Its digest.
    pub digest: Digest,
    /// Whether it was there already.
    pub reused: bool,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Builder {
    /// For the images of an installation, with its build records and work in `folder` and the base systems in `cache`, which installations may share.
    /// What builds left behind that ended with their server is removed: one builder at a time works for an installation.
    ///
    /// # Errors
    /// When the folder cannot be made, or what was left cannot be removed.
    pub fn open(images: ImageStore, cache: BaseCache, folder: &Path, workbench: Arc<dyn Workbench>) -> Result<Self, Error> {
        fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .context(|| format!("closing {}", folder.display()))?;
        provision::remove_work(folder)?;
        images.blobs.remove_unfinished()?;
        Ok(Self { images, cache: cache.kept_by(workbench.clone()), folder: folder.into(), workbench })
    }

    /// The layers that the next build of the same inputs would use again, whether they are there or not.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn layers(&self) -> Result<BTreeSet<Digest>, Error> {
        provision::recorded(&self.folder)
    }

    /// Builds the image of a commit. Its log is written to `build.log` in `logs`, beside the outputs of the programs that ran.
    ///
    /// # Errors
    /// [`gapless_engine::error::ErrorKind::Invalid`] when the project is at fault, with the tool's own message; and when anything cannot be made.
    pub async fn build(&self, commit: &Commit, spec: &ImageSpec, logs: &Path, listener: &Listener) -> Result<Built, Error> {
        let started = Instant::now();
        fs::create_dir_all(logs).context(|| format!("making {}", logs.display()))?;
        let listener = &logged(listener, &logs.join("build.log"))?;

        let base = self.base(spec, listener).await?;
        let provisioned = self.provision(commit, spec, &base.value, logs, listener).await?;
        let application = self.application(commit, spec, &base, provisioned.as_ref(), listener).await?;

        let mut layers = vec![base.layer(Phase::Base)];
        layers.extend(provisioned.as_ref().map(|made| made.layer(Phase::Provision)));
        layers.extend(application.map(|made| made.layer(Phase::Application)));
        let image = self.image(&layers, listener).await?;
        let metadata = self.metadata(commit, &base.value, provisioned.as_ref().map(|made| &made.value), &layers)?;
        let changes = provisioned.map(|made| made.value.changes).unwrap_or_default();
        Ok(Built { image, layers, changes, metadata, took: started.elapsed() })
    }

    async fn base(&self, spec: &ImageSpec, listener: &Listener) -> Result<Made<Base>, Error> {
        let (cache, blobs, spec, told) = (self.cache.clone(), self.images.blobs.clone(), spec.base.clone(), listener.clone());
        phase(Phase::Base, listener, async {
            blocking(move || {
                let (base, reused) = cache.base(&spec, &told)?;
                let digest = base.layer()?;
                blobs.adopt(&cache.blobs, digest)?;
                Ok(Made { value: base, digest, reused })
            })
            .await
        })
        .await
        .context(|| "building the base".into())
    }

    async fn provision(
        &self,
        commit: &Commit,
        spec: &ImageSpec,
        base: &Base,
        logs: &Path,
        listener: &Listener,
    ) -> Result<Option<Made<Provisioned>>, Error> {
        let Some(packer) = &spec.packer else { return Ok(None) };
        let made = phase(Phase::Provision, listener, async {
            let base_tree = self.tree(base.layer()?).await?;
            let provision = Provision {
                workbench: self.workbench.as_ref(),
                cache: &self.cache,
                blobs: &self.images.blobs,
                folder: &self.folder,
                commit,
                spec: packer,
                base,
                base_tree: &base_tree,
                logs,
                listener,
            };
            let (value, reused) = provision.run().await?;
            Ok(Made { digest: value.layer()?, value, reused })
        });
        made.await.map(Some)
    }

    async fn application(
        &self,
        commit: &Commit,
        spec: &ImageSpec,
        base: &Made<Base>,
        provisioned: Option<&Made<Provisioned>>,
        listener: &Listener,
    ) -> Result<Option<Made<()>>, Error> {
        let Some(application) = spec.application.clone() else { return Ok(None) };
        let below: Vec<Digest> = std::iter::once(base.digest).chain(provisioned.map(|made| made.digest)).collect();
        let (images, commit) = (self.images.clone(), commit.clone());
        let made = phase(Phase::Application, listener, async {
            blocking(move || {
                let trees = below.into_iter().map(|layer| images.trees.tree(&images.blobs, layer)).collect::<Result<Vec<_>, _>>()?;
                let digest = application::build(&images.blobs, &commit, &application, &trees)?;
                Ok(Made { value: (), digest, reused: false })
            })
            .await
        });
        made.await.map(Some).context(|| "building the application layer".into())
    }

    async fn image(&self, layers: &[BuiltLayer], listener: &Listener) -> Result<Digest, Error> {
        let (images, digests) = (self.images.clone(), layers.iter().map(|layer| layer.digest).collect::<Vec<_>>());
        let made = phase(Phase::Image, listener, async {
            blocking(move || {
                let digest = Manifest::write(&images.blobs, &digests)?;
                // Here and not at the first node: a person who waits for a build expects to wait for it.
                images.unpack(digest)?;
                Ok(Made { value: (), digest, reused: false })
            })
            .await
        });
        Ok(made.await?.digest)
    }

    async fn tree(&self, layer: Digest) -> Result<PathBuf, Error> {
        let images = self.images.clone();
        blocking(move || images.trees.tree(&images.blobs, layer)).await
    }

    fn metadata(
        &self,
        commit: &Commit,
        base: &Base,
        provisioned: Option<&Provisioned>,
        layers: &[BuiltLayer],
    ) -> Result<BTreeMap<String, String>, Error> {
        let packages = provisioned.map_or(&base.packages, |provisioned| &provisioned.packages);
        let list = self.images.blobs.put_bytes(packages.join("\n").as_bytes())?;
        let mut metadata: BTreeMap<String, String> =
            [("commit", commit.id().to_owned()), ("base.suite", base.suite.clone()), ("packages", list.to_string())]
                .map(|(name, value)| (name.into(), value))
                .into();
        metadata.extend(layers.iter().map(|layer| (format!("layer.{}", layer.phase), layer.digest.to_string())));
        if let Some(version) = provisioned.and_then(|provisioned| provisioned.puppet_version.clone()) {
            metadata.insert("puppet.version".into(), version);
        }
        Ok(metadata)
    }
}

struct Made<T> {
    value: T,
    digest: Digest,
    reused: bool,
}

impl<T> Made<T> {
    fn layer(&self, phase: Phase) -> BuiltLayer {
        BuiltLayer { phase, digest: self.digest, reused: self.reused }
    }
}

async fn phase<T>(phase: Phase, listener: &Listener, work: impl Future<Output = Result<Made<T>, Error>>) -> Result<Made<T>, Error> {
    let started = Instant::now();
    listener.tell(Step::Started(phase));
    let made = work.await?;
    listener.tell(Step::Finished { phase, reused: made.reused, digest: made.digest, took: started.elapsed() });
    Ok(made)
}

/// A listener that also writes each step into a log.
fn logged(listener: &Listener, path: &Path) -> Result<Listener, Error> {
    let file = File::create(path).context(|| format!("making the log {}", path.display()))?;
    let (file, listener, started) = (Mutex::new(file), listener.clone(), Instant::now());
    Ok(Listener::new(move |step| {
        let text = match &step {
            Step::Started(phase) => format!("== {phase}"),
            Step::Line(phase, text) => format!("{phase}: {text}"),
            Step::Finished { phase, reused, digest, took } => {
                format!("== {phase}: {digest} {} after {} ms", if *reused { "reused" } else { "made" }, took.as_millis())
            }
        };
        // A full disk must not stop a build that needs no more room for anything else.
        let seconds = started.elapsed().as_secs_f64();
        let _ = writeln!(file.lock().unwrap_or_else(PoisonError::into_inner), "{seconds:7.2} {text}");
        listener.tell(step);
    }))
}
