//! The error that crosses the engine's traits: what went wrong, where, and what to do.

use std::fmt;

/// An error with its context and, where there is one, a hint for the person.
#[derive(Clone, Debug)]
pub struct Error {
    context: Vec<String>,
    kind: ErrorKind,
    hint: Option<String>,
}

/// What a caller may decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Anything that needs a person or another try.
    Failed,
    /// Content is not what its digest says: never used, never retried by itself.
    Corrupt,
    /// There is no such thing.
    NotFound,
    /// The storage has no room; it may have again later.
    NoRoom,
    /// A person's input is at fault.
    Invalid,
    /// Another writer has taken over: nothing was written, and this one writes nothing any more.
    Fenced,
}

impl Error {
    /// An error that says what went wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self { context: vec![what.into()], kind: ErrorKind::Failed, hint: None }
    }

    /// The same with a kind.
    #[must_use]
    pub fn kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same with a hint: what the person can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, seen from one hop further out.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.context.push(what.into());
        self
    }

    /// What a caller may decide on.
    #[must_use]
    pub fn error_kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the person can do.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, part) in self.context.iter().rev().enumerate() {
            if place > 0 {
                f.write_str(": ")?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds context to any error on its way out.
pub trait Context<T> {
    /// Says what was being done.
    ///
    /// # Errors
    /// The same error, with the context.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, std::io::Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| {
            let kind = match source.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoRoom,
                _ => ErrorKind::Failed,
            };
            Error::new(source.to_string()).kind(kind).context(what())
        })
    }
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| error.context(what()))
    }
}
