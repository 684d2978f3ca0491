//! The OCI image manifest and configuration (image-spec 1.1, `manifest.md` and `config.md`), as much of them as a node needs.

use crate::blob::BlobStore;
use crate::layer;
use gapless_core::digest::Digest;
use gapless_engine::error::{Context, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use std::fs;

/// The media type of a manifest.
pub const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media type of a configuration.
pub const CONFIGURATION_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// The layers of an image and its configuration. Its digest is the image's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: String,
    config: Descriptor,
    /// The lowest first.
    pub layers: Vec<Descriptor>,
}

/// A blob, as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Serialize)]
struct Configuration<'a> {
    architecture: &'a str,
    os: &'a str,
    config: Empty,
    rootfs: RootFilesystem,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct RootFilesystem {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<String>,
}

impl Descriptor {
    /// The digest of the blob.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the manifest names it in another way than by SHA-256.
    pub fn digest(&self) -> Result<Digest, Error> {
        self.digest.parse().map_err(|error| Error::new(format!("{error}")).kind(ErrorKind::Corrupt))
    }

    fn of(blobs: &BlobStore, media_type: &str, digest: Digest) -> Result<Self, Error> {
        let path = blobs.path(digest);
        let size = fs::metadata(&path).context(|| format!("looking at the blob {}", path.display()))?.len();
        Ok(Self { media_type: media_type.into(), digest: digest.to_string(), size })
    }
}

impl Manifest {
    /// Writes the manifest of an image made of these layers, the lowest first, and gives the image's digest. The same layers give the same image.
    ///
    /// # Errors
    /// When a layer is not there, or it cannot be written.
    pub fn write(blobs: &BlobStore, layers: &[Digest]) -> Result<Digest, Error> {
        let configuration = Configuration {
            architecture: architecture(),
            os: "linux",
            config: Empty {},
            // Uncompressed layers: the digest of the layer is its "diff id" too.
            rootfs: RootFilesystem { kind: "layers", diff_ids: layers.iter().map(Digest::to_string).collect() },
        };
        let configuration = blobs.put_bytes(&json(&configuration)?)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MEDIA_TYPE.into(),
            config: Descriptor::of(blobs, CONFIGURATION_MEDIA_TYPE, configuration)?,
            layers: layers.iter().map(|layer| Descriptor::of(blobs, layer::MEDIA_TYPE, *layer)).collect::<Result<_, _>>()?,
        };
        blobs.put_bytes(&json(&manifest)?)
    }

    /// The digest of the configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] as for [`Descriptor::digest`].
    pub fn configuration(&self) -> Result<Digest, Error> {
        self.config.digest()
    }

    /// Every blob that it names: the configuration and the layers.
    ///
    /// # Errors
    /// As [`Descriptor::digest`].
    pub fn blobs(&self) -> Result<Vec<Digest>, Error> {
        std::iter::once(&self.config).chain(&self.layers).map(Descriptor::digest).collect()
    }

    /// Reads and verifies the manifest of an image.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::Corrupt`] when it is no manifest or has layers of a kind that gapless does not unpack.
    pub fn read(blobs: &BlobStore, image: Digest) -> Result<Self, Error> {
        let text = blobs.read(image).context(|| format!("reading the manifest of the image {image}"))?;
        let corrupt = |what: String| Error::new(format!("{image} is not an image: {what}")).kind(ErrorKind::Corrupt);
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        match manifest.layers.iter().find(|descriptor| descriptor.media_type != layer::MEDIA_TYPE) {
            Some(descriptor) => Err(corrupt(format!("its layer {} is of the type {}", descriptor.digest, descriptor.media_type))),
            None => Ok(manifest),
        }
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::new(format!("writing JSON: {error}")))
}

/// The architecture of this machine in the words of the OCI specification, which are Go's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_layers_are_the_same_image() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let layers = [blobs.put_bytes(b"one").unwrap(), blobs.put_bytes(b"two").unwrap()];
        let image = Manifest::write(&blobs, &layers).unwrap();
        assert_eq!(Manifest::write(&blobs, &layers).unwrap(), image);
        assert_ne!(Manifest::write(&blobs, &[layers[1], layers[0]]).unwrap(), image);
        let read: Vec<Digest> = Manifest::read(&blobs, image).unwrap().layers.iter().map(|layer| layer.digest().unwrap()).collect();
        assert_eq!(read, layers);
    }

    #[test]
    fn what_is_no_manifest_is_corrupt() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let text = blobs.put_bytes(b"{}").unwrap();
        assert_eq!(Manifest::read(&blobs, text).unwrap_err().error_kind(), ErrorKind::Corrupt);
    }
}
