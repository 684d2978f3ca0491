//! What a person is told when something did not work: what, where, and what to do.

use gapless_engine::error::Error;
use gapless_load::LoadError;
use gapless_proxy::ProxyError;
use gapless_wire::api::Problem;
use gapless_wire::client::ClientError;
use std::fmt;
use std::process::ExitCode;

/// The exit status of a rollout that was rejected, and of everything else that failed.
const FAILED: u8 = 1;

/// The exit status of a command line that makes no sense.
const USAGE: u8 = 2;

/// Why a command came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Trouble {
    problem: Problem,
    status: u8,
}

impl Trouble {
    /// Something failed.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: Problem { what: what.into(), place: None, hint: Some(hint.into()) }, status: FAILED }
    }

    /// The command line makes no sense.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: USAGE, ..Self::new(what, hint) }
    }

    /// The process's exit status.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.problem.what)?;
        for line in self.problem.place.iter().flat_map(|place| place.lines()) {
            writeln!(f, "  {line}")?;
        }
        match &self.problem.hint {
            Some(hint) => writeln!(f, " hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self { problem, status: FAILED }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Problem { what: error.to_string(), place: None, hint: error.hint_text().map(str::to_string) }.into()
    }
}

impl From<LoadError> for Trouble {
    fn from(error: LoadError) -> Self {
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        Self::new(format!("{error}{cause}"), error.hint())
    }
}

impl From<ProxyError> for Trouble {
    fn from(error: ProxyError) -> Self {
        Problem { what: error.to_string(), place: None, hint: error.hint_text().map(str::to_string) }.into()
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { status, body } => match serde_json::from_str::<Problem>(&body) {
                Ok(problem) => problem.into(),
                Err(_) => Self::new(format!("the server answered {status}: {body}"), "are server and command line of the same version?"),
            },
            ClientError::Unreachable { socket, source } => unreachable(&socket.display().to_string(), &source),
            ClientError::Broken { .. } => Self::new(error.to_string(), "see whether the server still runs: `gapless status`"),
        }
    }
}

fn unreachable(socket: &str, source: &std::io::Error) -> Trouble {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Trouble::new(format!("{socket} may not be opened"), "only root talks to the server: use `sudo gapless …`")
        }
        _ => Trouble::new(
            format!("no server answers on {socket}"),
            "start it: `systemctl start gapless-proxy gapless-server`, or `gapless proxy` and `gapless server` in two terminals; another state folder is named with `--state`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_says_what_where_and_what_to_do() {
        let problem = Problem {
            what: "gapless.hcl has a fault".into(),
            place: Some("gapless.hcl:1:1: no\n 1 | x".into()),
            hint: Some("correct it".into()),
        };
        assert_eq!(
            Trouble::from(problem).to_string(),
            "error: gapless.hcl has a fault\n  gapless.hcl:1:1: no\n   1 | x\n hint: correct it\n"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_told_with_the_way_to_start_it() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let told = Trouble::from(ClientError::Unreachable { socket: "/run/x.sock".into(), source }).to_string();
        assert!(told.starts_with("error: no server answers on /run/x.sock\n hint: start it: `systemctl start"), "{told}");
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let body = r#"{"what":"there is no service a/b","hint":"services: hello/web"}"#.to_string();
        let told = Trouble::from(ClientError::Refused { status: hyper::StatusCode::NOT_FOUND, body }).to_string();
        assert_eq!(told, "error: there is no service a/b\n hint: services: hello/web\n");
    }
}
