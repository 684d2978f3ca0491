//! A scene for the engine's tests: a simulated world, a journal with faults, and lives of an engine that end as in a crash.
#![allow(dead_code, reason = "each test program uses its part")]

use gapless_core::digest::Digest;
use gapless_core::name::ServiceName;
use gapless_core::notice::RolloutNumber;
use gapless_core::policy::Policy;
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::service::ServiceState;
use gapless_engine::checkpoint::{Checkpoint, NoCheckpoint};
use gapless_engine::clock::Clock;
use gapless_engine::declaration::{CheckKind, HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use gapless_engine::error::{Error, ErrorKind};
use gapless_engine::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use gapless_engine::{Engine, Parts};
use gapless_platforms::sim::{Behaviour, Picture, Sim, SimOptions};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Nodes of this artifact version answer their checks with 500.
pub const BROKEN: u32 = 3;

/// How long a service may take to come to rest, in simulated time.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a waiting test looks, in simulated time.
pub const GLANCE: Duration = Duration::from_millis(1);

/// One thread in which no time passes but while everybody waits: the same run, every time.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

pub fn web() -> ServiceName {
    ServiceName::new("hello", "web").expect("a name")
}

pub fn declaration(version: u32) -> ServiceDeclaration {
    ServiceDeclaration {
        service: web(),
        artifact_name: "hello/web".to_string(),
        artifact_version: ArtifactVersion(version),
        image: Digest([u8::try_from(version).expect("a small version"); 32]),
        nodes: 3,
        host: "*".to_string(),
        node: NodeSettings {
            port: Some(80),
            command: vec!["/bin/serve".to_string()],
            working_directory: "/".into(),
            user: "www-data".to_string(),
            environment: BTreeMap::new(),
            writable: Vec::new(),
            volumes: BTreeMap::new(),
            memory_bytes: 64 << 20,
            cpu_millicores: 500,
            outbound: false,
            stop_signal: StopSignal::Term,
        },
        health: HealthCheck {
            kind: CheckKind::Http { path: "/healthz".to_string() },
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
        },
        policy: Policy {
            floor: 3,
            gate_passes: 2,
            gate_failures: 3,
            progress_deadline: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(10),
            bake: Duration::ZERO,
            ..Policy::default()
        },
        tasks: Tasks::default(),
    }
}

/// A journal and records in memory, with faults.
#[derive(Default)]
pub struct TestStore {
    kept: Mutex<Kept>,
    dead: watch::Sender<bool>,
}

#[derive(Default)]
struct Kept {
    journal: BTreeMap<ServiceName, Vec<JournalRecord>>,
    declarations: BTreeMap<Digest, ServiceDeclaration>,
    revocations: BTreeMap<String, BTreeMap<ArtifactVersion, Revocation>>,
    dies_at: Option<usize>,
    full: bool,
    lies: bool,
}

impl TestStore {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("the store")
    }

    /// The append that makes the journal so long is durable, and nobody hears of it: the program died.
    pub fn die_at(&self, length: usize) {
        self.kept().dies_at = Some(length);
    }

    /// The disk is full, or no longer.
    pub fn fill(&self, full: bool) {
        self.kept().full = full;
    }

    /// The next append is done and reported as failed.
    pub fn lie(&self) {
        self.kept().lies = true;
    }

    pub fn length(&self) -> usize {
        self.kept().journal.get(&web()).map_or(0, Vec::len)
    }

    pub fn change(&self, change: impl FnOnce(&mut Vec<JournalRecord>)) {
        change(self.kept().journal.entry(web()).or_default());
    }

    pub async fn died(&self) {
        self.dead.subscribe().wait_for(|dead| *dead).await.expect("the store lives");
    }

    fn revive(&self) {
        self.kept().dies_at = None;
        self.dead.send_replace(false);
    }

    fn alive(&self) -> Result<(), Error> {
        if *self.dead.borrow() { Err(Error::new("the program died")) } else { Ok(()) }
    }
}

impl Journal for TestStore {
    fn may_wait(&self) -> bool {
        false
    }

    fn append(&self, service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        self.alive()?;
        let mut kept = self.kept();
        if kept.full {
            return Err(Error::new("no room").kind(ErrorKind::NoRoom));
        }
        let records = kept.journal.entry(service.clone()).or_default();
        records.push(record.clone());
        let length = records.len();
        if kept.dies_at == Some(length) {
            self.dead.send_replace(true);
        }
        if std::mem::take(&mut kept.lies) {
            return Err(Error::new("nobody knows whether it was written"));
        }
        drop(kept);
        self.alive()?;
        Ok(Sequence(length as u64))
    }

    fn read(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        self.alive()?;
        let records = self.kept().journal.get(service).cloned().unwrap_or_default();
        Ok((1..).map(Sequence).zip(records).collect())
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        Ok(self.kept().journal.keys().cloned().collect())
    }
}

impl Records for TestStore {
    fn may_wait(&self) -> bool {
        false
    }

    fn publish(&self, _artifact: NewArtifact) -> Result<Artifact, Error> {
        Err(Error::new("the engine publishes nothing"))
    }

    fn artifacts(&self, _name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        Ok(Vec::new())
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        let mut kept = self.kept();
        if kept.full {
            return Err(Error::new("no room").kind(ErrorKind::NoRoom));
        }
        kept.declarations.insert(content, declaration.clone());
        Ok(())
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        self.kept().declarations.get(&content).cloned().ok_or_else(|| Error::new("no such declaration").kind(ErrorKind::NotFound))
    }

    fn put_receipt(&self, _service: &ServiceName, _rollout: RolloutNumber, _receipt: &str) -> Result<(), Error> {
        Err(Error::new("the engine writes no receipts"))
    }

    fn receipt(&self, _service: &ServiceName, _rollout: RolloutNumber) -> Result<String, Error> {
        Err(Error::new("no receipt").kind(ErrorKind::NotFound))
    }

    fn revocations(&self, artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        Ok(self.kept().revocations.get(artifact).cloned().unwrap_or_default())
    }

    fn put_revocation(&self, artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        let mut kept = self.kept();
        if kept.full {
            return Err(Error::new("no room").kind(ErrorKind::NoRoom));
        }
        kept.revocations.entry(artifact.to_string()).or_default().insert(version, revocation.clone());
        Ok(())
    }

    fn remove_revocation(&self, artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        self.kept().revocations.entry(artifact.to_string()).or_default().remove(&version);
        Ok(())
    }

    fn value(&self, _name: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn put_value(&self, _name: &str, _value: &str) -> Result<(), Error> {
        Err(Error::new("the engine keeps no values"))
    }
}

/// What outlives an engine: the world and the store.
pub struct Scene {
    pub sim: Sim,
    pub store: Arc<TestStore>,
}

impl Scene {
    pub fn new(options: SimOptions) -> Self {
        let sim = Sim::new(options);
        sim.behave(ArtifactVersion(BROKEN), Behaviour { status: 500, ..Behaviour::default() });
        sim.send_requests(&web());
        Self { sim, store: Arc::default() }
    }

    pub fn parts(&self, checkpoint: Arc<dyn Checkpoint>) -> Parts {
        let platform = self.sim.again();
        Parts {
            journal: self.store.clone(),
            records: self.store.clone(),
            analyst: Arc::new(gapless_engine::analysis::Unrecorded),
            clock: Arc::new(platform.clone()),
            platform: Arc::new(platform),
            checkpoint,
        }
    }

    /// One life of an engine, in a runtime of its own: when it is over, nothing of the engine runs any more, as after a SIGKILL.
    pub fn life<T>(&self, checkpoint: Arc<dyn Checkpoint>, script: impl AsyncFnOnce(Engine) -> T) -> T {
        self.store.revive();
        let runtime = runtime();
        let ended = runtime.block_on(async {
            let engine = Engine::start(self.parts(checkpoint)).await.expect("the engine starts");
            script(engine).await
        });
        drop(runtime);
        ended
    }

    /// The same with nothing special.
    pub fn plain_life<T>(&self, script: impl AsyncFnOnce(Engine) -> T) -> T {
        self.life(Arc::new(NoCheckpoint), script)
    }

    /// Waits until the service is at rest.
    pub async fn rest(&self, engine: &Engine) -> Arc<ServiceState> {
        let give_up = self.sim.now().after(PATIENCE);
        loop {
            if let Some(state) = engine.state(&web()).filter(|state| at_rest(state)) {
                return state;
            }
            let now = self.sim.now();
            assert!(now < give_up, "the service does not come to rest: {:#?}, trouble {:?}", engine.state(&web()), engine.trouble(&web()));
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until the world looks so.
    pub async fn until(&self, what: &str, condition: impl Fn(&Picture) -> bool) {
        let give_up = self.sim.now().after(PATIENCE);
        while !condition(&self.sim.picture(&web())) {
            assert!(self.sim.now() < give_up, "waited in vain until {what}: {:?}", self.sim.picture(&web()));
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Does what was not done in an earlier life, and waits until the service is at rest.
    pub async fn perform(&self, engine: &Engine, act: Act) -> Arc<ServiceState> {
        let state = engine.state(&web());
        match act {
            Act::Deploy(version) if !was_declared(state.as_deref(), version) => {
                engine.declare(declaration(version)).await.map(drop).unwrap_or_else(|error| assert_dead(&self.store, &error));
            }
            Act::Rollback(release) if !state.as_deref().is_some_and(|state| state.pinned) => {
                engine.rollback(&web(), Some(release)).await.map(drop).unwrap_or_else(|error| assert_dead(&self.store, &error));
            }
            Act::Deploy(_) | Act::Rollback(_) => {}
        }
        self.rest(engine).await
    }

    /// No request failed so far.
    pub fn assert_no_failure(&self, when: &str) {
        let tally = self.sim.tally();
        assert!(tally.requests > 0, "{when}: no request was sent");
        assert_eq!((tally.failures(), tally.died_with_node), (0, 0), "{when}: requests failed: {tally:?}");
    }
}

fn assert_dead(store: &TestStore, error: &gapless_engine::DeclareError) {
    assert!(*store.dead.borrow(), "refused: {error:?}");
}

/// What a person does.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Deploy(u32),
    Rollback(ReleaseNumber),
}

fn at_rest(state: &ServiceState) -> bool {
    state.rollout.is_none() && state.pending.is_empty() && state.draining.is_empty()
}

/// Versions are deployed in their order, and a rejected one is forgotten when the next has ended.
fn was_declared(state: Option<&ServiceState>, version: u32) -> bool {
    state.is_some_and(|state| state.releases.values().any(|declaration| declaration.artifact.0 >= version))
}
