//! The world of one service as the model sees it: nodes, what each proxy applied, requests, and effects on their way.
//!
//! The receivers are modelled as the contract of the platforms asks: a group only grows and no ordinal is made twice, an older generation is refused (I5), the first deadline of a
//! drain stays, and what is gone cannot be destroyed again. So everything may be delivered twice, late, or by halves.

use super::normal::{NOW, Renaming, shifted};
use gapless_core::effect::{Effect, EffectId, Task};
use gapless_core::limit::CUT_GRACE;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
use gapless_core::release::ReleaseNumber;
use gapless_core::route::{Generation, Weight};
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Passed checks in a row that the gate of every modelled declaration asks for: one would leave no node that is healthy and still below the gate.
pub const GATE_PASSES: u32 = 2;

/// Failed checks in a row that fail the gate of every modelled declaration.
pub const GATE_FAILURES: u32 = 1;

/// Failed checks in a row after which a node of the live group counts as hung.
const HUNG_FAILURES: u32 = GATE_FAILURES * gapless_core::limit::HUNG_FACTOR;

/// What is broken, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule: an invariant, or what the explorer asks beside them.
    pub rule: &'static str,
    pub evidence: String,
}

pub fn fault<T>(rule: &'static str, evidence: String) -> Result<T, Fault> {
    Err(Fault { rule, evidence })
}

/// How a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Starting,
    /// Its command runs; below the gate.
    Running,
    Passing,
    /// It answers, and wrongly.
    Failing,
    /// It has failed its checks for long.
    Hung,
    Exited,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub id: NodeId,
    pub phase: Phase,
    /// It passed the gate at some time (I3).
    pub passed: bool,
    /// A bit for each proxy: a request that it sent there may still run. While the proxy's route gives the node traffic the bit is set and means that there may be any number, also
    /// none: requests come and go, so nothing else would stay so. A worker has one bit, for what it works on until it is told to leave.
    pub requests: u8,
    /// For each proxy that was told to drain it: when it cuts what still runs.
    pub cut_at: BTreeMap<u8, Instant>,
}

/// A route as a proxy applies it, or as the platform hands it on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Applied {
    pub generation: Generation,
    pub members: Rc<BTreeMap<NodeId, Weight>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub applied: Applied,
    /// It cannot be asked or told anything; it serves.
    pub silent: bool,
}

/// An effect as its receivers see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    Ensure {
        group: GroupId,
        size: u32,
    },
    Route {
        generation: Generation,
        members: Rc<BTreeMap<NodeId, Weight>>,
    },
    Drain {
        nodes: BTreeSet<NodeId>,
        deadline: Duration,
    },
    Destroy {
        nodes: BTreeSet<NodeId>,
    },
    Task {
        group: GroupId,
        task: Task,
    },
    /// It ends with a verdict; nothing of it stays in the world.
    Analyse {
        new: ReleaseNumber,
    },
}

impl Order {
    /// Whether what comes of it depends on which nodes of this group there were.
    fn is_of(&self, group: GroupId) -> bool {
        match self {
            Order::Ensure { group: of, .. } | Order::Task { group: of, .. } => *of == group,
            Order::Destroy { nodes } => nodes.iter().any(|node| node.group == group),
            Order::Route { .. } | Order::Drain { .. } | Order::Analyse { .. } => false,
        }
    }
}

/// What holds in the core while something reaches the world.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub core: &'a ServiceState,
    pub floor: usize,
}

/// An effect on its way. Without a number nobody waits for it any more: it may still arrive, at any time or never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flight {
    pub id: Option<EffectId>,
    pub order: Order,
}

/// How the proxies' checks on a node stand; the worst of those that can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checks {
    #[default]
    None,
    Below,
    Passed,
    Failed,
    FailedLong,
}

/// What the proxies say of everything. The nodes themselves may be looked at later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    pub proxies: Vec<Option<Generation>>,
    pub nodes: Vec<(NodeId, Checks, u32)>,
}

/// One look at the world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sight {
    pub proxies: Vec<Option<Generation>>,
    pub nodes: Vec<(NodeId, Phase, Checks, u32)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub nodes: Vec<Node>,
    /// How many ordinals were made, of each group that may still be asked for.
    pub made: BTreeMap<GroupId, u32>,
    /// What the platform hands on to proxies.
    pub kept: Applied,
    pub proxies: Vec<Proxy>,
    pub flights: Vec<Flight>,
    /// A look that is under way: the proxies were asked, the nodes not yet.
    pub look: Option<Rc<Report>>,
    /// Nodes died, hung or vanished by themselves: capacity may be below the floor (I1).
    pub disturbed: bool,
    /// Tasks that were run to a good end, of groups that may still ask for it.
    pub ran: BTreeSet<(GroupId, Task)>,
    /// Its nodes answer no requests and are in no proxy's route. The one "proxy" is the platform that tells a node to leave.
    pub worker: bool,
}

impl Node {
    fn new(id: NodeId) -> Self {
        Node { id, phase: Phase::Starting, passed: false, requests: 0, cut_at: BTreeMap::new() }
    }

    pub fn is_up(&self) -> bool {
        !matches!(self.phase, Phase::Starting | Phase::Exited)
    }

    /// It can answer a request well.
    pub fn serves(&self) -> bool {
        self.passed && matches!(self.phase, Phase::Running | Phase::Passing)
    }

    fn checks(&self, probed: bool) -> Checks {
        match self.phase {
            Phase::Running if probed => Checks::Below,
            Phase::Passing => Checks::Passed,
            Phase::Failing => Checks::Failed,
            Phase::Hung => Checks::FailedLong,
            Phase::Starting | Phase::Running | Phase::Exited => Checks::None,
        }
    }
}

impl Applied {
    pub fn gives_traffic(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|weight| weight.has_traffic())
    }

    pub fn names(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }
}

impl World {
    pub fn new(proxies: usize, worker: bool) -> Self {
        World { proxies: vec![Proxy::default(); if worker { 1 } else { proxies }], worker, ..World::default() }
    }

    /// Whether this proxy may send the node new requests; of a worker, whether it takes new work.
    pub fn is_given_work(&self, node: &Node, place: usize) -> bool {
        let given = if self.worker { node.cut_at.is_empty() } else { self.proxies[place].applied.gives_traffic(node.id) };
        given && node.is_up()
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().map(|place| &self.nodes[place])
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().map(|place| &mut self.nodes[place])
    }

    /// Every proxy that can be asked, at least one, probes the node.
    pub fn is_probed(&self, node: NodeId) -> bool {
        let mut asked = self.proxies.iter().filter(|proxy| !proxy.silent).peekable();
        self.worker || (asked.peek().is_some() && asked.all(|proxy| proxy.applied.names(node)))
    }

    /// What the proxies say. A node that has traffic is just serving a request.
    pub fn report(&self) -> Report {
        let asked = |place: &usize| !self.proxies[*place].silent;
        let heard = (0..self.proxies.len()).any(|place| asked(&place));
        let count = |node: &Node| (0..self.proxies.len()).filter(asked).filter(|place| node.requests & 1 << place != 0).count() as u32;
        let checks = |node: &Node| if heard { node.checks(self.is_probed(node.id)) } else { Checks::None };
        let known = |proxy: &Proxy| Some(proxy.applied.generation).filter(|held| !proxy.silent && *held > Generation(0));
        Report {
            proxies: self.proxies.iter().filter(|_| !self.worker).map(known).collect(),
            nodes: self.nodes.iter().map(|node| (node.id, checks(node), count(node))).collect(),
        }
    }

    /// The nodes as they are now, with what the proxies said of them.
    pub fn sight(&self, report: &Report) -> Sight {
        let see = |node: &Node| {
            let (_, checks, requests) = report.nodes.iter().find(|(id, ..)| *id == node.id).copied().unwrap_or((node.id, Checks::None, 0));
            (node.id, phase_to_show(node.phase), checks, requests)
        };
        Sight { proxies: report.proxies.clone(), nodes: self.nodes.iter().map(see).collect() }
    }

    /// Whether everything of an order has been done, or never will be.
    pub fn is_done(&self, order: &Order) -> bool {
        match order {
            Order::Ensure { group, size } => self.made.get(group).is_some_and(|made| made >= size),
            Order::Route { generation, .. } => {
                self.kept.generation > *generation || self.proxies.iter().all(|proxy| proxy.applied.generation >= *generation)
            }
            Order::Drain { nodes, .. } => {
                self.nodes.iter().all(|node| !nodes.contains(&node.id) || node.cut_at.len() == self.proxies.len())
            }
            Order::Destroy { nodes } => nodes.iter().all(|node| self.node(*node).is_none() && self.was_made(*node)),
            Order::Task { group, task } => self.ran.contains(&(*group, *task)),
            Order::Analyse { .. } => false,
        }
    }

    /// Nobody waits for it, and nothing can come of it any more.
    fn is_spent(&self, flight: &Flight) -> bool {
        flight.id.is_none() && (self.is_done(&flight.order) || matches!(flight.order, Order::Analyse { .. }))
    }

    /// Where the next part of an order can go: to which proxies, or (0) to the platform itself.
    pub fn receivers(&self, order: &Order) -> Vec<u8> {
        let open = |test: &dyn Fn(u8, &Proxy) -> bool| {
            let all = self.proxies.iter().zip(0..).filter(|(proxy, _)| !proxy.silent);
            all.filter(|(proxy, place)| test(*place, proxy)).map(|(_, place)| place).collect()
        };
        match order {
            _ if self.is_done(order) => Vec::new(),
            Order::Analyse { .. } => Vec::new(),
            Order::Ensure { .. } | Order::Destroy { .. } | Order::Task { .. } => vec![0],
            Order::Route { generation, .. } => open(&|_, proxy| proxy.applied.generation < *generation),
            Order::Drain { nodes, .. } => {
                open(&|place, _| self.nodes.iter().any(|node| nodes.contains(&node.id) && !node.cut_at.contains_key(&place)))
            }
        }
    }

    /// The next part of an order reaches its receiver.
    pub fn deliver(&mut self, order: &Order, proxy: u8, rules: Rules) -> Result<(), Fault> {
        match order {
            Order::Ensure { group, size } => self.make_one(*group, *size, rules)?,
            Order::Route { generation, members } => {
                if *generation > self.kept.generation {
                    self.kept = Applied { generation: *generation, members: Rc::clone(members) };
                }
                if *generation == self.kept.generation {
                    self.hand_on(proxy, rules.floor)?;
                }
            }
            Order::Drain { nodes, deadline } => {
                for node in self.nodes.iter_mut().filter(|node| nodes.contains(&node.id)) {
                    node.cut_at.entry(proxy).or_insert(NOW.after(*deadline));
                }
            }
            Order::Destroy { nodes } => {
                let next = nodes.iter().find(|node| self.node(**node).is_some());
                next.map_or(Ok(()), |node| self.destroy(*node))?;
                self.bury(nodes);
            }
            Order::Task { group, task } => self.run(*group, *task, rules)?,
            Order::Analyse { .. } => {}
        }
        Ok(())
    }

    fn run(&mut self, group: GroupId, task: Task, rules: Rules) -> Result<(), Fault> {
        let gone = self.made.contains_key(&group) && !self.nodes.iter().any(|node| node.id.group == group);
        if !self.ran.insert((group, task)) || gone {
            return Ok(());
        }
        if task == Task::ReleaseCommand && self.nodes.iter().any(|node| node.id.group == group) {
            return fault("command", format!("the release command of {group} runs beside nodes of it"));
        }
        self.is_alone(group, rules)
    }

    fn was_made(&self, node: NodeId) -> bool {
        self.made.get(&node.group).is_some_and(|made| *made > node.ordinal)
    }

    /// What was destroyed is never made, also if the order to make it comes late.
    fn bury(&mut self, nodes: &BTreeSet<NodeId>) {
        if nodes.iter().any(|node| self.node(*node).is_some()) {
            return;
        }
        for node in nodes {
            let made = self.made.entry(node.group).or_default();
            *made = (*made).max(node.ordinal + 1);
        }
    }

    /// Nodes that may not run beside others do not.
    fn is_alone(&self, group: GroupId, rules: Rules) -> Result<(), Fault> {
        match self.nodes.iter().find(|node| rules.core.is_single(group.release) && node.id.group != group) {
            Some(other) => fault("single", format!("something of {group} runs beside {}", other.id)),
            None => Ok(()),
        }
    }

    fn make_one(&mut self, group: GroupId, size: u32, rules: Rules) -> Result<(), Fault> {
        self.is_alone(group, rules)?;
        let made = self.made.entry(group).or_default();
        if *made < size {
            let node = Node::new(group.node(*made));
            *made += 1;
            self.nodes.push(node);
            self.nodes.sort_by_key(|node| node.id);
        }
        Ok(())
    }

    /// A proxy gets the snapshot: it refuses what is not newer than what it applied (I5).
    pub fn hand_on(&mut self, proxy: u8, floor: usize) -> Result<(), Fault> {
        let place = usize::from(proxy);
        if self.proxies[place].silent || self.kept.generation <= self.proxies[place].applied.generation {
            return Ok(());
        }
        let before = self.capacity(&self.proxies[place].applied);
        let old = std::mem::replace(&mut self.proxies[place].applied, self.kept.clone());
        let after = self.capacity(&self.kept);
        if !self.disturbed && after < floor.min(before) {
            return fault("I1", format!("proxy {proxy} applies a route that leaves {after} nodes of {before}, below the floor of {floor}"));
        }
        self.forget_checks(&old, place);
        self.check_members(proxy)
    }

    pub fn capacity(&self, route: &Applied) -> usize {
        self.nodes.iter().filter(|node| route.gives_traffic(node.id) && node.serves()).count()
    }

    /// A proxy that does not name a node any more forgets its checks.
    fn forget_checks(&mut self, old: &Applied, place: usize) {
        let new = self.proxies[place].applied.clone();
        for node in self.nodes.iter_mut().filter(|node| old.names(node.id) && !new.names(node.id) && node.is_up()) {
            node.phase = Phase::Running;
        }
    }

    fn check_members(&self, proxy: u8) -> Result<(), Fault> {
        let applied = &self.proxies[usize::from(proxy)].applied;
        for (node, weight) in applied.members.iter() {
            match self.node(*node) {
                None if !self.disturbed => {
                    return fault("I2", format!("proxy {proxy} applies {} that names {node}, which does not exist", applied.generation));
                }
                Some(known) if weight.has_traffic() && !known.passed => {
                    return fault(
                        "I3",
                        format!("proxy {proxy} gives {node} traffic with {}, and it never passed the gate", applied.generation),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn destroy(&mut self, id: NodeId) -> Result<(), Fault> {
        let Ok(place) = self.nodes.binary_search_by_key(&id, |node| node.id) else { return Ok(()) };
        if let Some(proxy) = self.proxies.iter().position(|proxy| proxy.applied.names(id)) {
            let generation = self.proxies[proxy].applied.generation;
            return fault("I2", format!("{id} is destroyed while proxy {proxy} names it with {generation}"));
        }
        if self.nodes[place].requests != 0 {
            return fault("I2", format!("{id} is destroyed under a request in flight"));
        }
        self.nodes.remove(place);
        Ok(())
    }

    /// A node goes on by itself, or something happens to it.
    pub fn set_phase(&mut self, id: NodeId, phase: Phase) {
        if let Some(node) = self.node_mut(id) {
            node.phase = phase;
            node.passed |= phase == Phase::Passing;
        }
    }

    pub fn vanish(&mut self, id: NodeId) {
        self.nodes.retain(|node| node.id != id);
    }

    pub fn end_request(&mut self, id: NodeId, proxy: u8) {
        let worker = self.worker;
        if let Some(node) = self.node_mut(id) {
            node.requests &= !(1 << proxy);
            node.phase = if worker { Phase::Exited } else { node.phase };
        }
    }

    /// Time passes: whoever was told to cut what still runs has done so when the grace for it is over.
    pub fn later(&mut self, by: Duration) {
        for node in &mut self.nodes {
            for (proxy, cut_at) in &mut node.cut_at {
                cut_at.0 = cut_at.0.saturating_sub(by.as_millis() as u64);
                if cut_at.after(CUT_GRACE) <= NOW {
                    node.requests &= !(1 << proxy);
                    node.phase = if self.worker { Phase::Exited } else { node.phase };
                }
            }
        }
    }

    /// What the core sent is on its way, and everything goes by the core's new names.
    pub fn follow(&mut self, renaming: &Renaming, sent: &[(EffectId, Effect)]) {
        for flight in &mut self.flights {
            flight.id = flight.id.and_then(|id| renaming.effect(id));
        }
        for (id, effect) in sent {
            let order = match effect {
                Effect::EnsureGroup { group, size } => Order::Ensure { group: *group, size: *size },
                Effect::Route(route) => Order::Route { generation: route.generation, members: Rc::new(route.members.clone()) },
                Effect::Drain { nodes, deadline } => Order::Drain { nodes: nodes.clone(), deadline: *deadline },
                Effect::DestroyNodes { nodes } => Order::Destroy { nodes: nodes.clone() },
                Effect::RunTask { group, task, .. } => Order::Task { group: *group, task: *task },
                Effect::Analyse { new, .. } => Order::Analyse { new: *new },
                Effect::Notify(_) => continue,
            };
            self.flights.push(Flight { id: renaming.effect(*id), order });
        }
        self.rename_generations(renaming.generations);
    }

    fn rename_generations(&mut self, by: u64) {
        if by == 0 {
            return;
        }
        let rename = |generation: &mut Generation| *generation = shifted(*generation, by);
        rename(&mut self.kept.generation);
        self.proxies.iter_mut().for_each(|proxy| rename(&mut proxy.applied.generation));
        for flight in &mut self.flights {
            if let Order::Route { generation, .. } = &mut flight.order {
                rename(generation);
            }
        }
    }

    /// Brings the world into its normal form. An order that nobody waits for, and that its receivers would refuse now, they will refuse for ever: made ordinals, applied generations,
    /// told drains and destroyed nodes stay so. One that says the same as another adds nothing.
    pub fn settle(&mut self, core: &ServiceState) {
        self.start_requests();
        let mut flights = std::mem::take(&mut self.flights);
        flights.retain(|flight| !self.is_spent(flight));
        flights.sort();
        let awaited: Vec<Order> = flights.iter().filter(|flight| flight.id.is_some()).map(|flight| flight.order.clone()).collect();
        flights.dedup();
        flights.retain(|flight| flight.id.is_some() || !awaited.contains(&flight.order));
        let named = |group: &GroupId| flights.iter().any(|flight| flight.order.is_of(*group));
        self.made.retain(|group, _| core.groups.contains_key(group) || named(group));
        let runs = |group: &GroupId| flights.iter().any(|flight| matches!(&flight.order, Order::Task { group: of, .. } if of == group));
        self.ran.retain(|(group, _)| core.rollout.as_ref().is_some_and(|rollout| rollout.to == *group) || runs(group));
        self.flights = flights;
    }

    fn start_requests(&mut self) {
        for at in 0..self.nodes.len() {
            let works = (0..self.proxies.len())
                .filter(|place| self.is_given_work(&self.nodes[at], *place))
                .fold(0, |bits, place| bits | 1 << place);
            let node = &mut self.nodes[at];
            node.requests |= works;
            if node.phase == Phase::Exited {
                node.requests = 0;
            }
            for (proxy, cut_at) in &mut node.cut_at {
                if node.requests & 1 << proxy == 0 {
                    *cut_at = Instant(0);
                }
            }
        }
    }
}

/// What tells the phases apart beside the checks is only whether the command runs.
fn phase_to_show(phase: Phase) -> Phase {
    if matches!(phase, Phase::Starting | Phase::Exited) { phase } else { Phase::Running }
}

impl Sight {
    /// As the core is shown it.
    pub fn observation(&self, core: &ServiceState) -> Observation {
        let mut seen = Observation::default();
        for (place, generation) in self.proxies.iter().enumerate() {
            seen.proxies.insert(proxy_name(place), *generation);
        }
        for (id, phase, checks, requests) in &self.nodes {
            let condition = match phase {
                Phase::Starting => Condition::Starting,
                Phase::Exited => Condition::Exited { code: Some(1), output: String::new() },
                _ => Condition::Running,
            };
            let image = core.declaration(id.group.release).map_or(gapless_core::digest::Digest([0; 32]), |known| known.image);
            seen.nodes.insert(*id, NodeSeen { condition, image, health: checks.health(), requests_in_flight: *requests });
        }
        seen
    }
}

/// The name of the proxy at this place.
pub fn proxy_name(place: usize) -> String {
    char::from(b'a' + place as u8).to_string()
}

impl Checks {
    fn health(self) -> Health {
        let failed = |times| Health { failures: times, failures_after_answer: times, ..Health::default() };
        match self {
            Checks::None => Health::default(),
            Checks::Below => Health { passes: GATE_PASSES - 1, ..Health::default() },
            Checks::Passed => Health { passes: GATE_PASSES, ..Health::default() },
            Checks::Failed => failed(GATE_FAILURES),
            Checks::FailedLong => failed(HUNG_FAILURES),
        }
    }
}
