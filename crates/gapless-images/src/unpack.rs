//! Unpacked images: each layer once, verified by its digest on the way, and checked again before each use.

use crate::blob::{BlobStore, sync_folder, write_atomically};
use crate::layer;
use crate::lock;
use crate::manifest::Manifest;
use crate::tree::{Depth, Kind, TreeEntry, TreeManifest};
use async_trait::async_trait;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::images::{Images, OWNER_SHIFT, UnpackedImage};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The end of the name of a tree that is being removed.
const REMOVED: &str = ".removed";

/// The trees of layers, below a folder that only root can enter.
#[derive(Clone, Debug)]
pub struct Trees {
    folder: PathBuf,
    shift: u32,
    manifests: Arc<Mutex<BTreeMap<Digest, Arc<TreeManifest>>>>,
}

impl Trees {
    /// Opens the trees in `folder`, which is made when it is not there. Their owners are shifted by `shift`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>, shift: u32) -> Result<Self, Error> {
        let folder = folder.into();
        let making = || format!("making the folder of trees {}", folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).context(making)?;
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).context(making)?;
        Ok(Self { folder, shift, manifests: Arc::default() })
    }

    /// The tree of a layer: unpacked now, or checked by its stamps.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the blob is not what its digest says or the tree was changed, and when it cannot be written.
    pub fn tree(&self, blobs: &BlobStore, layer: Digest) -> Result<PathBuf, Error> {
        let place = self.folder.join(layer.hex());
        if !place.exists() {
            self.unpack(blobs, layer, &place)?;
            return Ok(place.join("root"));
        }
        self.check(layer, Depth::Stamps)?;
        Ok(place.join("root"))
    }

    /// Checks a tree that was unpacked before.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it was changed, [`ErrorKind::NotFound`] when it was not unpacked.
    pub fn check(&self, layer: Digest, depth: Depth) -> Result<(), Error> {
        let place = self.folder.join(layer.hex());
        let manifest = self.manifest(layer, &place)?;
        manifest.check(&place.join("root"), depth).context(|| format!("checking the layer {layer}"))
    }

    /// Every layer that is unpacked.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn layers(&self) -> Result<Vec<Digest>, Error> {
        let reading = || format!("reading {}", self.folder.display());
        let mut layers = Vec::new();
        for item in fs::read_dir(&self.folder).context(reading)? {
            let name = item.context(reading)?.file_name();
            if let Some(digest) = name.to_str().and_then(|name| format!("sha256:{name}").parse().ok()) {
                layers.push(digest);
            }
        }
        layers.sort();
        Ok(layers)
    }

    /// How many bytes the files of a tree have.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn size(&self, layer: Digest) -> Result<u64, Error> {
        let manifest = self.manifest(layer, &self.folder.join(layer.hex()))?;
        let size = |entry: &TreeEntry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        Ok(manifest.entries.values().map(size).sum())
    }

    /// Removes the tree of a layer. No node that runs may be made from it.
    ///
    /// # Errors
    /// When it cannot be removed; what is left of it is nobody's tree any more, and goes with the next [`Trees::remove_unfinished`].
    pub fn remove(&self, layer: Digest) -> Result<(), Error> {
        let _lock = lock::take(&self.folder.join(format!("{}.lock", layer.hex())))?;
        let removing = || format!("removing the tree of the layer {layer}");
        let removed = self.folder.join(format!("{}{REMOVED}", layer.hex()));
        fs::rename(self.folder.join(layer.hex()), &removed).context(removing)?;
        sync_folder(&self.folder)?;
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer);
        fs::remove_dir_all(&removed).context(removing)
    }

    /// Removes what a removal left that was broken off.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_unfinished(&self) -> Result<(), Error> {
        let reading = || format!("reading {}", self.folder.display());
        for item in fs::read_dir(&self.folder).context(reading)? {
            let path = item.context(reading)?.path();
            if path.to_str().is_some_and(|name| name.ends_with(REMOVED)) {
                fs::remove_dir_all(&path).context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn unpack(&self, blobs: &BlobStore, layer: Digest, place: &Path) -> Result<(), Error> {
        let _lock = lock::take(&self.folder.join(format!("{}.lock", layer.hex())))?;
        if place.exists() {
            return self.check(layer, Depth::Stamps);
        }
        let incoming = self.folder.join(format!("{}.incoming", layer.hex()));
        if incoming.exists() {
            fs::remove_dir_all(&incoming).context(|| format!("removing what an earlier unpacking left in {}", incoming.display()))?;
        }
        let unpacked = self.unpack_into(blobs, layer, &incoming, place);
        if unpacked.is_err() {
            let _ = fs::remove_dir_all(&incoming);
        }
        unpacked.context(|| format!("unpacking the layer {layer}"))
    }

    fn unpack_into(&self, blobs: &BlobStore, layer: Digest, incoming: &Path, place: &Path) -> Result<(), Error> {
        let root = incoming.join("root");
        fs::create_dir_all(&root).context(|| format!("making {}", root.display()))?;
        let mut reader = blobs.reader(layer)?;
        let manifest = layer::unpack(&mut (&mut reader as &mut dyn Read), &root, self.shift);
        // A blob that is not what its digest says is the reason also when its tar could not be read.
        reader.finish()?;
        let manifest = manifest?;
        let text = serde_json::to_vec(&manifest).map_err(|error| Error::new(format!("writing a tree's manifest: {error}")))?;
        write_atomically(&incoming.join("manifest.json"), &text)?;
        File::open(incoming)
            .and_then(|folder| rustix::fs::syncfs(folder).map_err(Into::into))
            .context(|| format!("syncing {}", incoming.display()))?;
        fs::rename(incoming, place).context(|| format!("naming the tree {}", place.display()))?;
        sync_folder(&self.folder)?;
        self.remember(layer, manifest);
        Ok(())
    }

    fn manifest(&self, layer: Digest, place: &Path) -> Result<Arc<TreeManifest>, Error> {
        if let Some(known) = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(&layer) {
            return Ok(known.clone());
        }
        let path = place.join("manifest.json");
        let text = fs::read(&path).context(|| format!("reading {}", path.display()))?;
        let manifest = serde_json::from_slice(&text)
            .map_err(|error| Error::new(format!("{} is not a tree's manifest: {error}", path.display())).kind(ErrorKind::Corrupt))?;
        Ok(self.remember(layer, manifest))
    }

    fn remember(&self, layer: Digest, manifest: TreeManifest) -> Arc<TreeManifest> {
        let manifest = Arc::new(manifest);
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).insert(layer, manifest.clone());
        manifest
    }
}

/// The images of an installation: blobs and trees.
#[derive(Clone, Debug)]
pub struct ImageStore {
    /// Manifests, configurations and layers.
    pub blobs: BlobStore,
    /// Layers as trees.
    pub trees: Trees,
}

impl ImageStore {
    /// Opens the images in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Ok(Self { blobs: BlobStore::open(folder.join("blobs"))?, trees: Trees::open(folder.join("trees"), OWNER_SHIFT)? })
    }

    /// The trees of an image, as [`Images::unpacked`] gives them. Blocks the thread.
    ///
    /// # Errors
    /// As there.
    pub fn unpack(&self, image: Digest) -> Result<UnpackedImage, Error> {
        let manifest = Manifest::read(&self.blobs, image)?;
        let layers = manifest.layers.iter().map(|layer| self.trees.tree(&self.blobs, layer.digest()?)).collect::<Result<_, _>>()?;
        Ok(UnpackedImage { image, layers })
    }

    /// Reads everything again: every unpacked tree, byte by byte. Gives what was found wrong.
    ///
    /// # Errors
    /// When the folders cannot be read.
    pub fn examine(&self) -> Result<Vec<Error>, Error> {
        let layers = self.trees.layers()?;
        Ok(layers.into_iter().filter_map(|layer| self.trees.check(layer, Depth::Contents).err()).collect())
    }
}

#[async_trait]
impl Images for ImageStore {
    async fn unpacked(&self, image: Digest) -> Result<UnpackedImage, Error> {
        let store = self.clone();
        let unpacked = tokio::task::spawn_blocking(move || store.unpack(image)).await;
        unpacked
            .map_err(|error| Error::new(format!("unpacking the image {image} ended early: {error}")))?
            .context(|| format!("unpacking the image {image}"))
    }
}
