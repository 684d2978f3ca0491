//! Puppet's own report of a run (report format 12 of Puppet 7 and 8): what was changed, by which line.

use gapless_engine::error::{Error, ErrorKind};
use serde::Deserialize;
use serde_yaml_ng::Deserializer;
use std::collections::BTreeMap;
use std::fmt;

/// What a run of Puppet did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The version of Puppet.
    pub puppet_version: String,
    /// Every resource that was changed, or would have to be.
    pub changes: Vec<Change>,
}

/// A resource that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Such as `Package[apache2]`.
    pub resource: String,
    /// What was done, in Puppet's words.
    pub what: Vec<String>,
    /// The manifest and line that declare it, relative to the project as far as that is known.
    pub place: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.what.is_empty() {
            write!(f, ": {}", self.what.join(", "))?;
        }
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

#[derive(Deserialize)]
struct RawReport {
    #[serde(default)]
    puppet_version: String,
    #[serde(default)]
    status: String,
    resource_statuses: BTreeMap<String, RawStatus>,
}

#[derive(Deserialize)]
struct RawStatus {
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    line: Option<u64>,
    #[serde(default)]
    changed: bool,
    #[serde(default)]
    out_of_sync: bool,
    #[serde(default)]
    events: Vec<RawEvent>,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(default)]
    property: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// Reads the reports in a text: one YAML document for each run.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it holds no report, or one without a word on its resources.
pub fn read(text: &str) -> Result<Vec<Report>, Error> {
    Deserializer::from_str(text)
        .map(|document| {
            let raw = RawReport::deserialize(document)
                .map_err(|error| no_report(error.location().map(|place| (place.line(), place.column()))))?;
            if raw.status == "failed" {
                return Err(Error::new("Puppet's report says that the run failed").kind(ErrorKind::Invalid));
            }
            Ok(Report { puppet_version: raw.puppet_version, changes: raw.resource_statuses.into_iter().filter_map(change).collect() })
        })
        .collect()
}

/// Where the text stops being a report. The parser's own words are not passed on: they repeat parts of a text that may be anything.
fn no_report(place: Option<(usize, usize)>) -> Error {
    let place = place.map_or(String::new(), |(line, column)| format!(" (line {line}, column {column})"));
    Error::new(format!("this is no report of Puppet{place}")).kind(ErrorKind::Invalid)
}

fn change((resource, status): (String, RawStatus)) -> Option<Change> {
    if !status.changed && !status.out_of_sync {
        return None;
    }
    let what = status.events.iter().filter_map(|event| match (&event.property, &event.message) {
        (Some(property), Some(message)) => Some(format!("{property} {message}")),
        (None, Some(message)) => Some(message.clone()),
        _ => None,
    });
    let place = status.file.map(|file| match status.line {
        Some(line) => format!("{}:{line}", in_project(&file)),
        None => in_project(&file),
    });
    Some(Change { resource, what: what.collect(), place })
}

/// Packer copies modules and manifests into a folder of its own in the node: taken off, so that a person finds the file.
fn in_project(file: &str) -> String {
    let Some((_, inner)) = file.split_once("/packer-puppet-masterless/") else { return file.into() };
    match inner.split_once('/') {
        Some((first, rest)) if first.starts_with("module-") => rest.into(),
        _ => inner.into(),
    }
}

/// Says that the second run of Puppet must change nothing, and what it changed.
///
/// # Errors
/// [`ErrorKind::Invalid`] listing the resources, when it changed something.
pub fn must_be_unchanged(second: &[Report]) -> Result<(), Error> {
    let changes: Vec<String> = second.iter().flat_map(|report| &report.changes).map(|change| format!("  {change}")).collect();
    if changes.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("the build is rejected: Puppet was applied a second time and changed {} again:\n{}", counted(changes.len()), changes.join("\n")))
        .kind(ErrorKind::Invalid)
        .hint("a manifest must describe a state, not do something each time: give these resources a condition (`unless`, `creates`, `onlyif`) or a value that stays"))
}

fn counted(count: usize) -> String {
    if count == 1 { "1 resource".into() } else { format!("{count} resources") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_report_is_not_repeated() {
        for text in
            ["root:x:0:0:root\n", "resource_statuses: private\n", "resource_statuses:\n  a: {line: private}\n", "{private: [", "private"]
        {
            let error = read(text).unwrap_err();
            assert_eq!(error.error_kind(), ErrorKind::Invalid);
            assert!(!error.to_string().contains("private") && !error.to_string().contains("root"), "{error}");
        }
    }
}
