//! Draining nodes: their idle connections are closed at once, a check that runs comes to its end, and what still runs at the deadline is cut.

use crate::core::Order;
use crate::node::{Node, NodeKey};
use crate::worker::Worker;
use gapless_wire::route::DrainRequest;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

/// How long a drain waits for checks that run. Whoever asks for it waits longer (2 s), and a check that takes so long is no longer what a node is ended in the middle of
/// by bad luck.
const CHECK_PATIENCE: Duration = Duration::from_secs(1);

/// Begins the drain; when it returns, no idle connection to the nodes is left, and no check of them runs (unless one takes very long). Nodes that are not known any more are
/// drained already.
pub(crate) async fn begin(worker: &Rc<Worker>, request: DrainRequest) {
    let nodes = worker.shared.routes.named(&request.service, &request.nodes);
    let fresh: Vec<Arc<Node>> = nodes.iter().filter(|node| node.set_draining()).cloned().collect();
    close_idle(worker, nodes.iter().map(|node| node.key).collect()).await;
    let checks_ended = async {
        for node in &nodes {
            node.checks_ended().await;
        }
    };
    let _ = tokio::time::timeout(CHECK_PATIENCE, checks_ended).await;
    if fresh.is_empty() {
        return;
    }
    worker.shared.changes.bump();
    spawn_local(cut_at_deadline(worker.clone(), fresh, Duration::from_millis(request.deadline_ms)));
}

async fn close_idle(worker: &Worker, nodes: Vec<NodeKey>) {
    let mut closed = Vec::new();
    for core in &worker.cores {
        let (done, told) = oneshot::channel();
        if core.send(Order::Forget(nodes.clone(), Some(done))).is_ok() {
            closed.push(told);
        }
    }
    for told in closed {
        // A core that is gone has no connections either.
        let _ = told.await;
    }
}

async fn cut_at_deadline(worker: Rc<Worker>, nodes: Vec<Arc<Node>>, deadline: Duration) {
    tokio::time::sleep(deadline).await;
    for node in &nodes {
        // First the mark, for requests that are about to be sent; then the order, for those that were.
        node.set_cut();
    }
    let cut = worker.cut(Some(nodes.iter().map(|node| node.key).collect())).await;
    if cut > 0 {
        tracing::warn!(cut, nodes = ?nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), "requests were cut at the drain deadline");
    }
}
