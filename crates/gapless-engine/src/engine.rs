//! The engine: one task per service, and a handle for everybody who wants something of them.

use crate::analysis::Analyst;
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::declaration::ServiceDeclaration;
use crate::error::{Context, Error, ErrorKind};
use crate::lost;
use crate::operation::Operation;
use crate::platform::Platform;
use crate::recovery::{self, Diagnosis, blocking};
use crate::revocation;
use crate::service::{Service, Taken, Wish};
use crate::store::{Journal, JournalRecord, Records, Sequence};
use crate::together;
use gapless_core::digest::Digest;
use gapless_core::effect::Effect;
use gapless_core::event::Event;
use gapless_core::name::ServiceName;
use gapless_core::notice::{Notice, RolloutNumber};
use gapless_core::plan::{Planned, plan};
use gapless_core::release::ReleaseNumber;
use gapless_core::rollout::Refusal;
use gapless_core::service::{ServiceState, Together};
use gapless_core::time::Instant;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{RwLock, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How many notices a slow reader of [`Engine::watch`] may fall behind before it misses some: a hundred rollouts' worth. What it missed is in [`Engine::story`].
const TOLD_LIMIT: usize = 4096;

/// How many wishes may wait for one service: more people than a team has.
const WISH_LIMIT: usize = 64;

/// How long [`Engine::stop`] waits for effects that are being carried out. What has not ended by then is carried out again at the next start.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// After how long services that move together are told again what they have to know of each other: soon for whoever waits for a rollout, and seldom for a disk that is full. What
/// could not be written down has changed nothing that somebody would be told of.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// What the engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// Where each decision is written before it is acted on.
    pub journal: Arc<dyn Journal>,
    /// Where declarations are kept.
    pub records: Arc<dyn Records>,
    /// Where groups run and traffic is shifted.
    pub platform: Arc<dyn Platform>,
    /// Who compares the answers of two releases.
    pub analyst: Arc<dyn Analyst>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// [`crate::checkpoint::NoCheckpoint`] in production.
    pub checkpoint: Arc<dyn Checkpoint>,
}

/// A notice, as it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The service.
    pub service: ServiceName,
    /// The place of the journal's record that holds it.
    pub sequence: Sequence,
    /// When.
    pub at: Instant,
    /// What.
    pub notice: Notice,
}

/// What came of a declaration, of a wish to go back, or of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The release that is wanted now; after an operation, the one that it was about.
    pub release: ReleaseNumber,
    /// The rollout to it that is in progress, whether this declaration began it or an earlier one.
    pub rollout: Option<RolloutNumber>,
    /// Whether anything changed. When not, it was so already (I6).
    pub changed: bool,
    /// The release is not tried yet, and what it waits for.
    pub waiting: Option<Waiting>,
}

/// What a declared release waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The rollout whose end it waits for, if one is in progress.
    pub rollout: Option<RolloutNumber>,
    /// The end of the freeze window that it waits for, if it does.
    pub frozen_until: Option<Instant>,
}

/// Why a declaration or a wish to go back came to nothing.
#[derive(Clone, Debug)]
pub enum DeclareError {
    /// It cannot be done now, or never; nothing changed.
    Refused {
        /// What was refused and why.
        reason: String,
        /// What the person can do.
        hint: String,
    },
    /// The engine could not do it.
    Failed(Error),
}

impl fmt::Display for DeclareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeclareError::Refused { reason, .. } => f.write_str(reason),
            DeclareError::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeclareError {}

/// Begins the reason of a refusal because of a full disk.
const NOT_WRITTEN: &str = "nothing was changed, because it could not be written down: ";

impl DeclareError {
    /// Why one of several services could not be told something: that nothing was changed would not be said of all.
    pub(crate) fn cause(&self) -> String {
        let text = self.to_string();
        text.strip_prefix(NOT_WRITTEN).map_or(text.clone(), |cause| format!("it could not be written down: {cause}"))
    }
}

impl From<Refusal> for DeclareError {
    fn from(refusal: Refusal) -> Self {
        DeclareError::Refused { reason: refusal.reason, hint: refusal.hint }
    }
}

impl From<Error> for DeclareError {
    fn from(error: Error) -> Self {
        if error.error_kind() != ErrorKind::NoRoom {
            return DeclareError::Failed(error);
        }
        DeclareError::Refused {
            reason: format!("{NOT_WRITTEN}{error}"),
            hint: "make room on the disk of the server's state folder; what is live goes on serving, and the server goes on by itself when there is room".to_string(),
        }
    }
}

/// Keeps services as they were declared. Cheap to clone; all clones are the same engine. When the last one is dropped, the engine ends as in [`Engine::stop`].
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    parts: Parts,
    services: Mutex<BTreeMap<ServiceName, Handle>>,
    told: broadcast::Sender<Told>,
    stopping: watch::Sender<bool>,
    /// Held for writing while something is revoked: a declaration that knows nothing of it yet would bring it back.
    revoking: RwLock<()>,
    /// Whether some service could not be told what is revoked.
    untold: watch::Sender<bool>,
}

/// One service's task, from outside.
struct Handle {
    wishes: mpsc::Sender<Wish>,
    state: watch::Receiver<Arc<ServiceState>>,
    trouble: watch::Receiver<Option<Error>>,
    task: Option<JoinHandle<()>>,
    /// Why there is no task: the journal does not tell what to do.
    lost: Option<Error>,
}

impl Handle {
    fn lost(error: Error) -> Self {
        let (wishes, state) = (mpsc::channel(1).0, watch::channel(Arc::default()).1);
        let trouble = watch::channel(Some(error.clone())).1;
        Self { wishes, state, trouble, task: None, lost: Some(error) }
    }
}

impl Engine {
    /// Reads every service's journal, replays it, and goes on where the last engine ended.
    ///
    /// # Errors
    /// When the services cannot be listed. A service whose own journal cannot be read, or says something else than this version decides, holds no other one up: it stays as it
    /// is in the world, [`Engine::trouble`] says why, and wishes for it are refused. What could not be read is read again from time to time.
    pub async fn start(parts: Parts) -> Result<Engine, Error> {
        let mut recovered = Vec::new();
        for service in recovery::services(&parts).await? {
            let replayed = recovery::recovered(&parts, &service).await;
            recovered.push((service, replayed));
        }
        let last = recovered.iter().filter_map(|(_, replayed)| replayed.as_ref().ok()).map(|replayed| replayed.at).max();
        parts.clock.go_on_from(last.unwrap_or_default());
        let inner = Inner {
            parts,
            services: Mutex::default(),
            told: broadcast::Sender::new(TOLD_LIMIT),
            stopping: watch::Sender::new(false),
            revoking: RwLock::default(),
            untold: watch::Sender::new(false),
        };
        let mut services = BTreeMap::new();
        for (service, replayed) in recovered {
            let handle = match replayed {
                Ok(replayed) => inner.begin(service.clone(), replayed),
                Err(error) => {
                    tracing::error!(%service, %error, "the service cannot be kept; the others are");
                    Handle::lost(error)
                }
            };
            services.insert(service, handle);
        }
        *inner.lock() = services;
        let inner = Arc::new(inner);
        tokio::spawn(keep_together(Arc::downgrade(&inner), inner.told.subscribe(), inner.stopping.subscribe()));
        tokio::spawn(revocation::keep_told(Arc::downgrade(&inner), inner.untold.subscribe(), inner.stopping.subscribe()));
        if !inner.lost_that(|_| true).is_empty() {
            tokio::spawn(lost::find(Arc::downgrade(&inner), inner.stopping.subscribe()));
        }
        let engine = Engine { inner };
        // What the last engine wrote down and had not told everybody. Who cannot be told now was logged, is told later, and holds nothing else up.
        let _ = engine.tell_all().await;
        Ok(engine)
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Engine {
        Engine { inner }
    }

    /// Makes a service as declared. Returns when the decision is durable, not when it is carried out.
    ///
    /// # Errors
    /// [`DeclareError::Refused`] when it cannot be done now (a rollout is in progress, there is no room) or never; [`DeclareError::Failed`] when it could not be written down.
    pub async fn declare(&self, declaration: ServiceDeclaration) -> Result<Declared, DeclareError> {
        self.declare_with(declaration, false, None).await
    }

    /// As [`Engine::declare`]. `urgent`: it does not wait for the end of a freeze window. `together`: its release shifts with those of these services, or not at all.
    ///
    /// # Errors
    /// As [`Engine::declare`].
    pub async fn declare_with(
        &self,
        declaration: ServiceDeclaration,
        urgent: bool,
        together: Option<Together>,
    ) -> Result<Declared, DeclareError> {
        let _nothing_is_revoked_meanwhile = self.inner.revoking.read().await;
        let service = declaration.service.clone();
        self.tell(&service, Some(&declaration)).await?;
        let wanted = declaration.to_core();
        let records = self.inner.parts.records.clone();
        let content = wanted.content;
        blocking(records.may_wait(), move || records.put_declaration(content, &declaration))
            .await
            .context(|| format!("keeping the declaration of {service}"))?;
        self.wish(&service, Event::Declared { declaration: wanted, urgent, together }).await
    }

    /// Goes back to an earlier release, or to the one that was live before the present one. Returns when the decision is durable.
    ///
    /// # Errors
    /// As [`Engine::declare`], and when there is no such service or release.
    pub async fn rollback(&self, service: &ServiceName, to: Option<ReleaseNumber>) -> Result<Declared, DeclareError> {
        self.rollback_with(service, to, false).await
    }

    /// As [`Engine::rollback`]. `forced`: also past a release that declared that what was before it can no longer run.
    ///
    /// # Errors
    /// As [`Engine::rollback`].
    pub async fn rollback_with(&self, service: &ServiceName, to: Option<ReleaseNumber>, forced: bool) -> Result<Declared, DeclareError> {
        self.assert_known(service)?;
        self.wish(service, Event::RollbackRequested { to, forced }).await
    }

    /// Does something to the rollout in progress, or to the service as it is. Returns when the decision is durable.
    ///
    /// # Errors
    /// [`DeclareError::Refused`] when there is no such service or it makes no sense now, and nothing changed then; [`DeclareError::Failed`] when it could not be written down.
    pub async fn operate(&self, service: &ServiceName, operation: Operation) -> Result<Declared, DeclareError> {
        self.assert_known(service)?;
        self.work_on(service, operation.event()).await
    }

    /// Tells a service something that makes no release.
    pub(crate) async fn work_on(&self, service: &ServiceName, event: Event) -> Result<Declared, DeclareError> {
        let before = self.state(service).unwrap_or_default();
        let declared = self.wish(service, event).await?;
        let state = self.state(service).unwrap_or_default();
        Ok(operated(&before, &state, declared))
    }

    fn assert_known(&self, service: &ServiceName) -> Result<(), DeclareError> {
        if self.state(service).is_some() || self.lost(service).is_some() {
            return Ok(());
        }
        Err(DeclareError::Refused {
            reason: format!("there is no service {service}"),
            hint: "`gapless status` lists the services".to_string(),
        })
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    pub(crate) fn revoking(&self) -> &RwLock<()> {
        &self.inner.revoking
    }

    pub(crate) fn untold(&self) -> &watch::Sender<bool> {
        &self.inner.untold
    }

    pub(crate) async fn wish(&self, service: &ServiceName, event: Event) -> Result<Declared, DeclareError> {
        let wishes = self.inner.wishes(service)?;
        let (reply, answer) = oneshot::channel();
        let ended = || DeclareError::Failed(Error::new("the engine is stopping").hint("try again when the server runs"));
        wishes.send(Wish { event, about: None, reply }).await.map_err(|_| ended())?;
        match answer.await.map_err(|_| ended())?? {
            Taken::Refused(refusal) => Err(refusal.into()),
            Taken::Unchanged(state) => Ok(declared(&state, false)),
            Taken::Changed(state) => Ok(declared(&state, true)),
        }
    }

    /// What declaring this would do, if everything goes well. Nothing is changed or written. `urgent` and `together`: as in [`Engine::declare_with`].
    #[must_use]
    pub fn plan(&self, declaration: &ServiceDeclaration, urgent: bool, together: Option<&Together>) -> Vec<Planned> {
        if let Some(error) = self.lost(&declaration.service) {
            return vec![Planned::Refused(refusal_of_lost(&declaration.service, &error))];
        }
        let state = self.state(&declaration.service).unwrap_or_default();
        plan(&state, &declaration.to_core(), urgent, together, self.inner.parts.clock.now())
    }

    /// The last durable state of a service that was declared.
    #[must_use]
    pub fn state(&self, service: &ServiceName) -> Option<Arc<ServiceState>> {
        let services = self.inner.lock();
        services.get(service).map(|handle| handle.state.borrow().clone()).filter(|state| !state.releases.is_empty())
    }

    /// Why a service does not get on by itself just now (no room for the journal, a world that cannot be looked at), if it does not.
    #[must_use]
    pub fn trouble(&self, service: &ServiceName) -> Option<Error> {
        self.inner.lock().get(service).and_then(|handle| handle.trouble.borrow().clone())
    }

    /// Why nothing can be done about a service just now, if that is so: its journal cannot be read, is damaged, or another version wrote it.
    fn lost(&self, service: &ServiceName) -> Option<Error> {
        self.inner.lock().get(service).and_then(|handle| handle.lost.clone())
    }

    /// Every service whose journal cannot be used, with the reason.
    #[must_use]
    pub fn lost_services(&self) -> Vec<(ServiceName, Error)> {
        self.inner.lock().iter().filter_map(|(name, handle)| Some((name.clone(), handle.lost.clone()?))).collect()
    }

    /// Every service that was declared, but those of [`Engine::lost_services`].
    #[must_use]
    pub fn services(&self) -> Vec<ServiceName> {
        let services = self.inner.lock();
        services.iter().filter(|(_, handle)| !handle.state.borrow().releases.is_empty()).map(|(name, _)| name.clone()).collect()
    }

    /// The declaration of a release, also of one that is not kept to go back to any more.
    ///
    /// # Errors
    /// When there is no such service or release, or when it cannot be read.
    pub async fn declaration(&self, service: &ServiceName, release: ReleaseNumber) -> Result<ServiceDeclaration, Error> {
        let unknown = || Error::new(format!("there is no release {release} of {service}")).kind(ErrorKind::NotFound);
        let state = self.state(service).ok_or_else(unknown)?;
        let content = match state.releases.get(&release) {
            Some(declaration) => declaration.content,
            None => declared_content(&self.journal(service).await?, release).ok_or_else(unknown)?,
        };
        let records = self.inner.parts.records.clone();
        blocking(records.may_wait(), move || records.declaration(content))
            .await
            .context(|| format!("reading the declaration of {release} of {service}"))
    }

    /// A service's journal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn journal(&self, service: &ServiceName) -> Result<Vec<(Sequence, JournalRecord)>, Error> {
        recovery::read(&self.inner.parts, service).await
    }

    /// Everything that was told of a service, from its journal, in order.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn story(&self, service: &ServiceName) -> Result<Vec<(Sequence, Instant, Notice)>, Error> {
        Ok(story(&self.journal(service).await?))
    }

    /// Every notice from now on, of all services. When it is told, the state that it speaks of is what [`Engine::state`] answers.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Told> {
        self.inner.told.subscribe()
    }

    /// What a restart would do now, service by service.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn doctor(&self) -> Result<Vec<Diagnosis>, Error> {
        recovery::diagnose(&self.inner.parts).await
    }

    /// Ends the engine in order: nothing more is decided, effects that are being carried out may end for [`STOP_GRACE`], nothing is undone. The next engine goes on.
    pub async fn stop(&self) {
        self.inner.stopping.send_replace(true);
        let tasks: Vec<_> = self.inner.lock().values_mut().filter_map(|handle| handle.task.take()).collect();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a service's task did not end in order");
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Handle>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The lost services with such an error.
    pub(crate) fn lost_that(&self, is_such: impl Fn(&Error) -> bool) -> Vec<ServiceName> {
        self.lock().iter().filter(|(_, handle)| handle.lost.as_ref().is_some_and(&is_such)).map(|(name, _)| name.clone()).collect()
    }

    /// A lost service is kept like the others from now on, unless the engine is stopping.
    pub(crate) fn found(&self, service: &ServiceName, replayed: recovery::Replayed) {
        let mut services = self.lock();
        if !*self.stopping.borrow() {
            services.insert(service.clone(), self.begin(service.clone(), replayed));
        }
    }

    /// A service is lost for this reason.
    pub(crate) fn lost(&self, service: &ServiceName, error: Error) {
        self.lock().insert(service.clone(), Handle::lost(error));
    }

    fn states(&self) -> BTreeMap<ServiceName, Arc<ServiceState>> {
        self.lock().iter().map(|(name, handle)| (name.clone(), handle.state.borrow().clone())).collect()
    }

    fn wishes(&self, service: &ServiceName) -> Result<mpsc::Sender<Wish>, DeclareError> {
        if *self.stopping.borrow() {
            return Err(DeclareError::Failed(Error::new("the engine is stopping").hint("try again when the server runs")));
        }
        let mut services = self.lock();
        let handle = services.entry(service.clone()).or_insert_with(|| self.begin(service.clone(), recovery::Replayed::default()));
        match &handle.lost {
            Some(error) => Err(refusal_of_lost(service, error).into()),
            None => Ok(handle.wishes.clone()),
        }
    }

    fn begin(&self, service: ServiceName, replayed: recovery::Replayed) -> Handle {
        let (wishes, inbox) = mpsc::channel(WISH_LIMIT);
        let (published, state) = watch::channel(Arc::new(replayed.state.clone()));
        let (troubled, trouble) = watch::channel(None);
        let service = Service::new(self.parts.clone(), service, replayed, published, troubled, self.told.clone());
        let task = tokio::spawn(service.run(inbox, self.stopping.subscribe()));
        Handle { wishes, state, trouble, task: Some(task), lost: None }
    }
}

/// Why a wish for a service without a journal that can be used is refused.
fn refusal_of_lost(service: &ServiceName, error: &Error) -> Refusal {
    Refusal {
        reason: format!("nothing can be done about {service}: {error}"),
        hint: error.hint_text().unwrap_or("`gapless doctor` says more; what is live goes on serving").to_string(),
    }
}

fn declared(state: &ServiceState, changed: bool) -> Declared {
    let rollout = state.rollout.as_ref();
    let wanted = if state.pinned { None } else { state.declared };
    let release = wanted.or(rollout.map(|rollout| rollout.to.release)).or(state.live.map(|group| group.release)).unwrap_or_default();
    let queued = state.queued.as_ref().filter(|queued| queued.release == release);
    let waiting = queued.map(|queued| Waiting { rollout: rollout.map(|rollout| rollout.number), frozen_until: queued.not_before });
    let to_it = rollout.filter(|rollout| rollout.to.release == release && waiting.is_none());
    Declared { release, rollout: to_it.map(|rollout| rollout.number), changed, waiting }
}

/// What an operation was about: the rollout in progress, whatever waits behind it; without one, what waited and does no more, or what is live.
fn operated(before: &ServiceState, state: &ServiceState, declared: Declared) -> Declared {
    let rollout = state.rollout.as_ref().or(before.rollout.as_ref());
    let dropped = before.queued.as_ref().filter(|_| state.queued.is_none()).map(|queued| queued.release);
    let Some(release) = rollout.map(|rollout| rollout.to.release).or(dropped).or(state.live_release()) else { return declared };
    Declared { release, rollout: rollout.map(|rollout| rollout.number), waiting: None, ..declared }
}

/// Tells services that move together of each other, whenever something was told of any of them, and again after a while.
async fn keep_together(inner: Weak<Inner>, mut told: broadcast::Receiver<Told>, mut stopping: watch::Receiver<bool>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let states = inner.states();
        let messages = together::messages(&states);
        // Nobody tells when a service is found again whose journal could not be read.
        let again = !messages.is_empty() || together::is_any(&states) || inner.lock().values().any(|handle| handle.lost.is_some());
        for (service, id, event) in messages {
            // The answer is of no use: what came of it is in the next state.
            let (reply, _) = oneshot::channel();
            if let Ok(wishes) = inner.wishes(&service) {
                let _ = wishes.send(Wish { event, about: Some(id), reply }).await;
            }
        }
        drop(inner);
        tokio::select! {
            biased;
            stopped = stopping.wait_for(|stopping| *stopping) => { drop(stopped); return }
            news = told.recv() => if matches!(news, Err(broadcast::error::RecvError::Closed)) { return },
            () = tokio::time::sleep(SAY_AGAIN), if again => {}
        }
    }
}

/// The content of the declaration that made a release: the record of the one tells of the other.
fn declared_content(records: &[(Sequence, JournalRecord)], release: ReleaseNumber) -> Option<Digest> {
    let is_of = |effect: &Effect| matches!(effect, Effect::Notify(Notice::RolloutStarted { to, .. } | Notice::Queued { release: to, .. }) if *to == release);
    records.iter().find_map(|(_, record)| match &record.event {
        Event::Declared { declaration, .. } if record.effects.iter().any(|(_, effect)| is_of(effect)) => Some(declaration.content),
        _ => None,
    })
}

/// Everything that a journal's records told, in order.
#[must_use]
pub fn story(records: &[(Sequence, JournalRecord)]) -> Vec<(Sequence, Instant, Notice)> {
    let mut told = Vec::new();
    for (sequence, record) in records {
        for (_, effect) in &record.effects {
            if let Effect::Notify(notice) = effect {
                told.push((*sequence, record.at, notice.clone()));
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Fake};
    use gapless_core::service::Stage;

    #[tokio::test]
    async fn a_refused_first_declaration_leaves_nothing_that_looks() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        let refused = engine.declare(ServiceDeclaration { nodes: 0, ..fake::declaration(1) }).await;
        assert!(matches!(refused, Err(DeclareError::Refused { .. })), "{refused:?}");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(fake.looks(), 0, "nothing was ever declared");
        engine.declare(fake::declaration(1)).await.expect("it is sound");
        while fake.looks() == 0 {
            tokio::task::yield_now().await;
        }
        engine.stop().await;
    }

    #[tokio::test]
    async fn an_engine_that_is_stopped_leaves_a_state_to_begin_at() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        engine.declare(fake::declaration(1)).await.expect("it is sound");
        engine.stop().await;
        let state = engine.state(&fake::web()).expect("a state");
        assert_eq!(fake.kept_at(), [Sequence(fake.journal().len() as u64)]);
        let recovered = recovery::recover(&*fake, &fake::web()).expect("it recovers");
        assert_eq!((&recovered.state, recovered.kept), (&*state, recovered.last));
    }

    #[tokio::test]
    async fn time_goes_on_from_the_last_record() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        engine.declare(fake::declaration(1)).await.expect("it is sound");
        engine.stop().await;
        let far = Instant(1 << 50);
        fake.write_as_of(far);
        let parts = Parts { clock: Arc::new(crate::clock::SystemClock::default()), ..fake.parts() };
        let engine = Engine::start(parts.clone()).await.expect("it starts");
        assert!(parts.clock.now() >= far);
        engine.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_down_is_said_again() {
        let fake = Arc::new(Fake::default());
        let engine = Engine::start(fake.parts()).await.expect("it starts");
        let worker = ServiceName::new("hello", "worker").expect("a name");
        for (service, other) in [(fake::web(), worker.clone()), (worker.clone(), fake::web())] {
            let together = Together { id: Digest([7; 32]), with: [other].into() };
            let declaration = ServiceDeclaration { service, ..fake::declaration(1) };
            engine.declare_with(declaration, false, Some(together)).await.expect("it is sound");
        }
        fake.refuse_to_write(Some(|event| matches!(event, Event::PartnersFailed { .. })));
        engine.operate(&worker, Operation::Cancel).await.expect("it is cancelled");
        let stage = || engine.state(&fake::web()).and_then(|state| Some(state.rollout.as_ref()?.stage.clone()));
        tokio::time::sleep(SAY_AGAIN * 3).await;
        assert!(matches!(stage(), Some(Stage::Prepare { .. })), "{:?}", stage());
        fake.refuse_to_write(None);
        tokio::time::sleep(SAY_AGAIN * 2).await;
        assert!(matches!(stage(), None | Some(Stage::Undo { .. })), "nobody told it that its partner was rejected: {:?}", stage());
        engine.stop().await;
    }
}
