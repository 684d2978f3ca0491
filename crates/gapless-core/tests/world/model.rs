//! Nodes, proxies and requests. Time is in milliseconds and moves in ticks.

use gapless_core::digest::Digest;
use gapless_core::effect::Task;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::{Condition, Evidence, Health, NodeSeen, Observation};
use gapless_core::route::{Generation, Route, Weight};
use std::collections::{BTreeMap, BTreeSet};

/// One tick of the world.
pub const TICK: u64 = 50;
/// One tick of a world in which little happens for long.
pub const COARSE_TICK: u64 = 1000;
/// From start to start of a proxy's checks.
const CHECK_INTERVAL: u64 = 100;
/// How long an ordinary request runs.
const SHORT_REQUEST: u64 = 60;

/// How the nodes of an artifact version behave.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// From created to running.
    pub boots: u64,
    /// From running to the first answer.
    pub answers: u64,
    pub status: u32,
    /// Ends by itself with this code, this long after it runs.
    pub exits: Option<(i32, u64)>,
    pub wrong_image: bool,
    /// From a worker's stop signal to its end.
    pub stops: u64,
    /// How long a task runs.
    pub runs: u64,
    /// Tasks that end with an error.
    pub failing: BTreeSet<Task>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { boots: 100, answers: 200, status: 200, exits: None, wrong_image: false, stops: 200, runs: 300, failing: BTreeSet::new() }
    }
}

#[derive(Clone, Debug)]
struct Node {
    behaviour: Behaviour,
    image: Digest,
    created: u64,
    exited: Option<(Option<i32>, String)>,
    /// It runs and answers nothing.
    hung: bool,
    /// A worker that was told to stop ends then.
    stopping: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Proxy {
    pub applied: Option<Route>,
    before: Option<Route>,
    /// How much later than the others it applies a route.
    pub slow: u64,
    pub unreachable: bool,
    /// Nothing runs in its place: no requests, no checks, and whoever looks for it finds a holder without a worker.
    absent: bool,
    health: BTreeMap<NodeId, (Health, bool)>,
    cut_at: BTreeMap<NodeId, u64>,
    turn: usize,
}

#[derive(Clone, Debug)]
struct Request {
    proxy: String,
    node: NodeId,
    ends: u64,
}

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub served: u64,
    /// Destroyed under a request that still had its time: the promise is broken.
    pub lost: u64,
    /// The node died by itself.
    pub died: u64,
    pub cut: u64,
    /// No ready node.
    pub unserved: u64,
}

/// An order that reaches the world.
#[derive(Clone, Debug)]
pub enum Order {
    /// `alone`: no other node of the service may exist.
    Create {
        group: GroupId,
        size: u32,
        image: Digest,
        behaviour: Behaviour,
        alone: bool,
    },
    Task {
        group: GroupId,
        task: Task,
        runs: u64,
    },
    Apply {
        proxy: String,
        route: Route,
    },
    Drain {
        nodes: BTreeSet<NodeId>,
        deadline: u64,
    },
    Destroy {
        nodes: BTreeSet<NodeId>,
    },
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub now: u64,
    nodes: BTreeMap<NodeId, Node>,
    made: BTreeSet<NodeId>,
    pub proxies: BTreeMap<String, Proxy>,
    requests: Vec<Request>,
    kept: Generation,
    pub tasks: BTreeSet<(GroupId, Task)>,
    /// When the tasks that were begun end, unless the first node of their group is destroyed before.
    running: BTreeMap<GroupId, u64>,
    /// The service's nodes answer no requests.
    pub worker: bool,
    /// Nodes that appeared from nowhere.
    strangers: BTreeSet<NodeId>,
    /// Time moves in large ticks.
    pub coarse: bool,
    pub counts: Counts,
    pub violations: Vec<String>,
}

pub fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

impl World {
    pub fn obey(&mut self, order: &Order) {
        match order {
            Order::Create { group, size, image, behaviour, alone } => {
                let before = self.made.len();
                self.create(*group, *size, *image, behaviour);
                if *alone && self.made.len() > before {
                    self.check_alone(*group, *size);
                }
            }
            Order::Task { group, task, runs } => self.run_task(*group, *task, *runs),
            Order::Apply { proxy, route } => self.apply(proxy, route),
            Order::Drain { nodes, deadline } => self.drain(nodes, *deadline),
            Order::Destroy { nodes } => nodes.iter().for_each(|node| self.destroy(*node)),
        }
    }

    /// Nodes that run alone were made: nothing else may be at work.
    fn check_alone(&mut self, group: GroupId, size: u32) {
        // What appears from nowhere after the intent has left is nobody's fault.
        let known = self.nodes.iter().filter(|(id, node)| node.exited.is_none() && !self.strangers.contains(id));
        let at_work: Vec<NodeId> = known.map(|(id, _)| *id).collect();
        let others = at_work.iter().filter(|node| node.group != group).count();
        if others > 0 || at_work.len() > size as usize {
            self.violations.push(format!("nodes of {group} were made while others are at work: {at_work:?}"));
        }
    }

    /// A receiver that is told again does not run it again.
    fn run_task(&mut self, group: GroupId, task: Task, runs: u64) {
        let of_group = |node: &NodeId| node.group == group;
        let gone = self.made.iter().any(of_group) && !self.nodes.keys().any(of_group);
        let begins = self.tasks.insert((group, task)) && !gone;
        if begins {
            self.running.insert(group, self.now + runs);
        }
        if begins && task == Task::ReleaseCommand && self.nodes.keys().any(|node| node.group == group) {
            self.violations.push(format!("the release command of {group} runs beside its nodes"));
        }
    }

    /// A group with a task that runs just now, if it is none of these.
    pub fn runs_a_task_beside(&self, known: &[GroupId]) -> Option<GroupId> {
        self.running.iter().find(|(group, end)| **end > self.now && !known.contains(group)).map(|(group, _)| *group)
    }

    fn create(&mut self, group: GroupId, size: u32, image: Digest, behaviour: &Behaviour) {
        for node in (0..size).map(|ordinal| group.node(ordinal)) {
            if self.made.insert(node) {
                let image = if behaviour.wrong_image { digest(0xee) } else { image };
                self.nodes.insert(
                    node,
                    Node { behaviour: behaviour.clone(), image, created: self.now, exited: None, hung: false, stopping: None },
                );
            }
        }
    }

    /// The platform keeps the latest generation it was told and hands on no older one; each proxy refuses what it has already (I5).
    fn apply(&mut self, name: &str, route: &Route) {
        self.kept = self.kept.max(route.generation);
        if route.generation < self.kept {
            return;
        }
        let Some(proxy) = self.proxies.get_mut(name) else { return };
        let applied = proxy.applied.as_ref().map(|applied| applied.generation);
        if proxy.unreachable || applied >= Some(route.generation) {
            return;
        }
        proxy.health.retain(|node, _| route.members.contains_key(node));
        proxy.before = proxy.applied.replace(route.clone());
    }

    fn drain(&mut self, nodes: &BTreeSet<NodeId>, deadline: u64) {
        let at = self.now + deadline;
        for node in nodes {
            let now = self.now;
            if let Some(node) = self.nodes.get_mut(node).filter(|_| self.worker) {
                node.stopping.get_or_insert(now + node.behaviour.stops);
            }
        }
        for proxy in self.proxies.values_mut().filter(|proxy| !proxy.unreachable) {
            for node in nodes {
                proxy.cut_at.entry(*node).or_insert(at);
            }
        }
    }

    fn destroy(&mut self, node: NodeId) {
        // What was destroyed is never made, also if the order to make it comes late.
        self.made.insert(node);
        if node.ordinal == 0 {
            self.running.remove(&node.group);
        }
        let Some(gone) = self.nodes.remove(&node) else { return };
        for (name, proxy) in &self.proxies {
            if proxy.applied.as_ref().is_some_and(|route| route.members.contains_key(&node)) {
                self.violations.push(format!("{node} was destroyed while proxy {name} names it"));
            }
        }
        let before = self.requests.len() as u64;
        self.requests.retain(|request| request.node != node);
        let hit = before - self.requests.len() as u64;
        if gone.exited.is_some() { self.counts.died += hit } else { self.counts.lost += hit }
    }

    /// Every proxy has heard of the drain of these nodes.
    pub fn knows_drain(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.worker || self.proxies.values().all(|proxy| nodes.iter().all(|node| proxy.cut_at.contains_key(node)))
    }

    pub fn kill(&mut self, node: NodeId, why: &str) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.exited.get_or_insert((Some(137), why.into()));
        }
    }

    pub fn kill_release(&mut self, release: u32) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().filter(|node| node.group.release.0 == release).collect();
        nodes.into_iter().for_each(|node| self.kill(node, "killed"));
    }

    /// A node disappears without a trace.
    pub fn vanish(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        let before = self.requests.len() as u64;
        self.requests.retain(|request| request.node != node);
        self.counts.died += before - self.requests.len() as u64;
    }

    /// A node that nobody knows.
    pub fn plant(&mut self, node: NodeId) {
        self.strangers.insert(node);
        self.made.insert(node);
        self.nodes.insert(
            node,
            Node { behaviour: Behaviour::default(), image: digest(1), created: self.now, exited: None, hung: false, stopping: None },
        );
    }

    /// A new process takes the proxy's place, without its memory.
    pub fn replace_proxy(&mut self, name: &str) {
        self.requests.retain(|request| request.proxy != name);
        if let Some(proxy) = self.proxies.get_mut(name) {
            *proxy = Proxy { slow: proxy.slow, ..Proxy::default() };
        }
    }

    /// It holds its present route under a generation that nobody here decided.
    pub fn put_ahead(&mut self, name: &str) {
        if let Some(route) = self.proxies.get_mut(name).and_then(|proxy| proxy.applied.as_mut()) {
            route.generation = Generation(route.generation.0 + 5);
            self.kept = self.kept.max(route.generation);
        }
    }

    /// A node stops answering, or answers again.
    pub fn hang(&mut self, node: NodeId, hung: bool) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.hung = hung;
        }
    }

    /// The worker is gone, and its requests with it; later one comes back with the route from its disk.
    pub fn make_absent(&mut self, name: &str, absent: bool) {
        self.requests.retain(|request| request.proxy != name || !absent);
        if let Some(proxy) = self.proxies.get_mut(name).filter(|proxy| proxy.absent != absent) {
            (proxy.absent, proxy.unreachable) = (absent, absent);
            proxy.health.clear();
            proxy.cut_at.clear();
        }
    }

    /// Every fault ends: proxies answer and are quick, nodes that hang answer.
    pub fn repair(&mut self) {
        for name in self.proxies.keys().cloned().collect::<Vec<_>>() {
            if self.proxies[&name].absent {
                self.make_absent(&name, false);
            }
            self.proxies.entry(name).and_modify(|proxy| (proxy.unreachable, proxy.slow) = (false, 0));
        }
        self.nodes.values_mut().for_each(|node| node.hung = false);
    }

    /// It comes back with the route before the last one.
    pub fn rewind_proxy(&mut self, name: &str) {
        if let Some(proxy) = self.proxies.get_mut(name)
            && let Some(before) = proxy.before.take()
        {
            proxy.applied = Some(before);
            proxy.health.clear();
        }
    }

    pub fn node_names(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn tick(&mut self) {
        self.now += if self.coarse { COARSE_TICK } else { TICK };
        self.age_nodes();
        self.check_nodes();
        self.end_requests();
        self.send_requests();
    }

    fn age_nodes(&mut self) {
        let now = self.now;
        for node in self.nodes.values_mut().filter(|node| node.exited.is_none()) {
            if let Some((code, after)) = node.behaviour.exits
                && now >= node.created + node.behaviour.boots + after
            {
                node.exited = Some((Some(code), "cannot open configuration".into()));
            }
            if node.stopping.is_some_and(|at| now >= at) {
                node.exited = Some((Some(0), "asked to stop".into()));
            }
        }
    }

    fn check_nodes(&mut self) {
        if !self.now.is_multiple_of(CHECK_INTERVAL) {
            return;
        }
        for proxy in self.proxies.values_mut().filter(|proxy| !proxy.absent) {
            let members: Vec<NodeId> = proxy.applied.iter().flat_map(|route| route.members.keys().copied()).collect();
            for node in members {
                let result = self.nodes.get(&node).map_or(Err(("connection refused".into(), false)), |node| node.answer(self.now));
                let (health, answered) = proxy.health.entry(node).or_default();
                record(health, answered, result);
            }
        }
    }

    fn end_requests(&mut self) {
        let (now, nodes, proxies, counts) = (self.now, &self.nodes, &self.proxies, &mut self.counts);
        self.requests.retain(|request| {
            let dead = nodes.get(&request.node).is_none_or(|node| node.exited.is_some());
            let cut = proxies.get(&request.proxy).and_then(|proxy| proxy.cut_at.get(&request.node)).is_some_and(|at| now >= *at);
            match (now >= request.ends, dead, cut) {
                (_, true, _) => counts.died += 1,
                (true, ..) => counts.served += 1,
                (.., true) => counts.cut += 1,
                _ => return true,
            }
            false
        });
    }

    fn send_requests(&mut self) {
        if self.worker {
            let at_work = self
                .nodes
                .values()
                .filter(|node| node.exited.is_none() && node.stopping.is_none() && self.now >= node.created + node.behaviour.boots);
            self.counts.served += at_work.count() as u64;
            return;
        }
        for name in self.proxies.keys().cloned().collect::<Vec<_>>() {
            self.send_request(&name, SHORT_REQUEST);
        }
    }

    /// One request of this length to every node that has traffic, through the first proxy.
    pub fn send_long(&mut self, length: u64) {
        let Some(name) = self.proxies.keys().next().cloned() else { return };
        let ready = self.proxies[&name].ready();
        self.requests.extend(ready.into_iter().map(|node| Request { proxy: name.clone(), node, ends: self.now + length }));
    }

    fn send_request(&mut self, name: &str, length: u64) {
        let Some(proxy) = self.proxies.get_mut(name).filter(|proxy| !proxy.absent) else { return };
        let ready = proxy.ready();
        let weighted = proxy.applied.as_ref().is_some_and(|route| route.members.values().any(|weight| *weight > Weight::PROBED));
        proxy.turn += 1;
        match ready.get(proxy.turn % ready.len().max(1)) {
            Some(node) => self.requests.push(Request { proxy: name.into(), node: *node, ends: self.now + length }),
            // A proxy whose first check is still under way has not begun to serve.
            None if weighted && !proxy.health.is_empty() => self.counts.unserved += 1,
            None => {}
        }
    }

    pub fn observe(&self) -> Observation {
        let mut seen = Observation::default();
        for (name, proxy) in self.proxies.iter().filter(|_| !self.worker) {
            let generation = proxy.applied.as_ref().map(|route| route.generation);
            seen.proxies.insert(name.clone(), generation.filter(|_| !proxy.unreachable));
        }
        for (id, node) in &self.nodes {
            seen.nodes.insert(*id, self.see(*id, node));
        }
        seen
    }

    fn see(&self, id: NodeId, node: &Node) -> NodeSeen {
        let condition = match &node.exited {
            Some((code, output)) => Condition::Exited { code: *code, output: output.clone() },
            None if self.now < node.created + node.behaviour.boots => Condition::Starting,
            None => Condition::Running,
        };
        let reachable: Vec<&String> = self.proxies.iter().filter(|(_, proxy)| !proxy.unreachable).map(|(name, _)| name).collect();
        if self.worker {
            let stopping = u32::from(node.stopping.is_some() && node.exited.is_none());
            return NodeSeen { condition, image: node.image, health: self.uptime(node), requests_in_flight: stopping };
        }
        let in_flight = self.requests.iter().filter(|request| request.node == id && reachable.contains(&&request.proxy)).count();
        NodeSeen { condition, image: node.image, health: self.worst_health(id), requests_in_flight: u32::try_from(in_flight).unwrap() }
    }

    /// A worker's health is that it stays up.
    fn uptime(&self, node: &Node) -> Health {
        match node.answer(self.now) {
            Ok(()) => Health { passes: 9, ..Health::default() },
            Err((text, true)) => Health {
                failures: 9,
                failures_after_answer: 9,
                evidence: Some(Evidence { check: "check".into(), result: text, times: 9 }),
                ..Health::default()
            },
            Err((_, false)) => Health::default(),
        }
    }

    fn worst_health(&self, node: NodeId) -> Health {
        let mut worst: Option<Health> = None;
        for proxy in self.proxies.values().filter(|proxy| !proxy.unreachable) {
            let health = proxy.health.get(&node).map(|(health, _)| health.clone()).unwrap_or_default();
            worst = Some(match worst {
                None => health,
                Some(other) => Health {
                    passes: other.passes.min(health.passes),
                    failures: other.failures.max(health.failures),
                    failures_after_answer: other.failures_after_answer.max(health.failures_after_answer),
                    evidence: other.evidence.or(health.evidence),
                },
            });
        }
        worst.unwrap_or_default()
    }

    /// The fewest nodes that can answer at any proxy that has a route with traffic.
    pub fn least_capacity(&self) -> Option<usize> {
        if self.worker {
            return None;
        }
        let routes = self.proxies.values().filter(|proxy| !proxy.absent).filter_map(|proxy| proxy.applied.as_ref());
        let serving = routes.filter(|route| route.members.values().any(|weight| *weight > Weight::PROBED));
        serving
            .map(|route| route.members.iter().filter(|(node, weight)| **weight > Weight::PROBED && self.can_answer(**node)).count())
            .min()
    }

    fn can_answer(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.answer(self.now).is_ok())
    }

    /// The world in one line, without the names that differ between two runs of the same story.
    pub fn summary(&self) -> String {
        let mut nodes: BTreeMap<(u32, bool), usize> = BTreeMap::new();
        for (id, node) in &self.nodes {
            *nodes.entry((id.group.release.0, node.exited.is_none())).or_default() += 1;
        }
        let mut text = String::from("nodes:");
        for ((release, alive), count) in nodes {
            text += &format!(" {count} of r{release}{}", if alive { "" } else { " (ended)" });
        }
        for (name, proxy) in &self.proxies {
            let mut members: BTreeMap<(u32, u16), usize> = BTreeMap::new();
            for (node, weight) in proxy.applied.iter().flat_map(|route| &route.members) {
                *members.entry((node.group.release.0, weight.0)).or_default() += 1;
            }
            let members: Vec<String> =
                members.iter().map(|((release, weight), count)| format!("{count} of r{release} at {weight}")).collect();
            text += &format!("; proxy {name}: {}", if members.is_empty() { "nothing".into() } else { members.join(", ") });
        }
        text
    }
}

impl Proxy {
    fn ready(&self) -> Vec<NodeId> {
        let weighted = self.applied.iter().flat_map(|route| &route.members).filter(|(_, weight)| **weight > Weight::PROBED);
        weighted.filter(|(node, _)| self.health.get(node).is_some_and(|(health, _)| health.passes > 0)).map(|(node, _)| *node).collect()
    }

    pub fn generation(&self) -> Option<Generation> {
        self.applied.as_ref().map(|route| route.generation)
    }
}

impl Node {
    fn answer(&self, now: u64) -> Result<(), (String, bool)> {
        let answering = self.exited.is_none() && now >= self.created + self.behaviour.boots + self.behaviour.answers;
        match self.behaviour.status {
            _ if self.hung => Err(("timed out".into(), false)),
            _ if !answering => Err(("connection refused".into(), false)),
            200..300 => Ok(()),
            status => Err((format!("status {status}"), true)),
        }
    }
}

fn record(health: &mut Health, answered: &mut bool, result: Result<(), (String, bool)>) {
    match result {
        Ok(()) => {
            *answered = true;
            *health = Health { passes: health.passes + 1, ..Health::default() };
        }
        Err((text, answer)) => {
            *answered |= answer;
            health.passes = 0;
            health.failures += 1;
            health.failures_after_answer += u32::from(*answered);
            health.evidence = Some(Evidence { check: "GET /healthz".into(), result: text, times: health.failures });
        }
    }
}
