//! Artifacts, and the proxies' record.

use super::Call;
use super::answer::{Answer, json};
use crate::problem::Refused;
use gapless_engine::store;
use gapless_wire::artifact::Artifact;
use gapless_wire::record::Record;
use hyper::Response;

pub(super) async fn list(call: &Call) -> Result<Response<Answer>, Refused> {
    let found = call.server.artifacts(call.query.get("name").cloned()).await?;
    json(&found.iter().map(wire).collect::<Vec<_>>())
}

pub(super) async fn record(call: &Call) -> Result<Response<Answer>, Refused> {
    let since = call.number("since")?;
    call.server.keeper.read().await;
    let records: Vec<Record> = call.server.keeper.since(since).into_iter().map(|one| one.record).collect();
    json(&records)
}

/// An artifact as the wire tells it.
pub(crate) fn wire(artifact: &store::Artifact) -> Artifact {
    Artifact {
        name: artifact.name.clone(),
        kind: artifact.kind.clone(),
        version: artifact.version.0,
        image: artifact.image.to_string(),
        commit: artifact.metadata.get("commit").cloned(),
        published_ms: artifact.published.0,
        metadata: artifact.metadata.clone(),
    }
}
