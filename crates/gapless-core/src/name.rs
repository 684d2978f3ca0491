//! The names of services.

use alloc::string::{String, ToString};
use core::fmt;

/// The longest part of a service's name, in bytes: node names are built from it and must fit a host name's label (63 bytes, RFC 1035).
pub const PART_LIMIT: usize = 32;

/// A service's full name: `project/service`, such as `hello/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    project: String,
    service: String,
}

/// Why a text is no service name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAServiceName(pub String);

impl fmt::Display for NotAServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a service name: write `project/service`, each of at most {PART_LIMIT} lower-case letters, digits and dashes, a letter first",
            self.0
        )
    }
}

impl core::error::Error for NotAServiceName {}

/// Whether `text` may be the name of a project, an image or a service.
#[must_use]
pub fn is_part(text: &str) -> bool {
    let mut characters = text.chars();
    text.len() <= PART_LIMIT
        && characters.next().is_some_and(|first| first.is_ascii_lowercase())
        && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.ends_with('-')
}

impl ServiceName {
    /// The name of `service` in `project`.
    ///
    /// # Errors
    /// When a part is empty, too long, or has other characters than lower-case letters, digits and dashes.
    pub fn new(project: &str, service: &str) -> Result<Self, NotAServiceName> {
        if is_part(project) && is_part(service) {
            Ok(Self { project: project.into(), service: service.into() })
        } else {
            Err(NotAServiceName(alloc::format!("{project}/{service}")))
        }
    }

    /// The project's name.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The service's name inside its project.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl core::str::FromStr for ServiceName {
    type Err = NotAServiceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (project, service) = text.split_once('/').ok_or_else(|| NotAServiceName(text.to_string()))?;
        Self::new(project, service)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.service)
    }
}
