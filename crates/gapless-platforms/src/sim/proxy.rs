//! Virtual proxies.

use gapless_core::name::ServiceName;
use gapless_core::node::NodeId;
use gapless_core::observation::{Evidence, Health};
use gapless_core::route::{Route, Weight};
use gapless_core::time::Instant;
use gapless_engine::declaration::HealthCheck;
use std::collections::BTreeMap;

/// One virtual proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxy {
    /// Whether the platform reaches it.
    pub(super) reachable: bool,
    pub(super) services: BTreeMap<ServiceName, Service>,
    /// Routes on their way, each with its arrival.
    pub(super) arriving: Vec<(Instant, ServiceName, Arriving)>,
}

/// A route on its way to a proxy, with how each member is checked.
#[derive(Clone, Debug)]
pub(super) struct Arriving {
    pub(super) route: Route,
    pub(super) checks: BTreeMap<NodeId, HealthCheck>,
}

/// What a proxy knows of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) route: Route,
    pub(super) checks: BTreeMap<NodeId, Checked>,
    /// When requests that still run on a node are cut.
    pub(super) draining: BTreeMap<NodeId, Instant>,
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

impl Proxy {
    /// Applies what has arrived by `now`, but nothing older than what is applied (I5). Whether anything was applied.
    pub(super) fn apply(&mut self, now: Instant) -> bool {
        let (arrived, arriving) = std::mem::take(&mut self.arriving).into_iter().partition(|(at, ..)| *at <= now);
        self.arriving = arriving;
        let mut applied = false;
        for (_, name, Arriving { route, checks }) in arrived {
            let known = self.services.get(&name).map(|service| service.route.generation);
            if known.is_some_and(|known| known > route.generation) {
                continue;
            }
            self.services.entry(name).or_default().apply(route, &checks, now);
            applied = true;
        }
        applied
    }
}

impl Service {
    fn apply(&mut self, route: Route, checks: &BTreeMap<NodeId, HealthCheck>, now: Instant) {
        self.checks.retain(|node, _| route.members.contains_key(node));
        for node in route.members.keys() {
            if let Some(check) = checks.get(node) {
                let new = || Checked { check: check.clone(), next: now, health: Health::default(), answered: false };
                self.checks.entry(*node).or_insert_with(new);
            }
        }
        self.route = route;
    }

    /// The member that the next request goes to: round robin among those with weight whose checks do not fail; when all fail, among those with weight.
    pub(super) fn choose(&mut self) -> Option<NodeId> {
        let weighted: Vec<NodeId> =
            self.route.members.iter().filter(|(_, weight)| **weight > Weight::PROBED).map(|(node, _)| *node).collect();
        let healthy: Vec<NodeId> =
            weighted.iter().copied().filter(|node| self.checks.get(node).is_none_or(|checked| checked.health.failures == 0)).collect();
        let chosen = if healthy.is_empty() { weighted } else { healthy };
        self.turn = self.turn.wrapping_add(1);
        chosen.get(self.turn % chosen.len().max(1)).copied()
    }

    /// Whether any member has weight.
    pub(super) fn serves(&self) -> bool {
        self.route.members.values().any(|weight| *weight > Weight::PROBED)
    }
}

impl Checked {
    /// Checks the node if it is time. Whether it was checked.
    pub(super) fn check(&mut self, answer: Option<u16>, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now.after(self.check.interval);
        self.answered |= answer.is_some();
        let result = match answer {
            Some(200..=299) => {
                self.health = Health { passes: self.health.passes.saturating_add(1), ..Health::default() };
                return true;
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
        true
    }
}
