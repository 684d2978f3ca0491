//! Orders on their way into the world: each arrives at its time, perhaps a second time, perhaps never.

use super::fault::Fate;
use super::proxy::Checks;
use super::service::Service;
use super::world::World;
use crate::{host, sometimes};
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::route::{Generation, Route};
use gapless_core::time::Instant;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Declarations;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Something that one part of the world is told.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Create { declaration: Arc<ServiceDeclaration>, group: GroupId, size: u32 },
    Apply { proxy: usize, service: ServiceName, route: Route, checks: Checks },
    Drain { proxy: usize, service: ServiceName, nodes: BTreeSet<NodeId>, deadline: Duration },
    AskToEnd { service: ServiceName, nodes: BTreeSet<NodeId>, deadline: Duration },
    Destroy { service: ServiceName, nodes: BTreeSet<NodeId> },
    Run { declaration: Arc<ServiceDeclaration>, group: GroupId, task: Task },
}

/// Names an order on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Letter(u64);

/// An order on its way.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    letter: Letter,
    arrives: Instant,
    order: Order,
    /// Whoever sent it has died since.
    orphaned: bool,
}

impl Order {
    /// A part of it alone, as when whoever does it is broken off.
    fn halve(&mut self) {
        match self {
            Order::Create { size, .. } => *size /= 2,
            Order::Drain { nodes, .. } | Order::AskToEnd { nodes, .. } | Order::Destroy { nodes, .. } => {
                let half = nodes.len() / 2;
                *nodes = std::mem::take(nodes).into_iter().take(half).collect();
            }
            Order::Apply { .. } | Order::Run { .. } => {}
        }
    }
}

impl World {
    /// Sends orders out. Those that arrive at once have been obeyed when this returns.
    pub(super) fn post(&mut self, mut orders: Vec<Order>, fate: &Fate, twice: bool) -> Vec<Letter> {
        if fate.half_done {
            let half = orders.len().div_ceil(2);
            orders.truncate(half);
            orders.iter_mut().for_each(Order::halve);
        }
        let mut letters = Vec::new();
        for order in orders {
            let copies = fate.again_after.map(|after| fate.delay + after).into_iter().chain(twice.then_some(fate.delay));
            for delay in copies.collect::<Vec<_>>() {
                self.send(order.clone(), delay);
            }
            letters.push(self.send(order, fate.delay));
        }
        self.deliver();
        letters
    }

    fn send(&mut self, order: Order, delay: Duration) -> Letter {
        self.letters += 1;
        let letter = Letter(self.letters);
        let way = match &order {
            Order::Apply { proxy, .. } => self.apply_delay + self.proxies.get(*proxy).map_or(Duration::ZERO, |proxy| proxy.slow),
            _ => Duration::ZERO,
        };
        self.mail.push(Mail { letter, arrives: self.now.after(delay + way), order, orphaned: false });
        letter
    }

    /// Whether one of these is still on its way.
    pub(super) fn is_under_way(&self, letters: &[Letter]) -> bool {
        self.mail.iter().any(|mail| letters.contains(&mail.letter))
    }

    /// Everything whose time has come arrives.
    pub(super) fn deliver(&mut self) {
        while let Some(place) = self.mail.iter().position(|mail| mail.arrives <= self.now) {
            let mail = self.mail.remove(place);
            sometimes!("an order arrives after its sender died", mail.orphaned);
            self.obey(mail.order, mail.orphaned);
        }
    }

    fn obey(&mut self, order: Order, orphaned: bool) {
        self.log.push(format!("{:?} {}", self.now, describe(&order)));
        match order {
            Order::Create { declaration, group, size } => {
                self.with_service(&declaration.service, |service, around| service.create(&declaration, group, size, around));
            }
            Order::Apply { proxy, service, route, checks } => self.apply(proxy, &service, &route, &checks),
            Order::Drain { proxy, service, nodes, deadline } => self.begin_drain(proxy, &service, &nodes, deadline),
            Order::AskToEnd { service, nodes, deadline } => {
                self.with_service(&service, |service, around| service.ask_to_end(&nodes, deadline, around));
            }
            Order::Run { declaration, group, task } => {
                self.with_service(&declaration.service, |service, around| service.run_task(&declaration, group, task, around));
            }
            Order::Destroy { service, nodes } => {
                sometimes!("a DestroyNodes arrives after its sender died", orphaned);
                self.with_service(&service, |service, around| service.destroy(&nodes, around));
            }
        }
    }

    fn apply(&mut self, proxy: usize, name: &ServiceName, route: &Route, checks: &Checks) {
        let (now, listens) = (self.now, self.hears(proxy));
        let service = self.service(name);
        let overtaken = service.kept.as_ref().is_some_and(|(kept, _)| kept.generation > route.generation);
        sometimes!("a route arrives after a later one was decided", overtaken);
        // Whoever is new asks for the latest: what was meant for the one before does not reach it.
        let Some(at) = service.at.get_mut(proxy).filter(|at| listens && (!overtaken || at.generation().is_some())) else { return };
        let before = at.route.generation;
        let applied = at.apply(route, checks, now);
        let after = at.route.generation;
        sometimes!("a proxy refuses a route that is older than its own", !applied);
        self.revision += u64::from(applied);
        if after < before {
            self.violations.push(format!("{now:?} I5: proxy {proxy} went from {before} to {after}"));
        }
    }

    fn begin_drain(&mut self, proxy: usize, name: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) {
        let (at, listens) = (self.now.after(deadline), self.hears(proxy));
        let Some(known) = self.service(name).at.get_mut(proxy).filter(|_| listens) else { return };
        for node in nodes {
            sometimes!("a Drain arrives for a node whose drain began before", known.draining.contains_key(node));
            known.draining.entry(*node).or_insert(at);
        }
    }

    fn hears(&self, proxy: usize) -> bool {
        self.proxies.get(proxy).is_some_and(|proxy| proxy.present)
    }

    /// The order that makes a group, unless its nodes could never be given traffic, or there is no room for them.
    pub(super) fn create_orders(&self, declaration: &Arc<ServiceDeclaration>, group: GroupId, size: u32) -> Result<Vec<Order>, Error> {
        let name = &declaration.service;
        if !self.services.get(name).is_some_and(|service| service.was_made(group, size)) {
            self.refuse_taken(name, &declaration.host)?;
        }
        self.check_room_for_group(name, group, size)?;
        Ok(vec![Order::Create { declaration: declaration.clone(), group, size }])
    }

    /// Keeps a service's route, unless a later one is kept or another service has its host, and gives the orders that tell every proxy of it.
    pub(super) fn route_orders(&mut self, name: &ServiceName, route: &Route, declarations: &Declarations) -> Result<Vec<Order>, Error> {
        let service = self.service(name);
        if service.kept.as_ref().is_none_or(|(kept, _)| kept.generation < route.generation) {
            let checks = checks_of(service, route, declarations)?;
            let host = host::of_route(route, declarations).or(service.host.as_deref()).unwrap_or("*").to_string();
            self.refuse_taken(name, &host)?;
            let service = self.service(name);
            (service.kept, service.host) = (Some((route.clone(), checks)), Some(host));
        }
        let Some((route, checks)) = self.service(name).kept.clone() else { return Ok(Vec::new()) };
        let reachable = self.proxies.iter().enumerate().filter(|(_, proxy)| proxy.reachable && proxy.present);
        let order = |proxy| Order::Apply { proxy, service: name.clone(), route: route.clone(), checks: checks.clone() };
        Ok(reachable.map(|(proxy, _)| order(proxy)).collect())
    }

    fn refuse_taken(&self, name: &ServiceName, host: &str) -> Result<(), Error> {
        let others = self.services.iter().filter(|(other, _)| *other != name);
        host::refuse_taken(name, host, others.filter_map(|(other, service)| Some((other, service.host.as_deref()?))))
    }

    /// The host that each service answers.
    pub(super) fn hosts(&self) -> BTreeMap<ServiceName, String> {
        self.services.iter().filter_map(|(name, service)| Some((name.clone(), service.host.clone()?))).collect()
    }

    /// The orders that tell every proxy of a drain.
    pub(super) fn drain_orders(&self, name: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Vec<Order> {
        let reachable = self.proxies.iter().enumerate().filter(|(_, proxy)| proxy.reachable && proxy.present);
        let order = |proxy| Order::Drain { proxy, service: name.clone(), nodes: nodes.clone(), deadline };
        let ask = Order::AskToEnd { service: name.clone(), nodes: nodes.clone(), deadline };
        reachable.map(|(proxy, _)| order(proxy)).chain([ask]).collect()
    }

    /// Every proxy applies the generation, or a later one.
    pub(super) fn route_is_applied(&mut self, name: &ServiceName, generation: Generation) -> Result<(), Error> {
        self.all_reachable()?;
        let at = &self.service(name).at;
        match at.iter().position(|at| at.generation() < Some(generation)) {
            Some(proxy) => Err(Error::new(format!("{} has not applied {generation}", self.proxies[proxy].name))),
            None => Ok(()),
        }
    }

    /// Every proxy knows of the drain of these nodes.
    pub(super) fn drain_is_known(&mut self, name: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        self.all_reachable()?;
        let at = &self.service(name).at;
        match at.iter().position(|at| !nodes.iter().all(|node| at.draining.contains_key(node))) {
            Some(proxy) => Err(Error::new(format!("{} has not heard of a drain", self.proxies[proxy].name))),
            None => Ok(()),
        }
    }

    /// What came of a task, if it ended or never begins.
    pub(super) fn task_ended(&mut self, name: &ServiceName, group: GroupId, task: Task) -> Option<Result<(), Error>> {
        let now = self.now;
        if let Some(refused) = self.service(name).task_refused(group, task) {
            return Some(Err(refused));
        }
        let good = self.service(name).task_ended(group, task, now)?;
        let bad = || Error::new(format!("{task} ended with code 1")).kind(ErrorKind::Invalid);
        Some(if good { Ok(()) } else { Err(bad()) })
    }

    pub(super) fn all_reachable(&self) -> Result<(), Error> {
        match self.proxies.iter().find(|proxy| !proxy.reachable || !proxy.present) {
            Some(proxy) => Err(Error::new(format!("{} cannot be reached", proxy.name))),
            None => Ok(()),
        }
    }

    /// The sender of everything that is on its way died: it arrives all the same, late, twice, or never.
    pub(super) fn orphan_mail(&mut self) {
        let mut doubled = Vec::new();
        for mut mail in std::mem::take(&mut self.mail) {
            mail.orphaned = true;
            match self.random.below(4) {
                0 => continue,
                1 => mail.arrives = mail.arrives.after(self.random.span(self.faults.longest)),
                2 => doubled.push(Mail { arrives: mail.arrives.after(self.random.span(self.faults.longest)), ..mail.clone() }),
                _ => {}
            }
            self.mail.push(mail);
        }
        self.mail.extend(doubled);
    }
}

fn checks_of(service: &Service, route: &Route, declarations: &Declarations) -> Result<Checks, Error> {
    let mut checks = Checks::new();
    for node in route.members.keys() {
        let declaration = declarations.get(&node.group.release);
        let declaration = declaration.ok_or_else(|| Error::new("the declaration of a member's release is missing"))?;
        if !service.existing.contains_key(node) {
            sometimes!("a route names a node that is gone");
            return Err(Error::new(format!("the route names {node}, which does not exist")).kind(ErrorKind::NotFound));
        }
        checks.insert(*node, declaration.health.clone());
    }
    Ok(checks)
}

fn describe(order: &Order) -> String {
    match order {
        Order::Create { group, size, .. } => format!("EnsureGroup {group} {size}"),
        Order::Apply { proxy, route, .. } => {
            let members = route.members.iter().map(|(node, weight)| format!(" {node}={}", weight.0)).collect::<String>();
            format!("Route {} at proxy {proxy}:{members}", route.generation)
        }
        Order::Drain { proxy, nodes, deadline, .. } => format!("Drain at proxy {proxy} in {deadline:?}:{}", names(nodes)),
        Order::AskToEnd { nodes, .. } => format!("ask to end{}", names(nodes)),
        Order::Destroy { nodes, .. } => format!("DestroyNodes{}", names(nodes)),
        Order::Run { group, task, .. } => format!("RunTask {task} of {group}"),
    }
}

fn names(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| format!(" {node}")).collect()
}
