//! One world from its beginning to its end: lives of the engine one after the other, each in a runtime of its own, and then rest.

use crate::mortal::{Mortal, MortalCheckpoint, MortalPlatform, Place};
use crate::plan::{ARTIFACT, Act, Plan};
use crate::rest;
use crate::store::{FaultyStore, StoreFaults};
use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::service::Together;
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::{DeclareError, Engine, Operation, Parts};
use gapless_platforms::sim::{Faults, Sim, SimClock, SimOptions};
use gapless_platforms::sometimes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The grain of time of these worlds.
const TICK: Duration = Duration::from_millis(20);

/// An engine that cannot start is started again after this time, as systemd does.
const START_AGAIN: Duration = Duration::from_millis(500);

/// From an engine's death to the next one's start, unless something else is said.
const DOWN: Duration = Duration::from_millis(200);

/// Longer than any world.
const PATIENCE: Duration = Duration::from_secs(36_000);

/// What came of a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub crashes: u64,
    pub faults: u64,
    pub requests: u64,
    pub violations: Vec<String>,
    /// Everything that happened, and the whole journal.
    pub log: Vec<String>,
    pub journal: String,
}

/// What outlives an engine.
pub struct Scene {
    pub plan: Plan,
    pub sim: Sim,
    pub store: Arc<FaultyStore>,
    acts: VecDeque<(Duration, Act)>,
    hung: BTreeSet<(ServiceName, NodeId)>,
    crashes: u64,
    faults: u64,
    /// By how much the next engine's wall clock is wrong, in milliseconds.
    wrong_by: i64,
    /// How long the world is without an engine after its next death.
    down: Duration,
    /// At which place the next engine dies, if it is to die soon.
    doomed: Option<u64>,
    /// Who wants something of the engine that lives, and has no answer yet.
    wishes: JoinSet<()>,
}

/// How a life ended.
pub enum End {
    /// It was killed.
    Died,
    /// It was ended in order.
    Stopped,
    /// The story is over, and everything is at rest or never will be.
    Over(Result<(), String>),
}

impl Scene {
    fn new(plan: Plan) -> Self {
        let options = SimOptions { seed: plan.seed, proxies: plan.proxies, tick: TICK, twice: plan.twice, ..SimOptions::default() };
        let sim = Sim::new(options);
        sim.send_long_requests(plan.long_requests);
        plan.services.iter().for_each(|service| sim.send_requests(service));
        let store = FaultyStore::new(plan.seed, sim.clone(), plan.calm);
        let acts = plan.acts.clone().into();
        Self {
            plan,
            sim,
            store,
            acts,
            hung: BTreeSet::new(),
            crashes: 0,
            faults: 0,
            wrong_by: 0,
            down: DOWN,
            doomed: None,
            wishes: JoinSet::new(),
        }
    }

    /// One life of an engine. When it is over, nothing of the engine runs any more, as after a SIGKILL.
    fn live(&mut self) -> End {
        let mortal = Mortal::new();
        if let Some(places) = self.doomed.take() {
            mortal.doom(places);
        }
        self.store.open(&mortal);
        self.wishes = JoinSet::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let end = runtime.block_on(self.story(&mortal));
        drop(runtime);
        if let Some(place) = mortal.died_at() {
            self.sim.say(&format!("the engine dies: {place:?}"));
            died(place);
        }
        if matches!(end, End::Died) {
            self.crashes += 1;
            self.sim.orphan_what_is_under_way();
            self.sim.pass_without_engine(std::mem::replace(&mut self.down, DOWN));
        }
        end
    }

    async fn story(&mut self, mortal: &Arc<Mortal>) -> End {
        let engine = tokio::select! {
            biased;
            () = mortal.death() => return End::Died,
            engine = self.start(mortal) => engine,
        };
        sometimes!("a journal could not be read at the start", !engine.lost_services().is_empty());
        while let Some((pause, act)) = self.acts.pop_front() {
            tokio::select! {
                biased;
                () = mortal.death() => {
                    self.acts.push_front((Duration::ZERO, act));
                    return End::Died;
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.sim.say(&format!("- {act:?}"));
            match act {
                Act::Crash(down, wrong_by, again) => {
                    self.doomed = again;
                    return self.crash(down, wrong_by);
                }
                Act::Stop => return self.stop(&engine, mortal).await,
                Act::Doom(places) => mortal.doom(places),
                act => self.perform(&engine, act).await,
            }
        }
        mortal.spare();
        if mortal.died_at().is_some() {
            return End::Died;
        }
        self.end_faults();
        let answered = rest::answered(std::mem::take(&mut self.wishes)).await;
        End::Over(match answered {
            Ok(()) => rest::settle(self, &engine).await,
            Err(error) => Err(error),
        })
    }

    async fn stop(&mut self, engine: &Engine, mortal: &Arc<Mortal>) -> End {
        sometimes!("the engine stops in order in a rollout", self.is_rolling_out());
        tokio::select! {
            biased;
            () = mortal.death() => End::Died,
            () = engine.stop() => End::Stopped,
        }
    }

    async fn start(&mut self, mortal: &Arc<Mortal>) -> Engine {
        let platform = self.sim.again();
        let parts = Parts {
            journal: self.store.clone(),
            records: self.store.clone(),
            clock: Arc::new(SimClock::new(platform.clone(), self.wrong_by)),
            analyst: Arc::new(platform.clone()),
            platform: Arc::new(MortalPlatform { sim: platform, mortal: mortal.clone() }),
            checkpoint: Arc::new(MortalCheckpoint { store: self.store.clone(), mortal: mortal.clone() }),
        };
        loop {
            match Engine::start(parts.clone()).await {
                Ok(engine) => return engine,
                Err(_) if mortal.died_at().is_some() => std::future::pending().await,
                Err(_) if self.acts.is_empty() => self.store.set_faults(StoreFaults::default()),
                Err(_) => tokio::time::sleep(START_AGAIN).await,
            }
        }
    }

    fn is_rolling_out(&self) -> bool {
        self.plan.services.iter().any(|service| self.store.state(service).rollout.is_some())
    }

    fn crash(&mut self, down: Duration, wrong_by: i64) -> End {
        sometimes!("the engine is killed in a rollout", self.is_rolling_out());
        let draining = self.plan.services.iter().any(|service| !self.store.state(service).draining.is_empty());
        sometimes!("the wall clock jumps ahead over a crash while nodes drain", draining && wrong_by > 0);
        sometimes!("the wall clock jumps back over a crash", wrong_by < 0);
        (self.wrong_by, self.down) = (wrong_by, down);
        End::Died
    }

    async fn perform(&mut self, engine: &Engine, act: Act) {
        let service = |place: usize| self.plan.services.get(place).or(self.plan.services.first()).cloned().expect("a service");
        let proxy = |number: u32| format!("proxy-{number}");
        self.faults += u64::from(is_fault(&act));
        match act {
            Act::Declare(declaration, urgent) => self.wish(declare(engine.clone(), *declaration, urgent, None, self.patience())),
            Act::Together(both, number) => self.declare_together(engine, *both, number),
            Act::Rollback(place, to, forced) => self.wish(roll_back(engine.clone(), service(place), to, forced, self.patience())),
            Act::Operate(place, operation) => self.wish(operate(engine.clone(), service(place), operation, self.unique(u8::MAX))),
            Act::Revoke(version) => self.wish(revoke(engine.clone(), ArtifactVersion(version), true)),
            Act::Lift(version) => self.wish(revoke(engine.clone(), ArtifactVersion(version), false)),
            Act::Stall(span) => tokio::time::advance(span).await,
            Act::Behave(version, behaviour) => self.sim.behave(ArtifactVersion(u32::try_from(version).unwrap_or_default()), behaviour),
            Act::Faults(faults) => self.sim.set_faults(faults, true),
            Act::StoreFaults(faults) => self.store.set_faults(faults),
            Act::Full(full) => self.store.fill(full),
            Act::NoNodes(times, kind) => self.sim.fail_next("EnsureGroup", times, kind),
            Act::Kill(place, node) => self.with_node(&service(place), node, |sim, service, node| sim.kill_node(service, node, 137)),
            Act::Vanish(place, node) => self.with_node(&service(place), node, Sim::vanish_node),
            Act::Hang(place, node) => {
                let service = service(place);
                if let Some(node) = self.node(&service, node) {
                    self.sim.hang_node(&service, node, true);
                    self.hung.insert((service, node));
                }
            }
            Act::Wake => self.wake(),
            Act::Plant(place, ordinal) => {
                let group = GroupId { release: ReleaseNumber(900), instance: InstanceId(900) };
                self.sim.plant_node(&service(place), group.node(u32::try_from(ordinal).unwrap_or_default()));
            }
            Act::Reach(number, reachable) => self.sim.reach_proxy(&proxy(number), reachable),
            Act::Slow(number, slow) => self.sim.slow_proxy(&proxy(number), slow),
            Act::Worker(number, present) => self.sim.take_worker(&proxy(number), present),
            Act::Replace(number) => self.sim.replace_proxy(&proxy(number)),
            Act::Rewind(number) => self.sim.rewind_proxy(&proxy(number)),
            Act::Crash(..) | Act::Doom(_) | Act::Stop => {}
        }
    }

    /// Somebody wants something, and waits for the answer while other things happen.
    fn wish(&mut self, wish: impl Future<Output = ()> + Send + 'static) {
        self.wishes.spawn(wish);
    }

    /// Somebody declares two services that shift together.
    fn declare_together(&mut self, engine: &Engine, [one, other]: [ServiceDeclaration; 2], number: u8) {
        let id = self.unique(number);
        let with = |service: &ServiceName| Some(Together { id, with: BTreeSet::from([service.clone()]) });
        let (of_one, of_other) = (with(&other.service), with(&one.service));
        self.wish(declare(engine.clone(), one, false, of_one, PATIENCE));
        self.wish(declare(engine.clone(), other, false, of_other, PATIENCE));
    }

    /// What binds services together that are told of it by the present act.
    fn unique(&self, number: u8) -> Digest {
        let mut bytes = [number; 32];
        bytes[..8].copy_from_slice(&(self.acts.len() as u64).to_be_bytes());
        Digest(bytes)
    }

    /// Now and then somebody goes away at once.
    fn patience(&self) -> Duration {
        if self.acts.len().is_multiple_of(7) { TICK } else { PATIENCE }
    }

    fn node(&self, service: &ServiceName, place: usize) -> Option<NodeId> {
        let nodes: Vec<NodeId> = self.sim.picture(service).nodes.into_iter().collect();
        nodes.get(place % nodes.len().max(1)).copied()
    }

    fn with_node(&self, service: &ServiceName, place: usize, act: impl FnOnce(&Sim, &ServiceName, NodeId)) {
        if let Some(node) = self.node(service, place) {
            act(&self.sim, service, node);
        }
    }

    fn wake(&mut self) {
        for (service, node) in std::mem::take(&mut self.hung) {
            self.sim.hang_node(&service, node, false);
        }
    }

    /// Nothing goes wrong any more, and whatever is made from now on is sound.
    fn end_faults(&mut self) {
        self.sim.say("- the faults end");
        self.sim.set_faults(Faults::default(), false);
        self.store.set_faults(StoreFaults::default());
        self.wake();
        for number in 0..self.plan.proxies {
            let proxy = format!("proxy-{number}");
            self.sim.take_worker(&proxy, true);
            self.sim.reach_proxy(&proxy, true);
            self.sim.slow_proxy(&proxy, Duration::ZERO);
        }
        for version in 0..=crate::plan::last_version() {
            self.sim.behave(ArtifactVersion(version), Default::default());
        }
    }

    fn report(self, end: Result<(), String>) -> Report {
        let tally = self.sim.tally();
        let mut violations = self.sim.violations();
        violations.extend(self.store.violations());
        violations.extend(end.err());
        let died = tally.died_with_node + tally.died_with_proxy;
        if self.plan.calm && tally.failures() + died > 0 {
            violations.push(format!("requests failed in a calm world: {tally:?}"));
        }
        Report {
            crashes: self.crashes,
            faults: self.faults + self.sim.gone_wrong() + self.store.gone_wrong(),
            requests: tally.requests,
            violations,
            log: self.sim.log(),
            journal: self.store.text(),
        }
    }
}

/// Whether something goes wrong with this, and is not only what people or versions do.
fn is_fault(act: &Act) -> bool {
    let wish = matches!(act, Act::Declare(..) | Act::Together(..) | Act::Rollback(..) | Act::Operate(..) | Act::Revoke(_) | Act::Lift(_));
    !wish && !matches!(act, Act::Behave(..) | Act::Wake)
}

/// Somebody declares a service and waits for the answer only so long.
async fn declare(engine: Engine, declaration: ServiceDeclaration, urgent: bool, together: Option<Together>, patience: Duration) {
    let answer = tokio::time::timeout(patience, engine.declare_with(declaration, urgent, together)).await;
    sometimes!("somebody who declares goes away before the answer", answer.is_err());
    if let Ok(answer) = answer {
        judge(answer.err());
    }
}

/// Somebody wants to go back and waits for the answer only so long.
async fn roll_back(engine: Engine, service: ServiceName, to: Option<ReleaseNumber>, forced: bool, patience: Duration) {
    let answer = tokio::time::timeout(patience, engine.rollback_with(&service, to, forced)).await;
    sometimes!("a rollback is granted", matches!(answer, Ok(Ok(_))));
    if let Ok(answer) = answer {
        judge(answer.err());
    }
}

async fn operate(engine: Engine, service: ServiceName, operation: Operation, unique: Digest) {
    let answer = match operation {
        Operation::Retry => engine.retry(&service, unique).await,
        other => engine.operate(&service, other).await,
    };
    let together = engine.state(&service).and_then(|state| state.rollout.clone()?.together).is_some_and(|together| together.id == unique);
    sometimes!("what moved together is tried again together", together);
    sometimes!("an operation makes no sense and is refused", matches!(answer, Err(DeclareError::Refused { .. })));
    if answer.is_ok() {
        granted(operation);
    }
    judge(answer.err());
}

fn granted(operation: Operation) {
    match operation {
        Operation::Pause => sometimes!("a rollout is paused"),
        Operation::Resume => sometimes!("a rollout is resumed"),
        Operation::Cancel => sometimes!("a rollout is cancelled"),
        Operation::Promote => sometimes!("a canary is promoted"),
        Operation::Retry => sometimes!("something is tried again"),
        Operation::Scale(_) => sometimes!("a service is scaled"),
    }
}

async fn revoke(engine: Engine, version: ArtifactVersion, revoked: bool) {
    let answer = match revoked {
        true => engine.revoke(ARTIFACT, version, "it leaks").await,
        false => engine.lift_revocation(ARTIFACT, version).await,
    };
    sometimes!("a version is revoked", revoked && answer.is_ok());
    sometimes!("a revocation is lifted", !revoked && answer.is_ok());
    judge(answer.err());
}

fn judge(error: Option<DeclareError>) {
    match error {
        Some(DeclareError::Refused { reason, .. }) => {
            sometimes!("a wish is refused because a rollout is in progress", reason.contains("rollout"));
            sometimes!("a wish is refused because a proxy has not acknowledged", reason.contains("not every proxy"));
            sometimes!("a wish is refused because there is no room", reason.contains("could not be written down"));
        }
        Some(DeclareError::Failed(_)) => sometimes!("a wish fails and nobody knows whether it is granted"),
        None => {}
    }
}

fn died(place: Place) {
    match place {
        Place::BeforeWriting => sometimes!("the engine dies before a record is written"),
        Place::AfterWriting => sometimes!("the engine dies when a record is written and nobody knows"),
        Place::Reading => sometimes!("the engine dies while it reads"),
        Place::Deciding => sometimes!("the engine dies before it decides"),
        Place::BeforeEffect => sometimes!("the engine dies between an intent and its effect"),
        Place::InEffect => sometimes!("the engine dies when an effect is done"),
        Place::AfterEffect => sometimes!("the engine dies between an effect and its outcome"),
        Place::BeforeLook => sometimes!("the engine dies before a look at the world"),
        Place::AfterLook => sometimes!("the engine dies after a look at the world"),
        Place::Waiting => sometimes!("the engine dies while it waits"),
    }
}

/// Plays a world to its end.
pub fn play(seed: u64) -> Report {
    let mut scene = Scene::new(Plan::draw(seed));
    loop {
        if let End::Over(end) = scene.live() {
            return scene.report(end);
        }
    }
}
