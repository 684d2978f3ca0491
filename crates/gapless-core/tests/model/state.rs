//! A state of the model, and every move that can be made in it.

use super::configuration::{Budget, Configuration, Operation};
use super::cores::{Cause, Core, Cores};
use super::normal::NOW;
use super::together;
use super::world::{Fault, Flight, Order, Phase, Rules, World, fault};
use gapless_core::analysis::Verdict;
use gapless_core::effect::EffectId;
use gapless_core::node::NodeId;
use gapless_core::service::{Rollout, ServiceState, Stage, TogetherOutcome};
use std::fmt;
use std::rc::Rc;

/// One service: its core and its world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    pub core: Rc<Core>,
    pub world: World,
    /// How many declarations of the script were made.
    pub declared: usize,
    /// The declared release was given up: it was rejected, or revoked.
    pub given_up: bool,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub parts: Vec<Part>,
    pub budget: Budget,
}

/// One move. `service`, `flight` and `proxy` are places in the state's lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    Look {
        service: usize,
    },
    AskProxies {
        service: usize,
    },
    SeeNodes {
        service: usize,
    },
    End {
        service: usize,
        flight: usize,
    },
    Deliver {
        service: usize,
        flight: usize,
        proxy: u8,
    },
    Lose {
        service: usize,
        flight: usize,
        is_final: bool,
    },
    Double {
        service: usize,
        flight: usize,
    },
    Node {
        service: usize,
        node: NodeId,
        to: Phase,
    },
    Vanish {
        service: usize,
        node: NodeId,
    },
    RequestEnds {
        service: usize,
        node: NodeId,
        proxy: u8,
    },
    Silence {
        proxy: u8,
        silent: bool,
    },
    Crash,
    Declare {
        service: usize,
    },
    DeclareAgain {
        service: usize,
    },
    RollBack {
        service: usize,
    },
    /// One of the configuration's operations; `free`: what would have to come at some time, and costs no budget.
    Operate {
        service: usize,
        operation: Operation,
        free: bool,
    },
    /// A service is told how those that move together with it stand.
    Partner {
        service: usize,
    },
    Judge {
        service: usize,
        flight: usize,
        verdict: Verdict,
    },
    TimePasses,
}

impl Move {
    /// The place of a move in the faultless schedule, the first comes first. `None`: it is not in it, being somebody's wish or an accident.
    pub fn turn(&self) -> Option<u8> {
        match self {
            Move::Silence { silent: false, .. } | Move::SeeNodes { .. } => Some(0),
            Move::Look { .. } => Some(1),
            Move::End { .. } => Some(2),
            Move::Deliver { .. } => Some(3),
            Move::Node { to: Phase::Running | Phase::Hung, .. } => Some(4),
            Move::Node { to: Phase::Passing, .. } => Some(5),
            Move::RequestEnds { .. } => Some(6),
            Move::Judge { verdict: Verdict::Promote, .. } | Move::Partner { .. } => Some(2),
            Move::Operate { free: true, .. } => Some(7),
            Move::TimePasses => Some(8),
            _ => None,
        }
    }

    /// Whether this would be done before a deadline passes, if nothing was slow. Requests may run for long, and what nobody waits for may come late.
    pub fn is_prompt(&self, state: &State) -> bool {
        match *self {
            Move::Deliver { service, flight, .. } => state.parts[service].world.flights[flight].id.is_some(),
            Move::Look { .. } | Move::SeeNodes { .. } | Move::End { .. } => true,
            Move::Judge { verdict: Verdict::Promote, .. } | Move::Partner { .. } => true,
            Move::Node { to, .. } => matches!(to, Phase::Running | Phase::Passing | Phase::Hung),
            _ => false,
        }
    }
}

impl State {
    pub fn first(configuration: &Configuration, cores: &mut Cores) -> Self {
        let mut state = ServiceState::default();
        super::normal::normalise(&mut state);
        let core = cores.intern(state);
        let part = |script: &Vec<gapless_core::release::Declaration>| {
            let worker = script.first().is_some_and(|declaration| !declaration.serves);
            Part { core: Rc::clone(&core), world: World::new(configuration.proxies, worker), declared: 0, given_up: false }
        };
        State { parts: configuration.script.iter().map(part).collect(), budget: configuration.budget }
    }

    /// Every move that can be made, whether or not it changes anything.
    pub fn moves(&self, configuration: &Configuration) -> Vec<Move> {
        let mut moves = Vec::with_capacity(32);
        for service in 0..self.parts.len() {
            self.moves_of_the_world(service, &mut moves);
            if self.parts[service].world.look.is_some() {
                moves.push(Move::SeeNodes { service });
            } else {
                self.moves_of_the_engine(service, configuration, &mut moves);
                self.wishes(service, configuration, &mut moves);
            }
        }
        self.common_moves(configuration, &mut moves);
        moves
    }

    fn moves_of_the_engine(&self, service: usize, configuration: &Configuration, moves: &mut Vec<Move>) {
        let world = &self.parts[service].world;
        moves.push(Move::Look { service });
        if configuration.together {
            moves.push(Move::Partner { service });
        }
        if configuration.torn {
            moves.push(Move::AskProxies { service });
        }
        for (flight, Flight { order, .. }) in world.flights.iter().enumerate().filter(|(_, flight)| flight.id.is_some()) {
            if world.is_done(order) {
                moves.extend([Move::End { service, flight }, Move::Double { service, flight }]);
            }
            if self.budget.faults > 0 {
                moves.push(Move::Lose { service, flight, is_final: false });
            }
            if let Order::Analyse { .. } = order {
                let bad = [Verdict::Hold, Verdict::Abort].into_iter().filter(|_| self.budget.bad > 0);
                moves.extend([Verdict::Promote].into_iter().chain(bad).map(|verdict| Move::Judge { service, flight, verdict }));
            }
            if self.budget.final_failures > 0 && matches!(order, Order::Ensure { .. } | Order::Task { .. }) {
                moves.push(Move::Lose { service, flight, is_final: true });
            }
        }
    }

    fn moves_of_the_world(&self, service: usize, moves: &mut Vec<Move>) {
        let world = &self.parts[service].world;
        for (flight, Flight { order, .. }) in world.flights.iter().enumerate() {
            moves.extend(world.receivers(order).into_iter().map(|proxy| Move::Deliver { service, flight, proxy }));
        }
        for node in &world.nodes {
            let id = node.id;
            moves.extend(self.phases_after(service, id).into_iter().map(|to| Move::Node { service, node: id, to }));
            if self.budget.deaths > 0 && node.passed {
                moves.push(Move::Vanish { service, node: id });
            }
            let runs = |place: &usize| node.requests & 1 << place != 0 && !world.is_given_work(node, *place);
            let ending = (0..world.proxies.len()).filter(runs);
            moves.extend(ending.map(|place| Move::RequestEnds { service, node: id, proxy: place as u8 }));
        }
    }

    fn phases_after(&self, service: usize, id: NodeId) -> Vec<Phase> {
        let world = &self.parts[service].world;
        let Some(node) = world.node(id) else { return Vec::new() };
        let (bad, dies) = (self.budget.bad > 0 && !node.passed, self.budget.deaths > 0 && node.passed);
        let probed = world.is_probed(id);
        let mut after = Vec::new();
        match node.phase {
            Phase::Starting => after.push(Phase::Running),
            Phase::Running if probed => after.push(Phase::Passing),
            Phase::Failing if node.passed && probed => after.extend([Phase::Passing, Phase::Hung]),
            Phase::Failing | Phase::Hung if probed => after.push(Phase::Passing),
            _ => {}
        }
        if node.phase != Phase::Exited && (bad || dies) {
            after.push(Phase::Exited);
        }
        if matches!(node.phase, Phase::Running | Phase::Passing) && probed && (bad || dies) {
            after.push(Phase::Failing);
        }
        after
    }

    fn wishes(&self, service: usize, configuration: &Configuration, moves: &mut Vec<Move>) {
        let part = &self.parts[service];
        if part.declared < configuration.script[service].len() {
            moves.push(Move::Declare { service });
        }
        if self.budget.again > 0 && part.given_up {
            moves.push(Move::DeclareAgain { service });
        }
        if self.budget.rollbacks > 0 && !part.core.state.served.is_empty() {
            moves.push(Move::RollBack { service });
        }
        if self.budget.operations > 0 && part.declared > 0 {
            let operate = |operation: &Operation| Move::Operate { service, operation: operation.clone(), free: false };
            moves.extend(configuration.operations.iter().map(operate));
        }
        match &part.core.state.rollout {
            Some(Rollout { paused: Some(_), .. }) => moves.push(Move::Operate { service, operation: Operation::Resume, free: true }),
            Some(Rollout { stage: Stage::Canary(canary), .. }) if canary.since.is_some() && canary.until.is_none() => {
                moves.push(Move::Operate { service, operation: Operation::Promote, free: true });
            }
            _ => {}
        }
    }

    fn common_moves(&self, configuration: &Configuration, moves: &mut Vec<Move>) {
        if self.budget.crashes > 0 && self.parts.iter().any(|part| part.declared > 0) {
            moves.push(Move::Crash);
        }
        for (place, proxy) in self.parts[0].world.proxies.iter().enumerate() {
            if proxy.silent || self.budget.silences > 0 {
                moves.push(Move::Silence { proxy: place as u8, silent: !proxy.silent });
            }
        }
        let due = self.parts.iter().any(|part| part.core.next_deadline.is_some_and(|deadline| deadline <= NOW));
        if !due && self.next_deadline().is_some() {
            moves.push(Move::TimePasses);
        }
        debug_assert_eq!(self.parts.len(), configuration.script.len());
    }

    fn next_deadline(&self) -> Option<gapless_core::time::Instant> {
        self.parts.iter().filter_map(|part| part.core.next_deadline).min()
    }

    /// The state after a move. `None`: it was refused, or is no move at all.
    pub fn after(&self, step: &Move, cores: &mut Cores, configuration: &Configuration) -> Result<Option<State>, Fault> {
        let mut next = self.clone();
        let done = match step {
            Move::Silence { .. } | Move::Crash | Move::TimePasses => next.happen_to_all(step, cores, configuration)?,
            Move::Deliver { service, flight, proxy } => next.deliver(*service, *flight, *proxy, cores)?,
            Move::Double { service, flight } => self.double(*service, *flight, cores)?,
            Move::Node { .. } | Move::Vanish { .. } | Move::RequestEnds { .. } => next.happen_to_node(step, cores),
            _ => next.tell_the_core(step, cores, configuration)?,
        };
        if !done {
            return Ok(None);
        }
        for part in &mut next.parts {
            part.world.settle(&part.core.state);
            cores.arrange(&mut part.core, &mut part.world);
        }
        Ok(Some(next))
    }

    /// What the core is told.
    fn tell_the_core(&mut self, step: &Move, cores: &mut Cores, configuration: &Configuration) -> Result<bool, Fault> {
        let (service, cause) = match *step {
            Move::Look { service } => {
                let world = &self.parts[service].world;
                (service, Cause::Seen(world.sight(&world.report())))
            }
            Move::AskProxies { service } => {
                let world = &mut self.parts[service].world;
                world.look = Some(Rc::new(world.report()));
                return Ok(true);
            }
            Move::SeeNodes { service } => {
                let world = &mut self.parts[service].world;
                let Some(report) = world.look.take() else { return Ok(false) };
                (service, Cause::Seen(world.sight(&report)))
            }
            Move::End { service, flight } => {
                let Flight { id, .. } = self.parts[service].world.flights.remove(flight);
                let Some(id) = id else { return Ok(false) };
                (service, Cause::Ended(id, Ok(())))
            }
            Move::Lose { service, flight, is_final } => {
                let Some(id) = self.lose(service, flight, is_final) else { return Ok(false) };
                (service, Cause::Ended(id, Err(is_final)))
            }
            Move::Declare { service } => {
                self.parts[service].given_up = false;
                self.parts[service].declared += 1;
                (service, Cause::Declared(self.parts[service].declared - 1))
            }
            Move::DeclareAgain { service } => {
                self.budget.again -= 1;
                self.parts[service].given_up = false;
                (service, Cause::Declared(self.parts[service].declared - 1))
            }
            Move::RollBack { service } => {
                self.budget.rollbacks -= 1;
                (service, Cause::RolledBack)
            }
            Move::Operate { service, ref operation, free } => {
                self.budget.operations -= u8::from(!free);
                self.parts[service].given_up &= *operation != Operation::Retry;
                (service, Cause::Operated(operation.clone()))
            }
            Move::Partner { service } => match together::message(self, service) {
                Some(cause) => (service, cause),
                None => return Ok(false),
            },
            Move::Judge { service, flight, verdict } => {
                self.budget.bad -= u8::from(verdict != Verdict::Promote);
                let Some(id) = self.parts[service].world.flights.remove(flight).id else { return Ok(false) };
                (service, Cause::Judged(id, verdict))
            }
            _ => return Ok(false),
        };
        self.decide(service, &cause, cores, configuration)
    }

    fn lose(&mut self, service: usize, flight: usize, is_final: bool) -> Option<EffectId> {
        let counter = if is_final { &mut self.budget.final_failures } else { &mut self.budget.faults };
        *counter -= 1;
        let flights = &mut self.parts[service].world.flights;
        // What failed for good is not done later.
        if is_final { flights.remove(flight).id } else { flights[flight].id.take() }
    }

    fn decide(&mut self, service: usize, cause: &Cause, cores: &mut Cores, configuration: &Configuration) -> Result<bool, Fault> {
        let part = &mut self.parts[service];
        let decision = cores.decide(&part.core, cause, configuration, service)?;
        part.core = Rc::clone(&decision.core);
        let state = &part.core.state;
        let revoked = state.declared.is_some_and(|declared| state.is_revoked(declared));
        let ended = state.declared.and_then(|declared| state.together.0.get(&declared));
        let went_back = ended.is_some_and(|end| end.outcome != TogetherOutcome::Live);
        part.given_up |= revoked || went_back || (decision.rejected.is_some() && decision.rejected == state.declared);
        part.world.follow(&decision.renaming, &decision.sent);
        Ok(!decision.refused)
    }

    fn happen_to_all(&mut self, step: &Move, cores: &mut Cores, configuration: &Configuration) -> Result<bool, Fault> {
        match *step {
            Move::Silence { proxy, silent } => self.silence(proxy, silent),
            Move::Crash => {
                self.budget.crashes -= 1;
                self.mark_crash(cores);
                for service in 0..self.parts.len() {
                    let world = &mut self.parts[service].world;
                    world.look = None;
                    world.flights.iter_mut().for_each(|flight| flight.id = None);
                    self.decide(service, &Cause::Restarted, cores, configuration)?;
                }
            }
            _ => {
                let Some(deadline) = self.next_deadline() else { return Ok(false) };
                let by = deadline.since(NOW);
                for service in 0..self.parts.len() {
                    self.decide(service, &Cause::Later(by), cores, configuration)?;
                    self.parts[service].world.later(by);
                }
            }
        }
        Ok(true)
    }

    /// Time may pass when nothing prompt is under way; else something was slow, which the budget allows or not.
    pub fn pay_for_time(&mut self, prompt: bool) -> bool {
        let slow = &mut self.budget.slow;
        let free = !prompt || *slow == super::configuration::FREE;
        let may = free || *slow > 0;
        *slow -= u8::from(!free && may);
        may
    }

    fn mark_crash(&self, cores: &mut Cores) {
        for part in &self.parts {
            for flight in part.world.flights.iter().filter(|flight| flight.id.is_some()) {
                let done = part.world.is_done(&flight.order);
                cores.marks.insert(if done {
                    "crash between the effect and its outcome"
                } else {
                    "crash between the intent and the effect"
                });
            }
        }
    }

    fn silence(&mut self, proxy: u8, silent: bool) {
        self.budget.silences -= u8::from(silent);
        for part in &mut self.parts {
            let world = &mut part.world;
            let place = usize::from(proxy);
            world.proxies[place].silent = silent;
            let applied = world.proxies[place].applied.clone();
            // One that is heard again and does not name a node has no checks of it.
            for node in world.nodes.iter_mut().filter(|node| !silent && !applied.names(node.id) && node.is_up()) {
                node.phase = Phase::Running;
            }
        }
    }

    fn deliver(&mut self, service: usize, flight: usize, proxy: u8, cores: &mut Cores) -> Result<bool, Fault> {
        let order = self.parts[service].world.flights[flight].order.clone();
        let awaited = self.parts[service].world.flights[flight].id.is_some();
        cores.marks.extend(delivery_mark(&self.parts[service].world, &order, awaited));
        let core = Rc::clone(&self.parts[service].core);
        self.parts[service].world.deliver(&order, proxy, Rules { core: &core.state, floor: core.floor })?;
        if matches!(order, Order::Route { .. }) {
            // A snapshot holds all services: the others' latest routes come with it.
            for part in &mut self.parts {
                part.world.hand_on(proxy, part.core.floor)?;
            }
        }
        Ok(true)
    }

    /// The same effect once more, after it was done: its receivers must not do anything. Nothing new can follow from that, so it is shown on the spot and costs no budget.
    fn double(&self, service: usize, flight: usize, cores: &mut Cores) -> Result<bool, Fault> {
        let world = &self.parts[service].world;
        let order = &world.flights[flight].order;
        let core = &self.parts[service].core;
        let mut twice = world.clone();
        for proxy in 0..world.proxies.len() {
            twice.deliver(order, proxy as u8, Rules { core: &core.state, floor: core.floor })?;
        }
        cores.marks.insert(match order {
            Order::Ensure { .. } => "doubled EnsureGroup",
            Order::Route { .. } => "doubled Route",
            Order::Drain { .. } => "doubled Drain",
            Order::Destroy { .. } => "doubled DestroyNodes",
            Order::Task { .. } => "doubled RunTask",
            Order::Analyse { .. } => "doubled Analyse",
        });
        if twice != *world {
            return fault("I4", format!("{order:?} does something when it is delivered twice"));
        }
        Ok(false)
    }

    fn happen_to_node(&mut self, step: &Move, cores: &mut Cores) -> bool {
        match *step {
            Move::Node { service, node, to } => {
                let world = &mut self.parts[service].world;
                let passed = world.node(node).is_some_and(|node| node.passed);
                let was = world.node(node).map(|node| node.phase);
                let accident = to == Phase::Exited || (to == Phase::Failing);
                if accident && passed {
                    self.budget.deaths -= 1;
                    world.disturbed = true;
                    cores.marks.insert("a node that had passed fails");
                } else if accident {
                    self.budget.bad -= 1;
                    cores.marks.insert("a new node fails");
                }
                debug_assert!(was.is_some());
                world.set_phase(node, to);
            }
            Move::Vanish { service, node } => {
                self.budget.deaths -= 1;
                self.parts[service].world.disturbed = true;
                self.parts[service].world.vanish(node);
            }
            Move::RequestEnds { service, node, proxy } => self.parts[service].world.end_request(node, proxy),
            _ => return false,
        }
        true
    }
}

fn delivery_mark(world: &World, order: &Order, awaited: bool) -> Option<&'static str> {
    Some(match order {
        Order::Drain { nodes, .. } if world.nodes.iter().any(|node| nodes.contains(&node.id) && node.requests != 0) => {
            "drain with a request in flight"
        }
        Order::Destroy { .. } if !awaited => "destroy that nobody waits for",
        Order::Destroy { .. } => "destroy",
        Order::Route { .. } if !awaited => "route that nobody waits for",
        Order::Ensure { .. } if !awaited => "nodes that nobody waits for",
        _ => return None,
    })
}

impl State {
    /// A move in words, as it is made in this state.
    pub fn in_words(&self, step: &Move) -> String {
        let order = |service: usize, flight: usize| self.parts[service].world.flights[flight].to_string();
        let (service, words) = match *step {
            Move::Look { service } => (Some(service), "the engine looks at the world and shows it to the core".into()),
            Move::AskProxies { service } => (Some(service), "a look begins with what the proxies say".into()),
            Move::SeeNodes { service } => (Some(service), "the look ends with the nodes and is shown to the core".into()),
            Move::End { service, flight } => {
                (Some(service), format!("the core is told that it was carried out: {}", order(service, flight)))
            }
            Move::Deliver { service, flight, proxy } => {
                (Some(service), format!("the next part of it arrives (proxy {proxy}): {}", order(service, flight)))
            }
            Move::Lose { service, flight, is_final } => {
                (Some(service), format!("the core is told that it failed (for good: {is_final}): {}", order(service, flight)))
            }
            Move::Double { service, flight } => (Some(service), format!("it is delivered once more: {}", order(service, flight))),
            Move::Node { service, node, to } => (Some(service), format!("node {node} is {to:?} now")),
            Move::Vanish { service, node } => (Some(service), format!("node {node} vanishes")),
            Move::RequestEnds { service, node, proxy } => {
                (Some(service), format!("the last request that proxy {proxy} sent to {node} ends"))
            }
            Move::Silence { proxy, silent: true } => (None, format!("proxy {proxy} cannot be asked or told anything")),
            Move::Silence { proxy, silent: false } => (None, format!("proxy {proxy} can be asked and told again")),
            Move::Crash => (None, "the engine dies and starts again".into()),
            Move::Declare { service } => (Some(service), "the next release is declared".into()),
            Move::DeclareAgain { service } => (Some(service), "the rejected release is declared again".into()),
            Move::RollBack { service } => (Some(service), "a person wants the release before back".into()),
            Move::Operate { service, ref operation, .. } => (Some(service), format!("a person wants: {operation:?}")),
            Move::Partner { service } => (Some(service), "it is told how its partner stands".into()),
            Move::Judge { service, verdict, .. } => (Some(service), format!("the comparison's verdict: {verdict:?}")),
            Move::TimePasses => (None, "time passes until the next deadline".into()),
        };
        match service {
            Some(service) if self.parts.len() > 1 => format!("service {service}: {words}"),
            _ => words,
        }
    }

    /// The state in a line, for traces.
    pub fn summary(&self) -> String {
        let part = |part: &Part| {
            let core = &part.core.state;
            let stage = core.rollout.as_ref().map_or("no rollout".into(), |rollout| format!("{} {:?}", rollout.to, rollout.stage));
            let live = core.live.map_or("nothing".into(), |group| group.to_string());
            format!("live {live}, {stage}; {}", part.world)
        };
        self.parts.iter().map(part).collect::<Vec<_>>().join(" || ")
    }
}

impl fmt::Display for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = |nodes: &std::collections::BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        match &self.order {
            Order::Ensure { group, size } => write!(f, "EnsureGroup {group} to {size}")?,
            Order::Route { generation, members } => write!(f, "Route {generation} {}", in_words(members))?,
            Order::Drain { nodes: list, deadline } => write!(f, "Drain {} within {deadline:?}", nodes(list))?,
            Order::Destroy { nodes: list } => write!(f, "DestroyNodes {}", nodes(list))?,
            Order::Task { group, task } => write!(f, "RunTask {task} of {group}")?,
            Order::Analyse { new } => write!(f, "Analyse {new}")?,
        }
        f.write_str(if self.id.is_some() { "" } else { " (nobody waits for it)" })
    }
}

fn in_words(members: &std::collections::BTreeMap<NodeId, gapless_core::route::Weight>) -> String {
    format!("[{}]", members.iter().map(|(node, weight)| format!("{node}:{}", weight.0)).collect::<Vec<_>>().join(" "))
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            write!(f, "{} {:?}{} ", node.id, node.phase, if node.requests == 0 { "" } else { "*" })?;
        }
        for (place, proxy) in self.proxies.iter().enumerate() {
            let silent = if proxy.silent { " silent" } else { "" };
            write!(f, "| proxy {place}{silent} {} {} ", proxy.applied.generation, in_words(&proxy.applied.members))?;
        }
        let flights: Vec<String> = self.flights.iter().map(ToString::to_string).collect();
        write!(f, "| on their way: {}", flights.join(", "))
    }
}
