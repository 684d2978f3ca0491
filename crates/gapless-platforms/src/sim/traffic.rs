//! Virtual clients and their requests: the simulated world's witness.

use super::random::Random;
use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many requests one in the following number is slow: enough that every drain has some in flight.
const ONE_SLOW_IN: u64 = 20;

/// How long a slow request takes, in milliseconds.
const SLOW_MS: u64 = 700;

/// How long the others take at most, in milliseconds.
const QUICK_MS: u64 = 40;

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that ended, in whatever way.
    pub requests: u64,
    /// Those that failed, by cause.
    pub failed: BTreeMap<&'static str, u64>,
    /// Those that were still running on a drained node at its deadline.
    pub cut: u64,
    /// Those that a node took along when it died by itself.
    pub died_with_node: u64,
}

impl Tally {
    /// How many failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    pub(super) fn fail(&mut self, cause: &'static str) {
        self.requests += 1;
        *self.failed.entry(cause).or_default() += 1;
    }
}

/// A request that a proxy sent to a node.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) service: ServiceName,
    pub(super) proxy: String,
    pub(super) node: NodeId,
    /// `None`: not by itself.
    pub(super) ends: Option<Instant>,
}

/// The clients of a world.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    pub(super) sending: BTreeSet<ServiceName>,
    /// Services that had a member with weight once.
    pub(super) served: BTreeSet<ServiceName>,
    pub(super) in_flight: Vec<Request>,
    pub(super) tally: Tally,
}

impl Clients {
    pub(super) fn begin(&mut self, service: &ServiceName) {
        self.sending.insert(service.clone());
    }

    /// Requests that a node has not answered yet.
    pub(super) fn at_node(&self, service: &ServiceName, node: NodeId) -> u32 {
        let count = self.in_flight.iter().filter(|request| request.service == *service && request.node == node).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Takes the requests out that fulfil a condition.
    pub(super) fn take(&mut self, mut condition: impl FnMut(&Request) -> bool) -> Vec<Request> {
        let (taken, left) = std::mem::take(&mut self.in_flight).into_iter().partition(&mut condition);
        self.in_flight = left;
        taken
    }
}

/// How long the next request takes.
pub(super) fn duration(random: &mut Random) -> Duration {
    let slow = random.below(ONE_SLOW_IN) == 0;
    Duration::from_millis(if slow { SLOW_MS } else { 1 + random.below(QUICK_MS) })
}
