//! The simulated platform: nodes, proxies and requests in memory, repeatable by a seed, with faults on demand.
//!
//! In [`SimTime::Virtual`] nothing waits: whoever waits for something moves the time on, step by step. In [`SimTime::Real`] the same world runs with the machine's clock.

mod node;
mod proxy;
mod random;
mod traffic;
mod world;

pub use node::{Behaviour, Exit};
pub use traffic::Tally;

use async_trait::async_trait;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Observation;
use gapless_core::release::ArtifactVersion;
use gapless_core::route::{Generation, Route, Weight};
use gapless_core::time::Instant;
use gapless_engine::clock::{Clock, SystemClock};
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::platform::{Declarations, Platform};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::yield_now;
use world::{TICK, World};

/// How often a wait lets the other tasks run before it moves the virtual time on, so that effects which were just begun come first.
const YIELDS: usize = 8;

/// Which time a simulated world has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimTime {
    /// It passes only while somebody waits, and then at once. One runtime thread is enough, and more are not repeatable.
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
    /// From a route's arrival at a proxy to its acknowledgement.
    pub apply_delay: Duration,
    /// Of a thousand effects, how many fail before anything of them is done. Chance never lets the same effect fail more than twice in a row.
    pub failing_per_mille: u32,
    /// Of a thousand effects, how many are done and reported as failed.
    pub lost_per_mille: u32,
    /// Every effect is delivered twice.
    pub twice: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            time: SimTime::Virtual,
            proxies: 1,
            apply_delay: Duration::from_millis(10),
            failing_per_mille: 0,
            lost_per_mille: 0,
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

    /// Another platform over the same world.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { looked: Arc::default(), ..self.clone() }
    }

    /// Nodes of this artifact version behave so; those that exist already too. Without this they behave as [`Behaviour::default`].
    pub fn behave(&self, version: ArtifactVersion, behaviour: Behaviour) {
        self.world().behaviours.insert(version, behaviour);
    }

    /// Clients send requests to this service from now on.
    pub fn send_requests(&self, service: &ServiceName) {
        self.world().clients.begin(service);
    }

    /// What became of the clients' requests so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.world().clients.tally.clone()
    }

    /// Sends one request that does not end by itself, and says whether a node took it.
    pub fn hold_request(&self, service: &ServiceName) -> bool {
        self.world().hold_request(service)
    }

    /// A node's command ends by itself.
    pub fn kill_node(&self, service: &ServiceName, node: NodeId, code: i32) {
        self.world().kill_node(service, node, code);
    }

    /// A proxy is replaced by one that knows no route.
    pub fn replace_proxy(&self, proxy: &str) {
        self.world().replace_proxy(proxy);
    }

    /// A proxy can be reached by the platform, or cannot. Its requests go on either way.
    pub fn reach_proxy(&self, proxy: &str, reachable: bool) {
        if let Some(proxy) = self.world().proxies.get_mut(proxy) {
            proxy.reachable = reachable;
        }
    }

    /// The next `times` effects of this name fail with this kind, before anything of them is done.
    pub fn fail_next(&self, effect: &'static str, times: u32, kind: ErrorKind) {
        self.world().failing.insert(effect, (times, kind));
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

    /// Lets time pass.
    pub async fn pass(&self, span: Duration) {
        let until = self.now().after(span);
        self.wait_until(until).await;
    }

    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if self.options.time == SimTime::Real {
            world.advance_to(self.wall.now());
        }
        world
    }

    async fn wait_until(&self, until: Instant) {
        while self.now() < until {
            self.step_towards(until).await;
        }
    }

    /// Lets a tick of time pass, or less if that is enough.
    async fn step_towards(&self, until: Instant) {
        match self.options.time {
            SimTime::Virtual => {
                for _ in 0..YIELDS {
                    yield_now().await;
                }
                let mut world = self.world();
                if world.now < until {
                    let next = world.now.after(TICK);
                    world.advance_to(next);
                }
            }
            SimTime::Real => tokio::time::sleep(until.since(self.now()).min(TICK)).await,
        }
    }

    /// Delivers an effect once or twice, with the faults that were asked for.
    fn deliver(&self, effect: &'static str, mut act: impl FnMut(&mut World) -> Result<(), Error>) -> Result<(), Error> {
        let mut world = self.world();
        world.fail_before(effect, self.options.failing_per_mille)?;
        act(&mut world)?;
        if self.options.twice {
            act(&mut world)?;
        }
        *world.carried_out.entry(effect).or_default() += 1;
        world.fail_after(effect, self.options.lost_per_mille)
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
        self.deliver("EnsureGroup", |world| {
            world.ensure_group(&declaration, group, size);
            Ok(())
        })?;
        while self.world().starting(&declaration.service, group) {
            self.step_towards(self.now().after(TICK)).await;
        }
        Ok(())
    }

    async fn route(&self, service: &ServiceName, route: &Route, declarations: &Declarations) -> Result<(), Error> {
        self.deliver("Route", |world| world.send_route(service, route, declarations))?;
        while !self.world().route_is_applied(service, route.generation)? {
            self.step_towards(self.now().after(TICK)).await;
        }
        Ok(())
    }

    async fn drain(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Result<(), Error> {
        self.deliver("Drain", |world| world.drain(service, nodes, deadline))
    }

    async fn destroy_nodes(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        self.deliver("DestroyNodes", |world| {
            world.destroy_nodes(service, nodes);
            Ok(())
        })
    }

    async fn run_task(
        &self,
        _declaration: Arc<ServiceDeclaration>,
        _group: GroupId,
        _task: Task,
        _deadline: Duration,
    ) -> Result<(), Error> {
        self.deliver("RunTask", |_| Ok(()))
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, Error> {
        let world = self.world();
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(service.clone(), world.revision);
        Ok(world.observe(service))
    }

    async fn peek(&self, service: &ServiceName) -> Result<Observation, Error> {
        Ok(self.world().observe(service))
    }

    async fn changed(&self, service: &ServiceName, at_most: Duration) {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner).get(service).copied().unwrap_or_default();
        let until = self.now().after(at_most);
        while self.now() < until {
            self.step_towards(until).await;
            if self.world().revision > looked {
                return;
            }
        }
    }
}

/// The generation that a proxy applied, for tests.
#[must_use]
pub fn applied(seen: &Observation, proxy: &str) -> Option<Generation> {
    seen.proxies.get(proxy).copied().flatten()
}
