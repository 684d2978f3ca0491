//! What the platform sees, put together from the host and from all proxies.

use super::proxies::WorkerSeen;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::observation::{Evidence, Health};
use gapless_core::route::Generation;
use gapless_wire::route::NodeStatus;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What was seen of the proxies at the last look at a service: the mark from which changes count.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// How much news of nodes there had been.
    pub news: u64,
    /// The revision of every worker that answered.
    pub revisions: BTreeMap<PathBuf, u64>,
    /// Every worker's name.
    pub workers: Vec<String>,
}

impl Looked {
    /// The mark of a look.
    pub fn new(news: u64, workers: &[WorkerSeen]) -> Self {
        let revision = |worker: &WorkerSeen| Some((worker.socket.clone()?, worker.status.as_ref()?.revision));
        Self { news, revisions: workers.iter().filter_map(revision).collect(), workers: names(workers) }
    }
}

/// The workers' names, in order.
pub fn names(workers: &[WorkerSeen]) -> Vec<String> {
    let mut names: Vec<String> = workers.iter().map(|worker| worker.name.clone()).collect();
    names.sort();
    names
}

/// The generation of a service that each proxy applied.
pub fn generations(workers: &[WorkerSeen], service: &ServiceName) -> BTreeMap<String, Option<Generation>> {
    let name = service.to_string();
    let generation = |worker: &WorkerSeen| worker.status.as_ref()?.generations.get(&name).copied().map(Generation);
    workers.iter().map(|worker| (worker.name.clone(), generation(worker))).collect()
}

fn status<'a>(worker: &'a WorkerSeen, service: &str, node: NodeId) -> Option<&'a NodeStatus> {
    worker.status.as_ref()?.nodes.get(service)?.get(&node.to_string())
}

/// Requests on their way to a node, over all proxies.
pub fn in_flight(workers: &[WorkerSeen], service: &ServiceName, node: NodeId) -> u32 {
    let name = service.to_string();
    workers.iter().filter_map(|worker| status(worker, &name, node)).map(|status| status.requests_in_flight).fold(0, u32::saturating_add)
}

/// A node's health as the worst of all workers sees it. A leaving worker checks for its last requests alone; it has a say only when there is no other.
pub fn health(workers: &[WorkerSeen], service: &ServiceName, node: NodeId, path: &str) -> Health {
    let name = service.to_string();
    let staying = workers.iter().any(|worker| !worker.leaving && worker.status.is_some());
    let asked = workers.iter().filter(|worker| worker.status.is_some() && (!staying || !worker.leaving));
    let seen: Vec<NodeStatus> = asked.map(|worker| status(worker, &name, node).cloned().unwrap_or_default()).collect();
    let failures_after_answer = seen.iter().map(|status| status.failures_after_answer).max().unwrap_or(0);
    let worst = seen.into_iter().min_by_key(|status| (std::cmp::Reverse(status.failures), status.passes)).unwrap_or_default();
    let evidence = (worst.failures > 0).then(|| Evidence {
        check: format!("GET {path}"),
        result: worst.failure.unwrap_or_else(|| "failed".to_string()),
        times: worst.failures,
    });
    Health { passes: if worst.failures > 0 { 0 } else { worst.passes }, failures: worst.failures, failures_after_answer, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_wire::route::WorkerStatus;

    fn worker(name: &str, leaving: bool, node: Option<NodeStatus>) -> WorkerSeen {
        let nodes = node.map(|status| BTreeMap::from([("r1-i1-n0".to_string(), status)])).unwrap_or_default();
        let status = WorkerStatus {
            revision: 3,
            generations: BTreeMap::from([("hello/web".to_string(), 4)]),
            nodes: BTreeMap::from([("hello/web".to_string(), nodes)]),
            ..WorkerStatus::default()
        };
        WorkerSeen { name: name.to_string(), socket: Some(name.into()), leaving, status: Some(status) }
    }

    fn checked(passes: u32, failures: u32, requests_in_flight: u32) -> Option<NodeStatus> {
        let failure = (failures > 0).then(|| "status 500".to_string());
        Some(NodeStatus { passes, failures, failure, requests_in_flight, ..NodeStatus::default() })
    }

    fn service() -> ServiceName {
        "hello/web".parse().unwrap()
    }

    fn node() -> NodeId {
        "r1-i1-n0".parse().unwrap()
    }

    #[test]
    fn the_worst_worker_counts() {
        let workers = [worker("a", false, checked(9, 0, 1)), worker("b", false, checked(0, 2, 2))];
        let health = health(&workers, &service(), node(), "/healthz");
        assert_eq!((health.passes, health.failures), (0, 2));
        assert_eq!(health.evidence.unwrap().result, "status 500");
        assert_eq!(in_flight(&workers, &service(), node()), 3);
    }

    #[test]
    fn a_worker_that_has_not_checked_yet_holds_the_gate() {
        let workers = [worker("a", false, checked(9, 0, 0)), worker("b", false, None)];
        assert_eq!(health(&workers, &service(), node(), "/healthz"), Health::default());
    }

    #[test]
    fn a_leaving_worker_counts_for_requests_but_not_for_health() {
        let workers = [worker("a", true, checked(0, 5, 1)), worker("b", false, checked(3, 0, 0))];
        assert_eq!(health(&workers, &service(), node(), "/healthz").passes, 3);
        assert_eq!(in_flight(&workers, &service(), node()), 1);
        assert_eq!(generations(&workers, &service()).len(), 2);
    }

    #[test]
    fn a_silent_proxy_stands_as_none() {
        let silent = WorkerSeen { name: "holder".to_string(), socket: None, leaving: false, status: None };
        assert_eq!(generations(&[silent], &service()), BTreeMap::from([("holder".to_string(), None)]));
    }
}
