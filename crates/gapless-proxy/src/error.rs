//! Why a proxy could not do what it was asked for.

use std::fmt;
use std::path::PathBuf;

/// An error with what failed, where, and what the person can do.
#[derive(Debug)]
pub struct ProxyError {
    what: String,
    hint: Option<String>,
}

impl ProxyError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn path(action: &str, path: &std::path::Path, source: &std::io::Error) -> Self {
        Self::new(format!("cannot {action} {}: {source}", PathBuf::from(path).display()))
    }

    /// What the person can do, if it is known.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for ProxyError {
    /// What failed, without the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ProxyError {}
