//! What holder and worker say to each other: lines on the worker's standard input and output. The end of the input means that the holder is gone.
//!
//! Every line begins with a number: an order has one of its own, and a report has that of the order it answers. So what is said late is never taken for
//! the answer to a later order.

use std::path::PathBuf;

/// Names an order of one holder to one worker. [`START`] is that of the start itself.
pub(crate) type OrderNumber = u64;

/// The order that a worker's first report answers: to be started.
pub(crate) const START: OrderNumber = 0;

/// Reads the number that a line begins with.
fn numbered(line: &str) -> Option<(OrderNumber, &str)> {
    let (number, rest) = line.trim_end().split_once(' ')?;
    Some((number.parse().ok()?, rest))
}

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
    pub(crate) fn line(&self, number: OrderNumber) -> String {
        match self {
            Order::Serve => format!("{number} serve\n"),
            Order::Succeed(Some(socket)) => format!("{number} succeed {}\n", socket.display()),
            Order::Succeed(None) => format!("{number} succeed\n"),
            Order::Leave => format!("{number} leave\n"),
            Order::Stop => format!("{number} stop\n"),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<(OrderNumber, Self)> {
        let (number, text) = numbered(line)?;
        let order = match text.split_once(' ') {
            Some(("succeed", socket)) => Order::Succeed(Some(PathBuf::from(socket))),
            None if text == "succeed" => Order::Succeed(None),
            None if text == "serve" => Order::Serve,
            None if text == "leave" => Order::Leave,
            None if text == "stop" => Order::Stop,
            _ => return None,
        };
        Some((number, order))
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
    /// Its word, without the order's number.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Report::Up => "up",
            Report::Serving => "serving",
            Report::Succeeded => "succeeded",
            Report::Leaving => "leaving",
        }
    }

    pub(crate) fn line(self, answered: OrderNumber) -> String {
        format!("{answered} {}\n", self.word())
    }

    pub(crate) fn parse(line: &str) -> Option<(OrderNumber, Self)> {
        let (answered, word) = numbered(line)?;
        let report = [Report::Up, Report::Serving, Report::Succeeded, Report::Leaving].into_iter().find(|report| report.word() == word)?;
        Some((answered, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for order in [Order::Serve, Order::Leave, Order::Stop, Order::Succeed(None), Order::Succeed(Some("/a b/c.sock".into()))] {
            assert_eq!(Order::parse(&order.line(7)), Some((7, order)));
        }
        for report in [Report::Up, Report::Serving, Report::Succeeded, Report::Leaving] {
            assert_eq!(Report::parse(&report.line(8)), Some((8, report)));
        }
        assert_eq!(Order::parse("9 dance"), None);
        assert_eq!(Order::parse("serve"), None, "an order without a number cannot be answered");
    }
}
