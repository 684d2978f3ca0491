//! What holder and worker say to each other: lines on the worker's standard input and output. The end of the input means that the holder is gone.

use std::path::PathBuf;

/// What a holder tells a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Begin to accept.
    Serve,
    /// There is a newer worker, with its admin socket here: it persists from now on, and must apply a snapshot before you acknowledge it. `None`: you
    /// are the newest again.
    Succeed(Option<PathBuf>),
    /// Another worker accepts: accept no more, and end when your last request is over.
    Leave,
    /// Nobody accepts after you: take what waits, finish, and end soon.
    Stop,
}

impl Order {
    pub(crate) fn line(&self) -> String {
        match self {
            Order::Serve => "serve\n".to_string(),
            Order::Succeed(Some(socket)) => format!("succeed {}\n", socket.display()),
            Order::Succeed(None) => "succeed\n".to_string(),
            Order::Leave => "leave\n".to_string(),
            Order::Stop => "stop\n".to_string(),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line.trim_end().split_once(' ') {
            Some(("succeed", socket)) => Some(Order::Succeed(Some(PathBuf::from(socket)))),
            None if line.trim_end() == "succeed" => Some(Order::Succeed(None)),
            None if line.trim_end() == "serve" => Some(Order::Serve),
            None if line.trim_end() == "leave" => Some(Order::Leave),
            None if line.trim_end() == "stop" => Some(Order::Stop),
            _ => None,
        }
    }
}

/// What a worker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The snapshot is loaded and the admin socket answers.
    Up,
    /// Accepting.
    Serving,
    /// The newer worker is known, and nothing is being persisted any more.
    Succeeded,
    /// Accepts no more; every answer ends its connection.
    Leaving,
}

impl Report {
    pub(crate) fn line(self) -> &'static str {
        match self {
            Report::Up => "up",
            Report::Serving => "serving",
            Report::Succeeded => "succeeded",
            Report::Leaving => "leaving",
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        [Report::Up, Report::Serving, Report::Succeeded, Report::Leaving].into_iter().find(|report| report.line() == line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for order in [Order::Serve, Order::Leave, Order::Stop, Order::Succeed(None), Order::Succeed(Some("/a b/c.sock".into()))] {
            assert_eq!(Order::parse(&order.line()), Some(order));
        }
        for report in [Report::Up, Report::Serving, Report::Succeeded, Report::Leaving] {
            assert_eq!(Report::parse(report.line()), Some(report));
        }
        assert_eq!(Order::parse("dance"), None);
    }
}
