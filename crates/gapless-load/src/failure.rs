//! The causes a request can fail by, and the failure of one request.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// Why one request failed. The strings are kebab-case and stand in receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The connection was refused (RST to the SYN).
    ConnectRefused,
    /// No connection within the deadline.
    ConnectTimeout,
    /// The network said that the address cannot be reached.
    ConnectUnreachable,
    /// The connection broke after it was established: RST, or a write into a closed connection.
    Reset,
    /// The connection was closed in order after the request, without one byte of a response.
    ClosedBeforeResponse,
    /// The response ended before its framing said so.
    Truncated,
    /// The response breaks RFC 9112: head, lengths, chunks, or bytes after its end.
    BadFraming,
    /// The framing was whole and the content was not what it has to be.
    Corrupt,
    /// Not finished within the deadline, counted from the scheduled instant.
    Deadline,
    /// Status 502, Bad Gateway.
    #[serde(rename = "status-502")]
    Status502,
    /// Status 503, Service Unavailable.
    #[serde(rename = "status-503")]
    Status503,
    /// Status 504, Gateway Timeout.
    #[serde(rename = "status-504")]
    Status504,
    /// Any other status the check does not accept; the code stands in the sample.
    StatusOther,
    /// The TLS handshake or a TLS record was wrong.
    Tls,
    /// The target's name could not be resolved.
    Dns,
    /// The witness's own limit (file descriptors, local ports, requests in flight): the target had no part in it.
    WitnessLimit,
}

impl Cause {
    /// The cause as it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect-refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::ConnectUnreachable => "connect-unreachable",
            Self::Reset => "reset",
            Self::ClosedBeforeResponse => "closed-before-response",
            Self::Truncated => "truncated",
            Self::BadFraming => "bad-framing",
            Self::Corrupt => "corrupt",
            Self::Deadline => "deadline",
            Self::Status502 => "status-502",
            Self::Status503 => "status-503",
            Self::Status504 => "status-504",
            Self::StatusOther => "status-other",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::WitnessLimit => "witness-limit",
        }
    }

    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            502 => Self::Status502,
            503 => Self::Status503,
            504 => Self::Status504,
            _ => Self::StatusOther,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One request's failure: the cause that is counted and a sentence for the person who looks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub cause: Cause,
    pub detail: String,
}

impl Failure {
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }

    /// An error while connecting.
    pub fn of_connect(error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::ConnectRefused,
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            io::ErrorKind::ConnectionReset => Cause::Reset,
            io::ErrorKind::AddrNotAvailable => Cause::WitnessLimit,
            _ if is_own_limit(error) => Cause::WitnessLimit,
            _ => Cause::ConnectUnreachable,
        };
        Self::new(cause, format!("connect: {error}"))
    }

    /// An error on an established connection, while doing what `action` names.
    pub fn of_stream(action: &str, error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::InvalidData => Cause::Tls,
            io::ErrorKind::UnexpectedEof => Cause::Truncated,
            _ => Cause::Reset,
        };
        Self::new(cause, format!("{action}: {error}"))
    }
}

fn is_own_limit(error: &io::Error) -> bool {
    let limits = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    error.raw_os_error().is_some_and(|code| limits.iter().any(|limit| limit.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_string_of_every_cause_is_its_display() {
        let causes = [
            Cause::ConnectRefused,
            Cause::ConnectTimeout,
            Cause::ConnectUnreachable,
            Cause::Reset,
            Cause::ClosedBeforeResponse,
            Cause::Truncated,
            Cause::BadFraming,
            Cause::Corrupt,
            Cause::Deadline,
            Cause::Status502,
            Cause::Status503,
            Cause::Status504,
            Cause::StatusOther,
            Cause::Tls,
            Cause::Dns,
            Cause::WitnessLimit,
        ];
        for cause in causes {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }

    #[test]
    fn running_out_of_descriptors_is_the_witness_s_own_limit() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert_eq!(Failure::of_connect(&error).cause, Cause::WitnessLimit);
    }
}
