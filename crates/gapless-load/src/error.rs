//! The error of everything that keeps the witness from doing its work: what, where, and what to do.

use std::error::Error;
use std::fmt;

/// Why the witness could not start, or could not hand over what it saw. A request that failed is
/// never one of these: it is counted in the report.
#[derive(Debug)]
pub struct LoadError {
    context: String,
    hint: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LoadError {
    pub(crate) fn new(context: impl Into<String>, hint: &'static str) -> Self {
        Self { context: context.into(), hint, source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the person can do about it, one sentence; kept apart from the error itself.
    pub fn hint(&self) -> &str {
        self.hint
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.context)
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
