//! Errors on their way to people: what, where, and what to do, with the HTTP status that fits.

use crate::project::Faults;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::{DeclareError, Engine};
use gapless_wire::api::Problem;
use hyper::StatusCode;

/// What a handler ends with when it cannot answer.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, problem: Problem { what: what.into(), place: None, hint: Some(hint.into()) } }
    }

    pub(crate) fn not_found(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what, hint)
    }

    pub(crate) fn bad_request(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what, hint)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let status = match error.error_kind() {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Corrupt | ErrorKind::Failed | ErrorKind::Fenced => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, problem: problem(&error) }
    }
}

impl From<DeclareError> for Refused {
    fn from(error: DeclareError) -> Self {
        match error {
            DeclareError::Refused { reason, hint } => Self::new(StatusCode::CONFLICT, reason, hint),
            DeclareError::Failed(error) => error.into(),
        }
    }
}

impl From<Faults> for Refused {
    fn from(faults: Faults) -> Self {
        let problem = faults.problem("correct it and commit: a commit is what is read");
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, problem }
    }
}

/// An engine's error as the wire says it.
pub(crate) fn problem(error: &Error) -> Problem {
    Problem { what: error.to_string(), place: None, hint: error.hint_text().map(str::to_string) }
}

/// There is no such service, and these are.
pub(crate) fn unknown_service(name: &str, engine: &Engine) -> Refused {
    let known: Vec<String> = engine.services().iter().map(ToString::to_string).collect();
    let hint =
        if known.is_empty() { "nothing is deployed yet: `gapless deploy`".to_string() } else { format!("services: {}", known.join(", ")) };
    Refused::not_found(format!("there is no service {name}"), hint)
}
