//! Builds: begun by a request, and going on to their end whoever reads.

use super::Call;
use super::answer::{Answer, json, lines};
use super::artifacts::wire;
use crate::build::Feed;
use crate::parts::BuildJob;
use crate::problem::{Refused, problem};
use crate::project::{ImageSettings, Project};
use crate::server::Server;
use gapless_engine::error::{Context, Error};
use gapless_wire::build::{BuildLine, BuildRequest};
use hyper::Response;
use std::path::PathBuf;
use std::sync::Arc;

/// Every image that a request names, at one commit.
struct Work {
    repository: PathBuf,
    commit: String,
    images: Vec<(String, ImageSettings)>,
    unless_built: bool,
}

pub(super) async fn begin(call: Call) -> Result<Response<Answer>, Refused> {
    let (server, request): (_, BuildRequest) = call.read().await?;
    let (commit, project) = server.project(&request.project, &request.commit).await?;
    let images = chosen(&project, request.image.as_deref())?;
    let work = Work { repository: request.project, commit, images, unless_built: request.unless_built };
    let feed = Feed::new();
    tokio::spawn(build_all(server, work, feed.clone()));
    let (teller, response) = lines();
    tokio::spawn(async move { feed.tell_all(&teller).await });
    Ok(response)
}

pub(super) async fn log(call: &Call, number: &str) -> Result<Response<Answer>, Refused> {
    let unknown =
        || Refused::not_found(format!("there is no build {number}"), "builds are numbered from 1 on; `gapless build` says its number");
    let number: u64 = number.parse().map_err(|_| unknown())?;
    json(&call.server.builds.log(number)?.ok_or_else(unknown)?)
}

fn chosen(project: &Project, image: Option<&str>) -> Result<Vec<(String, ImageSettings)>, Refused> {
    let wanted = |name: &str| image.is_none_or(|image| image == name);
    let found = project.images.iter().filter(|(name, _)| wanted(name));
    let found: Vec<_> = found.map(|(name, settings)| (project.artifact_name(name), settings.clone())).collect();
    if found.is_empty() {
        let known: Vec<&str> = project.images.keys().map(String::as_str).collect();
        let what = format!("project {} has no image {}", project.name, image.unwrap_or("at all"));
        return Err(Refused::bad_request(what, format!("images of gapless.hcl: {}", known.join(", "))));
    }
    Ok(found)
}

/// Closes the feed when the work on it ends, however it ends: its readers wait for that.
struct Closing(Arc<Feed>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn build_all(server: Arc<Server>, work: Work, feed: Arc<Feed>) {
    let Closing(feed) = &Closing(feed);
    for (artifact, image) in work.images {
        let job = (work.repository.clone(), work.commit.clone(), artifact, image);
        if let Err((build, error)) = build_one(&server, job, work.unless_built, feed).await {
            tracing::warn!(build, %error, "a build failed");
            feed.push(BuildLine::Failed { build, problem: problem(&error) });
            return;
        }
    }
    feed.push(BuildLine::Done);
}

async fn build_one(
    server: &Arc<Server>,
    (repository, commit, artifact, image): (PathBuf, String, String, ImageSettings),
    unless_built: bool,
    feed: &Arc<Feed>,
) -> Result<(), (u64, Error)> {
    if unless_built && let Some(found) = built(server, &artifact, &commit).await.map_err(|error| (0, error))? {
        feed.push(BuildLine::AlreadyBuilt { artifact: found });
        return Ok(());
    }
    let _in_use = server.images_in_use.read().await;
    let number = server.builds.next_number(server).await.map_err(|error| (0, error))?;
    let failed = |error: Error| (number, error.context(format!("build {number} of {artifact}")));
    let (workspace, log) = server.builds.open(number).map_err(failed)?;
    let begun = server.parts.clock.now();
    feed.record_to(log);
    feed.push(BuildLine::Begun { build: number, artifact: artifact.clone(), commit: commit.clone(), at_ms: begun.0 });
    let sink = {
        let feed = feed.clone();
        Arc::new(move |line| feed.push(line))
    };
    let job = BuildJob { number, repository, commit, artifact: artifact.clone(), image, workspace };
    // In a task of its own, so that a builder that breaks off is a build that failed, and ends as one.
    let builder = server.parts.builder.clone();
    let built = tokio::spawn(async move { builder.build(job, sink).await }).await;
    server.builds.close(number);
    let broke_off = |error| {
        Error::new(format!("the builder broke off: {error}")).hint("this is a fault of gapless: see the server's log, and report it")
    };
    let built = built.unwrap_or_else(|error| Err(broke_off(error)));
    let published = built.map_err(failed)?;
    let took_ms = published.published.0.max(begun.0) - begun.0;
    server.builds.remember(&published, took_ms);
    feed.push(BuildLine::Published { build: number, artifact: wire(&published), took_ms });
    // So that no rollout waits for it. What goes wrong here goes wrong again where it matters, and is told there.
    if let Err(error) = server.parts.host.make_ready(published.image).await {
        tracing::warn!(build = number, %error, "the image could not be made ready");
    }
    Ok(())
}

/// The newest artifact of this very commit.
async fn built(server: &Server, artifact: &str, commit: &str) -> Result<Option<gapless_wire::artifact::Artifact>, Error> {
    let artifacts = server.images(artifact.to_string()).await.context(|| format!("looking for an artifact of {commit}"))?;
    Ok(artifacts.iter().rfind(|artifact| artifact.metadata.get("commit").map(String::as_str) == Some(commit)).map(wire))
}
