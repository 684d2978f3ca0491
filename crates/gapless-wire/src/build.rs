//! Builds: what is asked, and how a build is told line by line.

use crate::api::Problem;
use crate::artifact::Artifact;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Build the images of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The folder of the project's Git repository, absolute, on the server's machine.
    pub project: PathBuf,
    /// The commit, or any name of one (`HEAD`, a branch).
    pub commit: String,
    /// The image to build, by its name in `gapless.hcl`; every image if it is left out.
    #[serde(default)]
    pub image: Option<String>,
    /// Leave images out that have an artifact of this very commit.
    #[serde(default)]
    pub unless_built: bool,
}

/// One line of a build, as it happens. A build goes on to its end also when nobody reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum BuildLine {
    /// A build began.
    Begun {
        /// Its number in the installation: its log is found by it.
        build: u64,
        /// `project/image`.
        artifact: String,
        /// The full commit id.
        commit: String,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// A phase began, such as `base`, `provision`, `application`, `publish`.
    PhaseBegan {
        /// Its name.
        phase: String,
        /// When.
        at_ms: u64,
    },
    /// A phase ended.
    PhaseEnded {
        /// Its name.
        phase: String,
        /// When.
        at_ms: u64,
        /// Its inputs were as before: the layer was there already and nothing ran.
        cached: bool,
        /// The digest of the layer that came of it, if one did.
        layer: Option<String>,
    },
    /// A line of output of a tool.
    Output {
        /// The phase that it belongs to.
        phase: String,
        /// Without its line end.
        text: String,
    },
    /// Puppet ran in the build node.
    Puppet {
        /// 1 or 2: the second run must change nothing.
        run: u32,
        /// The resources that it changed, such as `Package[apache2]`.
        changed: Vec<String>,
    },
    /// The artifact is published.
    Published {
        /// The build.
        build: u64,
        /// The artifact.
        artifact: Artifact,
        /// From the build's begin, in milliseconds.
        took_ms: u64,
    },
    /// The image has an artifact of this commit already, and only missing ones were wished for.
    AlreadyBuilt {
        /// The artifact.
        artifact: Artifact,
    },
    /// The build came to nothing. It is the last line.
    Failed {
        /// The build.
        build: u64,
        /// Why.
        problem: Problem,
    },
    /// Every image of the request is published. It is the last line.
    Done,
}
