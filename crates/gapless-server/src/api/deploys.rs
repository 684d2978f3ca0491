//! Declaring services from a commit, asking what that would do, and going back.

use super::answer::{Answer, json};
use super::operations::is_free;
use super::together::{Companions, changes, companions, followers};
use super::{Call, to_its_end};
use crate::problem::Refused;
use crate::project::{Project, ServiceSettings};
use crate::receipt::BuiltForThis;
use crate::receipts::built_name;
use crate::room::{self, NoRoom};
use crate::server::Server;
use crate::story::{self, release_name};
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::plan::Planned;
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::rollout::Refusal;
use gapless_core::service::ServiceState;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::Error;
use gapless_engine::store::Artifact;
use gapless_engine::{Declared, Waiting, engine};
use gapless_wire::artifact::OCI_IMAGE;
use gapless_wire::rollout::{self as wire, ArtifactChoice, DeployRequest, Plan, RollbackRequest};
use hyper::{Response, StatusCode};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A service of a commit, ready to be declared.
pub(super) struct Wanted {
    pub(super) declaration: ServiceDeclaration,
    artifact: Artifact,
    /// The artifact is only supposed: it has to be built first.
    unbuilt: bool,
    /// The name that it shares with the services that it moves together with.
    pub(super) together: Option<String>,
}

/// What to do about a commit that has no artifact yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unbuilt {
    /// Nothing can be declared.
    Refuse,
    /// Go on as if the next version had been built: only to say what would happen.
    Suppose,
}

pub(super) async fn plan(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, request): (_, DeployRequest) = call.read().await?;
    let all = wanted(&server, &request, Unbuilt::Suppose).await?;
    let no_room = room_lacking(&server, &all, request.urgent).await?;
    let together = companions(&server, &all, request.urgent);
    let plan = |wanted: &Wanted| plan_of(&server, wanted, request.urgent, &together, no_room.as_ref());
    json(&all.iter().map(plan).collect::<Vec<Plan>>())
}

fn plan_of(server: &Server, wanted: &Wanted, urgent: bool, together: &Result<Companions, Refused>, no_room: Option<&NoRoom>) -> Plan {
    let service = &wanted.declaration.service;
    let own = |together| server.parts.engine.plan(&wanted.declaration, urgent, together);
    let refused = |reason: String, hint: &str| vec![Planned::Refused(Refusal { reason, hint: hint.to_string() })];
    let planned = match (no_room.filter(|no_room| no_room.services.contains(service)), together) {
        (Some(NoRoom { error, .. }), _) => refused(error.to_string(), error.hint_text().unwrap_or_default()),
        (None, Ok(together)) => own(together.get(service)),
        (None, Err(Refused { problem, .. })) => {
            let alone = own(None);
            if changes(&alone) { refused(problem.what.clone(), problem.hint.as_deref().unwrap_or_default()) } else { alone }
        }
    };
    let changed = changes(&planned);
    let refused = matches!(planned.first(), Some(Planned::Refused(_)));
    let build = wanted.unbuilt.then(|| format!("build {}: this commit has no artifact yet", wanted.artifact.name));
    let state = server.parts.engine.state(service).unwrap_or_default();
    let in_words = |planned: &Planned| match planned {
        Planned::Nothing { pinned: false, .. } => on_its_way(&state, &wanted.declaration).unwrap_or_else(|| planned.to_string()),
        planned => planned.to_string(),
    };
    let lines = build.into_iter().chain(planned.iter().map(in_words)).collect();
    Plan { service: service.to_string(), changed, refused, lines }
}

/// Why nothing would happen for a declaration that is not live yet.
fn on_its_way(state: &ServiceState, declaration: &ServiceDeclaration) -> Option<String> {
    let content = declaration.content();
    let is_it = |release: ReleaseNumber| state.declaration(release).is_some_and(|known| known.content == content);
    if let Some(queued) = state.queued.as_ref().filter(|queued| is_it(queued.release)) {
        return Some(format!("nothing: {}", story::queued(&queued.release.to_string(), queued.not_before)));
    }
    let rollout = state.rollout.as_ref().filter(|rollout| is_it(rollout.to.release))?;
    Some(format!("nothing: rollout {} to {} is in progress already", rollout.number, rollout.to.release))
}

pub(super) async fn deploy(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, request): (_, DeployRequest) = call.read().await?;
    json(&to_its_end(declare(server, request)).await?)
}

/// Declares the services that a request names, one after the other.
async fn declare(server: Arc<Server>, request: DeployRequest) -> Result<Vec<wire::Declared>, Refused> {
    let _in_use = server.images_in_use.read().await;
    let all = wanted(&server, &request, Unbuilt::Refuse).await?;
    for Wanted { artifact, .. } in &all {
        is_kept(&server, artifact).await?;
    }
    let mut claims = Vec::new();
    for Wanted { declaration, .. } in &all {
        claims.push(server.hosts.claim(&server.parts, &declaration.service, &declaration.host).await?);
    }
    if let Some(no_room) = room_lacking(&server, &all, request.urgent).await? {
        return Err(without_room(no_room));
    }
    let _alone = server.beginning.lock().await;
    let mut companions = companions(&server, &all, request.urgent)?;
    let mut answers: Vec<wire::Declared> = Vec::new();
    for wanted in all {
        let service = wanted.declaration.service.clone();
        let together = companions.remove(&service);
        let declared = server.parts.engine.declare_with(wanted.declaration, request.urgent, together).await;
        let declared = declared.map_err(|error| after(&answers, error.into()))?;
        if request.built_for_this && declared.changed {
            remember_build(&server, &service, &wanted.artifact, declared.release).await;
        }
        answers.push(pinned(&server, &service, answer(&service, declared)));
    }
    Ok(answers)
}

/// What a declaration does that was rolled back by hand: nothing, also while the rollback is on its way.
fn pinned(server: &Server, service: &ServiceName, answer: wire::Declared) -> wire::Declared {
    let state = server.parts.engine.state(service).filter(|state| state.pinned && !answer.changed);
    match state.and_then(|state| state.declared) {
        Some(release) => wire::Declared { rollout: None, passed_over: Some(release_name(service, release)), ..answer },
        None => answer,
    }
}

/// An artifact's record stays for ever; its image is freed when no kept release needs it.
async fn is_kept(server: &Server, artifact: &Artifact) -> Result<(), Refused> {
    if server.parts.host.has_image(artifact.image).await? {
        return Ok(());
    }
    let commit = artifact.metadata.get("commit").map_or("its commit", String::as_str);
    let what = format!("the image of {} version {} is not kept any more", artifact.name, artifact.version.0);
    Err(Refused::new(StatusCode::CONFLICT, what, format!("build it again: `gapless build --commit {commit}`, then deploy it")))
}

async fn room_lacking(server: &Server, all: &[Wanted], urgent: bool) -> Result<Option<NoRoom>, Error> {
    let declarations: Vec<&ServiceDeclaration> = all.iter().map(|wanted| &wanted.declaration).collect();
    room::lacking(server, &declarations, urgent).await
}

/// The answer when there is no room: nothing of the request is declared.
pub(super) fn without_room(NoRoom { services, error }: NoRoom) -> Refused {
    let names: Vec<String> = services.iter().map(ToString::to_string).collect();
    let mut refused = Refused::from(error);
    refused.problem.what = format!("{}: {}", names.join(" and "), refused.problem.what);
    refused
}

pub(super) async fn rollback(call: Call, service: &str) -> Result<Response<Answer>, Refused> {
    let service = call.server.service(service)?;
    let (server, request): (_, RollbackRequest) = call.read().await?;
    json(&to_its_end(go_back(server, service, request.to.map(ReleaseNumber), request.force)).await?)
}

async fn go_back(server: Arc<Server>, service: ServiceName, to: Option<ReleaseNumber>, forced: bool) -> Result<wire::Declared, Refused> {
    let engine = &server.parts.engine;
    let state = engine.state(&service).unwrap_or_default();
    let mut claims = Vec::new();
    // An earlier release may have answered a host that another service got since. One that cannot be gone back to is for the engine to refuse.
    if let Some(release) = state.way_back(to) {
        let host = engine.declaration(&service, release).await?.host;
        claims.push(server.hosts.claim(&server.parts, &service, &host).await?);
        if let Some(no_room) = room::lacking_alone(&server, &service, release).await? {
            return Err(without_room(no_room));
        }
    }
    let followers = followers(&server, &state, to);
    for (other, release) in &followers {
        let host = engine.declaration(other, *release).await?.host;
        claims.push(server.hosts.claim(&server.parts, other, &host).await?);
    }
    let declared = engine.rollback_with(&service, to, forced).await?;
    let with = followers.iter().filter(|(other, _)| *other != service).map(|(other, _)| other.to_string()).collect();
    Ok(wire::Declared { with, ..answer(&service, declared) })
}

pub(super) fn answer(service: &ServiceName, declared: engine::Declared) -> wire::Declared {
    let Declared { release, rollout, changed, waiting } = declared;
    wire::Declared {
        service: service.to_string(),
        release: release_name(service, release),
        rollout: rollout.map(|rollout| rollout.0),
        changed,
        waiting: waiting.map(wire_waiting),
        passed_over: None,
        with: Vec::new(),
    }
}

/// What a release waits for, as the wire tells it.
pub(super) fn wire_waiting(waiting: Waiting) -> wire::Waiting {
    wire::Waiting { rollout: waiting.rollout.map(|rollout| rollout.0), frozen_until_ms: waiting.frozen_until.map(|until| until.0) }
}

/// A refusal of a later service, when earlier ones of the same request were declared.
fn after(answers: &[wire::Declared], mut refused: Refused) -> Refused {
    if !answers.is_empty() {
        let done: Vec<&str> = answers.iter().map(|answer| answer.service.as_str()).collect();
        refused.problem.what = format!("{} (declared before it, and on their way: {})", refused.problem.what, done.join(", "));
    }
    refused
}

/// The services that a request names, each with its artifact: all of them are whole before the first is declared.
async fn wanted(server: &Server, request: &DeployRequest, unbuilt: Unbuilt) -> Result<Vec<Wanted>, Refused> {
    let (commit, project) = server.project(&request.project, &request.commit).await?;
    let mut found = Vec::new();
    for (name, settings) in chosen(&project, request.service.as_deref())? {
        let artifact_name = project.artifact_name(&settings.image);
        let (artifact, unbuilt) = match artifact(server, &artifact_name, &commit, request.artifact).await {
            Ok(artifact) => (artifact, false),
            Err(_) if unbuilt == Unbuilt::Suppose && request.artifact == ArtifactChoice::OfCommit => {
                (supposed(server, artifact_name.clone()).await?, true)
            }
            Err(refused) => return Err(refused),
        };
        let declaration = settings
            .declaration(&project.name, name, artifact.version, artifact.image)
            .map_err(|error| Refused::bad_request(error.to_string(), "rename it in gapless.hcl"))?;
        is_free(server, &declaration.service, &artifact_name, artifact.version).await?;
        server.hosts.is_free(&server.parts, &declaration.service, &declaration.host).await?;
        found.push(Wanted { declaration, artifact, unbuilt, together: settings.together.clone() });
    }
    Ok(found)
}

fn chosen<'p>(project: &'p Project, service: Option<&str>) -> Result<Vec<(&'p String, &'p ServiceSettings)>, Refused> {
    let found: Vec<_> = project.services.iter().filter(|(name, _)| service.is_none_or(|service| service == name.as_str())).collect();
    if found.is_empty() {
        let known: Vec<&str> = project.services.keys().map(String::as_str).collect();
        let what = format!("project {} has no service {}", project.name, service.unwrap_or("at all"));
        return Err(Refused::bad_request(what, format!("services of gapless.hcl: {}", known.join(", "))));
    }
    Ok(found)
}

async fn artifact(server: &Server, name: &str, commit: &str, choice: ArtifactChoice) -> Result<Artifact, Refused> {
    let artifacts = server.images(name.to_string()).await?;
    let of_commit = |artifact: &&Artifact| artifact.metadata.get("commit").map(String::as_str) == Some(commit);
    let found = match choice {
        ArtifactChoice::OfCommit => artifacts.iter().filter(of_commit).max_by_key(|artifact| artifact.version),
        ArtifactChoice::Latest => artifacts.iter().max_by_key(|artifact| artifact.version),
        ArtifactChoice::Version(version) => artifacts.iter().find(|artifact| artifact.version.0 == version),
    };
    found.cloned().ok_or_else(|| {
        let short: String = commit.chars().take(12).collect();
        match choice {
            ArtifactChoice::OfCommit => {
                Refused::not_found(format!("{name} has no artifact of commit {short}"), "build it first: `gapless build`")
            }
            ArtifactChoice::Latest => Refused::not_found(format!("{name} has no artifact yet"), "build it first: `gapless build`"),
            ArtifactChoice::Version(version) => {
                Refused::not_found(format!("{name} has no version {version}"), "`gapless artifacts` lists them")
            }
        }
    })
}

/// The artifact that a build would publish, as far as a plan needs it. Its image is not known before.
async fn supposed(server: &Server, name: String) -> Result<Artifact, Refused> {
    let artifacts = server.images(name.clone()).await?;
    let last = artifacts.iter().map(|artifact| artifact.version.0).max().unwrap_or(0);
    Ok(Artifact {
        name,
        kind: OCI_IMAGE.to_string(),
        version: ArtifactVersion(last + 1),
        image: Digest([0; 32]),
        published: server.parts.clock.now(),
        metadata: BTreeMap::new(),
    })
}

/// Which build a deploy belongs to, for its receipt. The deploy is decided by then: without this its receipt only says less.
async fn remember_build(server: &Server, service: &ServiceName, artifact: &Artifact, release: ReleaseNumber) {
    let Some(build_ms) = server.builds.took_ms(&artifact.name, artifact.version) else { return };
    let built = BuiltForThis { build_ms, published_ms: artifact.published.0 };
    let Ok(value) = serde_json::to_string(&(release.0, built)) else { return };
    let name = built_name(service, artifact.version);
    if let Err(error) = server.stored(move |records| records.put_value(&name, &value)).await {
        tracing::warn!(%service, %release, %error, "the build of a deploy could not be written down: its receipt will not name it");
    }
}
