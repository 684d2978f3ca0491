//! The server, as the demo asks it: the same API that the command line uses.

use super::fault;
use gapless_engine::error::Error;
use gapless_wire::api::{ServerStatus, path};
use gapless_wire::artifact::Artifact;
use gapless_wire::build::{BuildLine, BuildRequest};
use gapless_wire::client::{Lines, UnixClient};
use gapless_wire::receipt::SignedReceipt;
use gapless_wire::rollout::{ArtifactChoice, Declared, DeployRequest, RollbackRequest};
use gapless_wire::service::ServiceStatus;
use hyper::Method;
use std::path::Path;
use std::time::Duration;

/// How long an answer that is no stream may take: the server does nothing for it but read.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A client of the demo's server.
#[derive(Clone, Debug)]
pub struct Api {
    quick: UnixClient,
    patient: UnixClient,
}

impl Api {
    /// A client of the server on this socket.
    pub fn new(socket: &Path) -> Api {
        Api { quick: UnixClient::new(socket).timeout(ANSWER_WITHIN), patient: UnixClient::new(socket) }
    }

    /// Who answers.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn server(&self) -> Result<ServerStatus, Error> {
        self.quick.get(path::SERVER).await.map_err(fault::of_client)
    }

    /// Begins a build of a commit's images.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn build(&self, project: &Path, commit: &str) -> Result<Lines, Error> {
        let request = BuildRequest { project: project.to_owned(), commit: commit.to_owned(), image: None, unless_built: false };
        self.patient.lines(Method::POST, path::BUILDS, &request).await.map_err(fault::of_client)
    }

    /// The next line of a build.
    ///
    /// # Errors
    /// When the conversation breaks off.
    pub async fn build_line(lines: &mut Lines) -> Result<BuildLine, Error> {
        let line = lines.next().await.map_err(fault::of_client)?;
        line.ok_or_else(|| Error::new("the server told no end of the build"))
    }

    /// Declares the services of a commit, with the artifact that was built of it just now.
    ///
    /// # Errors
    /// When the server refuses, or declares anything but one service.
    pub async fn deploy(&self, project: &Path, commit: &str, artifact: &Artifact) -> Result<Declared, Error> {
        let request = DeployRequest {
            project: project.to_owned(),
            commit: commit.to_owned(),
            service: None,
            artifact: ArtifactChoice::Version(artifact.version),
            built_for_this: true,
            urgent: false,
        };
        let mut declared: Vec<Declared> = self.quick.send(Method::POST, path::DEPLOYS, &request).await.map_err(fault::of_client)?;
        match (declared.pop(), declared.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(Error::new("the deploy did not declare exactly one service")),
        }
    }

    /// Goes back to an earlier release.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn rollback(&self, service: &str, to: u32) -> Result<Declared, Error> {
        let request = RollbackRequest { to: Some(to), force: false };
        self.quick.send(Method::POST, &path::of_service(service, "rollback"), &request).await.map_err(fault::of_client)
    }

    /// The story of a rollout, from its begin to its end.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn events(&self, service: &str, rollout: u32) -> Result<Lines, Error> {
        let path = path::of_rollout(service, rollout, "events");
        self.patient.lines(Method::GET, &path, &()).await.map_err(fault::of_client)
    }

    /// The receipt of a rollout.
    ///
    /// # Errors
    /// When there is none.
    pub async fn receipt(&self, service: &str, rollout: u32) -> Result<SignedReceipt, Error> {
        self.quick.get(&path::of_rollout(service, rollout, "receipt")).await.map_err(fault::of_client)
    }

    /// How a service is.
    ///
    /// # Errors
    /// When the server does not know it.
    pub async fn service(&self, service: &str) -> Result<ServiceStatus, Error> {
        self.quick.get(&path::service(service)).await.map_err(fault::of_client)
    }
}
