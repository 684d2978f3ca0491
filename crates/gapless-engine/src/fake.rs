//! A world and a store for this crate's own tests: they do little, and tell what was asked of them.

use crate::Parts;
use crate::analysis::{AnalysisRequest, Analyst};
use crate::checkpoint::NoCheckpoint;
use crate::clock::Clock;
use crate::declaration::{CheckKind, HealthCheck, NodeSettings, ServiceDeclaration, StopSignal, Tasks};
use crate::error::{Error, ErrorKind};
use crate::platform::{Declarations, Platform};
use crate::store::{Artifact, Journal, JournalRecord, NewArtifact, Records, Revocation, Sequence};
use async_trait::async_trait;
use gapless_core::analysis::{Judgement, Verdict};
use gapless_core::digest::Digest;
use gapless_core::effect::Task;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, NodeId};
use gapless_core::notice::RolloutNumber;
use gapless_core::observation::Observation;
use gapless_core::policy::Policy;
use gapless_core::release::ArtifactVersion;
use gapless_core::route::Route;
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

pub(crate) fn web() -> ServiceName {
    ServiceName::new("hello", "web").expect("a name")
}

pub(crate) fn declaration(version: u32) -> ServiceDeclaration {
    let second = Duration::from_secs(1);
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
        health: HealthCheck { kind: CheckKind::Http { path: "/healthz".to_string() }, interval: second, timeout: second },
        policy: Policy {
            floor: 3,
            gate_passes: 2,
            gate_failures: 3,
            progress_deadline: second * 30,
            drain_deadline: second * 10,
            bake: Duration::ZERO,
            ..Policy::default()
        },
        tasks: Tasks::default(),
    }
}

#[derive(Default)]
pub(crate) struct Fake {
    kept: Mutex<Kept>,
    hanging: watch::Sender<BTreeSet<&'static str>>,
}

#[derive(Default)]
struct Kept {
    journal: Vec<JournalRecord>,
    states: Vec<(Sequence, Instant, ServiceState)>,
    declarations: BTreeMap<Digest, ServiceDeclaration>,
    seen: Observation,
    carried_out: Vec<&'static str>,
    looks: u32,
    revocations: BTreeMap<ArtifactVersion, Revocation>,
    /// How many more readings of the journal fail.
    unreadable: u32,
    /// There is no room for records of events like this one.
    no_room_for: Option<fn(&Event) -> bool>,
}

impl Fake {
    pub(crate) fn parts(self: &Arc<Self>) -> Parts {
        Parts {
            journal: self.clone(),
            records: self.clone(),
            platform: self.clone(),
            analyst: self.clone(),
            clock: self.clone(),
            checkpoint: Arc::new(NoCheckpoint),
        }
    }

    fn inside(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("what is kept")
    }

    pub(crate) fn journal(&self) -> Vec<JournalRecord> {
        self.inside().journal.clone()
    }

    /// After which records a state was kept.
    pub(crate) fn kept_at(&self) -> Vec<Sequence> {
        self.inside().states.iter().map(|(sequence, ..)| *sequence).collect()
    }

    /// The last record was written at this time.
    pub(crate) fn write_as_of(&self, at: Instant) {
        if let Some(last) = self.inside().journal.last_mut() {
            last.at = at;
        }
    }

    pub(crate) fn refuse_to_read(&self, times: u32) {
        self.inside().unreadable = times;
    }

    pub(crate) fn refuse_to_write(&self, such: Option<fn(&Event) -> bool>) {
        self.inside().no_room_for = such;
    }

    pub(crate) fn show(&self, seen: Observation) {
        self.inside().seen = seen;
    }

    pub(crate) fn carried_out(&self) -> Vec<&'static str> {
        self.inside().carried_out.clone()
    }

    /// How often somebody looked or waited for something to see.
    pub(crate) fn looks(&self) -> u32 {
        self.inside().looks
    }

    pub(crate) fn hang(&self, effect: &'static str) {
        self.hanging.send_modify(|hanging| {
            hanging.insert(effect);
        });
    }

    pub(crate) fn release(&self) {
        self.hanging.send_modify(BTreeSet::clear);
    }

    async fn carry_out(&self, effect: &'static str) -> Result<(), Error> {
        self.inside().carried_out.push(effect);
        let mut hanging = self.hanging.subscribe();
        hanging.wait_for(|hanging| !hanging.contains(effect)).await.map(drop).map_err(|_| Error::new("the world ended"))
    }
}

#[async_trait]
impl Analyst for Fake {
    async fn analyse(&self, _request: &AnalysisRequest) -> Result<Judgement, Error> {
        self.carry_out("Analyse").await?;
        Ok(Judgement { verdict: Verdict::Promote, evidence: "no difference".to_string() })
    }
}

impl Clock for Fake {
    fn now(&self) -> Instant {
        Instant(1_000)
    }
}

#[async_trait]
impl Platform for Fake {
    async fn ensure_group(&self, _declaration: Arc<ServiceDeclaration>, _group: GroupId, _size: u32) -> Result<(), Error> {
        self.carry_out("EnsureGroup").await
    }

    async fn route(&self, _service: &ServiceName, _route: &Route, _declarations: &Declarations) -> Result<(), Error> {
        self.carry_out("Route").await
    }

    async fn drain(&self, _service: &ServiceName, _nodes: &BTreeSet<NodeId>, _deadline: Duration) -> Result<(), Error> {
        self.carry_out("Drain").await
    }

    async fn destroy_nodes(&self, _service: &ServiceName, _nodes: &BTreeSet<NodeId>) -> Result<(), Error> {
        self.carry_out("DestroyNodes").await
    }

    async fn run_task(
        &self,
        _declaration: Arc<ServiceDeclaration>,
        _group: GroupId,
        _task: Task,
        _deadline: Duration,
    ) -> Result<(), Error> {
        self.carry_out("RunTask").await
    }

    async fn observe(&self, _service: &ServiceName) -> Result<Observation, Error> {
        let mut kept = self.inside();
        kept.looks += 1;
        Ok(kept.seen.clone())
    }

    async fn hosts(&self) -> Result<BTreeMap<ServiceName, String>, Error> {
        Ok(BTreeMap::new())
    }

    async fn changed(&self, _service: &ServiceName, at_most: Duration) {
        self.inside().looks += 1;
        tokio::time::sleep(at_most).await;
    }
}

impl Journal for Fake {
    fn append(&self, _service: &ServiceName, record: &JournalRecord) -> Result<Sequence, Error> {
        let mut kept = self.inside();
        if kept.no_room_for.is_some_and(|such| such(&record.event)) {
            return Err(Error::new("the disk is full").kind(ErrorKind::NoRoom));
        }
        kept.journal.push(record.clone());
        Ok(Sequence(kept.journal.len() as u64))
    }

    fn read(&self, _service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        Ok((1..).map(Sequence).zip(self.journal()).collect())
    }

    fn keep(&self, _service: &ServiceName, sequence: Sequence, at: Instant, state: &ServiceState) -> Result<(), Error> {
        self.inside().states.push((sequence, at, state.clone()));
        Ok(())
    }

    fn kept(&self, _service: &ServiceName) -> Result<Option<(Sequence, Instant, ServiceState)>, Error> {
        let mut kept = self.inside();
        if kept.unreadable > 0 {
            kept.unreadable -= 1;
            return Err(Error::new("the disk cannot be read"));
        }
        Ok(kept.states.last().cloned())
    }

    fn services(&self) -> Result<Vec<ServiceName>, Error> {
        Ok(if self.inside().journal.is_empty() { Vec::new() } else { vec![web()] })
    }
}

impl Records for Fake {
    fn publish(&self, _artifact: NewArtifact) -> Result<Artifact, Error> {
        Err(Error::new("the engine publishes nothing"))
    }

    fn artifacts(&self, _name: Option<&str>) -> Result<Vec<Artifact>, Error> {
        Ok(Vec::new())
    }

    fn put_declaration(&self, content: Digest, declaration: &ServiceDeclaration) -> Result<(), Error> {
        self.inside().declarations.insert(content, declaration.clone());
        Ok(())
    }

    fn declaration(&self, content: Digest) -> Result<ServiceDeclaration, Error> {
        let known = self.inside().declarations.get(&content).cloned();
        Ok(known.unwrap_or_else(|| declaration(1)))
    }

    fn put_receipt(&self, _service: &ServiceName, _rollout: RolloutNumber, _receipt: &str) -> Result<(), Error> {
        Err(Error::new("the engine writes no receipts"))
    }

    fn receipt(&self, _service: &ServiceName, _rollout: RolloutNumber) -> Result<String, Error> {
        Err(Error::new("no receipt").kind(ErrorKind::NotFound))
    }

    fn revocations(&self, _artifact: &str) -> Result<BTreeMap<ArtifactVersion, Revocation>, Error> {
        Ok(self.inside().revocations.clone())
    }

    fn put_revocation(&self, _artifact: &str, version: ArtifactVersion, revocation: &Revocation) -> Result<(), Error> {
        self.inside().revocations.insert(version, revocation.clone());
        Ok(())
    }

    fn remove_revocation(&self, _artifact: &str, version: ArtifactVersion) -> Result<(), Error> {
        self.inside().revocations.remove(&version);
        Ok(())
    }

    fn value(&self, _name: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn put_value(&self, _name: &str, _value: &str) -> Result<(), Error> {
        Err(Error::new("the engine keeps no values"))
    }
}
