//! The simulated world: what is, and how it goes on.

use super::node::{Behaviour, Node};
use super::proxy::{Arriving, Proxy};
use super::random::Random;
use super::traffic::{self, Clients, Request};
use super::{Picture, SimOptions};
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::release::ArtifactVersion;
use gapless_core::route::{Generation, Route};
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Declarations;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The grain of simulated time: nothing that matters here is shorter. Every sending service gets a request in each.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// How often an effect fails by chance in a row at most: fewer than the tries after which a rollout is given up, so that chance rejects none.
const FAILURES_IN_A_ROW: u32 = 2;

/// Everything that is.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) revision: u64,
    pub(super) behaviours: BTreeMap<ArtifactVersion, Behaviour>,
    pub(super) proxies: BTreeMap<String, Proxy>,
    pub(super) clients: Clients,
    /// By effect: how many of the next ones fail, and how.
    pub(super) failing: BTreeMap<&'static str, (u32, ErrorKind)>,
    pub(super) carried_out: BTreeMap<&'static str, u32>,
    /// By effect: failures by chance since it last went well.
    failed_in_a_row: BTreeMap<&'static str, u32>,
    services: BTreeMap<ServiceName, Nodes>,
    random: Random,
    apply_delay: Duration,
}

/// The nodes of a service.
#[derive(Default)]
struct Nodes {
    existing: BTreeMap<NodeId, Node>,
    /// Every node that ever was: none of them is made again.
    made: BTreeSet<NodeId>,
}

impl World {
    pub(super) fn new(options: &SimOptions, now: Instant) -> Self {
        let proxies = (0..options.proxies).map(|number| (format!("proxy-{number}"), Proxy { reachable: true, ..Proxy::default() }));
        Self {
            now,
            revision: 1,
            behaviours: BTreeMap::new(),
            proxies: proxies.collect(),
            clients: Clients::default(),
            failing: BTreeMap::new(),
            carried_out: BTreeMap::new(),
            failed_in_a_row: BTreeMap::new(),
            services: BTreeMap::new(),
            random: Random::new(options.seed),
            apply_delay: options.apply_delay,
        }
    }

    pub(super) fn advance_to(&mut self, instant: Instant) {
        while self.now.after(TICK) <= instant {
            self.now = self.now.after(TICK);
            self.nodes_go_on();
            self.proxies_go_on();
            self.requests_end();
            self.requests_begin();
        }
    }

    fn nodes_go_on(&mut self) {
        for (name, nodes) in &mut self.services {
            for (id, node) in &mut nodes.existing {
                if !node.advance(&behaviour(&self.behaviours, node), self.now) {
                    continue;
                }
                self.revision += 1;
                if matches!(node.condition, Condition::Exited { .. }) {
                    let lost = self.clients.take(|request| request.service == *name && request.node == *id);
                    self.clients.tally.died_with_node += lost.len() as u64;
                    self.clients.tally.requests += lost.len() as u64;
                }
            }
        }
    }

    fn proxies_go_on(&mut self) {
        for proxy in self.proxies.values_mut() {
            self.revision += u64::from(proxy.apply(self.now));
            for (name, service) in &mut proxy.services {
                let nodes = self.services.get(name);
                for (id, checked) in &mut service.checks {
                    let node = nodes.and_then(|nodes| nodes.existing.get(id));
                    let answer = node.and_then(|node| node.answer(&behaviour(&self.behaviours, node), self.now));
                    self.revision += u64::from(checked.check(answer, self.now));
                }
            }
        }
    }

    fn requests_end(&mut self) {
        let (now, proxies) = (self.now, &self.proxies);
        let over = self.clients.take(|request| request.ends.is_some_and(|ends| ends <= now));
        let cut = self.clients.take(|request| {
            let service = proxies.get(&request.proxy).and_then(|proxy| proxy.services.get(&request.service));
            service.and_then(|service| service.draining.get(&request.node)).is_some_and(|deadline| *deadline <= now)
        });
        self.clients.tally.requests += (over.len() + cut.len()) as u64;
        self.clients.tally.cut += cut.len() as u64;
        for request in over.iter().chain(&cut) {
            self.revision += u64::from(self.clients.at_node(&request.service, request.node) == 0);
        }
    }

    fn requests_begin(&mut self) {
        for service in self.clients.sending.clone() {
            let duration = traffic::duration(&mut self.random);
            self.send_request(&service, Some(self.now.after(duration)));
        }
    }

    /// Sends a request to one of the proxies that know the service. Whether a node took it.
    fn send_request(&mut self, service: &ServiceName, ends: Option<Instant>) -> bool {
        let serving: Vec<String> = self
            .proxies
            .iter()
            .filter(|(_, proxy)| proxy.services.get(service).is_some_and(|service| service.route.generation > Generation::default()))
            .map(|(name, _)| name.clone())
            .collect();
        let drawn = usize::try_from(self.random.below(serving.len() as u64)).unwrap_or_default();
        let Some(name) = serving.get(drawn) else { return false };
        let Some(route) = self.proxies.get_mut(name).and_then(|proxy| proxy.services.get_mut(service)) else { return false };
        if !route.serves() && !self.clients.served.contains(service) {
            // Nobody asks a service that was never there.
            return false;
        }
        self.clients.served.insert(service.clone());
        let Some(node) = route.choose() else {
            self.clients.tally.fail("no-ready-node");
            return false;
        };
        let seen = self.services.get(service).and_then(|nodes| nodes.existing.get(&node));
        if seen.and_then(|seen| seen.answer(&behaviour(&self.behaviours, seen), self.now)).is_none() {
            self.clients.tally.fail("connect");
            return false;
        }
        self.clients.in_flight.push(Request { service: service.clone(), proxy: name.clone(), node, ends });
        true
    }

    pub(super) fn hold_request(&mut self, service: &ServiceName) -> bool {
        self.send_request(service, None)
    }

    pub(super) fn kill_node(&mut self, service: &ServiceName, node: NodeId, code: i32) {
        let Some(killed) = self.services.get_mut(service).and_then(|nodes| nodes.existing.get_mut(&node)) else { return };
        killed.condition = Condition::Exited { code: Some(code), output: "killed".to_string() };
        let lost = self.clients.take(|request| request.service == *service && request.node == node).len() as u64;
        self.clients.tally.died_with_node += lost;
        self.clients.tally.requests += lost;
        self.revision += 1;
    }

    pub(super) fn replace_proxy(&mut self, name: &str) {
        self.proxies.insert(name.to_string(), Proxy { reachable: true, ..Proxy::default() });
        self.revision += 1;
    }

    pub(super) fn ensure_group(&mut self, declaration: &ServiceDeclaration, group: GroupId, size: u32) {
        let nodes = self.services.entry(declaration.service.clone()).or_default();
        for id in (0..size).map(|ordinal| group.node(ordinal)) {
            if nodes.made.insert(id) {
                let artifact = declaration.artifact_version;
                let node = Node { artifact, declared_image: declaration.image, created: self.now, condition: Condition::Starting };
                nodes.existing.insert(id, node);
                self.revision += 1;
            }
        }
    }

    /// Whether a node of the group is still being started.
    pub(super) fn starting(&self, service: &ServiceName, group: GroupId) -> bool {
        let nodes = self.services.get(service).into_iter().flat_map(|nodes| &nodes.existing);
        nodes.filter(|(id, _)| id.group == group).any(|(_, node)| node.condition == Condition::Starting)
    }

    pub(super) fn send_route(&mut self, service: &ServiceName, route: &Route, declarations: &Declarations) -> Result<(), Error> {
        let check = |node: &NodeId| declarations.get(&node.group.release).map(|declaration| (*node, declaration.health.clone()));
        let checks: BTreeMap<_, _> = route.members.keys().filter_map(check).collect();
        if checks.len() < route.members.len() {
            return Err(Error::new("the declaration of a member's release is missing"));
        }
        let arrival = self.now.after(self.apply_delay);
        for proxy in self.proxies.values_mut().filter(|proxy| proxy.reachable) {
            proxy.arriving.push((arrival, service.clone(), Arriving { route: route.clone(), checks: checks.clone() }));
        }
        self.all_reachable()
    }

    fn all_reachable(&self) -> Result<(), Error> {
        match self.proxies.iter().find(|(_, proxy)| !proxy.reachable) {
            Some((name, _)) => Err(Error::new(format!("{name} cannot be reached"))),
            None => Ok(()),
        }
    }

    pub(super) fn route_is_applied(&self, service: &ServiceName, generation: Generation) -> Result<bool, Error> {
        self.all_reachable()?;
        for (name, proxy) in &self.proxies {
            let applied = proxy.services.get(service).map(|service| service.route.generation);
            if applied >= Some(generation) {
                continue;
            }
            if proxy.arriving.is_empty() {
                return Err(Error::new(format!("{name} was replaced and knows nothing of the route")));
            }
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn drain(&mut self, service: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Result<(), Error> {
        let deadline = self.now.after(deadline);
        for proxy in self.proxies.values_mut().filter(|proxy| proxy.reachable) {
            let service = proxy.services.entry(service.clone()).or_default();
            for node in nodes {
                service.draining.entry(*node).or_insert(deadline);
            }
        }
        self.all_reachable()
    }

    pub(super) fn destroy_nodes(&mut self, service: &ServiceName, doomed: &BTreeSet<NodeId>) {
        let nodes = self.services.entry(service.clone()).or_default();
        for id in doomed {
            nodes.made.insert(*id);
            if nodes.existing.remove(id).is_some() {
                self.revision += 1;
            }
        }
        for _ in self.clients.take(|request| request.service == *service && doomed.contains(&request.node)) {
            self.clients.tally.fail("node-destroyed");
        }
    }

    pub(super) fn observe(&self, service: &ServiceName) -> Observation {
        let nodes = self.services.get(service).into_iter().flat_map(|nodes| &nodes.existing);
        let seen = |(id, node): (&NodeId, &Node)| {
            let image = behaviour(&self.behaviours, node).image.unwrap_or(node.declared_image);
            let requests_in_flight = self.clients.at_node(service, *id);
            (*id, NodeSeen { condition: node.condition.clone(), image, health: self.health(service, *id), requests_in_flight })
        };
        let generation = |proxy: &Proxy| {
            let service = proxy.services.get(service).filter(|_| proxy.reachable);
            service.map(|service| service.route.generation).filter(|generation| *generation > Generation::default())
        };
        Observation {
            nodes: nodes.map(seen).collect(),
            proxies: self.proxies.iter().map(|(name, proxy)| (name.clone(), generation(proxy))).collect(),
        }
    }

    /// The worst of all proxies.
    fn health(&self, service: &ServiceName, node: NodeId) -> Health {
        let checked = self.proxies.values().map(|proxy| {
            let checked = proxy.services.get(service).and_then(|service| service.checks.get(&node));
            checked.map_or_else(Health::default, |checked| checked.health.clone())
        });
        let worse = |one: Health, other: Health| Health {
            passes: one.passes.min(other.passes),
            failures: one.failures.max(other.failures),
            failures_after_answer: one.failures_after_answer.max(other.failures_after_answer),
            evidence: if one.failures >= other.failures { one.evidence } else { other.evidence },
        };
        checked.reduce(worse).unwrap_or_default()
    }

    pub(super) fn picture(&self, service: &ServiceName) -> Picture {
        let members = |proxy: &Proxy| proxy.services.get(service).map(|service| service.route.members.clone()).unwrap_or_default();
        Picture {
            nodes: self.services.get(service).map(|nodes| nodes.existing.keys().copied().collect()).unwrap_or_default(),
            routes: self.proxies.iter().map(|(name, proxy)| (name.clone(), members(proxy))).collect(),
        }
    }

    pub(super) fn fail_before(&mut self, effect: &'static str, per_mille: u32) -> Result<(), Error> {
        if let Some((times, kind)) = self.failing.get_mut(effect).filter(|(times, _)| *times > 0) {
            *times -= 1;
            return Err(Error::new(format!("{effect} was made to fail")).kind(*kind));
        }
        match self.happens(effect, per_mille) {
            true => Err(Error::new(format!("{effect} failed by chance"))),
            false => Ok(()),
        }
    }

    pub(super) fn fail_after(&mut self, effect: &'static str, per_mille: u32) -> Result<(), Error> {
        if self.happens(effect, per_mille) {
            return Err(Error::new(format!("{effect} was done, and its answer was lost by chance")));
        }
        self.failed_in_a_row.remove(effect);
        Ok(())
    }

    fn happens(&mut self, effect: &'static str, per_mille: u32) -> bool {
        let failed = self.failed_in_a_row.entry(effect).or_default();
        let happens = *failed < FAILURES_IN_A_ROW && self.random.happens(per_mille);
        *failed += u32::from(happens);
        happens
    }
}

fn behaviour(behaviours: &BTreeMap<ArtifactVersion, Behaviour>, node: &Node) -> Behaviour {
    behaviours.get(&node.artifact).cloned().unwrap_or_default()
}
