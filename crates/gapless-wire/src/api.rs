//! What the server is asked, and what it answers: HTTP/1.1 with JSON bodies on a Unix socket of mode 0600, `<state>/server.sock`.
//!
//! `{service}` is a full name, `project/service`, so it takes two segments of a path. Streams are lines of JSON (NDJSON).
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/server` | | [`ServerStatus`] |
//! | `POST /v1/builds` | [`crate::build::BuildRequest`] | stream of [`crate::build::BuildLine`] |
//! | `GET /v1/builds/{number}/log` | | [`crate::log::Log`] |
//! | `POST /v1/plan` | [`crate::rollout::DeployRequest`] | list of [`crate::rollout::Plan`] |
//! | `POST /v1/deploys` | [`crate::rollout::DeployRequest`] | list of [`crate::rollout::Declared`] |
//! | `GET /v1/services` | | list of [`crate::service::ServiceStatus`] |
//! | `GET /v1/services/{service}` | | [`crate::service::ServiceStatus`] |
//! | `GET /v1/services/{service}/releases` | | list of [`crate::release::Release`] |
//! | `POST /v1/services/{service}/rollback` | [`crate::rollout::RollbackRequest`] | [`crate::rollout::Declared`] |
//! | `POST /v1/services/{service}/operations` | [`crate::operation::Operation`] | [`crate::rollout::Declared`] |
//! | `GET /v1/services/{service}/logs?node=NAME` | | list of [`crate::log::Log`]; of every node without `node` |
//! | `GET /v1/services/{service}/rollouts` | | list of [`crate::rollout::RolloutSummary`] |
//! | `GET /v1/services/{service}/rollouts/{number}/events` | | stream of [`crate::rollout::RolloutLine`] |
//! | `GET /v1/services/{service}/rollouts/{number}/explain` | | [`crate::rollout::Explanation`] |
//! | `GET /v1/services/{service}/rollouts/{number}/replay` | | [`crate::replay::Replay`] |
//! | `GET /v1/services/{service}/rollouts/{number}/receipt` | | [`crate::receipt::SignedReceipt`] |
//! | `GET /v1/artifacts?name=NAME` | | list of [`crate::artifact::Artifact`] |
//! | `POST /v1/revocations` | [`crate::revocation::RevocationRequest`] | [`crate::revocation::Revoked`] |
//! | `POST /v1/prune` | [`crate::prune::PruneRequest`] | [`crate::prune::Pruned`] |
//! | `GET /v1/record?since=MS` | | list of [`crate::record::Record`], one per worker that lives or is remembered |
//! | `GET /v1/doctor` | | [`crate::doctor::Examination`] |
//! | `POST /v1/doctor` | [`crate::doctor::Treatment`] | [`crate::doctor::Examination`], after what was wished was removed |
//! | `POST /v1/backups` | [`crate::backup::BackupRequest`] | [`crate::backup::Backup`], when the file is whole |
//!
//! An answer that is no success has a [`Problem`] as its body.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The file name of the server's socket in its state folder.
pub const SERVER_SOCKET: &str = "server.sock";

/// The largest request body that the server reads, in bytes: requests name folders and commits, they carry no content.
pub const REQUEST_LIMIT: usize = 1024 * 1024;

/// Why a request was refused or failed, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong.
    pub what: String,
    /// Where: a file with line and column and the line itself, a service, a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What the person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// The version of the program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it began to listen, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Its state folder.
    pub state: PathBuf,
    /// The installation's short unique id.
    pub installation: String,
    /// The admin sockets of the proxies that it steers.
    pub proxies: Vec<PathBuf>,
    /// The public key that receipts are signed with, 64 hexadecimal digits (Ed25519, RFC 8032).
    pub key: String,
}

/// The paths of the API, so that nobody writes them twice.
pub mod path {
    /// Of [`super::ServerStatus`].
    pub const SERVER: &str = "/v1/server";
    /// Where builds are begun.
    pub const BUILDS: &str = "/v1/builds";
    /// Where it is asked what a deploy would do.
    pub const PLAN: &str = "/v1/plan";
    /// Where services are declared from a commit.
    pub const DEPLOYS: &str = "/v1/deploys";
    /// All services.
    pub const SERVICES: &str = "/v1/services";
    /// All artifacts.
    pub const ARTIFACTS: &str = "/v1/artifacts";
    /// Where artifacts are revoked.
    pub const REVOCATIONS: &str = "/v1/revocations";
    /// Where images are freed.
    pub const PRUNE: &str = "/v1/prune";
    /// The proxies' record.
    pub const RECORD: &str = "/v1/record";
    /// Where a backup is made.
    pub const BACKUPS: &str = "/v1/backups";
    /// The health of the installation.
    pub const DOCTOR: &str = "/v1/doctor";

    /// One service.
    #[must_use]
    pub fn service(service: &str) -> String {
        format!("{SERVICES}/{service}")
    }

    /// What belongs to a service: `releases`, `rollouts`, `rollback`, `operations`, `logs`.
    #[must_use]
    pub fn of_service(service: &str, noun: &str) -> String {
        format!("{SERVICES}/{service}/{noun}")
    }

    /// What belongs to a rollout: `events`, `explain`, `replay`, `receipt`.
    #[must_use]
    pub fn of_rollout(service: &str, rollout: u32, noun: &str) -> String {
        format!("{SERVICES}/{service}/rollouts/{rollout}/{noun}")
    }

    /// The log of a build.
    #[must_use]
    pub fn build_log(number: u64) -> String {
        format!("{BUILDS}/{number}/log")
    }
}
