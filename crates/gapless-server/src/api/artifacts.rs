//! Artifacts, and the proxies' record.

use super::Call;
use super::answer::{Answer, json};
use super::operations::{revocations, wire_revocation};
use crate::problem::Refused;
use gapless_core::release::ArtifactVersion;
use gapless_engine::store;
use gapless_wire::artifact::Artifact;
use gapless_wire::record::Record;
use hyper::Response;
use std::collections::BTreeSet;

pub(super) async fn list(call: &Call) -> Result<Response<Answer>, Refused> {
    let mut found: Vec<Artifact> = call.server.artifacts(call.query.get("name").cloned()).await?.iter().map(wire).collect();
    let names: BTreeSet<String> = found.iter().map(|artifact| artifact.name.clone()).collect();
    for name in names {
        let revoked = revocations(&call.server, &name).await?;
        for artifact in found.iter_mut().filter(|artifact| artifact.name == name) {
            artifact.revoked = revoked.get(&ArtifactVersion(artifact.version)).map(wire_revocation);
        }
    }
    json(&found)
}

pub(super) async fn record(call: &Call) -> Result<Response<Answer>, Refused> {
    let since = call.number("since")?;
    call.server.keeper.read().await;
    let records: Vec<Record> = call.server.keeper.since(since).into_iter().map(|one| one.record).collect();
    json(&records)
}

/// An artifact as the wire tells it; whether it is revoked is not known here.
pub(crate) fn wire(artifact: &store::Artifact) -> Artifact {
    Artifact {
        name: artifact.name.clone(),
        kind: artifact.kind.clone(),
        version: artifact.version.0,
        image: artifact.image.to_string(),
        commit: artifact.metadata.get("commit").cloned(),
        published_ms: artifact.published.0,
        metadata: artifact.metadata.clone(),
        revoked: None,
    }
}
