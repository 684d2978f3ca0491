//! The exchanges with nodes that are under way on one core, so that a drain deadline can cut them.

use crate::node::NodeKey;
use crate::stream::Handle;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::Notify;

/// All exchanges of a core.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    running: RefCell<HashMap<u64, (NodeKey, Rc<Wire>)>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Wire {
    handle: Handle,
    cut: Cell<bool>,
    told: Notify,
    /// Once the answer's head is on its way.
    client: OnceCell<Client>,
}

/// The client that an answer goes to.
#[derive(Debug)]
struct Client {
    handle: Handle,
    /// Only a reset tells it that the answer is not whole.
    needs_reset: bool,
}

/// Tells whether an exchange was cut, also after its end.
#[derive(Clone, Debug)]
pub(crate) struct CutMark(Rc<Wire>);

impl CutMark {
    pub(crate) fn is_set(&self) -> bool {
        self.0.cut.get()
    }
}

impl Exchanges {
    /// Enters an exchange; it leaves when the guard is dropped.
    pub(crate) fn enter(self: &Rc<Self>, node: NodeKey, handle: Handle) -> Exchange {
        let number = self.next.get();
        self.next.set(number + 1);
        let wire = Rc::new(Wire { handle, cut: Cell::new(false), told: Notify::new(), client: OnceCell::new() });
        self.running.borrow_mut().insert(number, (node, wire.clone()));
        Exchange { number, wire, all: self.clone() }
    }

    /// Cuts what still runs on these nodes, or everywhere; how many it cut.
    pub(crate) fn cut(&self, nodes: Option<&[NodeKey]>) -> usize {
        let concerned: Vec<Rc<Wire>> = self
            .running
            .borrow()
            .values()
            .filter(|(node, wire)| !wire.cut.get() && nodes.is_none_or(|nodes| nodes.contains(node)))
            .map(|(_, wire)| wire.clone())
            .collect();
        for wire in &concerned {
            wire.cut.set(true);
            wire.handle.shutdown();
            // A client that does not read would otherwise never let its connection look at the node's again.
            if let Some(client) = wire.client.get() {
                if client.needs_reset {
                    client.handle.reset_at_close();
                }
                client.handle.abort();
            }
            wire.told.notify_one();
        }
        concerned.len()
    }
}

/// One exchange with a node.
#[derive(Debug)]
pub(crate) struct Exchange {
    number: u64,
    wire: Rc<Wire>,
    all: Rc<Exchanges>,
}

impl Exchange {
    /// It was cut, so whatever ends now did not end by itself.
    pub(crate) fn was_cut(&self) -> bool {
        self.wire.cut.get()
    }

    pub(crate) fn cut_mark(&self) -> CutMark {
        CutMark(self.wire.clone())
    }

    /// The answer's head goes out now, so a cut has to end the client's connection too: no other answer can follow.
    pub(crate) fn answering(&self, handle: Handle, needs_reset: bool) {
        // An exchange has one answer.
        let _ = self.wire.client.set(Client { handle, needs_reset });
    }

    /// Returns when it is cut. One caller at a time.
    pub(crate) async fn cut(&self) {
        self.wire.told.notified().await;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.all.running.borrow_mut().remove(&self.number);
    }
}
