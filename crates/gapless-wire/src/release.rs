//! Releases, as the server tells them.

use serde::{Deserialize, Serialize};

/// A release of a service: one artifact version and one declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its name, `web-r7`: stands in logs, labels and response headers.
    pub name: String,
    /// Its number in the service.
    pub number: u32,
    /// The artifact, `project/image`.
    pub artifact: String,
    /// The artifact's version.
    pub version: u32,
    /// The digest of the image's manifest.
    pub image: String,
    /// The hash of the whole declaration.
    pub declaration: String,
    /// The commit that the artifact was built from, when one is known.
    pub commit: Option<String>,
    /// The layers of the image, by their metadata name (`layer.base`, …), each a digest.
    pub layers: std::collections::BTreeMap<String, String>,
    /// How many nodes it declares.
    pub nodes: u32,
    /// It has the traffic.
    pub live: bool,
    /// Its artifact is revoked: it may not run.
    #[serde(default)]
    pub revoked: bool,
    /// It is what the declarer wants.
    pub declared: bool,
    /// When its latest rollout began, in milliseconds since the Unix epoch.
    pub rolled_out_ms: Option<u64>,
    /// How its latest rollout ended: `live`, `rejected`; `None` while it is in progress.
    pub outcome: Option<String>,
}
