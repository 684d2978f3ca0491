//! Virtual clients and their requests: the simulated world's witness.

use super::random::Random;
use gapless_core::node::NodeId;
use gapless_core::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many requests one in the following number is slow: enough that every drain has some in flight.
const ONE_SLOW_IN: u64 = 20;

/// How long a slow request takes, in milliseconds.
const SLOW_MS: u64 = 700;

/// How long the others take at most, in milliseconds.
const QUICK_MS: u64 = 40;

/// How many requests one in the following number takes as long as [`LONG_MS`], in a world with long ones: longer than the shortest drain deadlines.
const ONE_LONG_IN: u64 = 150;

/// How long such a request takes, in milliseconds.
const LONG_MS: u64 = 9_000;

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
    /// Those that a proxy took along when it lost its worker, its memory or its present route.
    pub died_with_proxy: u64,
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

    pub(super) fn die_with_node(&mut self, requests: usize) {
        self.requests += requests as u64;
        self.died_with_node += requests as u64;
    }

    pub(super) fn die_with_proxy(&mut self, requests: usize) {
        self.requests += requests as u64;
        self.died_with_proxy += requests as u64;
    }
}

/// A request that a proxy sent to a node.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The proxy's place.
    pub(super) proxy: usize,
    pub(super) node: NodeId,
    /// `None`: not by itself.
    pub(super) ends: Option<Instant>,
    /// Its proxy had an older route than it had acknowledged.
    pub(super) rewound: bool,
}

/// How long the next request takes.
pub(super) fn duration(random: &mut Random, long: bool) -> Duration {
    if long && random.below(ONE_LONG_IN) == 0 {
        return Duration::from_millis(LONG_MS);
    }
    let slow = random.below(ONE_SLOW_IN) == 0;
    Duration::from_millis(if slow { SLOW_MS } else { 1 + random.below(QUICK_MS) })
}

/// Takes the requests out that fulfil a condition.
pub(super) fn take(requests: &mut Vec<Request>, condition: impl FnMut(&mut Request) -> bool) -> Vec<Request> {
    requests.extract_if(.., condition).collect()
}
