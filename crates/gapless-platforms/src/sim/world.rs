//! The simulated world: what is, and how it goes on.

use super::fault::{Fate, Faults, Sight};
use super::mail::Mail;
use super::node::Behaviour;
use super::proxy::Proxy;
use super::random::Random;
use super::service::{Around, Service};
use super::traffic::Tally;
use super::{Picture, SimOptions};
use crate::sometimes;
use gapless_core::analysis::Verdict;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Observation;
use gapless_core::release::ArtifactVersion;
use gapless_core::time::Instant;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::Newcomers;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How many looks are remembered, to be shown again as stale ones.
const LOOKS_KEPT: usize = 12;

/// Everything that is.
pub(super) struct World {
    pub(super) now: Instant,
    /// When the present runtime's time began, and what time it was in the world then.
    pub(super) began: Option<(tokio::time::Instant, Instant)>,
    pub(super) revision: u64,
    pub(super) behaviours: BTreeMap<ArtifactVersion, Behaviour>,
    pub(super) proxies: Vec<Proxy>,
    pub(super) services: BTreeMap<ServiceName, Service>,
    pub(super) mail: Vec<Mail>,
    /// Orders sent so far.
    pub(super) letters: u64,
    pub(super) faults: Faults,
    /// Deliveries and looks that hang go on hanging.
    pub(super) hanging: bool,
    pub(super) long_requests: bool,
    pub(super) tally: Tally,
    /// What broke a promise.
    pub(super) violations: Vec<String>,
    /// Everything that happened but requests.
    pub(super) log: Vec<String>,
    /// By effect: how many of the next ones fail, and how.
    pub(super) failing: BTreeMap<&'static str, (u32, ErrorKind)>,
    pub(super) carried_out: BTreeMap<&'static str, u32>,
    /// How many effects, answers and looks went wrong so far.
    pub(super) gone_wrong: u64,
    pub(super) random: Random,
    pub(super) apply_delay: Duration,
    /// How many nodes there may be, where that has a bound.
    pub(super) most_nodes: Option<usize>,
    /// By effect: failures by chance since it last went well.
    failed_in_a_row: BTreeMap<&'static str, u32>,
    looks: BTreeMap<ServiceName, VecDeque<Observation>>,
    tick: Duration,
}

impl World {
    pub(super) fn new(options: &SimOptions, now: Instant) -> Self {
        let proxy = |number| Proxy { name: format!("proxy-{number}"), reachable: true, present: true, slow: Duration::ZERO };
        Self {
            now,
            began: None,
            revision: 1,
            behaviours: BTreeMap::new(),
            proxies: (0..options.proxies).map(proxy).collect(),
            services: BTreeMap::new(),
            mail: Vec::new(),
            letters: 0,
            faults: options.faults.clone(),
            hanging: true,
            long_requests: false,
            tally: Tally::default(),
            violations: Vec::new(),
            log: Vec::new(),
            failing: BTreeMap::new(),
            carried_out: BTreeMap::new(),
            gone_wrong: 0,
            random: Random::new(options.seed),
            apply_delay: options.apply_delay,
            most_nodes: None,
            failed_in_a_row: BTreeMap::new(),
            looks: BTreeMap::new(),
            tick: options.tick,
        }
    }

    pub(super) fn advance_to(&mut self, instant: Instant) {
        while self.now.after(self.tick) <= instant {
            self.now = self.now.after(self.tick);
            self.deliver();
            let mut services = std::mem::take(&mut self.services);
            let mut around = self.around();
            services.values_mut().for_each(|service| service.go_on(&mut around));
            self.services = services;
        }
    }

    fn around(&mut self) -> Around<'_> {
        Around {
            now: self.now,
            behaviours: &self.behaviours,
            proxies: &self.proxies,
            random: &mut self.random,
            tally: &mut self.tally,
            revision: &mut self.revision,
            log: &mut self.log,
            violations: &mut self.violations,
            long_requests: self.long_requests,
        }
    }

    /// The service, which begins to be when it is first spoken of.
    pub(super) fn service(&mut self, name: &ServiceName) -> &mut Service {
        if !self.services.contains_key(name) {
            self.services.insert(name.clone(), Service::new(self.proxies.len()));
        }
        self.services.entry(name.clone()).or_default()
    }

    /// Does something with a service and what is around it.
    pub(super) fn with_service<T>(&mut self, name: &ServiceName, act: impl FnOnce(&mut Service, &mut Around) -> T) -> T {
        let mut service = std::mem::take(self.service(name));
        let done = act(&mut service, &mut self.around());
        self.services.insert(name.clone(), service);
        done
    }

    pub(super) fn say(&mut self, what: &str) {
        let line = format!("{:?} {what}", self.now);
        self.log.push(line);
    }

    pub(super) fn kill_node(&mut self, name: &ServiceName, node: NodeId, code: i32) {
        if self.with_service(name, |service, around| service.kill_node(node, code, around.tally)) {
            self.say(&format!("{node} is killed"));
            self.revision += 1;
        }
    }

    pub(super) fn vanish_node(&mut self, name: &ServiceName, node: NodeId) {
        if self.with_service(name, |service, around| service.vanish_node(node, around.tally)) {
            self.say(&format!("{node} vanishes"));
            self.revision += 1;
        }
    }

    pub(super) fn hang_node(&mut self, name: &ServiceName, node: NodeId, hung: bool) {
        if let Some(known) = self.service(name).existing.get_mut(&node) {
            known.hung = hung;
            self.say(&format!("{node} {}", if hung { "hangs" } else { "hangs no more" }));
        }
    }

    fn place_of(&self, proxy: &str) -> Option<usize> {
        self.proxies.iter().position(|known| known.name == proxy)
    }

    /// A proxy is replaced by one that knows no route.
    pub(super) fn replace_proxy(&mut self, name: &str) {
        let Some(place) = self.place_of(name) else { return };
        self.say(&format!("{name} is replaced"));
        (self.proxies[place].reachable, self.proxies[place].present) = (true, true);
        for service in self.services.values_mut() {
            service.lose_proxy(place, &mut self.tally);
            service.at[place] = Default::default();
        }
        self.revision += 1;
    }

    /// A proxy loses its worker, or gets another one, which begins with the route from the disk.
    pub(super) fn take_worker(&mut self, name: &str, present: bool) {
        let Some(place) = self.place_of(name).filter(|place| self.proxies[*place].present != present) else { return };
        self.say(&format!("{name} {}", if present { "has a worker again" } else { "loses its worker" }));
        self.proxies[place].present = present;
        for service in self.services.values_mut() {
            service.lose_proxy(place, &mut self.tally);
            service.at[place].begin_again(self.now);
        }
        self.revision += 1;
    }

    /// A proxy comes back with the routes before the last ones.
    pub(super) fn rewind_proxy(&mut self, name: &str) {
        let Some(place) = self.place_of(name) else { return };
        self.say(&format!("{name} is rewound"));
        for service in self.services.values_mut() {
            sometimes!("a proxy comes back with an older route than it had acknowledged", service.at[place].rewind());
        }
        self.revision += 1;
    }

    pub(super) fn proxy(&mut self, name: &str) -> Option<&mut Proxy> {
        self.proxies.iter_mut().find(|proxy| proxy.name == name)
    }

    /// Whether the nodes of a group that never were could be made.
    pub(super) fn check_room_for_group(&self, name: &ServiceName, group: GroupId, size: u32) -> Result<(), Error> {
        let unmade = self.services.get(name).map_or(size as usize, |service| service.unmade(group, size));
        self.check_room(unmade, 0)
    }

    /// Whether all of these could be made once what does not stay has left.
    pub(super) fn check_room_for(&self, newcomers: &[Newcomers]) -> Result<(), Error> {
        let present = newcomers.iter().filter_map(|new| Some((new, self.services.get(&new.declaration.service)?)));
        let leaving = present.map(|(new, service)| service.existing.keys().filter(|node| !new.staying.contains(node)).count()).sum();
        self.check_room(newcomers.iter().map(|new| new.nodes as usize).sum(), leaving)
    }

    fn check_room(&self, new: usize, leaving: usize) -> Result<(), Error> {
        let existing: usize = self.services.values().map(|service| service.existing.len()).sum();
        match self.most_nodes {
            Some(most) if new > 0 && existing.saturating_sub(leaving) + new > most => {
                let what = format!("no room for {new} more: the world has memory for {most} nodes, and {existing} are there");
                Err(Error::new(what).kind(ErrorKind::NoRoom).hint("end what else runs, or take a bigger world"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a node of the group is still being started.
    pub(super) fn is_starting(&self, name: &ServiceName, group: GroupId) -> bool {
        self.services.get(name).is_some_and(|service| service.is_starting(group))
    }

    /// Remembers a look, so that it can be shown again later.
    pub(super) fn remember(&mut self, name: &ServiceName, seen: &Observation) {
        if self.faults.look_is_stale == 0 {
            return;
        }
        let looks = self.looks.entry(name.clone()).or_default();
        looks.push_back(seen.clone());
        if looks.len() > LOOKS_KEPT {
            looks.pop_front();
        }
    }

    /// An earlier look, if one is remembered. None of a worker: before it is asked to end, it looks as if it had ended its work.
    pub(super) fn stale_look(&mut self, name: &ServiceName) -> Option<Observation> {
        if self.service(name).worker {
            return None;
        }
        let looks = self.looks.get(name)?;
        let place = usize::try_from(self.random.below(looks.len() as u64)).unwrap_or_default();
        let seen = looks.get(place)?.clone();
        self.gone_wrong += 1;
        sometimes!("a look shows an earlier world");
        Some(seen)
    }

    pub(super) fn verdict(&mut self) -> Verdict {
        match self.random.below(10) {
            _ if !self.hanging => Verdict::Promote,
            0..5 => Verdict::Promote,
            5..8 => Verdict::Hold,
            _ => Verdict::Abort,
        }
    }

    pub(super) fn sight(&mut self) -> Sight {
        let sight = self.faults.sight(&mut self.random);
        self.gone_wrong += u64::from(sight != Sight::Clear);
        sight
    }

    /// Draws what becomes of a delivery.
    ///
    /// # Errors
    /// It fails before anything of it is done.
    pub(super) fn fate(&mut self, effect: &'static str) -> Result<Fate, Error> {
        if let Some((times, kind)) = self.failing.get_mut(effect).filter(|(times, _)| *times > 0) {
            *times -= 1;
            return Err(Error::new(format!("{effect} was made to fail")).kind(*kind));
        }
        if self.goes_wrong(effect, self.faults.refused) {
            return Err(Error::new(format!("{effect} failed by chance")));
        }
        let faults = self.faults.clone();
        let mut fate = faults.fate(&mut self.random);
        fate.answer_lost = self.goes_wrong(effect, faults.answer_lost);
        if !fate.answer_lost {
            self.failed_in_a_row.remove(effect);
        }
        let wrong = [fate.half_done, fate.lost, fate.hangs, !fate.delay.is_zero(), fate.again_after.is_some()];
        self.gone_wrong += wrong.into_iter().filter(|wrong| *wrong).count() as u64;
        Ok(fate)
    }

    fn goes_wrong(&mut self, effect: &'static str, per_mille: u32) -> bool {
        let failed = self.failed_in_a_row.entry(effect).or_default();
        let may = self.faults.in_a_row.is_none_or(|most| *failed < most);
        let wrong = may && self.random.happens(per_mille);
        *failed += u32::from(wrong);
        self.gone_wrong += u64::from(wrong);
        wrong
    }

    pub(super) fn picture(&self, name: &ServiceName) -> Picture {
        let service = self.services.get(name);
        let members = |place: usize| service.and_then(|service| Some(service.at.get(place)?.route.members.clone())).unwrap_or_default();
        Picture {
            nodes: service.map(|service| service.existing.keys().copied().collect()).unwrap_or_default(),
            routes: self.proxies.iter().enumerate().map(|(place, proxy)| (proxy.name.clone(), members(place))).collect(),
        }
    }

    /// The fewest nodes that answer at a proxy that has traffic to give. `None`: none has.
    pub(super) fn capacity(&self, name: &ServiceName) -> Option<usize> {
        self.services.get(name)?.capacity(&self.behaviours, &self.proxies, self.now)
    }
}
