//! Virtual proxies.

use gapless_core::node::NodeId;
use gapless_core::observation::{Evidence, Health};
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::time::Instant;
use gapless_engine::declaration::HealthCheck;
use std::collections::BTreeMap;
use std::time::Duration;

/// After so many equal checks in a row, another one tells nothing new.
const NEWS: u32 = 40;

/// One virtual proxy.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) name: String,
    /// Whether the platform reaches it.
    pub(super) reachable: bool,
    /// Whether it has a worker.
    pub(super) present: bool,
    /// What a message to it takes beside the ordinary.
    pub(super) slow: Duration,
}

/// How each member of a route is checked.
pub(super) type Checks = BTreeMap<NodeId, HealthCheck>;

/// What one proxy knows of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct AtProxy {
    pub(super) route: Route,
    /// The route before.
    before: Option<Route>,
    pub(super) checks: BTreeMap<NodeId, Checked>,
    /// When requests that still run on a node are cut.
    pub(super) draining: BTreeMap<NodeId, Instant>,
    /// The latest generation that it ever acknowledged.
    acknowledged: Generation,
    /// It had traffic to give once.
    pub(super) served: bool,
    turn: usize,
}

/// How a member is checked and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    check: HealthCheck,
    next: Instant,
    pub(super) health: Health,
    answered: bool,
}

impl AtProxy {
    /// It came back with an older route than it had acknowledged: no promise holds for what it sends until it has a new one.
    pub(super) fn is_rewound(&self) -> bool {
        self.route.generation < self.acknowledged
    }

    /// The generation that it applied, if any.
    pub(super) fn generation(&self) -> Option<Generation> {
        Some(self.route.generation).filter(|generation| *generation > Generation::default())
    }

    /// Applies a route, but none that is older than the applied one (I5). Whether it was applied.
    pub(super) fn apply(&mut self, route: &Route, checks: &Checks, now: Instant) -> bool {
        if self.route.generation > route.generation {
            return false;
        }
        self.checks.retain(|node, _| route.members.contains_key(node));
        for node in route.members.keys() {
            if let Some(check) = checks.get(node) {
                self.checks.entry(*node).or_insert_with(|| Checked::new(check, now));
            }
        }
        if self.route.generation < route.generation {
            self.before = Some(std::mem::replace(&mut self.route, route.clone()));
            self.acknowledged = self.acknowledged.max(route.generation);
        }
        true
    }

    /// Its next worker begins with the route from its disk, and knows nothing else.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.draining.clear();
        for checked in self.checks.values_mut() {
            (checked.next, checked.health, checked.answered) = (now, Health::default(), false);
        }
    }

    /// It comes back with the route before the last one. Whether there was one.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(before) = self.before.take().filter(|before| before.generation > Generation::default()) else { return false };
        self.route = before;
        self.checks.retain(|node, _| self.route.members.contains_key(node));
        true
    }

    /// The member that the next request goes to: round robin among those with weight whose checks do not fail; when all fail, among those with weight.
    pub(super) fn choose(&mut self) -> Option<NodeId> {
        self.turn = self.turn.wrapping_add(1);
        let weighted = || self.route.members.iter().filter(|(_, weight)| **weight > Weight::PROBED).map(|(node, _)| *node);
        let healthy = || weighted().filter(|node| self.checks.get(node).is_none_or(|checked| checked.health.failures == 0));
        match healthy().count() {
            0 => weighted().nth(self.turn % weighted().count().max(1)),
            count => healthy().nth(self.turn % count),
        }
    }

    /// Whether any member has weight.
    pub(super) fn serves(&self) -> bool {
        self.route.members.values().any(|weight| *weight > Weight::PROBED)
    }
}

impl Checked {
    pub(super) fn new(check: &HealthCheck, now: Instant) -> Self {
        Self { check: check.clone(), next: now, health: Health::default(), answered: false }
    }

    /// Checks the node if it is time. Whether that told something new.
    pub(super) fn check(&mut self, answer: Option<u16>, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now.after(self.check.interval);
        self.answered |= answer.is_some();
        let result = match answer {
            Some(200..=299) => {
                self.health = Health { passes: self.health.passes.saturating_add(1), ..Health::default() };
                return self.health.passes < NEWS;
            }
            Some(status) => format!("status {status}"),
            None => "connection refused".to_string(),
        };
        let failures = self.health.failures.saturating_add(1);
        let after_answer = self.health.failures_after_answer.saturating_add(u32::from(self.answered));
        self.health = Health {
            passes: 0,
            failures,
            failures_after_answer: after_answer,
            evidence: Some(Evidence { check: format!("GET {}", self.check.path()), result, times: failures }),
        };
        failures < NEWS
    }
}
