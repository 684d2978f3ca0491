//! What is known of a request's body on its way to a node, while somebody else waits for the answer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

/// An upload under way.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    /// The node has been sent all of it.
    pub(crate) ended: Cell<bool>,
    /// When a piece came last.
    pub(crate) moved: Cell<Option<Instant>>,
    /// The node answers already, so nobody waits for it any more.
    pub(crate) is_answered: Cell<bool>,
}

impl Upload {
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }
}
