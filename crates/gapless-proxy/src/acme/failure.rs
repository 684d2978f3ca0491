//! Why an order came to nothing, and what a person can do.

use super::transport::TransportError;
use crate::error::ProxyError;
use instant_acme::{Error, Problem};

/// The beginning of the problems' names: RFC 8555, section 6.7.
const PROBLEM_PREFIX: &str = "urn:ietf:params:acme:error:";

/// An error, and whether the account is lost.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ProxyError,
    /// The authority does not know the account: RFC 8555, section 6.7, `accountDoesNotExist`.
    pub(super) account_gone: bool,
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self { error, account_gone: false }
    }
}

/// The failure of a step, which is named as in "cannot order a certificate".
pub(super) fn of(step: &str, error: &Error) -> Failure {
    let what = ProxyError::new(format!("cannot {step}: {error}"));
    match error {
        Error::Api(problem) => Failure { error: what.hint(hint(problem)), account_gone: kind(problem) == "accountDoesNotExist" },
        Error::Other(other) => match other.downcast_ref::<TransportError>() {
            Some(transport) => what.hint(transport.hint()).into(),
            None => what.hint(LATER).into(),
        },
        Error::Timeout(_) => what.hint("the authority is slow; it is tried again").into(),
        Error::Json(_) | Error::Str(_) => what.hint("look whether the directory is that of an ACME authority").into(),
        _ => what.hint(LATER).into(),
    }
}

const LATER: &str = "it is tried again";

fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(PROBLEM_PREFIX)).unwrap_or_default()
}

/// What to do about a problem.
pub(super) fn hint(problem: &Problem) -> &'static str {
    match kind(problem) {
        "rateLimited" => "the authority asks for patience; it is tried again later, restarting makes it worse",
        "accountDoesNotExist" => "the next try makes a new account",
        "externalAccountRequired" => "this authority serves only accounts that were made elsewhere, which is not supported: choose another",
        "userActionRequired" => "follow the link that the authority gives, such as to agree to new terms",
        "invalidContact" | "unsupportedContact" => "correct the contacts in the settings",
        "rejectedIdentifier" | "unsupportedIdentifier" => "this authority issues no certificate for such a name",
        "caa" => "the CAA record of the name forbids this authority: change it in the DNS",
        "dns" => "let the name lead to this machine in the DNS",
        "connection" => "port 80 of the name has to lead to this proxy from everywhere: look at the DNS and at firewalls",
        "unauthorized" | "incorrectResponse" => {
            "somebody else answers on port 80 of the name: look whether the DNS leads to this proxy, for IPv6 too"
        }
        _ => LATER,
    }
}
