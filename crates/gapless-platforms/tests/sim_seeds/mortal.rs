//! An engine that can die at every place where it touches the store, the world or waits.

use crate::store::FaultyStore;
use async_trait::async_trait;
use gapless_core::effect::Task;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::observation::Observation;
use gapless_core::route::Route;
use gapless_engine::checkpoint::{Checkpoint, EffectContext};
use gapless_engine::declaration::ServiceDeclaration;
use gapless_engine::error::Error;
use gapless_engine::platform::{Declarations, Platform};
use gapless_platforms::sim::Sim;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Never by itself.
const IMMORTAL: u64 = u64::MAX;

/// Where a place lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    BeforeWriting,
    AfterWriting,
    Reading,
    Deciding,
    BeforeEffect,
    InEffect,
    AfterEffect,
    BeforeLook,
    AfterLook,
    Waiting,
}

/// One life.
pub struct Mortal {
    /// Places until death.
    left: AtomicU64,
    dead: AtomicBool,
    died_at: Mutex<Option<Place>>,
    death: Notify,
}

impl Mortal {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(IMMORTAL), dead: AtomicBool::new(false), died_at: Mutex::default(), death: Notify::new() })
    }

    /// It dies at the so-manieth place from here.
    pub fn doom(&self, places: u64) {
        self.left.store(places, Ordering::SeqCst);
    }

    /// It does not die by itself any more.
    pub fn spare(&self) {
        self.left.store(IMMORTAL, Ordering::SeqCst);
    }

    pub fn died_at(&self) -> Option<Place> {
        *self.died_at.lock().expect("the place")
    }

    /// Whether it is dead here. The dead reach nothing any more, whatever still runs until its threads are gone.
    pub fn is_dead(&self, place: Place) -> bool {
        if self.dead.load(Ordering::SeqCst) {
            return true;
        }
        let left = self.left.load(Ordering::SeqCst);
        if left == IMMORTAL {
            return false;
        }
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        if left > 0 {
            return false;
        }
        self.dead.store(true, Ordering::SeqCst);
        *self.died_at.lock().expect("the place") = Some(place);
        self.death.notify_one();
        true
    }

    /// Goes on, or never.
    pub async fn live(&self, place: Place) {
        if self.is_dead(place) {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when it died.
    pub async fn death(&self) {
        while !self.dead.load(Ordering::SeqCst) {
            self.death.notified().await;
        }
    }
}

/// The world, as a mortal engine reaches it.
pub struct MortalPlatform {
    pub sim: Sim,
    pub mortal: Arc<Mortal>,
}

impl MortalPlatform {
    async fn act<T>(&self, work: impl Future<Output = T>) -> T {
        self.mortal.live(Place::BeforeEffect).await;
        let done = work.await;
        self.mortal.live(Place::InEffect).await;
        done
    }
}

#[async_trait]
impl Platform for MortalPlatform {
    async fn ensure_group(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, size: u32) -> Result<(), Error> {
        self.act(self.sim.ensure_group(declaration, group, size)).await
    }

    async fn route(&self, service: &ServiceName, route: &Route, declarations: &Declarations) -> Result<(), Error> {
        self.act(self.sim.route(service, route, declarations)).await
    }

    async fn drain(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>, deadline: Duration) -> Result<(), Error> {
        self.act(self.sim.drain(service, nodes, deadline)).await
    }

    async fn destroy_nodes(&self, service: &ServiceName, nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        self.act(self.sim.destroy_nodes(service, nodes)).await
    }

    async fn run_task(&self, declaration: Arc<ServiceDeclaration>, group: GroupId, task: Task, deadline: Duration) -> Result<(), Error> {
        self.act(self.sim.run_task(declaration, group, task, deadline)).await
    }

    async fn observe(&self, service: &ServiceName) -> Result<Observation, Error> {
        self.mortal.live(Place::BeforeLook).await;
        let seen = self.sim.observe(service).await;
        self.mortal.live(Place::AfterLook).await;
        seen
    }

    async fn peek(&self, service: &ServiceName) -> Result<Observation, Error> {
        self.sim.peek(service).await
    }

    async fn hosts(&self) -> Result<BTreeMap<ServiceName, String>, Error> {
        self.sim.hosts().await
    }

    async fn changed(&self, service: &ServiceName, at_most: Duration) {
        self.mortal.live(Place::Waiting).await;
        self.sim.changed(service, at_most).await;
        self.mortal.live(Place::Waiting).await;
    }
}

/// Dies around effects, and judges whether each was written down before it leaves (I4).
pub struct MortalCheckpoint {
    pub store: Arc<FaultyStore>,
    pub mortal: Arc<Mortal>,
}

#[async_trait]
impl Checkpoint for MortalCheckpoint {
    async fn before(&self, context: &EffectContext) {
        self.mortal.live(Place::BeforeEffect).await;
        self.store.judge_intent(context);
    }

    async fn after(&self, _context: &EffectContext) {
        self.mortal.live(Place::AfterEffect).await;
    }

    async fn decide(&self, _service: &ServiceName) {
        self.mortal.live(Place::Deciding).await;
    }
}
