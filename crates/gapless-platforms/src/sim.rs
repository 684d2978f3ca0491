//! The simulated platform: nodes, proxies and requests in memory, repeatable by a seed, with faults on demand.
//!
//! In [`SimTime::Virtual`] the world's time is that of the tokio runtime: in one whose time is paused, nothing waits and every run is the same. In [`SimTime::Real`] it is the
//! machine's.

mod clock;
mod fault;
mod look;
mod mail;
mod node;
mod proxy;
mod random;
mod service;
pub mod situation;
mod traffic;
mod world;

pub use clock::SimClock;
pub use fault::Faults;
pub use node::{Behaviour, Exit};
pub use random::Random;
pub use traffic::Tally;

use crate::sometimes;
use async_trait::async_trait;
use fault::{Fate, Sight};
use gapless_core::analysis::Judgement;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Observation;
use gapless_core::release::ArtifactVersion;
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::time::Instant;
use gapless_engine::analysis::{AnalysisRequest, Analyst};
use gapless_engine::clock::{Clock, SystemClock};
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::{Declarations, Newcomers, Platform};
use mail::Order;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use world::World;

/// How long a sender waits for an answer that does not come.
const NO_ANSWER: Duration = Duration::from_secs(2);

/// Which time a simulated world has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimTime {
    /// The tokio runtime's.
    #[default]
    Virtual,
    /// The machine's.
    Real,
}

/// What a simulated world is made of.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// The same seed gives the same requests and the same random faults.
    pub seed: u64,
    /// Which time it has.
    pub time: SimTime,
    /// How many proxies serve it: `proxy-0`, `proxy-1`, ….
    pub proxies: u32,
    /// The grain of time: nothing that matters is shorter. Every sending service gets a request in each.
    pub tick: Duration,
    /// From a route's arrival at a proxy to its acknowledgement.
    pub apply_delay: Duration,
    /// What goes wrong by chance.
    pub faults: Faults,
    /// Every effect is delivered twice.
    pub twice: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            time: SimTime::Virtual,
            proxies: 1,
            tick: Duration::from_millis(5),
            apply_delay: Duration::from_millis(10),
            faults: Faults::default(),
            twice: false,
        }
    }
}

/// What can be compared of a service's world when all is quiet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Every node that exists.
    pub nodes: BTreeSet<NodeId>,
    /// By proxy: the applied route's members.
    pub routes: BTreeMap<String, BTreeMap<NodeId, Weight>>,
}

/// A platform and a clock over a simulated world. Clones share what this instance remembers; [`Sim::again`] shares the world alone, as the next engine after a crash does.
#[derive(Clone)]
pub struct Sim {
    options: Arc<SimOptions>,
    world: Arc<Mutex<World>>,
    wall: Arc<SystemClock>,
    /// The world's revision at the last look, by service.
    looked: Arc<Mutex<BTreeMap<ServiceName, u64>>>,
}

impl Sim {
    /// A new world.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        let wall = SystemClock::default();
        let begin = match options.time {
            SimTime::Virtual => Instant(1_000_000),
            SimTime::Real => wall.now(),
        };
        Self {
            world: Arc::new(Mutex::new(World::new(&options, begin))),
            options: Arc::new(options),
            wall: Arc::new(wall),
            looked: Arc::default(),
        }
    }

    /// Another platform over the same world, also in another runtime.
    #[must_use]
    pub fn again(&self) -> Self {
        self.world.lock().unwrap_or_else(PoisonError::into_inner).began = None;
        Self { looked: Arc::default(), ..self.clone() }
    }

    /// Nodes of this artifact version behave so; those that exist already too. Without this they behave as [`Behaviour::default`].
    pub fn behave(&self, version: ArtifactVersion, behaviour: Behaviour) {
        self.world().behaviours.insert(version, behaviour);
    }

    /// The world has memory for so many nodes, those of all services together. Without this it has enough.
    pub fn limit_nodes(&self, nodes: usize) {
        self.world().most_nodes = Some(nodes);
    }

    /// Clients send requests to this service from now on.
    pub fn send_requests(&self, service: &ServiceName) {
        self.world().service(service).sending = true;
    }

    /// Some requests take longer than a drain from now on, or none.
    pub fn send_long_requests(&self, long: bool) {
        self.world().long_requests = long;
    }

    /// What became of the clients' requests so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.world().tally.clone()
    }

    /// What broke a promise so far: a node destroyed while a proxy could send to it or while requests ran on it, a proxy that went back by itself.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    /// Everything that happened so far, but requests and checks.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.world().log.clone()
    }

    /// Writes a line into the log.
    pub fn say(&self, what: &str) {
        self.world().say(what);
    }

    /// How many effects, answers and looks went wrong so far.
    #[must_use]
    pub fn gone_wrong(&self) -> u64 {
        self.world().gone_wrong
    }

    /// The fewest nodes that answer at a proxy that has traffic to give. `None`: none has.
    #[must_use]
    pub fn capacity(&self, service: &ServiceName) -> Option<usize> {
        self.world().capacity(service)
    }

    /// Once so many nodes answered at every proxy that has traffic to give, it is a violation when fewer do.
    pub fn demand_capacity(&self, service: &ServiceName, nodes: usize) {
        self.world().service(service).demand(nodes);
    }

    /// Sends one request that does not end by itself, and says whether a node took it.
    pub fn hold_request(&self, service: &ServiceName) -> bool {
        self.world().with_service(service, |service, around| service.send_request(around, None))
    }

    /// A node's command ends by itself.
    pub fn kill_node(&self, service: &ServiceName, node: NodeId, code: i32) {
        self.world().kill_node(service, node, code);
    }

    /// A node disappears without a trace.
    pub fn vanish_node(&self, service: &ServiceName, node: NodeId) {
        self.world().vanish_node(service, node);
    }

    /// A node runs and answers nobody, or answers again.
    pub fn hang_node(&self, service: &ServiceName, node: NodeId, hung: bool) {
        self.world().hang_node(service, node, hung);
    }

    /// A node is there that no journal knows.
    pub fn plant_node(&self, service: &ServiceName, node: NodeId) {
        self.world().with_service(service, |service, around| service.plant_node(node, around));
    }

    /// A proxy is replaced by one that knows no route.
    pub fn replace_proxy(&self, proxy: &str) {
        self.world().replace_proxy(proxy);
    }

    /// A proxy loses its worker and the requests that it had, or gets another worker, which begins with the route from the disk.
    pub fn take_worker(&self, proxy: &str, present: bool) {
        self.world().take_worker(proxy, present);
    }

    /// A proxy comes back with the routes before the last ones: its disk lied.
    pub fn rewind_proxy(&self, proxy: &str) {
        self.world().rewind_proxy(proxy);
    }

    /// A proxy can be reached by the platform, or cannot. Its requests go on either way.
    pub fn reach_proxy(&self, proxy: &str, reachable: bool) {
        if let Some(proxy) = self.world().proxy(proxy) {
            proxy.reachable = reachable;
        }
    }

    /// Messages to a proxy take so long beside the ordinary.
    pub fn slow_proxy(&self, proxy: &str, slow: Duration) {
        if let Some(proxy) = self.world().proxy(proxy) {
            proxy.slow = slow;
        }
    }

    /// The next `times` effects of this name fail with this kind, before anything of them is done.
    pub fn fail_next(&self, effect: &'static str, times: u32, kind: ErrorKind) {
        self.world().failing.insert(effect, (times, kind));
    }

    /// From now on these things go wrong by chance. What hangs goes on hanging if `hanging`.
    pub fn set_faults(&self, faults: Faults, hanging: bool) {
        let mut world = self.world();
        (world.faults, world.hanging) = (faults, hanging);
        if !hanging {
            world.failing.clear();
        }
    }

    /// The engine died: what it had sent arrives all the same, late, twice, or never.
    pub fn orphan_what_is_under_way(&self) {
        self.world().orphan_mail();
    }

    /// How many effects of this name were carried out so far.
    #[must_use]
    pub fn carried_out(&self, effect: &str) -> u32 {
        self.world().carried_out.get(effect).copied().unwrap_or_default()
    }

    /// The service's world as it is.
    #[must_use]
    pub fn picture(&self, service: &ServiceName) -> Picture {
        self.world().picture(service)
    }

    /// A look at the service without any fault.
    #[must_use]
    pub fn truth(&self, service: &ServiceName) -> Observation {
        self.world().see(service)
    }

    /// Lets time pass.
    pub async fn pass(&self, span: Duration) {
        let until = self.now().after(span);
        while self.now() < until {
            self.tick().await;
        }
    }

    /// Lets time pass while no runtime is there: the world goes on without an engine.
    pub fn pass_without_engine(&self, span: Duration) {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let until = world.now.after(span);
        world.advance_to(until);
        world.began = None;
    }

    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        match self.options.time {
            SimTime::Real => world.advance_to(self.wall.now()),
            SimTime::Virtual if Handle::try_current().is_ok() => {
                let here = tokio::time::Instant::now();
                let now = world.now;
                let (began, at) = *world.began.get_or_insert((here, now));
                world.advance_to(at.after(here.saturating_duration_since(began)));
            }
            SimTime::Virtual => {}
        }
        world
    }

    async fn tick(&self) {
        tokio::time::sleep(self.options.tick).await;
    }

    /// Delivers an effect, with the faults that come to it. When it returns well, everything of it has arrived.
    async fn deliver(&self, effect: &'static str, orders: impl FnOnce(&mut World) -> Result<Vec<Order>, Error>) -> Result<Fate, Error> {
        let (fate, letters) = {
            let mut world = self.world();
            let fate = world.fate(effect)?;
            let orders = orders(&mut world)?;
            let letters = if fate.lost { Vec::new() } else { world.post(orders, &fate, self.options.twice) };
            *world.carried_out.entry(effect).or_default() += u32::from(!fate.lost);
            (fate, letters)
        };
        while self.world().is_under_way(&letters) {
            self.tick().await;
        }
        if fate.lost {
            sometimes!("an effect never arrives");
            tokio::time::sleep(NO_ANSWER).await;
            return Err(Error::new(format!("{effect} was not answered within {NO_ANSWER:?}")));
        }
        sometimes!("an effect is done half", fate.half_done);
        if fate.half_done {
            return Err(Error::new(format!("{effect} broke off half way")));
        }
        Ok(fate)
    }

    /// The answer to an effect that was done.
    async fn answer(&self, effect: &'static str, fate: &Fate) -> Result<(), Error> {
        if fate.hangs {
            sometimes!("an effect is done and hangs");
            while self.world().hanging {
                tokio::time::sleep(NO_ANSWER).await;
            }
        }
        if fate.answer_lost {
            sometimes!("an effect is done and its answer is lost");
            return Err(Error::new(format!("{effect} was done, and its answer was lost by chance")));
        }
        Ok(())
    }

    /// A look whose parts are seen one after the other.
    async fn look_slowly(&self, service: &ServiceName, pause: Duration) -> Observation {
        let machines = self.world().see_machines(service);
        let mut proxies = Vec::new();
        for proxy in (0..).map_while(|place| (place < self.options.proxies).then_some(place as usize)) {
            tokio::time::sleep(pause).await;
            proxies.extend(self.world().see_proxy(service, proxy));
        }
        tokio::time::sleep(pause).await;
        look::compose(machines, proxies)
    }
}

impl Clock for Sim {
    fn now(&self) -> Instant {
        match self.options.time {
            SimTime::Virtual => self.world().now,
            SimTime::Real => self.wall.now(),
        }
    }
}

#[async_trait]
impl Platform for Sim {
    async fn ensure_group(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, size: u32) -> Result<(), Error> {
        let fate = self.deliver("EnsureGroup", |world| world.create_orders(&declaration, group, size)).await?;
        while self.world().is_starting(&declaration.service, group) {
            self.tick().await;
        }
        self.answer("EnsureGroup", &fate).await
    }

    async fn has_room(&self, newcomers: &[Newcomers]) -> Result<(), Error> {
        self.world().check_room_for(newcomers)
    }

    async fn route(&self, service: &ServiceName, route: &Route, declarations: &Declarations) -> Result<(), Error> {
        let fate = self.deliver("Route", |world| world.route_orders(service, route, declarations)).await?;
        self.world().route_is_applied(service, route.generation)?;
        self.answer("Route", &fate).await
    }

    async fn drain(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Result<(), Error> {
        let fate = self.deliver("Drain", |world| Ok(world.drain_orders(service, nodes, deadline))).await?;
        self.world().drain_is_known(service, nodes)?;
        self.answer("Drain", &fate).await
    }

    async fn destroy_nodes(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        let destroy = Order::Destroy { service: service.clone(), nodes: nodes.clone() };
        let fate = self.deliver("DestroyNodes", |_| Ok(vec![destroy])).await?;
        self.answer("DestroyNodes", &fate).await
    }

    async fn run_task(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, task: Task, deadline: Duration) -> Result<(), Error> {
        let run = Order::Run { declaration: declaration.clone(), group, task };
        let fate = self.deliver("RunTask", |_| Ok(vec![run])).await?;
        let begun = self.now();
        let ended = loop {
            let ended = self.world().task_ended(&declaration.service, group, task);
            match ended {
                Some(ended) => break ended,
                None if self.now() >= begun.after(deadline) => {
                    sometimes!("a task is ended at its deadline");
                    return Err(Error::new(format!("{task} has not ended within {deadline:?}")).kind(ErrorKind::Invalid));
                }
                None => self.tick().await,
            }
        };
        self.answer("RunTask", &fate).await?;
        ended
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, Error> {
        let (sight, revision) = {
            let mut world = self.world();
            (world.sight(), world.revision)
        };
        let seen = match sight {
            Sight::Clear => self.world().see(service),
            Sight::Slow(pause) => self.look_slowly(service, pause).await,
            Sight::Stale => {
                let stale = self.world().stale_look(service);
                stale.unwrap_or_else(|| self.world().see(service))
            }
            Sight::Fails => {
                sometimes!("a look at the world fails");
                return Err(Error::new("the world could not be seen, by chance"));
            }
            Sight::Hangs => {
                sometimes!("a look at the world hangs");
                while self.world().hanging {
                    tokio::time::sleep(NO_ANSWER).await;
                }
                self.world().see(service)
            }
        };
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(service.clone(), revision);
        self.world().remember(service, &seen);
        Ok(seen)
    }

    async fn peek(&self, service: &ServiceName) -> Result<Observation, Error> {
        Ok(self.world().see(service))
    }

    async fn hosts(&self) -> Result<BTreeMap<ServiceName, String>, Error> {
        Ok(self.world().hosts())
    }

    async fn changed(&self, service: &ServiceName, at_most: Duration) {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner).get(service).copied().unwrap_or_default();
        let until = self.now().after(at_most);
        while self.now() < until {
            tokio::time::sleep(self.options.tick.min(until.since(self.now()))).await;
            if self.world().revision > looked {
                return;
            }
        }
    }
}

#[async_trait]
impl Analyst for Sim {
    /// While things go wrong, any verdict; then a good one.
    async fn analyse(&self, request: &AnalysisRequest) -> Result<Judgement, Error> {
        let verdict = {
            let mut world = self.world();
            world.fate("Analyse")?;
            world.verdict()
        };
        Ok(Judgement { verdict, evidence: format!("{} against {}", request.new, request.old) })
    }
}

/// The generation that a proxy applied, for tests.
#[must_use]
pub fn applied(seen: &Observation, proxy: &str) -> Option<Generation> {
    seen.proxies.get(proxy).copied().flatten()
}
