//! The builds that the server asks for, made by gapless-images.

use async_trait::async_trait;
use gapless_engine::clock::Clock;
use gapless_engine::error::{Context, Error};
use gapless_engine::store::{Artifact, Records};
use gapless_images::artifact::publish;
use gapless_images::build::{self, Built};
use gapless_images::commit::Commit;
use gapless_images::progress::{Listener, Phase, Step};
use gapless_images::spec::{ApplicationSpec, BaseSpec, ImageSpec, PackerSpec};
use gapless_server::parts::{BuildJob, BuildSink, Builder};
use gapless_server::project::{ApplicationSettings, BaseSettings, ImageSettings, PackerSettings};
use gapless_wire::build::BuildLine;
use std::sync::Arc;

/// Builds with the real tools and publishes into the records.
pub struct ImageBuilder {
    pub builder: build::Builder,
    pub records: Arc<dyn Records>,
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Builder for ImageBuilder {
    async fn build(&self, job: BuildJob, sink: BuildSink) -> Result<Artifact, Error> {
        let (repository, revision) = (job.repository.clone(), job.commit.clone());
        let commit = blocking(move || Commit::find(&repository, &revision)).await?;
        let logs = job.workspace.parent().unwrap_or(&job.workspace).join("output");
        let built = self.builder.build(&commit, &spec(job.image), &logs, &self.listener(&sink)).await?;
        tell_puppet(&built, &sink);
        let (records, name, now) = (self.records.clone(), job.artifact, self.clock.now());
        blocking(move || publish(records.as_ref(), &name, &built, now)).await
    }
}

impl ImageBuilder {
    fn listener(&self, sink: &BuildSink) -> Listener {
        let (sink, clock) = (sink.clone(), self.clock.clone());
        Listener::new(move |step| sink(line(step, clock.now().0)))
    }
}

fn line(step: Step, at_ms: u64) -> BuildLine {
    match step {
        Step::Started(phase) => BuildLine::PhaseBegan { phase: phase.to_string(), at_ms },
        Step::Line(phase, text) => BuildLine::Output { phase: phase.to_string(), text },
        Step::Finished { phase, reused, digest, .. } => {
            BuildLine::PhaseEnded { phase: phase.to_string(), at_ms, cached: reused, layer: Some(digest.to_string()) }
        }
    }
}

/// What Puppet did, when it ran: a second run that changes something ends the build before this.
fn tell_puppet(built: &Built, sink: &BuildSink) {
    if built.layers.iter().any(|layer| layer.phase == Phase::Provision && !layer.reused) {
        sink(BuildLine::Puppet { run: 1, changed: built.changes.clone() });
        sink(BuildLine::Puppet { run: 2, changed: Vec::new() });
    }
}

fn spec(image: ImageSettings) -> ImageSpec {
    let BaseSettings { suite, mirror, snapshot, packages } = image.base;
    ImageSpec {
        base: BaseSpec { suite, mirror, snapshot, packages },
        packer: image.packer.map(|PackerSettings { template, variables }| PackerSpec { template, variables }),
        application: image.application.map(|ApplicationSettings { source, destination, owner }| ApplicationSpec {
            source,
            destination,
            owner,
        }),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined
        .map_err(|error| Error::new(format!("a step of the build did not end: {error}")))
        .and_then(|done| done)
        .context(|| "building".to_string())
}
