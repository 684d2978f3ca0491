//! This machine, as the server's API tells of it.

use super::{backup, doctor};
use async_trait::async_trait;
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::Images;
use gapless_images::build::Builder;
use gapless_images::unpack::ImageStore;
use gapless_platforms::local::LocalPlatform;
use gapless_server::parts::Host;
use gapless_server::prune::{Freed, Kept};
use gapless_store::SqliteStore;
use gapless_wire::backup::Backup;
use gapless_wire::doctor::Finding;
use gapless_wire::log::{LOG_LIMIT, Log};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The machine of a local platform.
pub struct LocalHost {
    pub platform: LocalPlatform,
    pub images: ImageStore,
    pub builder: Builder,
    pub store: Arc<SqliteStore>,
    pub state: PathBuf,
    pub installation: String,
    pub runtime: String,
    pub proxies: Vec<PathBuf>,
}

#[async_trait]
impl Host for LocalHost {
    async fn logs(&self, service: &ServiceName, node: Option<&str>) -> Result<Vec<Log>, Error> {
        let mut kept = self.platform.outputs(service)?;
        kept.retain(|output| node.is_none_or(|name| output.of == name));
        let logs = kept.into_iter().map(|output| read(output.of, &output.path, output.exists)).collect::<Result<Vec<_>, Error>>()?;
        match node {
            Some(name) if logs.is_empty() => {
                let hint = "`gapless logs` without a node lists what is kept: the output of nodes that are gone is kept for a while only";
                Err(Error::new(format!("there is no output of node {name} of {service}")).kind(ErrorKind::NotFound).hint(hint))
            }
            _ => Ok(logs),
        }
    }

    async fn has_image(&self, image: Digest) -> Result<bool, Error> {
        Ok(self.images.blobs.contains(image))
    }

    async fn make_ready(&self, image: Digest) -> Result<(), Error> {
        self.images.unpacked(image).await.map(drop)
    }

    async fn prune(&self, kept: Kept, dry_run: bool) -> Result<Freed, Error> {
        let (images, builder) = (self.images.clone(), self.builder.clone());
        let freed = tokio::task::spawn_blocking(move || {
            let blobs = kept.blobs.into_iter().chain(builder.layers()?).collect();
            let pruned = images.prune(&kept.images, &blobs, dry_run)?;
            Ok(Freed { trees: pruned.trees.len() as u64, blobs: pruned.blobs.len() as u64, bytes: pruned.bytes })
        });
        freed.await.map_err(|error| Error::new(format!("the freeing of images did not end: {error}")))?
    }

    async fn examine(&self) -> Result<Vec<Finding>, Error> {
        let (state, installation, runtime) = (self.state.clone(), self.installation.clone(), self.runtime.clone());
        let images = self.images.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let mut findings = doctor::machine(&runtime);
            findings.extend(doctor::tampered(&images)?);
            findings.extend(doctor::leftovers(&installation, &state)?);
            Ok::<_, Error>(findings)
        });
        let mut findings = looked.await.map_err(|error| Error::new(format!("the look at the machine did not end: {error}")))??;
        for proxy in &self.proxies {
            findings.extend(doctor::proxy(proxy).await);
        }
        Ok(findings)
    }

    async fn remove_leftovers(&self) -> Result<Vec<String>, Error> {
        let (state, installation) = (self.state.clone(), self.installation.clone());
        let removed = tokio::task::spawn_blocking(move || doctor::remove_leftovers(&installation, &state)).await;
        removed.map_err(|error| Error::new(format!("the removal of leftovers did not end: {error}")))?
    }

    async fn back_up(&self, file: &Path) -> Result<Backup, Error> {
        let (store, images, state, file) = (self.store.clone(), self.images.clone(), self.state.clone(), file.to_path_buf());
        let made = tokio::task::spawn_blocking(move || backup::make(&store, &images, &state, &file)).await;
        made.map_err(|error| Error::new(format!("the backup did not end: {error}")))?
    }
}

/// The end of a file.
fn read(of: String, path: &Path, running: bool) -> Result<Log, Error> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).context(reading)?;
    let start = file.metadata().context(reading)?.len().saturating_sub(LOG_LIMIT);
    file.seek(SeekFrom::Start(start)).context(reading)?;
    let mut bytes = Vec::new();
    file.take(LOG_LIMIT).read_to_end(&mut bytes).context(reading)?;
    Ok(Log { of, text: String::from_utf8_lossy(&bytes).into_owned(), shortened: start > 0, running })
}
