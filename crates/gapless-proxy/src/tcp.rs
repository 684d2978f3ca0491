//! Services that are no HTTP: a connection is a request, and its bytes are passed on.

use crate::account::End;
use crate::buffer::Inlet;
use crate::core::Core;
use crate::http1::node::{Connection, connect_failure};
use crate::node::NodeKey;
use crate::request::{Client, Inbound};
use crate::route::Choice;
use crate::stream::Stream;
use crate::tunnel::{self, Mouth};
use gapless_wire::record::cause;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Carries a client's connection to a node of the service of this name. What cannot be connected is tried with each node once: nothing of it was sent. Without a node it is held as long as the
/// service holds requests, and closed then.
pub(crate) async fn serve(core: &Rc<Core>, stream: &Rc<Stream>, client: &Client, name: &str) {
    let Some(service) = core.shared.routes.named_service(name) else {
        tracing::warn!(service = name, "a listener's service is not there");
        return;
    };
    let mut account = core.account(&service.name, false, Instant::now());
    let mut tried: Vec<NodeKey> = Vec::new();
    let mut changes = core.shared.changes.subscribe();
    let until = Instant::now() + service.hold;
    loop {
        match core.claim_named(name, &tried) {
            Choice::Claimed(claim, service) => {
                let node = claim.node.clone();
                account.asks(&node, None);
                let limit = Duration::from_millis(service.treatment.timeouts.connect_ms);
                match Connection::open(&core.streams, &node, limit).await {
                    Ok(connection) => {
                        let exchange = core.exchanges.enter(node.clone(), connection.stream.clone());
                        account.answered(claim, exchange.cut_mark(), 0);
                        exchange.answering(stream.clone(), false);
                        node.note_answered_request();
                        carry(core, stream, connection).await;
                        account.close(if exchange.was_cut() { End::Cut } else { End::Whole(u64::MAX) });
                        break;
                    }
                    Err(error) => {
                        let reason = connect_failure(&error, limit);
                        node.note_refused(&reason);
                        account.asks_nobody();
                        account.try_failed(&node);
                        tried.push(node.key);
                        if tried.len() >= service.tries() {
                            account.close(End::Failed(cause::CONNECT));
                            break;
                        }
                        account.retried = true;
                    }
                }
            }
            Choice::NoneReady(_) if Instant::now() < until && !core.shared.is_cut() => {
                account.held = true;
                // Whether it was a change or the end of the hold is seen in the next round.
                let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
            }
            _ => {
                account.close(End::Failed(cause::NO_READY_NODE));
                break;
            }
        }
    }
    if let Some(closed) = account.settle() {
        core.log(client, &Inbound::default(), &closed);
    }
}

async fn carry(core: &Core, stream: &Stream, mut connection: Connection) {
    let mut inlet = Inlet::default();
    let client = Mouth { stream, inlet: &mut inlet };
    let node = Mouth { stream: &connection.stream, inlet: &mut connection.inlet };
    tunnel::carry(client, node, &core.buffers).await;
}
