//! The active checks: one thread asks every member, each on a connection of its own.

use crate::health::{Outcome, Reach};
use crate::node::{Node, NodeKey, Probe};
use bytes::Bytes;
use gapless_wire::route::{Check, trial_interval};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

/// The largest answer to a check, in bytes: a health page is small, and the check reads it whole.
const CHECK_ANSWER_LIMIT: usize = 1024 * 1024;
/// How soon a node that never passed and refuses connections is asked again: it boots, and is to be found as soon as it listens. A refusal costs both sides next to nothing.
const BOOT_INTERVAL: Duration = Duration::from_millis(10);

/// Checks the members it is told of until the sender is dropped.
///
/// # Errors
/// When the runtime cannot be set up.
pub(crate) fn run(members: mpsc::UnboundedReceiver<Vec<Arc<Node>>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, follow(members));
    Ok(())
}

async fn follow(mut members: mpsc::UnboundedReceiver<Vec<Arc<Node>>>) {
    let mut checked: HashMap<NodeKey, Arc<Node>> = HashMap::new();
    while let Some(nodes) = members.recv().await {
        checked.retain(|key, node| {
            let stays = nodes.iter().any(|node| node.key == *key);
            if !stays {
                // Its task wakes, sees that the node left, and ends; a check that runs comes to its end.
                node.check_now.notify_one();
            }
            stays
        });
        for node in nodes {
            checked.entry(node.key).or_insert_with(|| {
                spawn_local(watch(node.clone()));
                node
            });
        }
    }
}

/// Checks a node until it has left. A check is never broken off: a node that is ended in the middle of one may take long to end.
async fn watch(node: Arc<Node>) {
    while node.begin_check() {
        let begun = Instant::now();
        let probe = node.probe();
        let outcome = check(&node, &probe).await;
        let refused = matches!(&outcome, Outcome::Failed { reach: Reach::Refused, .. });
        node.note(outcome);
        node.end_check();
        let pause = pause(&probe.check, refused && node.never_passed(), node.is_on_trial());
        // Either the pause is over, or a request saw something that makes a check worth while at once, or the node left.
        let _ = tokio::time::timeout_at((begun + pause).into(), node.check_now.notified()).await;
    }
}

/// From the start of a check to the start of the next.
fn pause(check: &Check, boots: bool, on_trial: bool) -> Duration {
    let interval = Duration::from_millis(check.interval_ms);
    if boots {
        return BOOT_INTERVAL.min(interval);
    }
    if on_trial {
        return trial_interval(interval);
    }
    interval
}

async fn check(node: &Node, probe: &Probe) -> Outcome {
    let timeout = Duration::from_millis(probe.check.timeout_ms);
    let deadline = tokio::time::Instant::now() + timeout;
    let late = |reach| failed(format!("no answer within {timeout:?}"), reach);
    let stream = match tokio::time::timeout_at(deadline, TcpStream::connect(node.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(system_reason(&error), Reach::Refused),
        Err(_) => return late(Reach::Broken),
    };
    tokio::time::timeout_at(deadline, ask(stream, probe)).await.unwrap_or_else(|_| late(Reach::Late))
}

async fn ask(stream: TcpStream, probe: &Probe) -> Outcome {
    let (mut sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
        Ok(parts) => parts,
        Err(error) => return failed(error.to_string(), Reach::Broken),
    };
    let request = match request(probe) {
        Ok(request) => request,
        Err(error) => return failed(format!("the check cannot be asked: {error}"), Reach::Broken),
    };
    // Driven here and not in a task: when the deadline drops this, the connection goes with it.
    let judged = async move { judge(sender.send_request(request).await).await };
    let mut judged = pin!(judged);
    tokio::select! {
        outcome = &mut judged => outcome,
        // What went wrong on the connection reaches the one who waits for the answer.
        _ = connection => judged.await,
    }
}

fn request(probe: &Probe) -> hyper::http::Result<Request<Empty<Bytes>>> {
    Request::get(probe.check.path.as_str())
        .header(HOST, probe.host.as_str())
        .header(USER_AGENT, "gapless-proxy")
        .header(CONNECTION, "close")
        .body(Empty::new())
}

async fn judge(answer: hyper::Result<hyper::Response<hyper::body::Incoming>>) -> Outcome {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return failed(broken_reason(&error), Reach::Broken),
    };
    let status = response.status();
    if !status.is_success() {
        return failed(format!("status {}", status.as_u16()), Reach::Answered);
    }
    match Limited::new(response.into_body(), CHECK_ANSWER_LIMIT).collect().await {
        Ok(_) => Outcome::Passed,
        Err(error) => failed(format!("status {}, but its body broke off: {error}", status.as_u16()), Reach::Answered),
    }
}

fn failed(reason: String, reach: Reach) -> Outcome {
    Outcome::Failed { reason, reach }
}

fn system_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
        io::ErrorKind::ConnectionReset => "connection reset".to_string(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_string(),
        _ => error.to_string(),
    }
}

/// The system's reason, if it stands behind hyper's.
fn broken_reason(error: &hyper::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return system_reason(error);
        }
        source = inner.source();
    }
    if error.is_incomplete_message() { "connection closed before the answer".to_string() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(interval_ms: u64) -> [u128; 3] {
        let check = Check { path: "/".into(), interval_ms, timeout_ms: 100, passes: 2, failures: 2 };
        [(true, false), (false, true), (false, false)].map(|(boots, on_trial)| pause(&check, boots, on_trial).as_millis())
    }

    #[test]
    fn a_node_that_boots_and_one_on_trial_are_checked_sooner_and_never_later_than_declared() {
        assert_eq!(pauses(10_000), [10, 1000, 10_000]);
        assert_eq!(pauses(250), [10, 25, 250]);
        assert_eq!(pauses(50), [10, 20, 50]);
        assert_eq!(pauses(15), [10, 15, 15]);
    }
}
