//! Frees what no image needs that is kept.

use crate::manifest::Manifest;
use crate::unpack::ImageStore;
use gapless_core::digest::Digest;
use gapless_engine::error::{Error, ErrorKind};
use std::collections::BTreeSet;

/// What was freed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Layers whose trees are gone.
    pub trees: Vec<Digest>,
    /// Blobs that are gone.
    pub blobs: Vec<Digest>,
    /// How much room the content of both took, in bytes.
    pub bytes: u64,
}

impl ImageStore {
    /// Removes every tree and every blob that is neither of these images nor one of these blobs. Nothing may be built or unpacked meanwhile. Blocks the thread.
    ///
    /// # Errors
    /// When the manifest of an image that is kept is damaged: nobody can say then what it needs, and nothing is removed. When something cannot be read or removed.
    pub fn prune(&self, images: &BTreeSet<Digest>, blobs: &BTreeSet<Digest>, dry_run: bool) -> Result<Pruned, Error> {
        let needed = self.needed(images, blobs)?;
        let mut pruned = Pruned::default();
        if !dry_run {
            self.trees.remove_unfinished()?;
        }
        for layer in self.trees.layers()?.into_iter().filter(|layer| !needed.contains(layer)) {
            pruned.bytes += self.trees.size(layer)?;
            if !dry_run {
                self.trees.remove(layer)?;
            }
            pruned.trees.push(layer);
        }
        for blob in self.blobs.list()?.into_iter().filter(|blob| !needed.contains(blob)) {
            pruned.bytes += self.blobs.size(blob)?;
            if !dry_run {
                self.blobs.remove(blob)?;
            }
            pruned.blobs.push(blob);
        }
        Ok(pruned)
    }

    /// Everything that these images are made of, and these blobs. An image that is not there needs nothing.
    fn needed(&self, images: &BTreeSet<Digest>, blobs: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, Error> {
        let mut needed = blobs.clone();
        for image in images {
            match Manifest::read(&self.blobs, *image) {
                Ok(manifest) => {
                    needed.insert(*image);
                    needed.insert(manifest.configuration()?);
                    for layer in &manifest.layers {
                        needed.insert(layer.digest()?);
                    }
                }
                Err(error) if error.error_kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer;
    use crate::view::{Difference, View};
    use gapless_engine::images::OWNER_SHIFT;
    use std::fs;
    use std::path::Path;

    /// A layer with one file.
    fn a_layer(store: &ImageStore, scratch: &Path, text: &str) -> Digest {
        let root = scratch.join(text);
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("file"), text).unwrap();
        let difference: Difference = View::of(&[&root], 0).unwrap().difference(&View::default()).unwrap();
        store.blobs.put(|writer| layer::pack(&difference, writer)).unwrap()
    }

    #[test]
    fn only_what_no_kept_image_needs_is_freed() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&folder.path().join("images")).unwrap();
        assert_eq!(OWNER_SHIFT, 100_000);
        let [base, old, new, cached] = ["base", "old", "new", "cached"].map(|text| a_layer(&store, folder.path(), text));
        let before = Manifest::write(&store.blobs, &[base, old]).unwrap();
        let kept = Manifest::write(&store.blobs, &[base, new]).unwrap();
        store.unpack(before).unwrap();
        store.unpack(kept).unwrap();
        let (images, blobs) = (BTreeSet::from([kept]), BTreeSet::from([cached]));
        let planned = store.prune(&images, &blobs, true).unwrap();
        assert_eq!(planned.trees, [old]);
        assert_eq!(planned.blobs.len(), 3, "the old image's layer, manifest and configuration: {planned:?}");
        assert!(planned.blobs.contains(&before) && planned.bytes > 0);
        assert!(store.unpack(before).is_ok(), "a dry run frees nothing");
        assert_eq!(store.prune(&images, &blobs, false).unwrap(), planned);
        assert!(store.unpack(kept).is_ok() && store.blobs.contains(cached));
        assert_eq!(store.unpack(before).unwrap_err().error_kind(), ErrorKind::NotFound);
        assert_eq!(store.prune(&images, &blobs, false).unwrap(), Pruned::default(), "nothing is left to free");
        assert!(store.examine().unwrap().is_empty());
    }

    #[test]
    fn nothing_is_freed_when_a_kept_image_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&folder.path().join("images")).unwrap();
        let layer = a_layer(&store, folder.path(), "layer");
        let image = Manifest::write(&store.blobs, &[layer]).unwrap();
        let stray = store.blobs.put_bytes(b"stray").unwrap();
        fs::write(store.blobs.path(image), "damaged").unwrap();
        assert_eq!(store.prune(&BTreeSet::from([image]), &BTreeSet::new(), false).unwrap_err().error_kind(), ErrorKind::Corrupt);
        assert!(store.blobs.contains(stray) && store.blobs.contains(layer));
    }
}
