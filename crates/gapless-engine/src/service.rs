//! One service's task: events in order, each decision durable before anything is done about it.

use crate::checkpoint::{EffectContext, release_of};
use crate::declaration::ServiceDeclaration;
use crate::effect::{Turn as EffectTurn, carry_out_in_time, failure, limit, releases_of, turn_of};
use crate::engine::{Parts, Told};
use crate::error::{Context, Error, ErrorKind};
use crate::platform::Declarations;
use crate::recovery::{self, Replayed, blocking};
use crate::store::{JournalRecord, Sequence};
use crate::together;
use gapless_core::analysis::Judgement;
use gapless_core::digest::Digest;
use gapless_core::effect::{Effect, EffectId, EffectKind};
use gapless_core::event::{Event, Failure};
use gapless_core::invariant::check;
use gapless_core::name::ServiceName;
use gapless_core::node::GroupId;
use gapless_core::notice::Notice;
use gapless_core::release::ReleaseNumber;
use gapless_core::rollout::{Refusal, Step, step};
use gapless_core::service::ServiceState;
use gapless_core::time::Instant;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument;

/// The world is looked at after this time even if nothing seems to have changed: the bound on what a missed hint can cost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The world is not looked at more often than this because of a deadline: one that has passed may still wait for something to be seen.
const LOOK_LEAST: Duration = Duration::from_millis(10);

/// The longest that a look may take: wishes and outcomes wait for it.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// The first wait after the journal or the world refused. It doubles up to [`PAUSE_LIMIT`].
const PAUSE: Duration = Duration::from_millis(50);

/// The longest such wait: how long room may be there before the engine notices.
const PAUSE_LIMIT: Duration = Duration::from_secs(2);

/// A state is kept after so many records: what a start replays at most. A rollout writes some thirty, and a step takes well under a millisecond.
const KEEP_EVERY: u64 = 256;

/// At the end of a rollout a state is kept if the last one is older than this, in records. There a state is small, and a start finds nothing half done.
const KEEP_AT_END: u64 = 64;

/// Something a person wants of a service.
pub(crate) struct Wish {
    pub(crate) event: Event,
    /// What moves together that it is about: what is said of something that is over by now says nothing.
    pub(crate) about: Option<Digest>,
    pub(crate) reply: oneshot::Sender<Result<Taken, Error>>,
}

/// What came of an event.
pub(crate) enum Taken {
    /// It was refused.
    Refused(Refusal),
    /// It changed nothing.
    Unchanged(Arc<ServiceState>),
    /// It is durable, and what follows is on its way.
    Changed(Arc<ServiceState>),
}

/// What the task does next.
enum Turn {
    Stop,
    Ended(Result<(Id, Ended), JoinError>),
    Wish(Box<Wish>),
    Look,
}

/// An effect that was carried out, with what it had to tell, or could not be.
type Ended = (EffectId, Result<Option<Judgement>, Failure>);

pub(crate) struct Service {
    parts: Parts,
    name: ServiceName,
    state: Arc<ServiceState>,
    last: Sequence,
    /// The record after which a state was kept last.
    kept: Sequence,
    at: Instant,
    published: watch::Sender<Arc<ServiceState>>,
    troubled: watch::Sender<Option<Error>>,
    told: broadcast::Sender<Told>,
    declarations: BTreeMap<Digest, Arc<ServiceDeclaration>>,
    running: JoinSet<Ended>,
    tasks: HashMap<Id, EffectId>,
    /// Who makes or destroys nodes of a group just now.
    turns: BTreeMap<(EffectKind, GroupId), EffectTurn>,
    /// The longest that an effect may take.
    limit: fn(&Effect) -> Duration,
    /// Events that must not be lost and are not in the journal yet, the oldest first.
    unwritten: VecDeque<Event>,
    /// The journal failed so that nobody knows whether this record is there.
    in_doubt: Option<Arc<JournalRecord>>,
    pause: Option<Duration>,
    look: bool,
}

impl Service {
    pub(crate) fn new(
        parts: Parts,
        name: ServiceName,
        replayed: Replayed,
        published: watch::Sender<Arc<ServiceState>>,
        troubled: watch::Sender<Option<Error>>,
        told: broadcast::Sender<Told>,
    ) -> Self {
        let recovered = replayed.last != Sequence::default();
        Self {
            parts,
            name,
            state: Arc::new(replayed.state),
            last: replayed.last,
            kept: replayed.kept,
            at: replayed.at,
            published,
            troubled,
            told,
            declarations: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            turns: BTreeMap::new(),
            limit,
            unwritten: if recovered { VecDeque::from([Event::Restarted]) } else { VecDeque::new() },
            in_doubt: None,
            pause: None,
            look: recovered,
        }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Wish>, mut stopping: watch::Receiver<bool>) {
        self.settle().await;
        loop {
            match self.next_turn(&mut inbox, &mut stopping).await {
                Turn::Stop => break,
                Turn::Ended(end) => self.effect_ended(end).await,
                Turn::Wish(wish) => self.grant(*wish).await,
                Turn::Look => self.look().await,
            }
        }
        // Refused from here on, while the last effects end.
        drop(inbox);
        let rest = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(crate::engine::STOP_GRACE, rest).await.is_err() {
            tracing::warn!(service = %self.name, "effects that have not ended are carried out again at the next start");
        }
        if self.last > self.kept && self.in_doubt.is_none() {
            self.keep().await;
        }
    }

    async fn next_turn(&mut self, inbox: &mut mpsc::Receiver<Wish>, stopping: &mut watch::Receiver<bool>) -> Turn {
        let until_look = wait_for_look(&self.parts, &self.name, &self.state, self.pause, self.look, self.knows_nothing());
        tokio::select! {
            biased;
            stopped = stopping.wait_for(|stopping| *stopping) => { drop(stopped); Turn::Stop }
            Some(end) = self.running.join_next_with_id() => Turn::Ended(end),
            wish = inbox.recv() => wish.map_or(Turn::Stop, |wish| Turn::Wish(Box::new(wish))),
            () = until_look => Turn::Look,
        }
    }

    /// Nothing was ever declared, as after a refused first declaration: there is nothing to look at until somebody wants something.
    fn knows_nothing(&self) -> bool {
        self.state.releases.is_empty() && self.in_doubt.is_none()
    }

    /// An outcome is not lost when the journal has no room for it: it waits.
    async fn effect_ended(&mut self, end: Result<(Id, Ended), JoinError>) {
        let (effect, result) = match end {
            Ok((task, ended)) => {
                self.tasks.remove(&task);
                ended
            }
            Err(error) => match self.tasks.remove(&error.id()) {
                Some(effect) => (effect, Err(Failure { reason: format!("it broke off: {error}"), is_final: false })),
                None => return,
            },
        };
        if let Err(failure) = &result {
            tracing::warn!(service = %self.name, %effect, reason = %failure.reason, "an effect could not be carried out");
        }
        self.look = true;
        self.unwritten.push_back(match result {
            Ok(Some(judgement)) => Event::Analysed { effect, judgement },
            Ok(None) => Event::EffectEnded { effect, result: Ok(()) },
            Err(failure) => Event::EffectEnded { effect, result: Err(failure) },
        });
        self.settle().await;
    }

    async fn grant(&mut self, wish: Wish) {
        let taken = match self.settle().await {
            true if wish.about.is_some_and(|id| !together::concerns(&self.state, id)) => Ok(Taken::Unchanged(self.state.clone())),
            true => self.take(wish.event).await,
            false => Err(self.present_trouble()),
        };
        // The person may have gone away: the decision stands all the same.
        let _ = wish.reply.send(taken);
    }

    async fn look(&mut self) {
        if !self.settle().await {
            return;
        }
        let seen = tokio::time::timeout(LOOK_LIMIT, self.parts.platform.observe(&self.name)).await;
        match seen.unwrap_or_else(|_| Err(Error::new(format!("the world was not seen within {LOOK_LIMIT:?}")))) {
            Ok(seen) => {
                self.look = false;
                if let Err(error) = self.take(Event::Observed(seen)).await {
                    self.hesitate(error);
                } else {
                    self.go_on();
                }
            }
            Err(error) => self.hesitate(error.context(format!("looking at {}", self.name))),
        }
    }

    /// Writes what is still unwritten. Whether all of it is durable now.
    async fn settle(&mut self) -> bool {
        while let Some(event) = self.unwritten.front().cloned() {
            if let Err(error) = self.take(event).await {
                self.hesitate(error);
                return false;
            }
            self.unwritten.pop_front();
            self.go_on();
        }
        true
    }

    /// The engine's only way to change anything: decide, write, act.
    async fn take(&mut self, event: Event) -> Result<Taken, Error> {
        self.parts.checkpoint.decide(&self.name).await;
        self.resolve_doubt().await?;
        let now = self.parts.clock.now().max(self.at);
        let decided = step(&self.state, &event, now);
        if let Some(refusal) = decided.refusal {
            return Ok(Taken::Refused(refusal));
        }
        if decided.state == *self.state && decided.effects.is_empty() && !self.belongs_to_a_rollout(&event) {
            return Ok(Taken::Unchanged(self.state.clone()));
        }
        self.assert_sound(&event, now, &decided)?;
        let Step { state, effects, .. } = decided;
        let record = Arc::new(JournalRecord { at: now, event, effects });
        let sequence = self.write(record.clone()).await?;
        self.act_on(sequence, &record, state).await;
        self.keep_if_due(&record).await;
        Ok(Taken::Changed(self.state.clone()))
    }

    async fn keep_if_due(&mut self, record: &JournalRecord) {
        let ends = |(_, effect): &(EffectId, Effect)| matches!(effect, Effect::Notify(Notice::RolloutEnded { .. }));
        let age = self.last.0.saturating_sub(self.kept.0);
        if age >= KEEP_EVERY || (age >= KEEP_AT_END && record.effects.iter().any(ends)) {
            self.keep().await;
        }
    }

    /// Keeps the state. When it cannot be written the next start has more to replay, and that is all.
    async fn keep(&mut self) {
        let (journal, name, last, at, state) = (self.parts.journal.clone(), self.name.clone(), self.last, self.at, self.state.clone());
        match blocking(journal.may_wait(), move || journal.keep(&name, last, at, &state)).await {
            Ok(()) => self.kept = last,
            Err(error) => tracing::warn!(service = %self.name, %error, "the state could not be kept; the next start replays more"),
        }
    }

    /// A restart in a rollout is part of its story, also when nothing was under way.
    fn belongs_to_a_rollout(&self, event: &Event) -> bool {
        matches!(event, Event::Restarted) && self.state.rollout.is_some()
    }

    /// A step that breaks an invariant is not adopted as a whole: a state that believes in a part of it would send the rest with the next look. What is live goes on, the
    /// service is in trouble until the world gives rise to another decision, and a person's wish is still taken.
    fn assert_sound(&self, event: &Event, now: Instant, decided: &Step) -> Result<(), Error> {
        check(&self.state, event, now, decided).map_err(|violation| {
            tracing::error!(service = %self.name, %violation, "a decision was not adopted: this is a fault of gapless, please report it");
            Error::new(format!("a decision was not adopted: {violation}"))
                .hint("this is a fault of gapless, please report it; what is live goes on serving, and another release or a rollback can be asked for")
        })
    }

    async fn write(&mut self, record: Arc<JournalRecord>) -> Result<Sequence, Error> {
        let (journal, name, written) = (self.parts.journal.clone(), self.name.clone(), record.clone());
        let result = blocking(journal.may_wait(), move || journal.append(&name, &written)).await;
        if let Err(error) = &result
            && !matches!(error.error_kind(), ErrorKind::NoRoom | ErrorKind::Fenced)
        {
            self.in_doubt = Some(record);
        }
        result.context(|| format!("writing to the journal of {}", self.name))
    }

    /// After a failure that leaves open whether the record was written: reads the journal, and acts on the record if it is there.
    async fn resolve_doubt(&mut self) -> Result<(), Error> {
        let Some(doubtful) = self.in_doubt.clone() else { return Ok(()) };
        let found = recovery::read_after(&self.parts, &self.name, self.last).await?;
        match &found[..] {
            [] => {}
            [(sequence, record)] if *record == *doubtful => {
                let state = step(&self.state, &record.event, record.at).state;
                self.act_on(*sequence, record, state).await;
            }
            [(sequence, _), ..] => return Err(another_writer(&self.name, *sequence)),
        }
        self.in_doubt = None;
        Ok(())
    }

    /// The record is durable: from here on it is so.
    async fn act_on(&mut self, sequence: Sequence, record: &JournalRecord, state: ServiceState) {
        let before = std::mem::replace(&mut self.state, Arc::new(state));
        self.last = sequence;
        self.at = record.at;
        self.look = true;
        self.published.send_replace(self.state.clone());
        let to = self.state.rollout.as_ref().or(before.rollout.as_ref()).map(|rollout| rollout.to);
        let release = release_of(to, self.state.live);
        for (id, effect) in &record.effects {
            match effect {
                Effect::Notify(notice) => self.tell(sequence, record.at, notice, release),
                _ => self.begin(*id, effect.clone(), release).await,
            }
        }
    }

    fn tell(&self, sequence: Sequence, at: Instant, notice: &Notice, release: Option<ReleaseNumber>) {
        tracing::info!(service = %self.name, release = %label(&self.name, release), ?notice, "told");
        // Nobody listening is no fault: the journal keeps the story.
        let _ = self.told.send(Told { service: self.name.clone(), sequence, at, notice: notice.clone() });
    }

    async fn begin(&mut self, id: EffectId, effect: Effect, release: Option<ReleaseNumber>) {
        let declarations = self.declarations(&effect).await;
        let context = EffectContext { service: self.name.clone(), release, id, effect };
        let span =
            tracing::info_span!("effect", service = %self.name, release = %label(&self.name, release), %id, name = context.effect.name());
        let parts = self.parts.clone();
        let (turn, limit) = (self.turn(&context.effect), (self.limit)(&context.effect));
        let work = async move {
            parts.checkpoint.before(&context).await;
            let result = match declarations {
                Ok(declarations) => carry_out_in_time(parts.clone(), context.clone(), declarations, turn, limit).await,
                Err(error) => Err(error),
            };
            parts.checkpoint.after(&context).await;
            (id, result.map_err(|error| failure(&error)))
        };
        let task = self.running.spawn(work.instrument(span));
        self.tasks.insert(task.id(), id);
    }

    fn turn(&mut self, effect: &Effect) -> Option<EffectTurn> {
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Some(self.turns.entry(turn_of(effect)?).or_default().clone())
    }

    async fn declarations(&mut self, effect: &Effect) -> Result<Declarations, Error> {
        let mut found = Declarations::new();
        for release in releases_of(effect) {
            let content = self.state.releases.get(&release).map(|declaration| declaration.content);
            let content = content.ok_or_else(|| Error::new(format!("there is no release {release} of {}", self.name)))?;
            if !self.declarations.contains_key(&content) {
                let records = self.parts.records.clone();
                let read = blocking(records.may_wait(), move || records.declaration(content)).await;
                let declaration = read.context(|| format!("reading the declaration of {release} of {}", self.name))?;
                self.declarations.insert(content, Arc::new(declaration));
            }
            found.insert(release, self.declarations[&content].clone());
        }
        Ok(found)
    }

    fn hesitate(&mut self, error: Error) {
        if self.pause.is_none() {
            tracing::error!(service = %self.name, %error, "the service cannot go on by itself; it is tried again");
        }
        self.pause = Some(self.pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_LIMIT)));
        self.troubled.send_replace(Some(error));
    }

    fn go_on(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!(service = %self.name, "the service goes on");
            self.troubled.send_replace(None);
        }
    }

    fn present_trouble(&self) -> Error {
        self.troubled.borrow().clone().unwrap_or_else(|| Error::new("the journal cannot be written"))
    }
}

fn another_writer(service: &ServiceName, sequence: Sequence) -> Error {
    Error::new(format!("record {} of the journal of {service} was written by somebody else", sequence.0))
        .kind(ErrorKind::Fenced)
        .hint("another gapless server writes into this state folder: stop one of the two")
}

/// Returns when the world should be looked at.
async fn wait_for_look(
    parts: &Parts,
    name: &ServiceName,
    state: &ServiceState,
    pause: Option<Duration>,
    at_once: bool,
    nothing_to_see: bool,
) {
    match pause {
        _ if nothing_to_see => std::future::pending().await,
        // Nothing tells when a disk has room again.
        Some(pause) => tokio::time::sleep(pause).await,
        None if at_once => {}
        None => {
            let until_deadline = state.next_deadline().map(|deadline| deadline.since(parts.clock.now()));
            let at_most = until_deadline.map_or(LOOK_INTERVAL, |until| until.clamp(LOOK_LEAST, LOOK_INTERVAL));
            parts.platform.changed(name, at_most).await;
        }
    }
}

/// A release, as it stands in log lines, tags and headers: `web-r7`.
fn label(service: &ServiceName, release: Option<ReleaseNumber>) -> String {
    release.map_or_else(|| service.service().to_string(), |release| format!("{}-{release}", service.service()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{self, Fake};
    use crate::store::Journal;
    use gapless_core::node::InstanceId;
    use gapless_core::observation::{Condition, Health, NodeSeen, Observation};
    use gapless_core::route::{Generation, Route};
    use gapless_core::service::{Group, Rollout, Stage};
    use gapless_core::{notice::RolloutKind, notice::RolloutNumber, release::Declaration};

    const GROUP: GroupId = GroupId { release: ReleaseNumber(1), instance: InstanceId(1) };

    fn declaration() -> Declaration {
        fake::declaration(1).to_core()
    }

    fn seen(generation: u64) -> Observation {
        Observation { nodes: BTreeMap::new(), proxies: BTreeMap::from([("a".to_string(), Some(Generation(generation)))]) }
    }

    fn begin(fake: &Arc<Fake>, state: ServiceState) -> (Service, watch::Receiver<Option<Error>>) {
        let (troubled, trouble) = watch::channel(None);
        let published = watch::Sender::new(Arc::new(state.clone()));
        let replayed = Replayed { state, last: Sequence(1), at: Instant(1), kept: Sequence(0) };
        (Service::new(fake.parts(), fake::web(), replayed, published, troubled, broadcast::Sender::new(8)), trouble)
    }

    /// A state that the core never makes: a group that never had traffic, although requests run on its node.
    #[tokio::test]
    async fn a_step_that_breaks_an_invariant_is_not_adopted() {
        let fake = Arc::new(Fake::default());
        let route = Route { generation: Generation(3), members: BTreeMap::new() };
        let state = ServiceState { route, groups: BTreeMap::from([(GROUP, Group::default())]), ..ServiceState::default() };
        let busy = NodeSeen { condition: Condition::Running, image: Digest([1; 32]), health: Health::default(), requests_in_flight: 1 };
        let mut world = seen(3);
        world.nodes.insert(GROUP.node(0), busy);
        fake.show(world);
        let (mut service, trouble) = begin(&fake, state.clone());
        for _ in 0..3 {
            service.look().await;
            assert_eq!(*service.state, state, "a state that believes what was not done does it with the next look");
        }
        let text = trouble.borrow().as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(text.contains("I2 is broken"), "{text}");
        assert!(fake.journal().is_empty() && fake.carried_out().is_empty());
    }

    fn in_bake() -> ServiceState {
        let bake = Stage::Bake { until: Instant(u64::MAX) };
        let rollout = Rollout::new(RolloutNumber(1), RolloutKind::Deploy, None, GROUP, bake);
        let mut state = ServiceState { rollout: Some(rollout), ..ServiceState::default() };
        state.releases.insert(GROUP.release, declaration());
        state
    }

    #[tokio::test]
    async fn a_restart_in_a_rollout_is_written_down_also_when_nothing_was_under_way() {
        let fake = Arc::new(Fake::default());
        let (mut service, _trouble) = begin(&fake, in_bake());
        assert!(service.settle().await);
        assert!(matches!(&fake.journal()[..], [JournalRecord { event: Event::Restarted, .. }]), "{:?}", fake.journal());
        let (mut service, _trouble) = begin(&fake, ServiceState { rollout: None, ..in_bake() });
        assert!(service.settle().await);
        assert_eq!(fake.journal().len(), 1, "a restart at rest belongs to no story");
    }

    #[tokio::test]
    async fn a_state_is_kept_after_so_many_records() {
        let fake = Arc::new(Fake::default());
        let (mut service, _trouble) = begin(&fake, in_bake());
        service.last = Sequence(0);
        for _ in 0..2 * KEEP_EVERY {
            service.take(Event::Restarted).await.expect("it is written");
        }
        assert_eq!(fake.kept_at(), [KEEP_EVERY, 2 * KEEP_EVERY].map(Sequence));
    }

    /// The journal failed and nobody knows what is there: only the very record that was to be written may be, and is acted on.
    #[tokio::test]
    async fn what_somebody_else_wrote_is_not_acted_on() {
        let fake = Arc::new(Fake::default());
        let (mut service, _trouble) = begin(&fake, in_bake());
        service.last = Sequence(0);
        let record = |at| JournalRecord { at, event: Event::Restarted, effects: Vec::new() };
        service.in_doubt = Some(Arc::new(record(Instant(5))));
        fake.append(&fake::web(), &record(Instant(6))).expect("another writer's");
        let error = service.take(Event::Restarted).await.err().expect("it is not ours");
        assert_eq!(error.error_kind(), ErrorKind::Fenced);
        service.in_doubt = Some(Arc::new(record(Instant(6))));
        service.take(Event::Restarted).await.expect("it was ours");
        assert_eq!((service.last, fake.journal().len()), (Sequence(2), 2));
    }

    #[tokio::test]
    async fn an_effect_that_hangs_fails_for_now_and_is_not_carried_out_twice_at_once() {
        let fake = Arc::new(Fake::default());
        fake.hang("EnsureGroup");
        fake.hang("Route");
        let (mut service, _trouble) = begin(&fake, in_bake());
        service.limit = |_| Duration::from_millis(20);
        let ensure = Effect::EnsureGroup { group: GROUP, size: 3 };
        let route = Effect::Route(Route { generation: Generation(1), members: BTreeMap::new() });
        for (id, effect) in [&ensure, &route, &ensure, &route].into_iter().enumerate() {
            service.begin(EffectId(id as u64), effect.clone(), None).await;
            let ended = service.running.join_next().await.expect("one runs").expect("it did not break off");
            let failure = ended.1.expect_err("it hangs");
            assert!(!failure.is_final && failure.reason.contains("has not ended within"), "{failure:?}");
        }
        assert_eq!(fake.carried_out(), ["EnsureGroup", "Route", "Route"], "the second EnsureGroup waits for the first one");
        fake.release();
        service.begin(EffectId(9), ensure, None).await;
        let ended = service.running.join_next().await.expect("one runs").expect("it did not break off");
        assert!(ended.1.is_ok(), "{ended:?}");
        assert_eq!(fake.carried_out().len(), 4);
    }
}
