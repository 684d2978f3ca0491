//! Routes: the weight of each member node of a service.

use crate::node::NodeId;
use alloc::collections::BTreeMap;
use core::fmt;

/// Counts the routes of a service up. A receiver refuses a generation older than the one it applied (I5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// A node's share of the traffic, relative to the other members. 0: probed, no traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u16);

impl Weight {
    /// Probed, no traffic.
    pub const PROBED: Weight = Weight(0);
    /// An equal share of the traffic.
    pub const EQUAL: Weight = Weight(100);

    /// Whether a member with this weight gets traffic.
    #[must_use]
    pub fn has_traffic(self) -> bool {
        self > Weight::PROBED
    }
}

/// The route of a service: its members at a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// Its place in the order of this service's routes.
    pub generation: Generation,
    /// Every member with its weight. A node that is not named here gets no request and no probe.
    pub members: BTreeMap<NodeId, Weight>,
}
