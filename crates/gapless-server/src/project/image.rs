//! `image` blocks: base, Packer, application.

use crate::hcl::{Complaint, Section, absolute, inside_project, list, map, text};
use hcl_edit::expr::Expression;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What an image is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// The system under everything.
    pub base: BaseSettings,
    /// What provisions it; `None`: nothing does.
    pub packer: Option<PackerSettings>,
    /// The files of the commit that lie on top; `None`: none do.
    pub application: Option<ApplicationSettings>,
}

/// The base system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseSettings {
    /// The release of the distribution, such as `bookworm`; `host`: the host's own.
    pub suite: String,
    /// Where its packages come from; `None`: where the host's come from.
    pub mirror: Option<String>,
    /// The mirror's snapshot, where it offers one.
    pub snapshot: Option<String>,
    /// Packages beside a minimal system.
    pub packages: Vec<String>,
}

impl Default for BaseSettings {
    fn default() -> Self {
        Self { suite: "host".into(), mirror: None, snapshot: None, packages: Vec::new() }
    }
}

/// How Packer provisions the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackerSettings {
    /// The template, a path inside the project.
    pub template: PathBuf,
    /// Variables for the template.
    pub variables: BTreeMap<String, String>,
}

/// Which files of the commit lie where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicationSettings {
    /// A folder of the project.
    pub source: PathBuf,
    /// Where it is in the image.
    pub destination: PathBuf,
    /// The user in the image that owns the files.
    pub owner: String,
}

pub(super) fn read(section: &Section<'_>) -> ImageSettings {
    ImageSettings {
        base: section.block("base", base).unwrap_or_default(),
        packer: section.block("packer", packer),
        application: section.block("application", application),
    }
}

fn base(section: &Section<'_>) -> BaseSettings {
    BaseSettings {
        suite: section.or("suite", "host".into(), word),
        mirror: section.optional("mirror", url),
        snapshot: section.optional("snapshot", word),
        packages: section.or("packages", Vec::new(), list(package)),
    }
}

fn packer(section: &Section<'_>) -> PackerSettings {
    PackerSettings {
        template: section.required("template", "add the template's path, such as `template = \"packer/web.json\"`", inside_project),
        variables: section.or("variables", BTreeMap::new(), map(text)),
    }
}

fn application(section: &Section<'_>) -> ApplicationSettings {
    ApplicationSettings {
        source: section.required("source", "add the folder of the project, such as `source = \"app\"`", inside_project),
        destination: section.required("destination", "add the folder in the image, such as `destination = \"/srv/app\"`", absolute),
        owner: section.or("owner", "root".into(), word),
    }
}

fn word(value: &Expression) -> Result<String, Complaint> {
    plain(value, "._:/-", "letters, digits and `. _ : / -`")
}

fn package(value: &Expression) -> Result<String, Complaint> {
    plain(value, "+.-:", "the name of a Debian package, such as \"ca-certificates\"")
}

/// Letters, digits and some marks, a letter or digit first: it becomes an argument of a program and must not look like an option.
fn plain(value: &Expression, marks: &str, hint: &str) -> Result<String, Complaint> {
    let word = text(value)?;
    let first = word.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && word.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c)) {
        return Ok(word);
    }
    Err(Complaint::new(format!("is \"{word}\""), hint))
}

fn url(value: &Expression) -> Result<String, Complaint> {
    let url = text(value)?;
    let known = ["http://", "https://", "file://"].iter().any(|scheme| url.starts_with(scheme));
    if known && !url.contains(char::is_whitespace) {
        return Ok(url);
    }
    Err(Complaint::new(format!("is \"{url}\""), "an address that begins with `http://`, `https://` or `file://`"))
}
