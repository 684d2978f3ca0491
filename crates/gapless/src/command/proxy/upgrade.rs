//! `gapless proxy upgrade`: a new worker takes over on the same sockets, and the holder goes on as the program that is on the disk now.

use super::{Place, trouble};
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::client::{ClientError, UnixClient};
use gapless_wire::route::ProxyStatus;
use hyper::Method;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the next holder may take to answer: a program that starts.
const NEXT_HOLDER_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let holder = arguments.place.client();
    let refused = "the proxy serves as before: its log says more, such as `journalctl -u gapless-proxy`";
    let before: ProxyStatus = holder.get("/v1/proxy").await.map_err(|error| trouble(error, refused))?;
    let ordered: Result<ProxyStatus, ClientError> = holder.send(Method::POST, "/v1/hand-on", &()).await;
    ordered.map_err(|error| trouble(error, refused))?;
    let after = next_holder(&holder, &before).await.map_err(|error| trouble(error, refused))?;
    print!("{}", words(&before, &after));
    Ok(ExitCode::SUCCESS)
}

/// Waits until the next holder answers.
async fn next_holder(holder: &UnixClient, before: &ProxyStatus) -> Result<ProxyStatus, ClientError> {
    let until = Instant::now() + NEXT_HOLDER_LIMIT;
    loop {
        let told: Result<ProxyStatus, ClientError> = holder.get("/v1/proxy").await;
        match told {
            Ok(status) if status.handed_on != before.handed_on => return Ok(status),
            told if Instant::now() >= until => return told,
            // The one before answers still, or nobody for a moment: nothing else tells when that is over.
            _ => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Which worker came, and what becomes of those that were there.
fn words(before: &ProxyStatus, after: &ProxyStatus) -> String {
    let serving = after.workers.iter().rfind(|worker| !worker.leaving);
    let holder =
        if after.handed_on == before.handed_on { "goes on as it was: its log says why" } else { "goes on as the program on the disk" };
    let mut text = format!("holder {} {holder}\n", after.holder);
    text += &serving.map_or("no worker serves\n".to_string(), |worker| format!("worker {} serves\n", worker.pid));
    for old in before.workers.iter().filter(|old| serving.is_none_or(|serving| serving.pid != old.pid)) {
        let leaves = after.workers.iter().any(|worker| worker.pid == old.pid);
        text += &format!("worker {} {}\n", old.pid, if leaves { "leaves when its last request is over" } else { "has left" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::route::Worker;

    #[test]
    fn old_and_new_workers_are_told() {
        let status = |workers: &[(u32, bool)]| ProxyStatus {
            holder: 1,
            listening: Vec::new(),
            workers: workers.iter().map(|(pid, leaving)| Worker { pid: *pid, socket: String::new(), leaving: *leaving }).collect(),
            handed_on: workers[0].0,
            ..ProxyStatus::default()
        };
        let told = words(&status(&[(10, true), (11, false)]), &status(&[(11, true), (12, false)]));
        assert_eq!(
            told,
            "holder 1 goes on as the program on the disk\nworker 12 serves\nworker 10 has left\nworker 11 leaves when its last request is over\n"
        );
    }
}
