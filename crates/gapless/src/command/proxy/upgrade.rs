//! `gapless proxy upgrade`: a new worker takes over on the same sockets.

use super::{Place, trouble};
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::client::ClientError;
use gapless_wire::route::ProxyStatus;
use hyper::Method;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let holder = arguments.place.client();
    let refused = "the proxy serves as before: its log says more, such as `journalctl -u gapless-proxy`";
    let before: ProxyStatus = holder.get("/v1/proxy").await.map_err(|error| trouble(error, refused))?;
    let upgraded: Result<ProxyStatus, ClientError> = holder.send(Method::POST, "/v1/upgrade", &()).await;
    let after = upgraded.map_err(|error| trouble(error, refused))?;
    print!("{}", words(&before, &after));
    Ok(ExitCode::SUCCESS)
}

/// Which worker came, and what becomes of those that were there.
fn words(before: &ProxyStatus, after: &ProxyStatus) -> String {
    let serving = after.workers.iter().rfind(|worker| !worker.leaving);
    let mut text = serving.map_or("no worker serves\n".to_string(), |worker| format!("worker {} serves\n", worker.pid));
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
            replaced: 0,
        };
        let told = words(&status(&[(10, true), (11, false)]), &status(&[(11, true), (12, false)]));
        assert_eq!(told, "worker 12 serves\nworker 10 has left\nworker 11 leaves when its last request is over\n");
    }
}
