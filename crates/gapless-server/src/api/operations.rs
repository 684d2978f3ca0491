//! Operations on a service, and revocations of artifacts.

use super::answer::{Answer, json};
use super::deploys::{answer, without_room};
use super::together::unique;
use super::{Call, to_its_end};
use crate::problem::Refused;
use crate::project::NODES_LIMIT;
use crate::room;
use crate::server::Server;
use crate::story::release_name;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutKind;
use gapless_core::release::ArtifactVersion;
use gapless_core::service::ServiceState;
use gapless_engine::error::Error;
use gapless_engine::{Operation, Told, store};
use gapless_wire::operation as wire;
use gapless_wire::prune::PruneRequest;
use gapless_wire::revocation::{Eviction, Revocation, RevocationRequest, Revoked};
use gapless_wire::rollout::Declared;
use hyper::Response;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The longest reason for a revocation, in bytes: a line or two, and a link.
const REASON_LIMIT: usize = 1000;

/// How long the answer to a revocation waits for evictions to begin: a look at the world or two.
const EVICTION_PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn operate(call: Call, service: &str) -> Result<Response<Answer>, Refused> {
    let service = call.server.service(service)?;
    let (server, operation): (_, wire::Operation) = call.read().await?;
    if let wire::Operation::Scale { nodes } = operation
        && u64::from(nodes) > NODES_LIMIT
    {
        return Err(Refused::bad_request(format!("{nodes} nodes are too many"), format!("a service has at most {NODES_LIMIT}")));
    }
    let work = async move {
        let engine = &server.parts.engine;
        Ok(match operation {
            wire::Operation::Retry => {
                let _alone = server.beginning.lock().await;
                for member in engine.tried_again_with(&service)? {
                    has_room(&server, &member).await?;
                }
                let of_what_is_live = engine.state(&service).is_some_and(|state| state.healing.stopped);
                let declared = engine.retry(&service, unique()?).await?;
                let with = if of_what_is_live { Vec::new() } else { moves_with(&server, &service) };
                Declared { with, ..answer(&service, declared) }
            }
            other => answer(&service, engine.operate(&service, engine_operation(other)).await?),
        })
    };
    json(&to_its_end(work).await?)
}

/// Whom a service moves together with, in the rollout that is in progress or is next.
fn moves_with(server: &Server, service: &ServiceName) -> Vec<String> {
    let state = server.parts.engine.state(service).unwrap_or_default();
    state.moves_with().or(state.is_next_with()).into_iter().flat_map(|together| &together.with).map(ToString::to_string).collect()
}

/// Another try of a release whose old nodes leave first is not begun without room for it.
async fn has_room(server: &Server, service: &ServiceName) -> Result<(), Refused> {
    let state = server.parts.engine.state(service).unwrap_or_default();
    // After a crash loop, nodes of what is live are made again.
    let tried = state.declared.filter(|declared| state.live_release() != Some(*declared) && !state.healing.stopped);
    let Some(declared) = tried else { return Ok(()) };
    match room::lacking_alone(server, service, declared).await? {
        Some(no_room) => Err(without_room(no_room)),
        None => Ok(()),
    }
}

fn engine_operation(operation: wire::Operation) -> Operation {
    match operation {
        wire::Operation::Pause => Operation::Pause,
        wire::Operation::Resume => Operation::Resume,
        wire::Operation::Cancel => Operation::Cancel,
        wire::Operation::Promote => Operation::Promote,
        wire::Operation::Retry => Operation::Retry,
        wire::Operation::Scale { nodes } => Operation::Scale(nodes),
    }
}

pub(super) async fn prune(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, request): (_, PruneRequest) = call.read().await?;
    json(&to_its_end(async move { crate::prune::prune(&server, request.dry_run).await }).await?)
}

pub(super) async fn revoke(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, request): (_, RevocationRequest) = call.read().await?;
    json(&to_its_end(revoked(server, request)).await?)
}

async fn revoked(server: Arc<Server>, request: RevocationRequest) -> Result<Revoked, Refused> {
    let RevocationRequest { artifact, version, reason, lift } = request;
    let (engine, number) = (&server.parts.engine, ArtifactVersion(version));
    if lift {
        if !revocations(&server, &artifact).await?.contains_key(&number) {
            return Err(Refused::not_found(format!("{artifact} version {version} is not revoked"), "`gapless artifacts` tells what is"));
        }
        engine.lift_revocation(&artifact, number).await?;
    } else {
        is_published(&server, &artifact, version).await?;
        let mut told = engine.watch();
        engine.revoke(&artifact, number, &sound_reason(reason)?).await?;
        await_evictions(&server, &mut told).await;
    }
    let revocation = revocations(&server, &artifact).await?.get(&number).map(wire_revocation);
    let running = if lift { Vec::new() } else { running(&server, &artifact, number).await? };
    Ok(Revoked { artifact, version, revocation, running })
}

fn sound_reason(reason: Option<String>) -> Result<String, Refused> {
    let reason = reason.unwrap_or_default().trim().to_string();
    if reason.is_empty() || reason.len() > REASON_LIMIT {
        let hint = format!("say in at most {REASON_LIMIT} bytes what is wrong with it: whoever deploys it next is told");
        return Err(Refused::bad_request("a revocation needs its reason", hint));
    }
    Ok(reason)
}

/// Only what there is can be revoked: a slip of the name would protect nobody.
async fn is_published(server: &Server, artifact: &str, version: u32) -> Result<(), Refused> {
    let known = server.artifacts(Some(artifact.to_string())).await?;
    if known.iter().any(|known| known.version.0 == version) {
        return Ok(());
    }
    let what = match known.is_empty() {
        true => format!("there is no artifact {artifact}"),
        false => format!("{artifact} has no version {version}"),
    };
    Err(Refused::not_found(what, "`gapless artifacts` lists them"))
}

/// An eviction follows from the next look at the world. Waits until each one that is due has begun, or was found to be impossible, or has to wait for what is in progress.
async fn await_evictions(server: &Server, told: &mut Receiver<Told>) {
    let engine = &server.parts.engine;
    let is_due = |state: &ServiceState| {
        let live = state.live_release().filter(|live| state.is_revoked(*live));
        state.rollout.is_none() && state.queued.is_none() && live.is_some_and(|live| !state.evicted_in_vain.contains(&live))
    };
    let begun = async {
        while engine.services().iter().filter_map(|service| engine.state(service)).any(|state| is_due(&state)) {
            if matches!(told.recv().await, Err(RecvError::Closed)) {
                return;
            }
        }
    };
    // Whatever it is that takes longer, the eviction comes all the same.
    let _ = tokio::time::timeout(EVICTION_PATIENCE, begun).await;
}

/// Every service that runs this version, and how it leaves it.
async fn running(server: &Server, artifact: &str, version: ArtifactVersion) -> Result<Vec<Eviction>, Error> {
    let engine = &server.parts.engine;
    let mut found = Vec::new();
    for service in engine.services() {
        let Some(state) = engine.state(&service) else { continue };
        let Some(live) = state.live_release() else { continue };
        let declaration = engine.declaration(&service, live).await?;
        if declaration.artifact_name != artifact || declaration.artifact_version != version {
            continue;
        }
        let rollout = state.rollout.as_ref().filter(|rollout| rollout.kind == RolloutKind::Eviction);
        let to = rollout.map(|rollout| Declared {
            service: service.to_string(),
            release: release_name(&service, rollout.to.release),
            rollout: Some(rollout.number.0),
            changed: true,
            waiting: None,
            passed_over: None,
            with: Vec::new(),
        });
        found.push(Eviction { service: service.to_string(), release: release_name(&service, live), to });
    }
    Ok(found)
}

/// What is revoked of the artifacts of this name.
pub(super) async fn revocations(server: &Server, artifact: &str) -> Result<BTreeMap<ArtifactVersion, store::Revocation>, Error> {
    let name = artifact.to_string();
    server.stored(move |records| records.revocations(&name)).await
}

/// A revocation as the wire tells it.
pub(super) fn wire_revocation(revocation: &store::Revocation) -> Revocation {
    Revocation { at_ms: revocation.at.0, reason: revocation.reason.clone() }
}

/// A version may run, or why not.
pub(super) async fn is_free(server: &Server, service: &ServiceName, artifact: &str, version: ArtifactVersion) -> Result<(), Refused> {
    let Some(revocation) = revocations(server, artifact).await?.remove(&version) else { return Ok(()) };
    let what = format!("{artifact} version {} is revoked and cannot be deployed to {service}: {}", version.0, revocation.reason);
    let hint = format!("deploy another version, or give it free again: `gapless revoke {artifact} {} --lift`", version.0);
    Err(Refused::new(hyper::StatusCode::CONFLICT, what, hint))
}
