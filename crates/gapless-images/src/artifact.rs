//! Publishing what was built: the registry's record gets the next number from the store.

use crate::build::Built;
use gapless_core::time::Instant;
use gapless_engine::error::{Context, Error};
use gapless_engine::store::{Artifact, NewArtifact, Records};

/// The type of the artifacts that are built here.
pub const OCI_IMAGE: &str = "oci.image";

/// Publishes an image as the next version of `name` (`project/image`). The same image of the same commit keeps the number that it has.
///
/// # Errors
/// When it cannot be written.
pub fn publish(records: &dyn Records, name: &str, built: &Built, now: Instant) -> Result<Artifact, Error> {
    let artifact =
        NewArtifact { name: name.into(), kind: OCI_IMAGE.into(), image: built.image, published: now, metadata: built.metadata.clone() };
    records.publish(artifact).context(|| format!("publishing {name}"))
}
