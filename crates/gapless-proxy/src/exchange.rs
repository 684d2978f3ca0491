//! The exchanges with nodes that are under way on one core, so that a drain deadline can cut them.

use crate::node::{Node, NodeKey};
use slab::Slab;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// What can be broken off from outside.
pub(crate) trait Abort: fmt::Debug {
    /// Lets whoever reads or writes fail from now on, also one who waits.
    fn abort(&self);

    /// Lets the close that follows be a reset, where there is one.
    fn reset_at_close(&self) {}
}

/// All exchanges of a core.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    running: RefCell<Slab<(NodeKey, Rc<Wire>)>>,
}

#[derive(Debug)]
struct Wire {
    node: Rc<dyn Abort>,
    cut: Cell<bool>,
    /// Once the answer's head is on its way.
    client: OnceCell<Client>,
}

/// The client that an answer goes to.
#[derive(Debug)]
struct Client {
    abort: Rc<dyn Abort>,
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
    pub(crate) fn enter(self: &Rc<Self>, node: Arc<Node>, abort: Rc<dyn Abort>) -> Exchange {
        let wire = Rc::new(Wire { node: abort, cut: Cell::new(false), client: OnceCell::new() });
        let place = self.running.borrow_mut().insert((node.key, wire.clone()));
        Exchange { place, node, wire, all: self.clone() }
    }

    /// Cuts what still runs on these nodes, or everywhere; how many it cut.
    pub(crate) fn cut(&self, nodes: Option<&[NodeKey]>) -> usize {
        let concerned: Vec<Rc<Wire>> = self
            .running
            .borrow()
            .iter()
            .map(|(_, running)| running)
            .filter(|(node, wire)| !wire.cut.get() && nodes.is_none_or(|nodes| nodes.contains(node)))
            .map(|(_, wire)| wire.clone())
            .collect();
        for wire in &concerned {
            wire.cut.set(true);
            wire.node.abort();
            // A client that does not read would otherwise never let its connection look at the node's again.
            if let Some(client) = wire.client.get() {
                if client.needs_reset {
                    client.abort.reset_at_close();
                }
                client.abort.abort();
            }
        }
        concerned.len()
    }
}

/// One exchange with a node.
#[derive(Debug)]
pub(crate) struct Exchange {
    place: usize,
    node: Arc<Node>,
    wire: Rc<Wire>,
    all: Rc<Exchanges>,
}

impl Exchange {
    /// It was cut, so whatever ends now did not end by itself.
    pub(crate) fn was_cut(&self) -> bool {
        self.wire.cut.get()
    }

    /// Whom it is with.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn cut_mark(&self) -> CutMark {
        CutMark(self.wire.clone())
    }

    /// The answer's head goes out now, so a cut has to end the client's connection too: no other answer can follow.
    pub(crate) fn answering(&self, abort: Rc<dyn Abort>, needs_reset: bool) {
        // An exchange has one answer.
        let _ = self.wire.client.set(Client { abort, needs_reset });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.all.running.borrow_mut().remove(self.place);
    }
}
