//! The settings on disk, and whether they make sense.

use crate::acme::{self, AcmeSettings};
use crate::certificate::{CertificateFiles, Sources};
use crate::error::ProxyError;
use crate::http1::head::FIELD_COUNT_LIMIT;
use crate::route::{normal_host, split_place};
use crate::snapshot::write_whole;
use gapless_wire::settings::{Acme, Certificate, SETTINGS_VERSION, Settings, Speaks, Treatment};
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file's name inside the state folder.
const FILE: &str = "settings.json";
/// Between these sizes the limit of a head may be, in bytes: below, ordinary requests are refused; above, a client without a request holds too much.
const HEAD_BYTES: std::ops::RangeInclusive<usize> = 1024..=1024 * 1024;
/// The longest of all times in milliseconds: a day.
const TIME_LIMIT_MS: u64 = 24 * 60 * 60 * 1000;

fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// The settings when nobody has set any.
pub(crate) fn none() -> Settings {
    Settings { version: SETTINGS_VERSION, ..Settings::default() }
}

/// Reads the settings; `None` when there are none yet.
///
/// # Errors
/// When they cannot be read, or make no sense.
pub(crate) fn load(state: &Path) -> Result<Option<Settings>, ProxyError> {
    let path = path(state);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ProxyError::path("read the settings", &path, &error)),
    };
    let damaged = |reason: String| {
        ProxyError::new(format!("the settings {} cannot be used: {reason}", path.display())).hint("`gapless proxy reload` replaces them")
    };
    let settings: Settings = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    validate(&settings).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(settings))
}

/// Writes the settings so that after a crash at any moment either the old ones or the new ones stand there, whole.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn persist(state: &Path, settings: &Settings) -> Result<(), ProxyError> {
    let path = path(state);
    let text = serde_json::to_vec_pretty(settings).map_err(|error| ProxyError::new(format!("the settings cannot be written: {error}")))?;
    let temporary = state.join(format!("{FILE}.{}", std::process::id()));
    let written =
        write_whole(&temporary, &text).and_then(|()| fs::rename(&temporary, &path)).and_then(|()| fs::File::open(state)?.sync_all());
    written.map_err(|error| {
        // It may not even be there; what matters is the error that is told.
        let _ = fs::remove_file(&temporary);
        ProxyError::path("write the settings", &path, &error).hint("make room on the disk")
    })
}

/// The certificates that settings name, and where those will stand that are ordered.
///
/// # Errors
/// When the hosts of an order cannot be.
pub(crate) fn certificates(state: &Path, settings: &Settings) -> Result<Sources, ProxyError> {
    let files = |certificate: &Certificate| CertificateFiles { chain: certificate.chain.clone(), key: certificate.key.clone() };
    let ordered = settings.acme.as_ref().map(|acme| acme::files(state, &order(acme))).transpose()?.unwrap_or_default();
    Ok(Sources { given: settings.certificates.iter().map(files).collect(), ordered })
}

/// What is ordered, and where.
pub(crate) fn order(acme: &Acme) -> AcmeSettings {
    AcmeSettings {
        directory: acme.directory.clone(),
        contacts: acme.contact.iter().cloned().collect(),
        terms_agreed: acme.agrees_to_terms,
        authorities: acme.authorities.clone(),
        groups: vec![acme.hosts.clone()],
    }
}

/// Whether settings make sense by themselves.
///
/// # Errors
/// With what does not.
pub(crate) fn validate(settings: &Settings) -> Result<(), ProxyError> {
    if settings.version != SETTINGS_VERSION {
        return Err(ProxyError::new(format!("settings of version {}: this proxy reads version {SETTINGS_VERSION}", settings.version)));
    }
    let mut addresses = HashSet::new();
    for listener in &settings.listeners {
        if listener.address.port() == 0 || !addresses.insert(listener.address) {
            return Err(ProxyError::new(format!("the listener {} has no port, or stands there twice", listener.address)));
        }
    }
    let has_certificate = !settings.certificates.is_empty() || settings.acme.is_some();
    if !has_certificate && settings.listeners.iter().any(|listener| listener.speaks == Speaks::Https) {
        return Err(ProxyError::new("a listener speaks https, but there is no certificate").hint("add a certificate, or acme"));
    }
    if settings.metrics.is_some_and(|address| !address.ip().is_loopback()) {
        return Err(ProxyError::new("metrics are told on a loopback address only").hint("let a collector on this machine fetch them"));
    }
    let clients = &settings.clients;
    within("clients.head_bytes", clients.head_bytes, HEAD_BYTES)?;
    within("clients.head_fields", clients.head_fields, 1..=FIELD_COUNT_LIMIT)?;
    within("clients.idle_ms", clients.idle_ms, 1..=TIME_LIMIT_MS)?;
    within("clients.head_ms", clients.head_ms, 1..=TIME_LIMIT_MS)?;
    settings.services.iter().try_for_each(|(name, treatment)| {
        validate_treatment(treatment).map_err(|error| ProxyError::new(format!("service `{name}`: {error}")))
    })
}

fn validate_treatment(treatment: &Treatment) -> Result<(), ProxyError> {
    for place in &treatment.also {
        let (host, path) = split_place(place);
        if host.is_empty() || host != normal_host(host) || path.ends_with('/') {
            return Err(ProxyError::new(format!("`{place}` is no host in lower case without a port, with or without a path")));
        }
    }
    let testers = treatment.testers.iter();
    let cookies =
        treatment.sticky.iter().map(|sticky| &sticky.cookie).chain(testers.clone().filter_map(|testers| Some(&testers.cookie.as_ref()?.0)));
    for name in cookies.chain(testers.filter_map(|testers| Some(&testers.header.as_ref()?.0))) {
        if hyper::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(ProxyError::new(format!("`{name}` can be no name of a cookie or a header")));
        }
    }
    if treatment.rate.is_some_and(|rate| rate.per_second == 0 || rate.burst == 0) {
        return Err(ProxyError::new("a rate of 0 lets nobody in").hint("for a closed service, set maintenance"));
    }
    let timeouts = &treatment.timeouts;
    for (name, time) in [
        ("body_ms", timeouts.body_ms),
        ("connect_ms", timeouts.connect_ms),
        ("answer_ms", timeouts.answer_ms),
        ("unread_ms", timeouts.unread_ms),
    ] {
        within(name, time, 1..=TIME_LIMIT_MS)?;
    }
    within("answer_body_ms", timeouts.answer_body_ms, 0..=TIME_LIMIT_MS)
}

fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, range: std::ops::RangeInclusive<T>) -> Result<(), ProxyError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ProxyError::new(format!("{name} is {value}: it must be from {} to {}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_persisted_is_loaded_and_what_makes_no_sense_is_told() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(load(state.path()).unwrap(), None);
        persist(state.path(), &none()).unwrap();
        assert_eq!(load(state.path()).unwrap(), Some(none()));
        assert_eq!(serde_json::from_str::<Settings>("{\"version\": 1}").unwrap(), none());
        for (bad, told) in [
            (r#"{"version": 2}"#, "version 2"),
            (r#"{"version": 1, "listeners": [{"address": "127.0.0.1:1", "speaks": "https"}]}"#, "no certificate"),
            (r#"{"version": 1, "listeners": [{"address": "127.0.0.1:0", "speaks": "http"}]}"#, "no port"),
            (r#"{"version": 1, "metrics": "10.0.0.1:80"}"#, "loopback"),
            (r#"{"version": 1, "clients": {"head_bytes": 10}}"#, "head_bytes is 10: it must be from 1024 to 1048576"),
            (r#"{"version": 1, "services": {"a/b": {"also": ["A.example"]}}}"#, "service `a/b`: `A.example`"),
            (r#"{"version": 1, "services": {"a/b": {"sticky": {"cookie": "a b"}}}}"#, "`a b`"),
            (r#"{"version": 1, "services": {"a/b": {"rate": {"per_second": 0, "burst": 1}}}}"#, "rate of 0"),
            (r#"{"version": 1, "services": {"a/b": {"timeouts": {"answer_ms": 0}}}}"#, "answer_ms is 0"),
        ] {
            fs::write(path(state.path()), bad).unwrap();
            let error = load(state.path()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
