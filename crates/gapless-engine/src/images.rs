//! What the platforms need of the images.

use crate::error::Error;
use async_trait::async_trait;
use gapless_core::digest::Digest;
use std::path::PathBuf;

/// An image that was verified and unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpackedImage {
    /// The digest of its manifest.
    pub image: Digest,
    /// One read-only tree per layer, the lowest first. Owners are shifted by [`OWNER_SHIFT`].
    pub layers: Vec<PathBuf>,
}

/// Added to every owner when a layer is unpacked: user 0 of a node is this user of the host, which owns nothing else.
pub const OWNER_SHIFT: u32 = 100_000;

/// How many users and groups a node has: the ids 0 to 65,535 of an ordinary system.
pub const OWNER_COUNT: u32 = 65_536;

/// Gives images to nodes.
#[async_trait]
pub trait Images: Send + Sync {
    /// The trees of an image. Each blob is verified by its digest while it is unpacked, and a tree that was unpacked before is checked against its
    /// manifest.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Corrupt`] when a blob or a tree is not what its digest says, and when anything cannot be read or written.
    async fn unpacked(&self, image: Digest) -> Result<UnpackedImage, Error>;
}
