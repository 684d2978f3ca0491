//! What an image is made of, as a project declares it.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// The system under everything.
    pub base: BaseSpec,
    /// What provisions it; `None`: nothing does.
    pub packer: Option<PackerSpec>,
    /// The files of the commit that lie on top; `None`: none do.
    pub application: Option<ApplicationSpec>,
}

/// The base system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSpec {
    /// The release of the distribution, such as `bookworm`; [`HOST_SUITE`]: the host's own.
    pub suite: String,
    /// Where its packages come from; `None`: where the host's come from.
    pub mirror: Option<String>,
    /// The mirror's snapshot, such as `20250520T000000Z`, put at the end of `mirror`.
    pub snapshot: Option<String>,
    /// Packages beside a minimal system.
    pub packages: Vec<String>,
}

/// The name that stands for the suite of the host's own distribution.
pub const HOST_SUITE: &str = "host";

impl Default for BaseSpec {
    fn default() -> Self {
        Self { suite: HOST_SUITE.into(), mirror: None, snapshot: None, packages: Vec::new() }
    }
}

/// How Packer provisions the image. The template may read its own folder and the folder `puppet` of the commit, nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackerSpec {
    /// The template, a path inside the project.
    pub template: PathBuf,
    /// Variables for the template.
    pub variables: BTreeMap<String, String>,
}

/// Which files of the commit lie where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationSpec {
    /// A folder of the project.
    pub source: PathBuf,
    /// Where it is in the image.
    pub destination: PathBuf,
    /// The user in the image that owns the files, by name.
    pub owner: String,
}
