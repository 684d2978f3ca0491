//! Which images are kept: those of the releases that services keep, and whatever is newer. What no kept image needs is freed.

use crate::problem::Refused;
use crate::server::Server;
use gapless_core::digest::Digest;
use gapless_core::notice::Notice;
use gapless_core::release::ArtifactVersion;
use gapless_engine::error::{Context, Error, ErrorKind};
use gapless_engine::store::Artifact;
use gapless_wire::artifact::OCI_IMAGE;
use gapless_wire::prune::Pruned;
use hyper::StatusCode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// What must not be freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Manifests of images.
    pub images: BTreeSet<Digest>,
    /// Other blobs that artifacts name, such as lists of packages.
    pub blobs: BTreeSet<Digest>,
}

/// What was freed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Unpacked layers.
    pub trees: u64,
    /// Blobs.
    pub blobs: u64,
    /// How much room they took, in bytes.
    pub bytes: u64,
}

/// Frees what is not needed after each rollout, until the server stops.
pub(crate) async fn keep(server: Arc<Server>) {
    let mut told = server.parts.engine.watch();
    loop {
        let ended = tokio::select! {
            () = server.stopped() => return,
            news = told.recv() => match news {
                Ok(news) => matches!(news.notice, Notice::RolloutEnded { .. }),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            },
        };
        if !ended {
            continue;
        }
        let _one_at_a_time = server.pruning.lock().await;
        // When something is being built or declared just now, the next rollout's end is soon enough.
        let Ok(_alone) = server.images_in_use.try_write() else { continue };
        match free(&server, false).await {
            Ok(Freed { trees: 0, blobs: 0, .. }) => {}
            Ok(freed) => tracing::info!(?freed, "images were freed that no kept release needs"),
            Err(error) => tracing::warn!(%error, "images that are not needed could not be freed"),
        }
    }
}

/// Frees now, or says what would be freed.
pub(crate) async fn prune(server: &Server, dry_run: bool) -> Result<Pruned, Refused> {
    let _one_at_a_time = server.pruning.lock().await;
    let Ok(_alone) = server.images_in_use.try_write() else {
        let hint = "try again when it is done; what is not needed is freed by itself after the next rollout";
        return Err(Refused::new(StatusCode::CONFLICT, "an image is being built or declared just now", hint));
    };
    let kept = kept(server).await?;
    let artifacts = server.artifacts(None).await?;
    let unneeded = artifacts.iter().filter(|artifact| artifact.kind == OCI_IMAGE && !kept.images.contains(&artifact.image));
    let mut images = Vec::new();
    for artifact in unneeded {
        if server.parts.host.has_image(artifact.image).await? {
            images.push(format!("{} {}", artifact.name, artifact.version));
        }
    }
    let Freed { trees, blobs, bytes } = free(server, dry_run).await?;
    Ok(Pruned { images, trees, blobs, bytes, dry_run })
}

async fn free(server: &Server, dry_run: bool) -> Result<Freed, Error> {
    let kept = kept(server).await?;
    server.parts.host.prune(kept, dry_run).await.context(|| "freeing images".to_string())
}

/// What the services need: the images of every release that a core keeps, because it runs, is wanted, or may be gone back to.
async fn kept(server: &Server) -> Result<Kept, Error> {
    let engine = &server.parts.engine;
    if let Some((service, _)) = engine.lost_services().first() {
        return Err(Error::new(format!("nobody knows what {service} needs: its journal cannot be used"))
            .kind(ErrorKind::Invalid)
            .hint("`gapless doctor` tells what is wrong with it"));
    }
    let mut images = BTreeSet::new();
    let mut oldest: BTreeMap<String, ArtifactVersion> = BTreeMap::new();
    for service in engine.services() {
        for release in engine.state(&service).unwrap_or_default().releases.keys() {
            let declaration = engine.declaration(&service, *release).await?;
            images.insert(declaration.image);
            let version = declaration.artifact_version;
            oldest.entry(declaration.artifact_name).and_modify(|known| *known = version.min(*known)).or_insert(version);
        }
    }
    Ok(with_newer(images, &oldest, &server.artifacts(None).await?))
}

/// How many of the latest artifacts of a name are kept, deployed or not: what was built in the last days may be deployed next, also when it is not the newest.
const RECENT: u32 = 10;

/// These images, those of every artifact that is newer than the oldest one that is kept of its name, and those of the latest ones: they may be what is deployed next. Of a name
/// that no service runs, all are.
fn with_newer(mut images: BTreeSet<Digest>, oldest: &BTreeMap<String, ArtifactVersion>, artifacts: &[Artifact]) -> Kept {
    let mut latest: BTreeMap<&str, ArtifactVersion> = BTreeMap::new();
    for artifact in artifacts {
        let known = latest.entry(&artifact.name).or_default();
        *known = artifact.version.max(*known);
    }
    let is_recent = |artifact: &Artifact| {
        let latest = latest.get(artifact.name.as_str()).map_or(0, |version| version.0);
        artifact.version.0.saturating_add(RECENT) > latest
    };
    let newer = |artifact: &&Artifact| oldest.get(&artifact.name).is_none_or(|oldest| artifact.version >= *oldest) || is_recent(artifact);
    images.extend(artifacts.iter().filter(newer).map(|artifact| artifact.image));
    let needed = artifacts.iter().filter(|artifact| images.contains(&artifact.image));
    let blobs = needed.flat_map(|artifact| artifact.metadata.values()).filter_map(|value| value.parse().ok()).collect();
    Kept { images, blobs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_core::time::Instant;

    fn artifact(name: &str, version: u32, image: u8) -> Artifact {
        Artifact {
            name: name.into(),
            kind: OCI_IMAGE.into(),
            version: ArtifactVersion(version),
            image: Digest([image; 32]),
            published: Instant(0),
            metadata: BTreeMap::from([("packages".into(), Digest([image + 100; 32]).to_string()), ("commit".into(), "c0ffee".into())]),
        }
    }

    #[test]
    fn what_a_rollback_or_the_next_deploy_could_need_is_kept() {
        let artifacts =
            [artifact("a/web", 1, 1), artifact("a/web", 2, 2), artifact("a/web", 13, 3), artifact("a/web", 14, 4), artifact("b/api", 1, 5)];
        let oldest = BTreeMap::from([("a/web".to_string(), ArtifactVersion(13))]);
        let digests = |numbers: &[u8]| numbers.iter().map(|number| Digest([*number; 32])).collect::<BTreeSet<_>>();
        let kept = with_newer(digests(&[3]), &oldest, &artifacts);
        assert_eq!(kept.images, digests(&[3, 4, 5]), "the newer one may be next, and of b/api nothing was deployed yet");
        assert_eq!(kept.blobs, digests(&[103, 104, 105]));
        let kept = with_newer(digests(&[1, 3]), &BTreeMap::from([("a/web".to_string(), ArtifactVersion(1))]), &artifacts);
        assert_eq!(kept.images, digests(&[1, 2, 3, 4, 5]));
        let artifacts = [artifact("a/web", 1, 1), artifact("a/web", 2, 2), artifact("a/web", 3, 3)];
        let kept = with_newer(digests(&[3]), &BTreeMap::from([("a/web".to_string(), ArtifactVersion(3))]), &artifacts);
        assert_eq!(kept.images, digests(&[1, 2, 3]), "an earlier one that was never deployed may be, too");
    }
}
