//! `gapless proxy status`: listeners, workers, and the nodes as each worker sees them.

use super::{ANSWER_LIMIT, Place, trouble};
use crate::show;
use crate::trouble::Trouble;
use clap::Args;
use gapless_wire::client::UnixClient;
use gapless_wire::route::{NodeStatus, ProxyStatus, Worker, WorkerStatus};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A worker, and how it is; `None`: it did not answer, as one that has just ended.
#[derive(Serialize)]
struct Seen {
    #[serde(flatten)]
    worker: Worker,
    status: Option<WorkerStatus>,
}

/// `--json`.
#[derive(Serialize)]
struct Told<'a> {
    proxy: &'a ProxyStatus,
    workers: &'a [Seen],
}

pub async fn run(arguments: &Arguments) -> Result<ExitCode, Trouble> {
    let refused = "are proxy and command line of the same version?";
    let proxy: ProxyStatus = arguments.place.client().get("/v1/proxy").await.map_err(|error| trouble(error, refused))?;
    let mut workers = Vec::new();
    for worker in &proxy.workers {
        let status = UnixClient::new(&worker.socket).timeout(ANSWER_LIMIT).get("/v1/status").await.ok();
        workers.push(Seen { worker: worker.clone(), status });
    }
    if arguments.json {
        show::json(&Told { proxy: &proxy, workers: &workers })?;
    } else {
        print!("{}", words(&proxy, &workers));
    }
    Ok(ExitCode::SUCCESS)
}

fn words(proxy: &ProxyStatus, workers: &[Seen]) -> String {
    let listening: Vec<String> = proxy.listening.iter().map(ToString::to_string).collect();
    let mut text = format!("proxy {} · listens on {}\n", proxy.holder, listening.join(", "));
    if proxy.replaced > 0 {
        text += &format!("  workers that ended by themselves and were replaced: {}; its log says why\n", proxy.replaced);
    }
    if workers.is_empty() {
        text += "  no worker serves: its log says why\n";
    }
    for Seen { worker, status } in workers {
        text += &format!("\nworker {} · {}\n", worker.pid, if worker.leaving { "leaving: it takes no new connections" } else { "serves" });
        match status {
            None => text += "  it does not answer\n",
            Some(status) => text += &of_worker(status),
        }
    }
    text
}

fn of_worker(status: &WorkerStatus) -> String {
    let mut text = status.problem.iter().fold(String::new(), |text, problem| text + &format!("  problem: {problem}\n"));
    let rows = rows(status);
    if rows.is_empty() {
        return text + "  no service has a route\n";
    }
    for line in show::table(&["service", "route", "node", "condition", "in flight", "idle", "latest failure"], &rows).lines() {
        text += &format!("  {line}\n");
    }
    text
}

/// A row for each node, and one for each service without any. A service and its route are named once.
fn rows(status: &WorkerStatus) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut services: Vec<&String> = status.generations.keys().chain(status.nodes.keys()).collect();
    services.sort();
    services.dedup();
    for service in services {
        let route = status.generations.get(service).map_or("none".to_string(), |generation| format!("g{generation}"));
        let mut begin = vec![service.clone(), route];
        let nodes = status.nodes.get(service);
        if nodes.is_none_or(std::collections::BTreeMap::is_empty) {
            rows.push([begin.clone(), ["-"; 5].map(str::to_string).to_vec()].concat());
        }
        for (name, node) in nodes.into_iter().flatten() {
            rows.push([begin, row(name, node)].concat());
            begin = vec![String::new(); 2];
        }
    }
    rows
}

fn row(name: &str, node: &NodeStatus) -> Vec<String> {
    let failed = format!("failed {} in a row", node.failures);
    let condition = match (node.ready, node.failures) {
        (true, 0) => "ready".to_string(),
        (true, _) => format!("ready, {failed}"),
        (false, 0) => "not used".to_string(),
        (false, _) => failed,
    };
    let condition = if node.ejected.is_some() { format!("{condition}, left alone") } else { condition };
    let failure = node.failure.clone().filter(|_| node.failures > 0).or_else(|| node.ejected.clone()).unwrap_or_else(|| "-".to_string());
    vec![name.to_string(), condition, node.requests_in_flight.to_string(), node.idle_connections.to_string(), failure]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_proxy_with_two_workers_is_shown() {
        let node = |ready, failures, failure: &str, in_flight| NodeStatus {
            requests_in_flight: in_flight,
            idle_connections: 2,
            failures,
            failure: Some(failure.to_string()),
            ready,
            ..NodeStatus::default()
        };
        let web = BTreeMap::from([
            ("r1-i1-n0".to_string(), node(true, 0, "status 500", 3)),
            ("r1-i1-n1".to_string(), node(false, 4, "status 500", 0)),
            ("r2-i2-n0".to_string(), node(false, 0, "", 0)),
        ]);
        let status = WorkerStatus {
            generations: BTreeMap::from([("hello/web".to_string(), 7), ("shop/api".to_string(), 1)]),
            nodes: BTreeMap::from([("hello/web".to_string(), web)]),
            ..WorkerStatus::default()
        };
        let worker = |pid, leaving| Worker { pid, socket: String::new(), leaving };
        let listening = vec!["0.0.0.0:80".parse().expect("address"), "[::]:443".parse().expect("address")];
        let proxy = ProxyStatus { holder: 9, listening, workers: Vec::new(), replaced: 1, ..ProxyStatus::default() };
        let workers = [Seen { worker: worker(10, true), status: None }, Seen { worker: worker(11, false), status: Some(status) }];
        assert_eq!(
            words(&proxy, &workers),
            "proxy 9 · listens on 0.0.0.0:80, [::]:443
  workers that ended by themselves and were replaced: 1; its log says why

worker 10 · leaving: it takes no new connections
  it does not answer

worker 11 · serves
  service    route  node      condition          in flight  idle  latest failure
  hello/web  g7     r1-i1-n0  ready              3          2     -
                    r1-i1-n1  failed 4 in a row  0          2     status 500
                    r2-i2-n0  not used           0          2     -
  shop/api   g1     -         -                  -          -     -
"
        );
    }
}
