//! Other crates' errors as the demo's own.

use gapless_engine::error::Error;
use gapless_load::LoadError;
use gapless_wire::api::Problem;
use gapless_wire::client::ClientError;
use std::error::Error as _;

/// What the server or the proxy said. A refusal carries its own hint.
pub fn of_client(error: ClientError) -> Error {
    match &error {
        ClientError::Refused { body, .. } => {
            serde_json::from_str::<Problem>(body).map_or_else(|_| Error::new(error.to_string()), |problem| of_problem(&problem))
        }
        ClientError::Unreachable { .. } | ClientError::Broken { .. } => Error::new(error.to_string()),
    }
}

/// What the server told people.
pub fn of_problem(problem: &Problem) -> Error {
    let place = problem.place.as_ref().map_or_else(String::new, |place| format!("{place}: "));
    let told = Error::new(format!("{place}{}", problem.what));
    match &problem.hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// What kept the witness from its work.
pub fn of_load(error: LoadError) -> Error {
    let source = error.source().map_or_else(String::new, |source| format!(": {source}"));
    Error::new(format!("{error}{source}")).hint(error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_place_and_hint() {
        let problem = Problem {
            what: "no such block".to_owned(),
            place: Some("gapless.hcl:3:5".to_owned()),
            hint: Some("write `service`".to_owned()),
        };
        let error = of_problem(&problem);
        assert_eq!((error.to_string().as_str(), error.hint_text()), ("gapless.hcl:3:5: no such block", Some("write `service`")));
    }
}
