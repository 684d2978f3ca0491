//! The exchanges with nodes that are under way on one core, so that a drain deadline can cut them.

use crate::node::NodeKey;
use crate::stream::Handle;
use std::cell::{Cell, RefCell};
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
}

impl Exchanges {
    /// Enters an exchange; it leaves when the guard is dropped.
    pub(crate) fn enter(self: &Rc<Self>, node: NodeKey, handle: Handle) -> Exchange {
        let number = self.next.get();
        self.next.set(number + 1);
        let wire = Rc::new(Wire { handle, cut: Cell::new(false), told: Notify::new() });
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
