//! Walking two sorted sequences side by side: with thousands of nodes, a step looks nothing up that it can meet on its way.

use crate::node::{GroupId, NodeId};
use crate::observation::{NodeSeen, Observation};
use crate::service::ServiceState;
use core::iter::Peekable;

/// A sorted sequence of nodes that is asked in order.
pub(crate) struct Sorted<I: Iterator<Item = NodeId>>(Peekable<I>);

impl<I: Iterator<Item = NodeId>> Sorted<I> {
    /// `nodes` must be sorted.
    pub fn new(nodes: I) -> Self {
        Self(nodes.peekable())
    }

    /// Whether the sequence has this node. Each question must be for a later node than the one before.
    pub fn has(&mut self, node: NodeId) -> bool {
        while self.0.next_if(|next| *next < node).is_some() {}
        self.0.peek() == Some(&node)
    }
}

/// The nodes of a group that shall exist, in order, each with what is seen of it.
pub(crate) fn sighted<'a>(
    state: &'a ServiceState,
    seen: &'a Observation,
    group: GroupId,
) -> impl Iterator<Item = (NodeId, Option<&'a NodeSeen>)> + 'a {
    let mut sights = seen.nodes_of(group).peekable();
    state.wanted_nodes(group).map(move |node| {
        while sights.next_if(|(next, _)| *next < node).is_some() {}
        (node, sights.peek().filter(|(next, _)| *next == node).map(|(_, sight)| *sight))
    })
}

/// Nodes that are seen and shall not exist, in order.
pub(crate) fn unwanted<'a>(state: &'a ServiceState, seen: &'a Observation) -> impl Iterator<Item = (NodeId, &'a NodeSeen)> + 'a {
    let mut wanted = Sorted::new(state.all_wanted());
    seen.nodes.iter().map(|(node, sight)| (*node, sight)).filter(move |(node, _)| !wanted.has(*node))
}
