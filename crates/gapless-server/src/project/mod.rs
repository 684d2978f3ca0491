//! `gapless.hcl`: what a project says about its images and services.
//!
//! The text is parsed once, at the border: every fault of the file is told at the same time, with its place and with what may stand there. What comes
//! out is whole and within every limit, so that nothing behind it has to check again.

mod health;
mod image;
mod rollout;
mod service;
mod task;
mod window;

#[cfg(test)]
mod tests;

pub use crate::hcl::{FILE_LIMIT, Fault, Faults};
pub use image::{ApplicationSettings, BaseSettings, ImageSettings, PackerSettings};
pub use service::{NODES_LIMIT, ServiceSettings};

use crate::hcl::{self, Section, Source, span_of, suggestion};
use gapless_core::name::{PART_LIMIT, is_part};
use hcl_edit::structure::Block;
use std::collections::BTreeMap;

/// The file's name, in the root of the project.
pub const FILE: &str = "gapless.hcl";

/// The most services of one project: more belong into several projects, so that one commit does not roll all of them out.
pub const SERVICES_LIMIT: usize = 50;

/// A project: what `gapless.hcl` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// Its images by name.
    pub images: BTreeMap<String, ImageSettings>,
    /// Its services by name.
    pub services: BTreeMap<String, ServiceSettings>,
}

impl Project {
    /// Reads the text of a `gapless.hcl`. `file` is the name that faults are told with.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(file: &str, text: &str) -> Result<Project, Faults> {
        hcl::parse(file, text, |top| {
            let project = Project { name: project_name(top), images: images(top), services: services(top) };
            top.close();
            references(top.source(), top, &project);
            project
        })
    }

    /// The artifact's name of an image: `project/image`.
    #[must_use]
    pub fn artifact_name(&self, image: &str) -> String {
        format!("{}/{image}", self.name)
    }
}

fn project_name(top: &Section<'_>) -> String {
    let mut blocks = top.blocks("project");
    let Some(first) = (!blocks.is_empty()).then(|| blocks.remove(0)) else {
        top.fault(0..0, "the project has no name", "begin the file with `project \"NAME\" {}`");
        return String::new();
    };
    for again in blocks {
        top.fault(span_of(&again.ident), "a second `project`", "a file describes one project");
    }
    Section::of_block(top.source(), first, "project".into()).close();
    label(top, first).unwrap_or_default()
}

fn images(top: &Section<'_>) -> BTreeMap<String, ImageSettings> {
    named(top, "image", image::read)
}

fn services(top: &Section<'_>) -> BTreeMap<String, ServiceSettings> {
    let found = named(top, "service", service::read);
    if found.len() > SERVICES_LIMIT {
        top.fault(0..0, format!("{} services; at most {SERVICES_LIMIT} may be in one project", found.len()), "divide the project");
    }
    found
}

/// Every block of one kind by its label, each name once.
fn named<T>(top: &Section<'_>, kind: &'static str, read: impl Fn(&Section<'_>) -> T) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for block in top.blocks(kind) {
        let Some(name) = label(top, block) else { continue };
        let section = Section::of_block(top.source(), block, format!("{kind} \"{name}\""));
        let settings = read(&section);
        section.close();
        if found.insert(name.clone(), settings).is_some() {
            top.fault(span_of(&block.labels[0]), format!("a second {kind} \"{name}\""), "give it another name");
        }
    }
    found
}

/// The one label of a block, as a name.
fn label(top: &Section<'_>, block: &Block) -> Option<String> {
    let name = top.label(block, "name")?;
    if !is_part(name) {
        let kind = block.ident.as_str();
        let hint = format!("at most {PART_LIMIT} lower-case letters, digits and dashes, a letter first, no dash at the end");
        top.fault(span_of(&block.labels[0]), format!("\"{name}\" cannot be the name of a {kind}"), hint);
        return None;
    }
    Some(name.to_string())
}

/// What must fit together: images that services name, hosts that are used once.
fn references(source: &Source<'_>, top: &Section<'_>, project: &Project) {
    let mut hosts: BTreeMap<&str, &str> = BTreeMap::new();
    for block in top.blocks("service") {
        let Some((name, settings)) = block.labels.first().and_then(|label| project.services.get_key_value(label.as_str())) else {
            continue;
        };
        let value = |attribute: &str| block.body.get_attribute(attribute).map(|attribute| span_of(&attribute.value));
        if !settings.image.is_empty() && !project.images.contains_key(&settings.image) {
            let hint = suggestion(&settings.image, project.images.keys().map(String::as_str), "images of this file");
            source.fault(value("image").unwrap_or(0..0), format!("there is no image \"{}\"", settings.image), hint);
        }
        if let Some((what, hint)) = apart(project, name, settings) {
            source.fault(value("together").unwrap_or(0..0), what, hint);
        }
        match hosts.get(settings.host.as_str()) {
            _ if settings.host.is_empty() => {}
            Some(other) if *other != name => {
                let what = format!("host \"{}\" is already answered by service \"{other}\"", settings.host);
                source.fault(value("host").unwrap_or_else(|| span_of(&block.ident)), what, "give each service a host of its own");
            }
            _ => {
                hosts.insert(&settings.host, name);
            }
        }
    }
}

/// Why a service could not move with those of the same name, and what to do.
fn apart(project: &Project, name: &str, settings: &ServiceSettings) -> Option<(String, &'static str)> {
    let together = settings.together.as_ref()?;
    let mut others =
        project.services.iter().filter(|(other, service)| *other != name && service.together.as_ref() == Some(together)).peekable();
    if others.peek().is_none() {
        let what = format!("service \"{name}\" is together with no other service");
        return Some((what, "write the same name in the service that it shall move with, or leave it out"));
    }
    let (other, _) = others.find(|(_, service)| service.policy.freeze != settings.policy.freeze)?;
    let what =
        format!("service \"{name}\" moves together with \"{other}\", but is frozen at other times: one could begin and the other not");
    Some((what, "write the same `freeze` in the `rollout` of each of them"))
}
