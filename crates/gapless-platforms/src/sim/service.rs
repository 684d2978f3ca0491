//! A virtual service: its nodes, what each proxy knows of it, and the requests that are on their way.

use super::node::{Behaviour, Node, ORDINARY};
use super::proxy::{AtProxy, Checks, Proxy};
use super::random::Random;
use super::traffic::{self, Request, Tally};
use crate::sometimes;
use gapless_core::effect::Task;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Condition;
use gapless_core::release::ArtifactVersion;
use gapless_core::route::{Route, Weight};
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};

/// What is around the service while time goes on.
pub(super) struct Around<'a> {
    pub(super) now: Instant,
    pub(super) behaviours: &'a BTreeMap<ArtifactVersion, Behaviour>,
    pub(super) proxies: &'a [Proxy],
    pub(super) random: &'a mut Random,
    pub(super) tally: &'a mut Tally,
    pub(super) revision: &'a mut u64,
    pub(super) log: &'a mut Vec<String>,
    pub(super) violations: &'a mut Vec<String>,
    /// Some requests outlast a drain.
    pub(super) long_requests: bool,
}

/// One service of the world.
#[derive(Default)]
pub(super) struct Service {
    pub(super) existing: BTreeMap<NodeId, Node>,
    /// Its nodes answer no requests: no proxy knows of it.
    pub(super) worker: bool,
    /// Every node that ever was: none of them is made again.
    made: BTreeSet<NodeId>,
    /// Every node that was destroyed by an effect.
    destroyed: BTreeSet<NodeId>,
    /// Clients send requests.
    pub(super) sending: bool,
    requests: Vec<Request>,
    /// What each proxy knows, by the proxy's place.
    pub(super) at: Vec<AtProxy>,
    /// The latest route that the platform was told: it hands on no older one.
    pub(super) kept: Option<(Route, Checks)>,
    /// The host that it answers by that route.
    pub(super) host: Option<String>,
    /// So many nodes must answer at every proxy that has traffic to give, once they did.
    demanded: usize,
    reached: bool,
    /// Tasks that were begun: when each ends, and whether well.
    tasks: BTreeMap<(GroupId, Task), (Instant, bool)>,
}

impl Service {
    pub(super) fn new(proxies: usize) -> Self {
        Self { at: vec![AtProxy::default(); proxies], ..Self::default() }
    }

    /// One tick.
    pub(super) fn go_on(&mut self, around: &mut Around) {
        self.nodes_go_on(around);
        self.proxies_go_on(around);
        self.requests_end(around);
        if self.sending {
            let duration = traffic::duration(around.random, around.long_requests);
            self.send_request(around, Some(duration));
        }
        self.judge_capacity(around);
    }

    /// From now on so many nodes must answer, once they did. A higher demand has to be reached first.
    pub(super) fn demand(&mut self, nodes: usize) {
        self.reached &= nodes <= self.demanded;
        self.demanded = nodes;
    }

    fn judge_capacity(&mut self, around: &mut Around) {
        if self.demanded == 0 {
            return;
        }
        let capacity = self.capacity(around.behaviours, around.proxies, around.now);
        self.reached |= capacity >= Some(self.demanded);
        if self.reached && capacity < Some(self.demanded) {
            around.violations.push(format!("{:?} I1: {capacity:?} of {} nodes answer", around.now, self.demanded));
            // Once is enough.
            self.reached = false;
        }
    }

    fn nodes_go_on(&mut self, around: &mut Around) {
        let mut died = Vec::new();
        for (id, node) in &mut self.existing {
            *around.revision += u64::from(node.check_itself(behaviour(around.behaviours, node.artifact), around.now));
            if !node.advance(behaviour(around.behaviours, node.artifact), around.now) {
                continue;
            }
            *around.revision += 1;
            if node.has_exited() {
                died.push(*id);
            }
        }
        for id in died {
            around.log.push(format!("{:?} {id} ends by itself", around.now));
            self.lose_requests(id, around.tally);
        }
    }

    fn lose_requests(&mut self, node: NodeId, tally: &mut Tally) {
        let lost = traffic::take(&mut self.requests, |request| request.node == node).len();
        tally.die_with_node(lost);
    }

    fn proxies_go_on(&mut self, around: &mut Around) {
        for (at, proxy) in self.at.iter_mut().zip(around.proxies) {
            if !proxy.present {
                continue;
            }
            for (id, checked) in &mut at.checks {
                let node = self.existing.get(id);
                let answer = node.and_then(|node| node.answer(behaviour(around.behaviours, node.artifact), around.now));
                *around.revision += u64::from(checked.check(answer, around.now));
            }
        }
    }

    fn requests_end(&mut self, around: &mut Around) {
        let (now, nodes, at) = (around.now, &self.existing, &self.at);
        let hung = |node: &NodeId| nodes.get(node).is_some_and(|node| node.hung);
        let over = traffic::take(&mut self.requests, |request| request.ends.is_some_and(|ends| ends <= now) && !hung(&request.node));
        let cut = traffic::take(&mut self.requests, |request| {
            at.get(request.proxy).and_then(|at| at.draining.get(&request.node)).is_some_and(|deadline| *deadline <= now)
        });
        sometimes!("a request outlasts its node's drain and is cut", !cut.is_empty());
        around.tally.requests += (over.len() + cut.len()) as u64;
        around.tally.cut += cut.len() as u64;
        for request in over.iter().chain(&cut) {
            let leaving = self.at.iter().any(|at| !at.route.members.contains_key(&request.node));
            *around.revision += u64::from(leaving && self.at_node(request.node) == 0);
        }
    }

    /// Requests that a node has not answered yet.
    fn at_node(&self, node: NodeId) -> usize {
        self.requests.iter().filter(|request| request.node == node).count()
    }

    /// Requests that a node has from one proxy.
    pub(super) fn in_flight_at(&self, node: NodeId, proxy: usize) -> u32 {
        let count = self.requests.iter().filter(|request| request.node == node && request.proxy == proxy).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Sends a request to one of the proxies that know the service. Whether a node took it.
    pub(super) fn send_request(&mut self, around: &mut Around, duration: Option<std::time::Duration>) -> bool {
        let ends = duration.map(|duration| around.now.after(duration));
        let knows = |(at, proxy): (&AtProxy, &Proxy)| proxy.present && at.generation().is_some();
        let knowing = |at: &[AtProxy]| at.iter().zip(around.proxies).enumerate().filter(|(_, pair)| knows(*pair)).count();
        let drawn = usize::try_from(around.random.below(knowing(&self.at) as u64)).unwrap_or_default();
        let place = self.at.iter().zip(around.proxies).enumerate().filter(|(_, pair)| knows(*pair)).map(|(place, _)| place).nth(drawn);
        let Some(place) = place else { return false };
        let at = &mut self.at[place];
        if !at.serves() && !at.served {
            // Nobody asks for a service where it never was.
            return false;
        }
        at.served = true;
        let (chosen, rewound) = (at.choose(), at.is_rewound());
        let Some(node) = chosen else {
            around.tally.fail("no-ready-node");
            return false;
        };
        let seen = self.existing.get(&node);
        if seen.and_then(|seen| seen.answer(behaviour(around.behaviours, seen.artifact), around.now)).is_some() {
            self.requests.push(Request { proxy: place, node, ends, rewound });
            return true;
        }
        match (self.destroyed.contains(&node), rewound) {
            (true, false) => {
                around.violations.push(format!("{:?} I2: a request is sent to {node}, which was destroyed", around.now));
                around.tally.fail("node-destroyed");
            }
            (true, true) => around.tally.die_with_proxy(1),
            (false, _) => around.tally.fail("connect"),
        }
        false
    }

    pub(super) fn kill_node(&mut self, id: NodeId, code: i32, tally: &mut Tally) -> bool {
        let Some(killed) = self.existing.get_mut(&id).filter(|node| !node.has_exited()) else { return false };
        killed.condition = Condition::Exited { code: Some(code), output: "killed".to_string() };
        self.lose_requests(id, tally);
        true
    }

    /// A node disappears without a trace.
    pub(super) fn vanish_node(&mut self, id: NodeId, tally: &mut Tally) -> bool {
        self.lose_requests(id, tally);
        self.existing.remove(&id).is_some()
    }

    /// Every request of a proxy is lost, because its worker is.
    pub(super) fn lose_proxy(&mut self, proxy: usize, tally: &mut Tally) {
        let lost = traffic::take(&mut self.requests, |request| request.proxy == proxy).len();
        tally.die_with_proxy(lost);
    }

    /// A node that no journal knows, as an engine leaves behind whose journal is lost.
    pub(super) fn plant_node(&mut self, id: NodeId, around: &Around) {
        if self.made.insert(id) {
            let (artifact, declared_image) = (ArtifactVersion(0), gapless_core::digest::Digest([0; 32]));
            let (created, condition) = (around.now, Condition::Starting);
            self.existing.insert(id, Node { artifact, declared_image, created, condition, hung: false, worker: None });
        }
    }

    /// Whether so many nodes of a group were made before, as they are when an effect arrives again.
    pub(super) fn was_made(&self, group: GroupId, size: u32) -> bool {
        (0..size).all(|ordinal| self.made.contains(&group.node(ordinal)))
    }

    /// Begins a task, unless it was begun before or must not begin any more.
    pub(super) fn run_task(&mut self, declaration: &ServiceDeclaration, group: GroupId, task: Task, around: &Around) {
        let known = behaviour(around.behaviours, declaration.artifact_version);
        let begun = (around.now.after(known.task), !known.task_fails);
        sometimes!("a task is asked for again and runs once", self.tasks.contains_key(&(group, task)));
        if self.task_refused(group, task).is_none() {
            self.tasks.entry((group, task)).or_insert(begun);
        }
    }

    /// Why a task that has not begun never does: its group is gone, or a later group's has begun.
    pub(super) fn task_refused(&self, group: GroupId, task: Task) -> Option<Error> {
        if self.tasks.contains_key(&(group, task)) {
            return None;
        }
        let of_group = |node: &NodeId| node.group == group;
        if self.made.iter().any(of_group) && !self.existing.keys().any(of_group) {
            sometimes!("a task of a group that is gone is asked for");
            return Some(Error::new(format!("group {group} was destroyed")).kind(ErrorKind::NotFound));
        }
        let (later, _) = self.tasks.keys().find(|(later, _)| later.instance > group.instance)?;
        sometimes!("a task is asked for that a later one has overtaken");
        Some(Error::new(format!("a later release's command has begun: that of group {later}")).kind(ErrorKind::Invalid))
    }

    /// Whether a task ended well, if it ended.
    pub(super) fn task_ended(&self, group: GroupId, task: Task, now: Instant) -> Option<bool> {
        self.tasks.get(&(group, task)).filter(|(ends, _)| *ends <= now).map(|(_, good)| *good)
    }

    /// Workers are asked to end.
    pub(super) fn ask_to_end(&mut self, nodes: &BTreeSet<NodeId>, deadline: std::time::Duration, around: &Around) {
        for (_, node) in self.existing.iter_mut().filter(|(id, _)| nodes.contains(id)) {
            node.ask_to_end(behaviour(around.behaviours, node.artifact), around.now, deadline);
        }
    }

    /// Makes the nodes below `size` that never were.
    pub(super) fn create(&mut self, declaration: &ServiceDeclaration, group: GroupId, size: u32, around: &mut Around) {
        self.worker |= declaration.node.port.is_none();
        for id in (0..size).map(|ordinal| group.node(ordinal)) {
            if self.made.insert(id) {
                self.existing.insert(id, Node::new(declaration, around.now));
                *around.revision += 1;
            } else {
                sometimes!("an EnsureGroup arrives after its node was destroyed", self.destroyed.contains(&id));
            }
        }
    }

    /// How many nodes of a group of this size never were.
    pub(super) fn unmade(&self, group: GroupId, size: u32) -> usize {
        (0..size).filter(|ordinal| !self.made.contains(&group.node(*ordinal))).count()
    }

    /// Whether a node of the group is still being started.
    pub(super) fn is_starting(&self, group: GroupId) -> bool {
        self.existing.iter().filter(|(id, _)| id.group == group).any(|(_, node)| node.condition == Condition::Starting)
    }

    /// Destroys nodes, and judges whether that keeps the promise.
    pub(super) fn destroy(&mut self, doomed: &BTreeSet<NodeId>, around: &mut Around) {
        for id in doomed {
            let late = !self.made.insert(*id) && !self.existing.contains_key(id);
            sometimes!("a DestroyNodes arrives after its node is gone", late);
            let Some(gone) = self.existing.remove(id) else { continue };
            self.destroyed.insert(*id);
            *around.revision += 1;
            for (at, proxy) in self.at.iter().zip(around.proxies) {
                if at.route.members.contains_key(id) && !at.is_rewound() {
                    around.violations.push(format!(
                        "{:?} I2: {id} is destroyed while {} applies {}, which names it",
                        around.now, proxy.name, at.route.generation
                    ));
                }
            }
            if gone.runs_out() {
                around.violations.push(format!("{:?} I2: {id} is destroyed while its command is ending", around.now));
                around.tally.fail("node-destroyed");
            }
            self.judge_requests(*id, gone.hung, around);
        }
    }

    fn judge_requests(&mut self, id: NodeId, hung: bool, around: &mut Around) {
        let lost = traffic::take(&mut self.requests, |request| request.node == id);
        sometimes!("a hung node is destroyed", hung);
        for request in lost {
            if request.rewound {
                around.tally.die_with_proxy(1);
                continue;
            }
            let told = self.at.get(request.proxy).and_then(|at| at.draining.get(&id));
            around.violations.push(format!(
                "{:?} I2: {id} is destroyed with a request of proxy {} in flight, which is cut at {told:?}",
                around.now, request.proxy
            ));
            around.tally.fail("node-destroyed");
        }
    }

    /// The fewest nodes that answer at a proxy that has traffic to give. `None`: none has.
    pub(super) fn capacity(&self, behaviours: &BTreeMap<ArtifactVersion, Behaviour>, proxies: &[Proxy], now: Instant) -> Option<usize> {
        let answers = |id: &NodeId| {
            let node = self.existing.get(id);
            node.is_some_and(|node| node.answer(behaviour(behaviours, node.artifact), now).is_some())
        };
        let serving = self.at.iter().zip(proxies).filter(|(at, proxy)| proxy.present && at.serves());
        serving.map(|(at, _)| at.route.members.iter().filter(|(id, weight)| **weight > Weight::PROBED && answers(id)).count()).min()
    }
}

pub(super) fn behaviour(behaviours: &BTreeMap<ArtifactVersion, Behaviour>, artifact: ArtifactVersion) -> &Behaviour {
    behaviours.get(&artifact).unwrap_or(&ORDINARY)
}
